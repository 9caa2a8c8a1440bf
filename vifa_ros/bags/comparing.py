"""Two bundles on the same pairs: how far apart they are, and how sure that is."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.tallies import ALL, Rows, TaskTally
from vifa_runtime.metrics import DetectionMatches, mean_iou, paired_bootstrap, pooled_confusion, pooled_map50

SECONDS = 1.0  # of pairs that resemble each other, so that resamples keep them together
SMALLEST_PART = 10  # blocks that the smallest tag must have for resamples to differ
MOST_DETECTIONS = 5_000_000  # of a task, above which mAP has no interval: about 200 MB, and a second a resample
_FIRST, _SECOND = "first", "second"

Statistic = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Resampling:
    """How resamples are drawn: see `vifa_runtime.metrics.draw_resamples`.

    Attributes:
        resamples, seed: number and seed.
        rate: pairs a second, from which follows how many neighbours are drawn together.
    """

    resamples: int = 1000
    seed: int = 0
    rate: float = 0.0

    def block(self, count: int) -> int:
        """How many pairs in a row are drawn together, of `count` pairs."""
        return max(1, min(round(self.rate * SECONDS), count // SMALLEST_PART))


class Comparison:
    """Compares the tallies of two bundles, which have kept every pair's part."""

    def __init__(self, tags: Sequence[str], resampling: Resampling) -> None:
        """Make it for the pairs that have these tags, in their order."""
        self._tags = np.array(tags)
        self._resampling = resampling
        self.undefined: list[dict[str, Any]] = []

    def rows(self, first: TaskTally, second: TaskTally) -> Iterator[dict[str, Any]]:
        """Rows `{task, metric, tag, first, second, difference, low, high, pairs}` of one task, second minus first.

        `low` and `high` are the 95 % interval of the difference, None where no resample has one. What has no row is
        told in `undefined`.
        """
        task = first.task.name
        for metric in first.values:
            if metric in ("map50_all", "miou"):
                continue
            both = [np.frombuffer(tally.values[metric], np.float64) for tally in (first, second)]
            pairs = np.flatnonzero(np.isfinite(both[0]))  # those that were measured, of either bundle
            yield from self._compare(task, metric, [_mean_of(values[pairs]) for values in both], pairs)
        if first.detections is not None and second.detections is not None and len(first.labelled):
            yield from self._compare_boxes(first, second)
        if len(first.masked) and len(second.masked):
            yield from self._compare_masks(first, second)

    def _compare_boxes(self, first: TaskTally, second: TaskTally) -> Iterator[dict[str, Any]]:
        assert first.detections is not None and second.detections is not None
        if reason := _unlike(first, second, first.labelled, second.labelled):
            self._leave_out(first.task.name, "map50_all", reason)
        elif max(first.detections.detections, second.detections.detections) > MOST_DETECTIONS:
            reason = f"there are more than {MOST_DETECTIONS} detections, too many to draw resamples of"
            self._leave_out(first.task.name, "map50_all", reason)
        else:
            pairs = np.array(first.labelled, np.int64)
            both = [_map_of(tally.detections.load()) for tally in (first, second) if tally.detections is not None]
            yield from self._compare(first.task.name, "map50_all", both, pairs)

    def _compare_masks(self, first: TaskTally, second: TaskTally) -> Iterator[dict[str, Any]]:
        if reason := _unlike(first, second, first.masked, second.masked):
            self._leave_out(first.task.name, "miou", reason)
            return
        both = [_iou_of(np.array(tally.confusions)) for tally in (first, second)]
        yield from self._compare(first.task.name, "miou", both, np.array(first.masked, np.int64))

    def _compare(
        self, task: str, metric: str, both: Sequence[Callable[[NDArray], Statistic]], pairs: NDArray[np.int64]
    ) -> Iterator[dict[str, Any]]:
        """Rows of one metric by tag. `pairs` are the numbers of the pairs that it is of.

        Args:
            both: of each bundle: from which of `pairs` count to the metric of a resample of these.
        """
        tags = self._tags[pairs]
        for tag in dict.fromkeys((ALL, *tags.tolist())):
            chosen = np.flatnonzero((tags == tag) | (tag == ALL))
            statistics = {name: make(chosen) for name, make in zip((_FIRST, _SECOND), both, strict=True)}
            of_tags = tags[chosen]
            smallest = min(np.unique(of_tags, return_counts=True)[1])
            settings = self._resampling
            found = paired_bootstrap(
                statistics,
                len(chosen),
                _FIRST,
                settings.resamples,
                seed=settings.seed,
                groups=of_tags,
                block=settings.block(int(smallest)),
            )
            difference = found[_SECOND].difference
            if not math.isfinite(difference.value):
                self._leave_out(task, metric, f"it has no value on the pairs of {tag}")
                continue
            yield {
                "task": task,
                "metric": metric,
                "tag": tag,
                "first": found[_FIRST].metric.value,
                "second": found[_SECOND].metric.value,
                "difference": difference.value,
                "low": difference.low if math.isfinite(difference.low) else None,
                "high": difference.high if math.isfinite(difference.high) else None,
                "pairs": len(chosen),
            }

    def _leave_out(self, task: str, metric: str, reason: str) -> None:
        self.undefined.append({"bundle": None, "task": task, "metric": metric, "reason": f"not compared: {reason}"})


def differences(frames: Rows, first: str, second: str) -> Iterator[dict[str, Any]]:
    """Rows `{index, stamp, tag, task, metric: second minus first, ...}`, of every pair and task that both have.

    Args:
        frames: of both bundles, those of one pair after those of the one before.
    """
    held: dict[str, Mapping[str, Any]] = {}
    keys = ("index", "stamp", "tag", "task")
    for row in map(json.loads, frames.lines()):
        if row["bundle"] == first:
            held = {} if held and next(iter(held.values()))["index"] != row["index"] else held
            held[row["task"]] = row
        elif (other := held.get(row["task"])) is not None and row["bundle"] == second:
            common = [key for key in row if key in other and key not in (*keys, "bundle", "name")]
            yield {**{key: row[key] for key in keys}, **{key: row[key] - other[key] for key in common}}


def _unlike(first: TaskTally, second: TaskTally, pairs: array[int], others: array[int]) -> str:
    """Why what two bundles found cannot be compared; empty where it can."""
    if first.names != second.names:
        return f"the classes are {', '.join(first.names)} and {', '.join(second.names)}"
    return "" if pairs == others else "labels are known for different pairs"


def _mean_of(values: NDArray[np.float64]) -> Callable[[NDArray], Statistic]:
    return lambda chosen: lambda drawn: float(values[chosen[drawn]].mean())


def _iou_of(confusions: NDArray[np.int64]) -> Callable[[NDArray], Statistic]:
    return lambda chosen: lambda drawn: mean_iou(pooled_confusion(confusions, chosen[drawn]))


def _map_of(matches: DetectionMatches) -> Callable[[NDArray], Statistic]:
    """mAP@0.5 over the classes that have a box in the chosen pairs; NaN for a resample that lacks one of them."""

    def make(chosen: NDArray) -> Statistic:
        there = np.flatnonzero(matches.ground_truths[chosen].any(axis=0)).tolist()

        def statistic(drawn: NDArray[np.int64]) -> float:
            images = chosen[drawn]
            if not there or not matches.ground_truths[np.ix_(images, there)].any(axis=0).all():
                return math.nan
            return pooled_map50(matches, images, there)

        return statistic

    return make
