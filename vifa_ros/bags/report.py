"""The report of an evaluation: from a bag's first message to the folder with report.json and report.html."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from vifa_ros.bags.comparing import Comparison, Resampling, differences
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.evaluating import NO_RESULT
from vifa_ros.bags.live import LiveNode
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.page import render_page
from vifa_ros.bags.session import EvaluateSettings, Session
from vifa_ros.bags.tallies import MAP, MIOU
from vifa_ros.bags.thresholds import check_thresholds, judge
from vifa_ros.camera_alignment import AlignmentSource
from vifa_ros.parameters import BY_NAME, alignment_settings
from vifa_runtime.bundle import MANIFEST, Bundle, load_bundle
from vifa_runtime.files import whole_folder
from vifa_runtime.provenance import describe_run

REPORT, PAGE = "report.json", "report.html"
MOST_PAGE_ROWS = 20_000  # rows of single pairs that the page gets; of more, every so many pairs


def evaluate(
    path: Path,
    folder: Path,
    bundles: Sequence[Path],
    settings: EvaluateSettings,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    live: LiveNode | None = None,
    on_end: Callable[[Session], None] = lambda session: None,
) -> dict[str, Any]:
    """Evaluate one bundle on a bag, or compare two, and write the report into a folder, all of it or nothing.

    Args:
        path: of the bag.
        folder: of the report; an older report there is replaced in the end.
        bundles: folders, one or two.
        on_step: called with the messages that were read, and those there are to read.
        live: a node into which the bag is played, and whose results are measured; None to run the bundles here.
        on_end: called with all that was collected, before the report is written.

    Returns:
        The report, as report.json holds it, without `frames` and `differences`.

    Raises:
        BagError: the bag cannot be read, no pair came through, ground truth or a setting is wrong, or `folder` is
            taken.
        BundleError, BackendError, AlignmentError, ThermalError: what else cannot be loaded.
    """
    check_target(folder)
    loaded = load_bundles(bundles, settings.values["tasks"])
    check_thresholds(settings.thresholds, next(iter(loaded.values())).tasks, settings.metrics)
    aligner = AlignmentSource(alignment_settings(settings.values.__getitem__))
    with Bag(path) as bag, ExitStack() as stack:
        session = Session(bag, aligner, loaded, settings, stack, live)
        try:
            with whole_folder(folder) as beside, ThreadPoolExecutor(1, "digest") as alongside:
                digest = alongside.submit(bag.digest)
                session.run(beside, on_step)
                on_end(session)
                report = {"meta": _describe(session, bundles, digest.result()), **_summarise(session, beside)}
                _write(session, beside, report)
        except OSError as error:
            raise BagError(f"cannot write {folder}: {error.strerror}; choose another place") from None
    return report


def check_target(folder: Path) -> None:
    """Refuse a place at which something else than a report is.

    Raises:
        BagError: it is taken.
    """
    if folder.exists() and not (folder / REPORT).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BagError(f"{folder} is there already and holds no {REPORT}; choose another place")


def _describe(session: Session, folders: Sequence[Path], digest: str) -> dict[str, Any]:
    """The `meta` of the report."""
    settings, bag = session.settings, session.bag
    given = {name: value for name, value in settings.values.items() if value != BY_NAME[name].default}
    bundles = {
        subject.name: {
            "sha256": hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest(),
            "network": subject.bundle.network,
            **subject.bundle.manifest["provenance"],
            "engine": subject.describe(),
        }
        for subject, folder in zip(session.subjects, folders, strict=True)
    }
    return {
        **describe_run("vifa evaluate", settings.seed),
        "bag": {
            "path": str(bag.path),
            "sha256": digest,
            "duration_s": bag.duration,
            "messages": bag.message_count,
        },
        "bundles": bundles,
        "settings": {
            "metrics": list(settings.metrics),
            "fusion_metrics_of_every": settings.fusion_every,
            "tags": session.tagger.describes,
            "ground_truth": "topics of the bag" if settings.labels is None else str(settings.labels),
            "thermal_limits": "smoothed over time, as in the node" if settings.smooths else "of each image alone",
            "boxes": session.settings.describe_boxes(),
            "results": "of each bundle, run here" if session.live is None else f"of the node {session.live.name}",
            "parameters": given,
        },
        "notes": _notes(session),
    }


def _summarise(session: Session, folder: Path) -> dict[str, Any]:
    """All of the report but `meta` and what is of single pairs; pictures are written into the folder."""
    rows = [
        {"bundle": subject.name, **row}
        for subject, tallies in zip(session.subjects, session.tallies, strict=True)
        for tally in tallies.values()
        for row in tally.rows()
    ]
    comparison, left_out = _compare(session)
    return {
        "rows": rows,
        "undefined": [*_undefined(session), *left_out],
        "streams": _streams(session),
        "drops": _drops(session),
        "latency": _latency(session),
        "worst": session.worst.write(folder),
        "thresholds": judge(session.settings.thresholds, rows, session.subjects[0].name),
        "comparison": comparison,
    }


def _write(session: Session, folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json and report.html."""
    lists = {"frames": session.frames.lines()}
    if len(session.subjects) > 1:
        first, second = (subject.name for subject in session.subjects)
        lists["differences"] = map(json.dumps, differences(session.frames, first, second))
    with (folder / REPORT).open("w", encoding="utf-8") as file:
        file.writelines(_json(report, lists))
    every = -(-session.frames.count // MOST_PAGE_ROWS)
    shown = [row for row in map(json.loads, session.frames.lines()) if row["index"] % every == 0]
    (folder / PAGE).write_text(render_page({**report, "frames": shown}, folder), encoding="utf-8")


def _compare(session: Session) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the comparison, and of what is not compared; none where there is one bundle."""
    if len(session.subjects) < 2:
        return [], []
    settings, duration = session.settings, session.bag.duration
    rate = session.pairs / duration if duration else 0.0
    comparison = Comparison(session.tags, Resampling(settings.resamples, settings.seed, rate))
    first, second = session.tallies
    rows = [row for name in first if name in second for row in comparison.rows(first[name], second[name])]
    return rows, comparison.undefined


def _undefined(session: Session) -> Iterator[dict[str, Any]]:
    """Rows `{bundle, task, metric, reason}` of what was asked for and has no value."""
    for subject, tallies in zip(session.subjects, session.tallies, strict=True):
        for task in subject.bundle.tasks:
            own = {"bundle": subject.name, "task": task.name}
            if task.name in subject.truth.missing:
                metric = MAP if task.kind == "detection" else MIOU
                yield {**own, "metric": metric, "reason": subject.truth.missing[task.name]}
            for name, reason in tallies[task.name].undefined().items():
                yield {**own, "metric": name, "reason": reason}


def _streams(session: Session) -> list[dict[str, Any]]:
    if session.live is not None:
        return session.live.counts().streams()
    topics = {stream: topic for topic, stream in session.jobs.reader.topics.images.items()}
    duration = session.bag.duration
    return [
        {
            "stream": stream,
            "topic": topics[stream],
            "received": counts.received,
            "paired": counts.paired,
            "dropped": sum(counts.dropped.values()),
            "rate_hz": (counts.received - 1) / duration if duration and counts.received else None,
        }
        for stream, counts in session.jobs.reader.counts.items()
    ]


def _drops(session: Session) -> list[dict[str, Any]]:
    found = {stream: counts.dropped for stream, counts in session.jobs.reader.counts.items()}
    if session.live is not None:
        return session.live.counts().drops()
    return [
        {"what": what, "reason": reason, "count": count}
        for what, reasons in {**found, "pair": session.dropped}.items()
        for reason, count in sorted(reasons.items())
    ]


def _latency(session: Session) -> list[dict[str, Any]]:
    if session.live is not None:
        return [{"bundle": session.subjects[0].name, **row} for row in session.live.counts().latency]
    rows = []
    for (bundle, stage), times in session.times.items():
        p50, p95, p99 = np.percentile(np.frombuffer(times, np.float32), [50, 95, 99]).tolist()
        rows.append({"bundle": bundle, "stage": stage, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99})
    return rows


def _notes(session: Session) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = [session.bag.notice] if session.bag.notice else []
    notes += [f"the last bad {stream} image: {problem}" for stream, problem in session.jobs.reader.problems.items()]
    notes += [f"the last pair dropped by {reason}: {problem}" for reason, problem in session.problems.items()]
    if session.live is not None and (lost := session.dropped[NO_RESULT]):
        notes.append(f"{lost} of {lost + session.pairs} pairs of the bag have no result of the node and are left out")
    return notes + [
        f"{count} boxes of ground truth are of {name!r}, which {subject.name} does not find"
        for subject in session.subjects
        for name, count in subject.truth.foreign.items()
    ]


def load_bundles(folders: Sequence[Path], tasks: Sequence[str]) -> dict[str, Bundle]:
    """Bundles by their names in the report, with the wanted tasks.

    Raises:
        BagError: a task that is in no bundle, or two bundles without a task in common.
    """
    bundles = [load_bundle(folder) for folder in folders]
    names = [bundle.name for bundle in bundles]
    if len(set(names)) < len(names):
        names[1] += "-2"
    if wanted := [name for name in tasks if name]:
        for bundle in bundles:
            if missing := [name for name in wanted if name not in bundle.task_names]:
                raise BagError(
                    f"bundle {bundle.name} has no task {', '.join(missing)}; it has {', '.join(bundle.task_names)}"
                )
        bundles = [bundle.with_tasks([task for task in bundle.tasks if task.name in wanted]) for bundle in bundles]
    if len(bundles) > 1 and not set(bundles[0].task_names) & set(bundles[1].task_names):
        both = " and ".join(f"{bundle.name} ({', '.join(bundle.task_names)})" for bundle in bundles)
        raise BagError(f"--compare: {both} have no task in common")
    return dict(zip(names, bundles, strict=True))


def _json(report: Mapping[str, Any], lists: Mapping[str, Iterator[str]]) -> Iterator[str]:
    """A JSON object with the entries of `report`, and `lists` of rows that are JSON already, a line each."""
    text = json.dumps(report, indent=2, allow_nan=False)
    yield text[: text.rindex("}")].rstrip()
    for name, rows in lists.items():
        yield f",\n  {json.dumps(name)}: ["
        between = "\n"
        for row in rows:
            yield f"{between}    {row}"
            between = ",\n"
        yield "\n  ]"
    yield "\n}\n"
