"""How the folds of `vifa-train experiment tasks` differ: every method on each fold by itself, from its predictions.

.venv-training/bin/python benchmarks/task_folds.py --data ../shared/data --run runs/tasks
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rows import publish

from vifa_training.commands.experiment import make_experiment
from vifa_training.experiments.tasks import CONTROLS, METHODS, TasksExperiment, open_blocks
from vifa_training.predictions import load_predictions
from vifa_training.task_evaluation import Pooled
from vifa_training.task_recipe import TaskRecipe

TASKS = "msrs-detection,cwfid-segmentation"


def measure(experiment: TasksExperiment, recipe: TaskRecipe, fold: int) -> dict[str, Any]:
    """One row: the task's primary metric of every method on one fold, and what is reached of the reference."""
    _, held_out = open_blocks(experiment, recipe, fold)
    samples = [held_out[index] for index in range(len(held_out))]
    made = {}
    for method in (*METHODS, *CONTROLS):
        found = {one.name: one for one in load_predictions(experiment.predictions(fold, recipe.name, method))}
        made[method] = [found[sample.name] for sample in samples]
    pooled = Pooled(recipe, samples, made)
    name, (images, score) = next(iter(pooled.metrics().items()))
    of = {method: float(score(pooled.of[method], images)) for method in made}
    row = {"task": recipe.name, "fold": fold, "pairs": len(samples), "metric": name}
    return {
        **row,
        **{method: round(value, 4) for method, value in of.items()},
        "of_ref": round(of["vifa"] / of["ref"], 4),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--network", default="nano")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--json", type=Path, default=Path("docs/results/task_folds.json"))
    options = parser.parse_args()
    experiment = make_experiment(
        options.network, options.data, options.run, TASKS, options.preset, options.folds, "roadscene@train"
    )
    folds = range(1, options.folds + 1)
    rows = [measure(experiment, recipe, fold) for recipe in experiment.recipes for fold in folds]
    publish(rows, options.json)


if __name__ == "__main__":
    main()
