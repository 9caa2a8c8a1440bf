"""`vifa-train experiment two-task | three-task | ablation | fusion-sequence` and `vifa-train baseline`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vifa_training.checkpoint import TrainingError
from vifa_training.commands.experiment import ExperimentOptions, Json, OnlyFold, TaskNames, app, report_rows
from vifa_training.commands.options import with_options
from vifa_training.efficiency.plot import require_matplotlib
from vifa_training.experiments import DEFAULT_SEQUENCE
from vifa_training.experiments.diagnosis import WHOLE, curve_rows, drift_rows, fold_values
from vifa_training.experiments.fusion_sequence import fusion_rows, measure_fold
from vifa_training.experiments.layout import ABLATION, FROM_TASKS, SEQUENCE, sequence_name, sequence_predictions
from vifa_training.experiments.report import REFERENCE, run_meta, sequence_rows
from vifa_training.experiments.sequence_report import write_report
from vifa_training.experiments.sequences import SequenceFold
from vifa_training.experiments.tasks import TasksExperiment

BASELINES = [method for method in SEQUENCE if method not in (*FROM_TASKS, "vifa")]
Baseline = Annotated[str, typer.Argument(help=f"One of {', '.join(BASELINES)}.")]
Methods = Annotated[str, typer.Option(help="What to run and report, with commas between.")]
ALL_METHODS = ",".join(SEQUENCE)


@dataclass(frozen=True)
class ThreeTaskOptions(ExperimentOptions):
    """The same with three tasks by default."""

    task: TaskNames = DEFAULT_SEQUENCE


@app.command()
@with_options
def two_task(
    options: ExperimentOptions, methods: Methods = ALL_METHODS, only_fold: OnlyFold = 0, json: Json = None
) -> None:
    """One task after the other, in the order of --task: Base, Ref, Seq, usual remedies and VIFA (Tables 1 and 3).

    Example: vifa-train experiment two-task nano --data ../shared/data --run runs/tasks --json two_task.json
    """
    _run_sequence(options, "two-task", _parse_methods(methods), only_fold, json)


@app.command()
@with_options
def three_task(
    options: ThreeTaskOptions, methods: Methods = ALL_METHODS, only_fold: OnlyFold = 0, json: Json = None
) -> None:
    """The same with three tasks (Table 4); they need a --run of their own, as their shared backbone is another one.

    Example: vifa-train experiment three-task nano --data ../shared/data --run runs/three --json three_task.json
    """
    _run_sequence(options, "three-task", _parse_methods(methods), only_fold, json)


@app.command()
@with_options
def ablation(options: ExperimentOptions, only_fold: OnlyFold = 0, json: Json = None) -> None:
    """What each half of VIFA is worth: neither, key channels alone, references alone, both (Table 7).

    Example: vifa-train experiment ablation nano --data ../shared/data --run runs/tasks --json ablation.json
    """
    _run_sequence(options, "ablation", ABLATION, only_fold, json)


@app.command()
@with_options
def fusion_sequence(options: ExperimentOptions, only_fold: OnlyFold = 0, json: Json = None) -> None:
    """What fusion itself forgets on the tasks' pairs, without labels: EN, SF, VIF and SSIM (Tables 1 and 2).

    Example: vifa-train experiment fusion-sequence nano --data ../shared/data --run runs/tasks --json fusion.json
    """
    experiment = options.make_experiment()
    _check_order(experiment)
    for fold in options.chosen_folds(only_fold):
        measure_fold(SequenceFold(experiment, fold))
    if not only_fold:
        report_rows(experiment, fusion_rows(experiment), json, _command(options, "fusion-sequence"))


@with_options
def baseline(method: Baseline, options: ExperimentOptions, only_fold: OnlyFold = 0, json: Json = None) -> None:
    """One usual remedy against forgetting by itself, beside Ref; `experiment two-task` runs all of them.

    Example: vifa-train baseline ewc nano --data ../shared/data --run runs/tasks
    """
    if method not in BASELINES:
        raise TrainingError(f"no baseline is called {method!r}; use one of {', '.join(BASELINES)}")
    _run_sequence(options, f"baseline {method}", [REFERENCE, method], only_fold, json)


def _run_sequence(
    options: ExperimentOptions, name: str, methods: Sequence[str], only_fold: int, json: Path | None
) -> None:
    """Train, pool, print, and write the report."""
    experiment = options.make_experiment()
    _check_order(experiment)
    require_matplotlib("its report cannot be drawn")
    folds = [SequenceFold(experiment, fold) for fold in options.chosen_folds(only_fold)]
    for fold in folds:
        fold.run(methods)
    if only_fold:
        return
    command = _command(options, name)
    if name in ("two-task", "three-task") and tuple(methods) != SEQUENCE:
        command += f" --methods {','.join(methods)}"
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
        [{"fold": fold.fold, **row} for fold in folds for row in curve_rows(fold, shown)],
    )
    print(f"{folder / 'report.md'} written")


def _command(options: ExperimentOptions, name: str) -> str:
    """What makes the same rows again, but for the places of data and trainings."""
    group, _, method = name.partition(" ")
    start = f"vifa-train baseline {method}" if method else f"vifa-train experiment {group}"
    return f"{start} {options.network} --task {options.task} --preset {options.preset} --folds {options.folds}"


def _parse_methods(text: str) -> list[str]:
    """The methods that are named, in the order of SEQUENCE."""
    named = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(named - set(SEQUENCE)):
        raise TrainingError(f"no method is called {', '.join(unknown)}; use some of {ALL_METHODS}")
    if not named:
        raise TrainingError(f"--methods names none; use some of {ALL_METHODS}")
    return [name for name in SEQUENCE if name in named]


def _check_order(experiment: TasksExperiment) -> None:
    if len(experiment.recipes) < 2:
        raise TrainingError("a sequence needs two tasks or more; name them by --task, with commas between")
