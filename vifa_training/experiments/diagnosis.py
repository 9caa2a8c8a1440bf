"""Why a sequence went as it did: learning curves, how far the features went, and how the folds differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vifa_runtime.files import write_json
from vifa_training.channels import load_channels
from vifa_training.drift import layer_drift
from vifa_training.experiments.sequences import SequenceFold
from vifa_training.experiments.tasks import TasksExperiment, open_blocks
from vifa_training.predictions import load_predictions
from vifa_training.task_evaluation import Pooled
from vifa_training.task_recipe import TaskRecipe
from vifa_training.trainer import CURVE

WHOLE = ("seq", "ewc", "lwf", "replay")  # methods that train the whole fusion network on one task after the other


def drift_rows(fold: SequenceFold, methods: Sequence[str]) -> list[dict[str, Any]]:
    """How far each layer went while the later tasks were learned, on the first task's held-out pairs.

    The whole networks are compared with the first task's reference, stage 1 with the network before it. What was
    measured once is read from the fold's folder.

    Returns:
        Rows `{method, layer, keys, channels, drift, key_drift, other_drift}`; the last two of `vifa` alone.
    """
    rows = []
    for method in methods:
        path = fold.folder / f"drift-{method}.json"
        if not path.exists():
            write_json(path, {"rows": _drift(fold, method)})
        rows += [{"method": method, **row} for row in json.loads(path.read_text())["rows"]]
    return rows


def curve_rows(fold: SequenceFold, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The learning curves of what was trained for the later tasks: the whole networks', each task's ref's, stage 1's.

    Returns:
        Rows `{task, method, step, loss}`; the loss is that of the training, with what holds on to the tasks before.
    """
    rows = []
    for index, recipe in enumerate(fold.recipes[1:], start=1):
        runs = {method: fold.folder / method / str(index) for method in methods if method in WHOLE}
        if "vifa" in methods:
            runs["stage 1"] = fold.folder / "stage1" / str(index)
        for method, run in {"ref": fold.fold_folder / recipe.name / "ref", **runs}.items():
            path = run / CURVE
            points = path.read_text().splitlines() if path.exists() else ()  # none of a training by an older version
            rows += [{"task": recipe.name, "method": method, **json.loads(point)} for point in points]
    return rows


def fold_values(
    experiment: TasksExperiment,
    recipe: TaskRecipe,
    methods: Sequence[str],
    file_of: Callable[[int, str, str], Path],
) -> dict[str, list[float]]:
    """The primary metric of each fold by itself: method -> a value a fold, NaN where it is not defined.

    Args:
        file_of: (fold, recipe's name, method) -> file of predictions.
    """
    values: dict[str, list[float]] = {method: [] for method in methods}
    for fold in range(1, experiment.folds + 1):
        _, held_out = open_blocks(experiment, recipe, fold)
        made = {method: load_predictions(file_of(fold, recipe.name, method)) for method in methods}
        pooled = Pooled(recipe, [held_out[index] for index in range(len(held_out))], made)
        images, score = next(iter(pooled.metrics().values()))
        for method in methods:
            values[method].append(float(score(pooled.of[method], images)))
    return values


def _drift(fold: SequenceFold, method: str) -> list[dict[str, Any]]:
    pairs = fold.held_out[0]
    if method in WHOLE:
        before, after = fold.references[0].fusion, fold.models(method)[-1].fusion
        keys = {name: torch.ones(channels, dtype=torch.bool) for name, channels in before.distilled_layers.items()}
        rows = layer_drift(before, after, pairs, keys)
        return [{**row, "keys": None, "key_drift": None, "other_drift": None} for row in rows]
    before, after = fold.first_network(), fold.key_channel_network() if method == "vifa" else fold.free_network()
    channels = load_channels(fold.memory_file(1), before)
    return layer_drift(before, after, pairs, {name: layer.key for name, layer in channels.layers.items()})
