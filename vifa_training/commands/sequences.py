"""`vifa-train experiment two-task | three-task | ablation | fusion-sequence` and `vifa-train baseline`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vifa_training.checkpoint import TrainingError
from vifa_training.commands.experiment import (
    Data,
    Folds,
    Json,
    MorePairs,
    Network,
    OnlyFold,
    Preset,
    Run,
    TaskNames,
    Threads,
    app,
    make_experiment,
    report_rows,
)
from vifa_training.efficiency.plot import require_matplotlib
from vifa_training.experiments import DEFAULT_SEQUENCE, DEFAULT_TASKS
from vifa_training.experiments.diagnosis import WHOLE, drift_rows, fold_values
from vifa_training.experiments.fusion_sequence import fusion_rows, measure_fold
from vifa_training.experiments.layout import ABLATION, FROM_TASKS, SEQUENCE, sequence_name, sequence_predictions
from vifa_training.experiments.report import REFERENCE, run_meta, sequence_rows
from vifa_training.experiments.sequence_report import write_report
from vifa_training.experiments.sequences import SequenceFold
from vifa_training.experiments.tasks import TasksExperiment

BASELINES = [method for method in SEQUENCE if method not in (*FROM_TASKS, "vifa")]
Baseline = Annotated[str, typer.Argument(help=f"One of {', '.join(BASELINES)}.")]


@app.command()
def two_task(
    network: Network,
    data: Data,
    run: Run,
    task: TaskNames = DEFAULT_TASKS,
    preset: Preset = "cpu",
    folds: Folds = 4,
    only_fold: OnlyFold = 0,
    more_pairs: MorePairs = "roadscene@train",
    threads: Threads = 0,
    json: Json = None,
) -> None:
    """One task after the other, in the order of --task: Base, Ref, Seq, usual remedies and VIFA (Tables 1 and 3).

    Example: vifa-train experiment two-task nano --data ../shared/data --run runs/tasks --json two_task.json
    """
    experiment = make_experiment(network, data, run, task, preset, folds, more_pairs, threads)
    _run_sequence(experiment, "two-task", task, SEQUENCE, only_fold, json)


@app.command()
def three_task(
    network: Network,
    data: Data,
    run: Run,
    task: TaskNames = DEFAULT_SEQUENCE,
    preset: Preset = "cpu",
    folds: Folds = 4,
    only_fold: OnlyFold = 0,
    more_pairs: MorePairs = "roadscene@train",
    threads: Threads = 0,
    json: Json = None,
) -> None:
    """The same with three tasks (Table 4); they need a --run of their own, as their shared backbone is another one.

    Example: vifa-train experiment three-task nano --data ../shared/data --run runs/three --json three_task.json
    """
    experiment = make_experiment(network, data, run, task, preset, folds, more_pairs, threads)
    _run_sequence(experiment, "three-task", task, SEQUENCE, only_fold, json)


@app.command()
def ablation(
    network: Network,
    data: Data,
    run: Run,
    task: TaskNames = DEFAULT_TASKS,
    preset: Preset = "cpu",
    folds: Folds = 4,
    only_fold: OnlyFold = 0,
    more_pairs: MorePairs = "roadscene@train",
    threads: Threads = 0,
    json: Json = None,
) -> None:
    """What each half of VIFA is worth: neither, key channels alone, references alone, both (Table 7).

    Example: vifa-train experiment ablation nano --data ../shared/data --run runs/tasks --json ablation.json
    """
    experiment = make_experiment(network, data, run, task, preset, folds, more_pairs, threads)
    _run_sequence(experiment, "ablation", task, ABLATION, only_fold, json)


@app.command()
def fusion_sequence(
    network: Network,
    data: Data,
    run: Run,
    task: TaskNames = DEFAULT_TASKS,
    preset: Preset = "cpu",
    folds: Folds = 4,
    only_fold: OnlyFold = 0,
    more_pairs: MorePairs = "roadscene@train",
    threads: Threads = 0,
    json: Json = None,
) -> None:
    """What fusion itself forgets on the tasks' pairs, without labels: EN, SF, VIF and SSIM (Tables 1 and 2).

    Example: vifa-train experiment fusion-sequence nano --data ../shared/data --run runs/tasks --json fusion.json
    """
    experiment = make_experiment(network, data, run, task, preset, folds, more_pairs, threads)
    _check_order(experiment)
    for fold in [only_fold] if only_fold else range(1, folds + 1):
        measure_fold(SequenceFold(experiment, fold))
    if not only_fold:
        command = _command(experiment, "fusion-sequence", task)
        report_rows(experiment, fusion_rows(experiment), json, command)


def baseline(
    method: Baseline,
    network: Network,
    data: Data,
    run: Run,
    task: TaskNames = DEFAULT_TASKS,
    preset: Preset = "cpu",
    folds: Folds = 4,
    only_fold: OnlyFold = 0,
    more_pairs: MorePairs = "roadscene@train",
    threads: Threads = 0,
    json: Json = None,
) -> None:
    """One usual remedy against forgetting by itself, beside Ref; `experiment two-task` runs all of them.

    Example: vifa-train baseline ewc nano --data ../shared/data --run runs/tasks
    """
    if method not in BASELINES:
        raise TrainingError(f"no baseline is called {method!r}; use one of {', '.join(BASELINES)}")
    experiment = make_experiment(network, data, run, task, preset, folds, more_pairs, threads)
    _run_sequence(experiment, f"baseline {method}", task, [REFERENCE, method], only_fold, json)


def _run_sequence(
    experiment: TasksExperiment, name: str, tasks: str, methods: Sequence[str], only_fold: int, json: Path | None
) -> None:
    """Train, pool, print, and write the report."""
    _check_order(experiment)
    require_matplotlib("its report cannot be drawn")
    folds = [SequenceFold(experiment, fold) for fold in range(1, experiment.folds + 1)]
    for fold in [SequenceFold(experiment, only_fold)] if only_fold else folds:
        fold.run(methods)
    if only_fold:
        return
    command = _command(experiment, name, tasks)
    rows = sequence_rows(experiment, methods)
    report_rows(experiment, rows, json, command)
    shown = list(dict.fromkeys([*methods, REFERENCE]))
    drifting = [method for method in shown if method in (*WHOLE, "vifa")]
    file_of = partial(sequence_predictions, experiment)
    folder = experiment.reports / f"{name.replace(' ', '-')}-{sequence_name(experiment)}"
    write_report(
        folder,
        {"meta": run_meta(command, experiment), "rows": rows},
        [recipe.name for recipe in experiment.recipes],
        {recipe.name: fold_values(experiment, recipe, shown, file_of) for recipe in experiment.recipes},
        [{"fold": fold.fold, **row} for fold in folds for row in drift_rows(fold, drifting)],
    )
    print(f"{folder / 'report.md'} written")


def _command(experiment: TasksExperiment, name: str, tasks: str) -> str:
    """What makes the same rows again, but for the places of data and trainings."""
    group, _, method = name.partition(" ")
    start = f"vifa-train baseline {method}" if method else f"vifa-train experiment {group}"
    return f"{start} {experiment.network} --task {tasks} --preset {experiment.preset} --folds {experiment.folds}"


def _check_order(experiment: TasksExperiment) -> None:
    if len(experiment.recipes) < 2:
        raise TrainingError("a sequence needs two tasks or more; name them by --task, with commas between")
