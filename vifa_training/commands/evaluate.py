"""`vifa-train evaluate`: bundles beside the trivial baselines, on pairs of one or more data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.files import write_json
from vifa_runtime.models import find_bundle
from vifa_runtime.provenance import describe_run
from vifa_training.evaluation import (
    METRICS,
    EvaluationError,
    ImageScore,
    describe_bundles,
    mean_rows,
    write_csv,
)
from vifa_training.evaluation import evaluate as evaluate_bundles
from vifa_training.experiments import DEFAULT_TASKS


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")],
    bundles: Annotated[
        Optional[list[str]], typer.Argument(help="Bundle folders, or names of shipped ones; none for the baselines.")
    ] = None,
    part: Annotated[
        Optional[list[str]], typer.Option(help="A folder in it, or <folder>@train|val|test; may be given again.")
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Pool the held-out folds of `experiment tasks` in --run instead; 0: don't.", min=0)
    ] = 0,
    run: Annotated[Optional[Path], typer.Option("--run", "-r", help="Folder of that experiment.")] = None,
    network: Annotated[str, typer.Option(help="Fusion network of that experiment.")] = "nano",
    preset: Annotated[str, typer.Option(help="Preset of that experiment.")] = "cpu",
    task: Annotated[str, typer.Option(help="Its task recipes, with commas between.")] = DEFAULT_TASKS,
    json: Annotated[Optional[Path], typer.Option("--json", help="Write the means as JSON.")] = None,
    csv: Annotated[Optional[Path], typer.Option("--csv", help="Write every image's values as CSV.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes to use.", min=1)] = 1,
) -> None:
    """Measure fused images beside trivial baselines, and boxes and masks where a part has labels/ or masks/.

    --json keeps means, --csv every image's values. --folds measures boxes and masks by cross-validation.

    Example: vifa-train evaluate nano-fusion --data ../shared/data --part msrs/test --part roadscene@test
    Example: vifa-train evaluate --folds 4 --run runs/tasks --data ../shared/data
    """
    if folds:
        if run is None or bundles or part or csv:
            raise EvaluationError("--folds goes with --run, --network, --preset and --task, not with bundles and parts")
        from vifa_training.commands.experiment import make_experiment, pool_folds  # the rest needs no torch

        pool_folds(make_experiment(network, data, run, task, preset, folds), json, "vifa-train evaluate")
        return
    if not part:
        raise EvaluationError("nothing to evaluate; name a part of the data by --part, or give --folds and --run")
    report(
        [load_bundle(find_bundle(name)) for name in bundles or []], data, part, jobs, "vifa-train evaluate", json, csv
    )


def report(
    bundles: Sequence[Bundle],
    data: Path,
    parts: Sequence[str],
    jobs: int,
    command: str,
    json: Optional[Path] = None,
    csv: Optional[Path] = None,
) -> None:
    """Evaluate with a progress bar, print a table a data set and write the files wanted; `command` goes into `meta`.

    Raises:
        EvaluationError: as `vifa_training.evaluation.evaluate`, or a file cannot be written.
    """
    scores = _evaluate_with_bar(bundles, data, parts, jobs)
    rows = mean_rows(scores)
    for table in quality_tables(rows):
        Console().print(table)
    try:
        if csv is not None:
            write_csv(csv, scores)
            print(f"{csv} written")
        if json is not None:
            meta = {**describe_run(command), "bundles": describe_bundles(bundles)}
            write_json(json, {"meta": meta, "rows": rows})
            print(f"{json} written")
    except OSError as error:
        raise EvaluationError(f"cannot write {error.filename}: {error.strerror}; choose another file") from None


def quality_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """For each data set and split: a line a method, a column a metric of images; a line a metric of boxes and masks."""
    tables = []
    for data, split in dict.fromkeys((row["data"], row["split"]) for row in rows):
        own = [row for row in rows if (row["data"], row["split"]) == (data, split)]
        found = [row for row in own if row["metric"] not in METRICS]
        own = [row for row in own if row["metric"] in METRICS]
        title = f"{data}, {split}: {own[0]['pairs']} pairs"
        table = Table(title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)  # so that 80 columns do
        for name in ("fused by", "task"):
            table.add_column(name, no_wrap=True)
        for metric in METRICS:
            table.add_column(metric.replace("_", "\n"), justify="right", no_wrap=True)
        lines: dict[tuple[str, str], dict[str, float]] = {}
        for row in own:
            key = (row["bundle"] or row["network"], row["task"] or "")
            lines.setdefault(key, {})[row["metric"]] = row["value"]
        for key, values in lines.items():
            table.add_row(*key, *(f"{values[metric]:.3f}" for metric in METRICS))
        tables.append(table)
        if found:
            tables.append(_found_table(f"{data}, {split}: found against labels", found))
    return tables


def _found_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in ("bundle", "task", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "pairs"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["bundle"], row["task"], row["metric"], f"{row['value']:.3f}", str(row["pairs"]))
    return table


def _evaluate_with_bar(bundles: Sequence[Bundle], data: Path, parts: Sequence[str], jobs: int) -> list[ImageScore]:
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        shown = bar.add_task("")
        return evaluate_bundles(
            bundles, data, parts, jobs, lambda done, total: bar.update(shown, completed=done, total=total)
        )
