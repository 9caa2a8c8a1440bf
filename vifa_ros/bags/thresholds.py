"""Limits that a report must keep, for continuous integration: given as texts, or in a YAML file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.tallies import ALL, MAP, MIOU
from vifa_runtime.bundle import Task
from vifa_runtime.messages import first_line
from vifa_runtime.plain_yaml import PlainLoader

BELOW, ABOVE = "below", "above"
_TEXT = re.compile(r"(?P<task>[^:@=]+):(?P<metric>[^:@=]+)(@(?P<tag>[^:@=]+))?=(?P<limit>[^=]+)")
_SHAPE = "like road_users:map50_all=0.4, or road_users:map50_all@night=0.3"
_KEYS = {"task", "metric", "tag", BELOW, ABOVE}


@dataclass(frozen=True)
class Threshold:
    """A limit of one metric of the first bundle.

    Attributes:
        tag: of the pairs that count; `all` for all of them.
        side: `below` or `above`: on which side of `limit` a value fails. The limit itself passes.
    """

    task: str
    metric: str
    limit: float
    side: str = BELOW
    tag: str = ALL


def parse_threshold(text: str, side: str) -> Threshold:
    """Read the text of an option --fail-below or --fail-above: TASK:METRIC[@TAG]=VALUE.

    Raises:
        BagError: it is not of that form.
    """
    found = _TEXT.fullmatch(text)
    limit = _number(found["limit"]) if found else math.nan
    if found is None or not math.isfinite(limit):
        raise BagError(f"--fail-{side}: {text!r} is no threshold; write one {_SHAPE}")
    return Threshold(found["task"].strip(), found["metric"].strip(), limit, side, (found["tag"] or ALL).strip())


def read_thresholds(path: Path) -> list[Threshold]:
    """Read a YAML file: a list of `{task: road_users, metric: map50_all, below: 0.4}`, each maybe with a `tag`.

    Raises:
        BagError: no such file, or it is no such list; names the entry.
    """
    try:
        entries = yaml.load(path.read_text(), PlainLoader)
    except OSError as error:
        raise BagError(f"--thresholds: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BagError(f"{path} is no YAML: {first_line(error)}") from None
    if not isinstance(entries, list) or not entries:
        raise BagError(f"{path} holds no list; write one of {{task: road_users, metric: map50_all, below: 0.4}}")
    return [_read_entry(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]


def check_thresholds(thresholds: Iterable[Threshold], tasks: Sequence[Task], metrics: Sequence[str]) -> None:
    """Refuse thresholds that can never be judged, before long work.

    Args:
        tasks: of the first bundle.
        metrics: that are measured, as the user chose them.

    Raises:
        BagError: names the task or metric, and those there are.
    """
    known = {task.name: known_metrics(task, metrics) for task in tasks}
    for one in thresholds:
        if one.task not in known:
            raise BagError(f"threshold {describe(one)}: the bundle has no task {one.task}; it has {', '.join(known)}")
        if one.metric not in known[one.task]:
            listed = ", ".join(known[one.task]) or "nothing"
            raise BagError(f"threshold {describe(one)}: of {one.task}, {listed} is measured; see --metrics")


def known_metrics(task: Task, metrics: Sequence[str]) -> list[str]:
    """The metrics of a task that can be measured, of those that the user chose."""
    names = [known.name for known in task.classes]
    found = [metric for metric in metrics if metric not in (MAP, MIOU)]
    if task.kind == "detection" and MAP in metrics:
        found += ["map50_all", "map50_95_all", *(f"ap50_{name}" for name in names)]
    if task.kind == "segmentation" and MIOU in metrics:
        found += ["miou", *(f"iou_{name}" for name in names)]
    return found


def judge(thresholds: Iterable[Threshold], rows: Iterable[Mapping[str, Any]], bundle: str) -> list[dict[str, Any]]:
    """Rows `{bundle, task, metric, tag, side, limit, value, passed}`; what has no value (None) has not passed.

    Args:
        rows: `{bundle, tag, task, metric, value}`.
        bundle: the one that is judged.
    """
    values = {(row["task"], row["metric"], row["tag"]): row["value"] for row in rows if row["bundle"] == bundle}
    judged = []
    for one in thresholds:
        value = values.get((one.task, one.metric, one.tag))
        passed = value is not None and (value >= one.limit if one.side == BELOW else value <= one.limit)
        judged.append({"bundle": bundle, **vars(one), "value": value, "passed": passed})
    return judged


def describe(threshold: Threshold) -> str:
    """A threshold as the options have it."""
    tag = "" if threshold.tag == ALL else f"@{threshold.tag}"
    return f"{threshold.task}:{threshold.metric}{tag}={threshold.limit:g}"


def _read_entry(entry: Any, where: str) -> Threshold:
    shape = f"{where} must be like {{task: road_users, metric: map50_all, below: 0.4}}"
    if not isinstance(entry, dict) or not {"task", "metric"} <= set(entry) <= _KEYS:
        raise BagError(f"{shape}, with a tag or without")
    if not all(isinstance(entry.get(key, ""), str) for key in ("task", "metric", "tag")):
        raise BagError(f"{shape}: task, metric and tag are texts")
    sides = [side for side in (BELOW, ABOVE) if side in entry]
    if len(sides) != 1:
        raise BagError(f"{shape}: give one of {BELOW} and {ABOVE}")
    limit = entry[sides[0]]
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
        raise BagError(f"{shape}: {sides[0]} must be a number, got {limit!r:.40}")
    return Threshold(entry["task"], entry["metric"], float(limit), sides[0], entry.get("tag", ALL))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
