"""From the predictions of an experiment to rows, tables and what was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vifa_runtime.provenance import describe_run
from vifa_training.experiments.layout import sequence_name, sequence_predictions
from vifa_training.experiments.tasks import CONTROLS, METHODS, TasksExperiment, open_task_data, pooled_predictions
from vifa_training.task_evaluation import Pooled
from vifa_training.task_recipe import TaskRecipe

REFERENCE, OURS = "ref", "vifa"


def task_rows(experiment: TasksExperiment, resamples: int = 1000) -> list[dict[str, Any]]:
    """Rows `{network, method, task, metric, mean, low, high, ...}` of all tasks, pooled over the folds.

    Raises:
        TrainingError: a fold is not done.
    """
    return _rows(experiment, [*METHODS, *CONTROLS], {}, experiment.predictions, resamples, None)


def sequence_rows(experiment: TasksExperiment, methods: Sequence[str], resamples: int = 1000) -> list[dict[str, Any]]:
    """The same of methods of a sequence, with its name as `sequence` and how much more VIFA has as `gain`.

    Raises:
        TrainingError: a fold is not done.
    """
    named = {"sequence": sequence_name(experiment)}
    methods = list(dict.fromkeys([*methods, REFERENCE]))
    against = OURS if OURS in methods else None
    return _rows(experiment, methods, named, partial(sequence_predictions, experiment), resamples, against)


def _rows(
    experiment: TasksExperiment,
    methods: Sequence[str],
    named: dict[str, Any],
    file_of: Callable[[int, str, str], Path],
    resamples: int,
    against: str | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for recipe in experiment.recipes:
        pooled = pool(experiment, recipe, methods, file_of)
        for row in pooled.rows(REFERENCE, resamples, against=against):
            method, metric = row.pop("method"), row.pop("metric")
            head = {"network": experiment.network, **named, "method": method, "task": recipe.name, "metric": metric}
            tail = {"folds": experiment.folds, "preset": experiment.preset, "device": device_name()}
            rows.append({**head, **row, **tail})
    return rows


def pool(
    experiment: TasksExperiment,
    recipe: TaskRecipe,
    methods: Sequence[str],
    file_of: Callable[[int, str, str], Path] | None = None,
) -> Pooled:
    """Out-of-fold predictions of a task's pairs, in the order of their names.

    Args:
        file_of: (fold, recipe's name, method) -> file of predictions; by default the experiment's own.

    Raises:
        TrainingError: a fold is not done.
    """
    dataset = open_task_data(experiment, recipe)
    order = sorted(range(len(dataset)), key=lambda index: dataset.names[index])
    names = [dataset.names[index] for index in order]
    file_of, folds = file_of or experiment.predictions, range(1, experiment.folds + 1)
    predictions = {
        method: pooled_predictions(experiment, recipe, [file_of(fold, recipe.name, method) for fold in folds], names)
        for method in methods
    }
    return Pooled(recipe, [dataset[index] for index in order], predictions)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """One table a task: a line a method, a column a metric, with its interval."""
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        table = Table(title=f"{task}, {own[0]['network']}", box=SIMPLE_HEAD, pad_edge=False)
        metrics = list(dict.fromkeys(row["metric"] for row in own))
        for name in ("method", *metrics):
            table.add_column(name, no_wrap=True)
        for method in dict.fromkeys(row["method"] for row in own):
            of = {row["metric"]: row for row in own if row["method"] == method}
            table.add_row(method, *(_cell(of[metric]) for metric in metrics))
        Console(width=200).print(table)


def run_meta(command: str, experiment: TasksExperiment) -> dict[str, Any]:
    """What is recorded beside the rows."""
    return {**describe_run(command, seed=experiment.fusion.seed), "device": device_name()}


def device_name() -> str:
    """The accelerator, or CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _cell(row: dict[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    return f"{row['mean']:.3f}" + (f" ({row['low']:.3f}-{row['high']:.3f})" if row.get("low") is not None else "")
