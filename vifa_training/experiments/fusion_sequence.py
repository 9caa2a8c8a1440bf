"""What fusion itself forgets (the paper's Tables 1 and 2): data sets without labels, one after the other.

for each fold:  trained on the first data set alone                     seq1
                gone on with on the next one, nothing held              seq
                gone on with by stage 1 (Eq. 1)                         vifa
                trained on each data set by itself                      ref
fused images of the held-out pairs of every data set, beside copies of the sources
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from vifa_runtime.files import write_json
from vifa_runtime.metrics import bootstrap_estimate
from vifa_runtime.scoring import Sources, gray_levels
from vifa_training.data import DataSet, spread_evenly
from vifa_training.evaluation import METRICS, baselines
from vifa_training.experiments.layout import sequence_name
from vifa_training.experiments.report import device_name
from vifa_training.experiments.sequences import SequenceFold
from vifa_training.experiments.tasks import SHARED, TasksExperiment
from vifa_training.pictures import Fused

PAIRS = 12  # of each fold and data set that are measured, evenly spread


def measure_fold(fold: SequenceFold, say: Callable[[str], None] = print) -> None:
    """Train what is left of a fold and measure it; a file remembers."""
    path = fold.folder / "fusion.json"
    if path.exists():
        return
    say(f"fold {fold.fold} of {fold.experiment.folds}: fusion without labels")
    first, free, kept = fold.first_network(), fold.free_network(), fold.key_channel_network()
    rows = []
    for index, recipe in enumerate(fold.recipes):
        networks = {"seq1": first, "seq": free, "vifa": kept, "ref": fold.unlabelled_network(index)}
        pictures = {method: Fused(network, SHARED) for method, network in networks.items()}
        rows += [{"task": recipe.name, **row} for row in _measure(pictures, fold.held_out[index])]
    write_json(path, {"rows": rows})


def fusion_rows(experiment: TasksExperiment, resamples: int = 1000) -> list[dict[str, Any]]:
    """Rows `{network, sequence, method, task, metric, mean, low, high, pairs, folds, preset, device}` of all folds.

    Args:
        experiment: whose folds `measure_fold` has been through.
    """
    measured: dict[tuple[str, str, str], list[float]] = {}
    for number in range(1, experiment.folds + 1):
        path = SequenceFold(experiment, number).folder / "fusion.json"
        for row in json.loads(path.read_text())["rows"]:
            for metric, value in row["values"].items():
                measured.setdefault((row["method"], row["task"], metric), []).append(value)
    head = {"network": experiment.network, "sequence": sequence_name(experiment)}
    tail = {"folds": experiment.folds, "preset": experiment.preset, "device": device_name()}
    rows = []
    for (method, task, metric), values in measured.items():
        known = np.array(values)
        mean = bootstrap_estimate(lambda chosen, known=known: float(known[chosen].mean()), len(known), resamples)
        numbers = {"mean": round(mean.value, 4), "low": round(mean.low, 4), "high": round(mean.high, 4)}
        rows.append(head | {"method": method, "task": task, "metric": metric, **numbers, "pairs": len(known)} | tail)
    return rows


def _measure(pictures: dict[str, Fused], pairs: DataSet) -> list[dict[str, Any]]:
    rows, some = [], spread_evenly(pairs, PAIRS)
    for sample in (some[index] for index in range(len(some))):
        sources = Sources(gray_levels(sample.visible), sample.thermal.astype(np.float64))
        lumas = {method: gray_levels(picture(sample)) for method, picture in pictures.items()}
        for method, luma in (lumas | baselines(sources.visible, sources.thermal)).items():
            values = sources.measure(luma, METRICS)
            rounded = {metric: round(value, 6) for metric, value in values.items()}
            rows.append({"method": method, "image": sample.name, "values": rounded})
    return rows
