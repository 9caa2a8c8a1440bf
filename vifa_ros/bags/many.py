"""Many bags: a report of each, and one over all; on one machine, or on a Ray cluster, with equal reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.opening import METADATA, STORAGES
from vifa_ros.bags.page import render_page
from vifa_ros.bags.report import PAGE, REPORT, check_target, evaluate, load_bundles
from vifa_ros.bags.session import EvaluateSettings, Session
from vifa_ros.bags.tallies import Scratch, TallySums, TaskTally
from vifa_ros.bags.thresholds import check_thresholds, judge
from vifa_runtime.files import write_atomically
from vifa_runtime.geometry import GeometryError
from vifa_runtime.pairs import PairError
from vifa_runtime.pipeline import InputError
from vifa_runtime.processes import map_in_processes
from vifa_runtime.provenance import describe_run
from vifa_runtime.thermal import ThermalError

LOCAL = "local"


@dataclass(frozen=True)
class BagJob:
    """One bag to evaluate, with the arguments of `report.evaluate`."""

    path: Path
    folder: Path
    bundles: Sequence[Path]
    settings: EvaluateSettings


@dataclass(frozen=True)
class BagResult:
    """What became of a job.

    Attributes:
        problem: why it was not evaluated; empty where it was.
        report: as `report.evaluate` gives it.
        sums: bundle -> task -> what its pairs add.
    """

    problem: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    sums: Mapping[str, Mapping[str, TallySums]] = field(default_factory=dict)


Results = Generator[BagResult, None, None]  # in the order of the jobs
Runner = Callable[[Sequence[BagJob]], Results]


def find_bags(paths: Iterable[Path]) -> list[Path]:
    """The bags that are named: each path itself, or, of a folder that is none, the bags right in it, by their names.

    Raises:
        BagError: a folder without bags.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir() or _is_bag(path):
            found.append(path)
        elif inner := sorted(child for child in path.iterdir() if child.is_dir() and _is_bag(child)):
            found += inner
        else:
            raise BagError(f"{path} is no bag and holds none; name bags, or a folder of them")
    return found


def evaluate_many(
    paths: Sequence[Path],
    folder: Path,
    bundles: Sequence[Path],
    settings: EvaluateSettings,
    run: Runner,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluate bags, each into a folder of its own in `folder`, and write the report over all of them.

    Its metrics are those of all pairs together, as if they lay in one bag: no means of means. Bags that cannot be
    evaluated are named in it, in `bags` and its notes.

    Args:
        run: does the jobs; see `in_processes` and `on_ray`.
        on_step: called with the bags that are done, and those there are.

    Returns:
        The report over all, as its report.json holds it.

    Raises:
        BagError: `folder` is taken, a setting is wrong, or no bag could be evaluated.
        BundleError: as of `load_bundle`.
    """
    check_target(folder)
    loaded = load_bundles(bundles, settings.values["tasks"])
    check_thresholds(settings.thresholds, next(iter(loaded.values())).tasks, settings.metrics)
    names = _names(paths)
    jobs = [BagJob(path, folder / name, bundles, settings) for path, name in zip(paths, names, strict=True)]
    results = []
    with closing(run(jobs)) as coming:
        for result in coming:
            results.append(result)
            on_step(len(results), len(jobs))
    if all(result.problem for result in results):
        raise BagError(f"no bag could be evaluated: {results[0].problem}")
    rows = []
    with ExitStack() as stack:
        scratch = Scratch(folder)
        stack.callback(scratch.close)
        for name, bundle in loaded.items():
            for task in bundle.tasks:
                tally = TaskTally(task, scratch, keeps=False)
                for result in results:
                    if not result.problem:
                        tally.absorb(result.sums[name][task.name])
                rows += [{"bundle": name, **row} for row in tally.rows()]
    report = _summarise(jobs, results, rows, settings, next(iter(loaded)))
    write_atomically(folder / REPORT, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(folder / PAGE, render_page(report, folder).encode())
    return report


def evaluate_bag(job: BagJob) -> BagResult:
    """Do one job, in any process of any machine."""
    sums: dict[str, dict[str, TallySums]] = {}

    def collect(session: Session) -> None:
        for subject, tallies in zip(session.subjects, session.tallies, strict=True):
            sums[subject.name] = {task: tally.sums() for task, tally in tallies.items()}

    try:
        report = evaluate(job.path, job.folder, job.bundles, job.settings, on_end=collect)
    except (BagError, PairError, GeometryError, InputError, ThermalError) as error:  # of this bag; others may be right
        return BagResult(str(error))
    return BagResult("", report, sums)


def in_processes(count: int) -> Runner:
    """Run jobs in so many processes of this machine; 1 for this one."""

    return partial(map_in_processes, evaluate_bag, count=count)


def on_ray(address: str, cores: int) -> Runner:
    """Run jobs on a Ray cluster, whose machines have this package and see bags, bundles and reports at the same paths.

    Args:
        address: of the cluster, such as ray://head:10001 or auto; LOCAL starts one on this machine.
        cores: that each bag takes.

    Raises:
        BagError: Ray is not installed, or not to be reached.
    """

    def run(jobs: Sequence[BagJob]) -> Results:
        try:
            import ray
        except ImportError as error:
            raise BagError(f"--ray needs Ray ({error}); pip install 'vifa-perception[cluster]'") from None
        try:
            ray.init(address=None if address == LOCAL else address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BagError(f"--ray {address} is not to be reached: {error}") from None
        try:
            remote = ray.remote(num_cpus=cores)(evaluate_bag)
            for waiting in [remote.remote(job) for job in jobs]:
                yield ray.get(waiting)
        finally:
            ray.shutdown()

    return run


def _summarise(
    jobs: Sequence[BagJob],
    results: Sequence[BagResult],
    rows: Sequence[Mapping[str, Any]],
    settings: EvaluateSettings,
    first: str,
) -> dict[str, Any]:
    done = [(job, result) for job, result in zip(jobs, results, strict=True) if not result.problem]
    bags = [
        {
            "path": str(job.path),
            "report": job.folder.name if not result.problem else None,
            "problem": result.problem,
            **{key: result.report["meta"]["bag"][key] for key in ("sha256", "duration_s") if not result.problem},
        }
        for job, result in zip(jobs, results, strict=True)
    ]
    one = done[0][1].report["meta"]
    notes = [
        f"{job.path} is left out: {result.problem}" for job, result in zip(jobs, results, strict=True) if result.problem
    ]
    notes += [f"{job.folder.name}: {note}" for job, result in done for note in result.report["meta"]["notes"]]
    return {
        "meta": {
            **describe_run("vifa evaluate", settings.seed),
            "bag": {
                "path": f"{len(done)} bags",
                "duration_s": sum(result.report["meta"]["bag"]["duration_s"] for _, result in done),
                "messages": sum(result.report["meta"]["bag"]["messages"] for _, result in done),
            },
            "bundles": one["bundles"],
            "settings": one["settings"],
            "notes": notes,
        },
        "bags": bags,
        "rows": list(rows),
        "undefined": _undefined(rows, [result.report["undefined"] for _, result in done]),
        "streams": _streams([result.report for _, result in done]),
        "drops": _added((result.report["drops"] for _, result in done), ("what", "reason"), ("count",)),
        "thresholds": judge(settings.thresholds, rows, first),
        "comparison": [],
    }


def _streams(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Frames of all bags; their rate is over the bags' time together."""
    rows = _added((report["streams"] for report in reports), ("stream", "topic"), ("received", "paired", "dropped"))
    for row in rows:
        seconds = images = 0.0
        for report in reports:
            duration = report["meta"]["bag"]["duration_s"]
            for own in report["streams"]:
                if (own["stream"], own["topic"]) == (row["stream"], row["topic"]) and own["rate_hz"] is not None:
                    seconds += duration
                    images += own["rate_hz"] * duration
        row["rate_hz"] = images / seconds if seconds else None
    return rows


def _undefined(rows: Sequence[Mapping[str, Any]], lists: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of what has no value in some bag, what has none over all of them, with the first bag's reason."""
    measured = {(row["bundle"], row["task"], row["metric"].partition("_")[0]) for row in rows}
    measured |= {(row["bundle"], row["task"], row["metric"]) for row in rows}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in (row for rows in lists for row in rows):
        key = (row["bundle"], row["task"], row["metric"])
        if key not in measured:
            found.setdefault(key, dict(row))
    return list(found.values())


def _added(
    lists: Iterable[Sequence[Mapping[str, Any]]], keys: Sequence[str], numbers: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows that agree in `keys`, with their numbers added."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in (row for rows in lists for row in rows):
        own = found.setdefault(
            tuple(row[key] for key in keys), {key: row[key] for key in keys} | dict.fromkeys(numbers, 0)
        )
        for number in numbers:
            own[number] += row[number]
    return list(found.values())


def _names(paths: Sequence[Path]) -> list[str]:
    """A name of a folder for each bag: its own, with a number where several have it."""
    names: list[str] = []
    for path in paths:
        own = path.resolve().stem if path.is_file() else path.resolve().name
        number = 1
        while (name := own if number == 1 else f"{own}-{number}") in names:
            number += 1
        names.append(name)
    return names


def _is_bag(folder: Path) -> bool:
    return (folder / METADATA).is_file() or any(child.suffix in STORAGES for child in folder.iterdir())
