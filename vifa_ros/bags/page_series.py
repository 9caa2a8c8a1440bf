"""Values of single pairs, put together to few enough points to draw: in one pass, in the same memory for any bag."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vifa_ros.bags.page_html import is_finite, is_number

MOST_POINTS = 200  # of a line

_NO_METRICS = frozenset({"index", "stamp", "tag", "bundle", "task"})


@dataclass
class Point:
    """What one point of a line stands for: a pair, or some in a row.

    Attributes:
        count: how many values.
        seconds, total: sums of their times and of the values.
        low, high: (value, seconds) of the least and of the greatest.
    """

    count: int = 0
    seconds: float = 0.0
    total: float = 0.0
    low: tuple[float, float] = (math.inf, 0.0)
    high: tuple[float, float] = (-math.inf, 0.0)

    def join(self, other: Point) -> None:
        """Take in another point; what is equal stays the earlier one's."""
        self.count += other.count
        self.seconds += other.seconds
        self.total += other.total
        self.low = min(self.low, other.low, key=lambda one: one[0])
        self.high = max(self.high, other.high, key=lambda one: one[0])

    @property
    def time(self) -> float:
        """Their mean, seconds."""
        return self.seconds / self.count

    @property
    def value(self) -> float:
        """Their mean."""
        return self.total / self.count


@dataclass
class Line:
    """One metric of one task and bundle: number of the point -> the point; empty where no pair has a value."""

    points: dict[int, Point] = field(default_factory=dict)

    def in_time(self) -> list[Point]:
        """The points in the order of time."""
        return sorted(self.points.values(), key=lambda point: point.time)

    def whole(self) -> Point:
        """All values as one point."""
        whole = Point()
        for point in self.in_time():
            whole.join(point)
        return whole


class Series:
    """The lines of all metrics.

    Attributes:
        each: how many pairs in a row a point stands for: a power of two.
        lines: (task, metric) -> bundle -> line.
        tags, bundles: in the order in which they came.
    """

    def __init__(self, frames: Iterable[Mapping[str, Any]]) -> None:
        """Read rows `{index, stamp, tag, bundle, task, <metric>: value, ...}`, any number of them, once.

        `index` counts pairs, `stamp` is in nanoseconds. Entries that are no numbers are no metrics; NaN and infinite
        values belong to no point.
        """
        self.each = 1
        self.lines: dict[tuple[str, str], dict[str, Line]] = {}
        self.tags: list[str] = []
        self.bundles: list[str] = []
        self._strip: dict[int, tuple[int, int]] = {}  # number of the point -> stamp and tag of its first pair
        self._first: int | None = None
        self.start = self.end = 0
        for row in frames:
            self._add(row)

    def seconds(self, stamp: int) -> float:
        """From the first pair that was read to a stamp; what comes before it is negative."""
        return (stamp - (self._first or 0)) * 1e-9

    def strip(self) -> list[tuple[float, int]]:
        """(seconds, number of the tag) of the first pair of every point, in the order of time."""
        return [(self.seconds(stamp), tag) for stamp, tag in sorted(self._strip.values())]

    def _add(self, row: Mapping[str, Any]) -> None:
        stamp, bundle, tag = row["stamp"], row["bundle"], row["tag"]
        if self._first is None:
            self._first = self.start = self.end = stamp
        self.start, self.end = min(self.start, stamp), max(self.end, stamp)
        for known, name in ((self.tags, tag), (self.bundles, bundle)):
            if name not in known:
                known.append(name)
        while row["index"] // self.each >= MOST_POINTS:
            self._halve()
        place, seconds = row["index"] // self.each, self.seconds(stamp)
        self._strip.setdefault(place, (stamp, self.tags.index(tag)))
        for metric, value in row.items():
            if metric in _NO_METRICS or not is_number(value):
                continue
            line = self.lines.setdefault((row["task"], metric), {}).setdefault(bundle, Line())
            if is_finite(value):
                one = Point(1, seconds, value, (value, seconds), (value, seconds))
                line.points.setdefault(place, Point()).join(one)

    def _halve(self) -> None:
        """Let every point stand for twice as many pairs."""
        self.each *= 2
        for line in (line for lines in self.lines.values() for line in lines.values()):
            halved: dict[int, Point] = {}
            for place, point in line.points.items():
                halved.setdefault(place // 2, Point()).join(point)
            line.points = halved
        strip, self._strip = self._strip, {}
        for place, first in strip.items():
            self._strip.setdefault(place // 2, first)
