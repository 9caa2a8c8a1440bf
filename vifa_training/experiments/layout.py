"""Where the steps and predictions of a sequence of tasks are kept, and its methods."""

from __future__ import annotations

from pathlib import Path

from vifa_training.experiments.tasks import TasksExperiment

SEQUENCE = ("base", "ref", "seq", "seq_head", "ewc", "lwf", "replay", "vifa")
ABLATION = ("seq", "key_channels", "reference", "vifa")
FROM_TASKS = ("base", "ref")  # the same in any order: made by the experiment of tasks


def sequence_name(experiment: TasksExperiment) -> str:
    """The recipes in their order."""
    return "+".join(recipe.name for recipe in experiment.recipes)


def sequence_folder(experiment: TasksExperiment, fold: int) -> Path:
    """Where the steps and predictions of an order of tasks are."""
    return experiment.fold_folder(fold) / "sequences" / sequence_name(experiment)


def sequence_predictions(experiment: TasksExperiment, fold: int, recipe: str, method: str) -> Path:
    """File of what a method of a sequence predicted for a recipe's pairs that a fold holds out."""
    if method in FROM_TASKS:
        return experiment.predictions(fold, recipe, method)
    return sequence_folder(experiment, fold) / recipe / f"{method}.json"
