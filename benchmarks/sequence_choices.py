"""How strongly each method holds on to what was learned before: chosen on the validation parts, never on the folds.

    python benchmarks/sequence_choices.py --data ../shared/data --run runs/tasks

Trained on the recipes' training parts, measured on their validation parts, one seed: a row a setting and task. `kept`
is the metric over that of the task's reference; a method's best setting has the highest mean of it over the tasks.
Of VIFA, the weight of Eq. 1 with the default clusters, and the other readings of clusters at weight 1.
What is in --run is not trained again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rows import publish

from vifa_runtime.files import write_json
from vifa_training.channels.clusters import CLUSTERINGS
from vifa_training.commands.experiment import make_experiment
from vifa_training.experiments import DEFAULT_TASKS
from vifa_training.experiments.sequences import SequenceFold, Settings
from vifa_training.experiments.tasks import SHARED, TasksExperiment
from vifa_training.pictures import Fused
from vifa_training.task_evaluation import evaluate_task

DEFAULT = Settings()
CHOICES: dict[str, dict[str, Settings]] = {
    "vifa": {
        **{f"weight {weight:g}": Settings(stage1=weight) for weight in (0.1, 1.0, 10.0)},
        **{
            f"clusters {name}": Settings(stage1=1.0, choice=replace(DEFAULT.choice, clustering=name))
            for name in CLUSTERINGS
            if name != DEFAULT.choice.clustering
        },
    },
    "ewc": {f"weight {weight:g}": Settings(ewc=weight) for weight in (10.0, 100.0, 1000.0)},
    "lwf": {f"weight {weight:g}": Settings(lwf=weight) for weight in (0.1, 1.0, 10.0, 100.0)},
    "replay": {f"weight {weight:g}": Settings(replay=weight) for weight in (0.3, 1.0, 3.0)},
}


def measure(experiment: TasksExperiment, method: str, name: str, settings: Settings) -> dict[str, float]:
    """Recipe's name -> its primary metric on its validation part; `ref` is the references themselves."""
    trained = "seq" if method == "seq_head" else method
    folder = experiment.fold_folder(0) / "choices" / f"{trained} {name}".strip().replace(" ", "-")
    path = folder / f"{method}.json"
    if not path.exists():
        fold = SequenceFold(experiment, 0, settings, folder)
        if method == "ref":
            shown = [(Fused(model.fusion, SHARED), model.task) for model in fold.references]
        else:
            shown = getattr(fold, method)()
        values = {}
        for recipe, pairs, (picture, task) in zip(experiment.recipes, fold.held_out, shown, strict=True):
            values[recipe.name] = next(iter(evaluate_task(task, picture, pairs, recipe).values()))
        write_json(path, values)
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--network", default="nano")
    parser.add_argument("--task", default=DEFAULT_TASKS)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--methods", default=",".join(["seq", "seq_head", *CHOICES]))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/results/sequence_choices.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    experiment = make_experiment(
        options.network, options.data, options.run, options.task, options.preset, 4, "roadscene@train"
    )
    reference = measure(experiment, "ref", "", DEFAULT)
    rows: list[dict[str, Any]] = []
    for method in ["ref", *options.methods.split(",")]:
        for name, settings in CHOICES.get(method, {"": DEFAULT}).items():
            values = measure(experiment, method, name, settings)
            kept = {task: value / reference[task] for task, value in values.items()}
            for task, value in values.items():
                row = {"network": options.network, "method": method, "setting": name, "task": task}
                numbers = {"value": round(value, 4), "kept": round(kept[task], 4)}
                rows.append({**row, **numbers, "mean_kept": round(sum(kept.values()) / len(kept), 4)})
    publish(rows, options.output)


if __name__ == "__main__":
    main()
