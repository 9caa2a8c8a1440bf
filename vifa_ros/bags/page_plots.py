"""Small pictures for the report, as SVG that is part of the page and takes its colours from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

from vifa_ros.bags.page_html import Html, tag
from vifa_ros.bags.page_series import Point

_WIDTH, _HEIGHT = 256, 160  # of a plot: narrower than a phone, so that its text is never scaled down
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 246.0, 8.0, 128.0  # of the frame inside
_GAP = 5.0  # a line is broken where nothing came for so many times the usual distance


@dataclass(frozen=True)
class Mark:
    """A frame to point at: its seconds and value, the id of what it leads to, and a title."""

    time: float
    value: float
    target: str
    title: str


def line_plot(
    description: str,
    seconds: tuple[float, float],
    lines: Sequence[Sequence[Point]],
    strip: Sequence[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
) -> Html:
    """A plot of values over time, one line a bundle.

    Args:
        description: what a screen reader says of it.
        seconds: the first and the last, of all that was measured.
        lines: one of them has a point at least.
        strip: (seconds from which on, class of the shade), shown below the plot.
    """
    bounds = [bound for line in lines for point in line for bound in (point.low[0], point.high[0])]
    bounds += [mark.value for mark in marks]
    across = _Scale(*seconds, _LEFT, _RIGHT)
    up = _Scale(min(bounds), max(bounds), _BOTTOM, _TOP, margin=0.06)
    return tag(
        "svg",
        tag("g", *_axes(across, up), *_shades(strip, seconds[1], across), aria_hidden="true"),
        *(
            tag("g", *_curves(line, across, up), class_=f"bundle{index}", aria_hidden="true")
            for index, line in enumerate(lines)
        ),
        *(_link(mark, across, up) for mark in marks),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="group" if marks else "img",
        aria_label=description,
        class_="plot",
    )


def share_bar(shares: Iterable[tuple[str, int]], total: int) -> Html:
    """A bar of stacked parts, (class, count) each, of `total`; what is left of it is of the class `rest`."""
    parts, left = [tag("rect", x=0, y=0, width=200, height=10, class_="rest")], 0.0
    for class_, count in shares:
        width = 200 * count / total if total else 0.0
        parts.append(tag("rect", x=f"{left:.1f}", y=0, width=f"{width:.1f}", height=10, class_=class_))
        left += width
    return _bar(10, *parts)


def spread_bar(p50: float, p95: float, p99: float, most: float) -> Html:
    """A bar to the median, a line on to the 99th percentile and a tick at the 95th; `most` is the whole width."""
    half, high, end = (198 * value / most if most else 0.0 for value in (p50, p95, p99))
    return _bar(
        10,
        tag("rect", x=0, y=2, width=f"{half:.1f}", height=6, class_="paired"),
        tag("path", d=f"M{half:.1f},5H{end:.1f}M{high:.1f},1V9", class_="whisker"),
    )


def interval_bar(difference: float, low: float, high: float) -> Html:
    """An interval and its estimate, in a scale of their own with zero in the middle."""
    most = max(abs(low), abs(high), abs(difference)) or 1.0
    left, middle, right = (100 + 92 * value / most for value in (low, difference, high))
    return _bar(
        14,
        tag("path", d="M100,0V14", class_="zero"),
        tag("path", d=f"M{left:.1f},3V11M{right:.1f},3V11M{left:.1f},7H{right:.1f}", class_="whisker"),
        tag("circle", cx=f"{middle:.1f}", cy=7, r=4, class_="paired"),
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """The round numbers from `low` to `high`, `most` at the most: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low, high: finite, low < high.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        first, last = math.ceil(low / (factor * power)), math.floor(high / (factor * power))
        if last - first < most:
            break
    return [index * factor * power for index in range(first, last + 1)]


class _Scale:
    """Values to pixels, in one direction."""

    def __init__(self, low: float, high: float, start: float, end: float, margin: float = 0.0) -> None:
        """`margin` is a share of the range, added at both ends. A range of nothing lies in the middle."""
        spare, size = (high - low) * margin, max(abs(low), abs(high))
        if high - low <= max(1e-9 * size, 1e-12):
            spare = max(0.1 * size, 1e-3)
        self.low, self.high = low - spare, high + spare
        self._start, self._factor = start, (end - start) / (self.high - self.low)

    def __call__(self, value: float) -> str:
        return f"{self._start + (value - self.low) * self._factor:.1f}"


def _axes(across: _Scale, up: _Scale) -> Iterator[Html]:
    for value in ticks(up.low, up.high):
        yield tag("path", d=f"M{_LEFT:.0f},{up(value)}H{_RIGHT:.0f}", class_="grid")
        yield tag("text", _tick_text(value), x=_LEFT - 6, y=up(value), dy="0.35em", text_anchor="end")
    for value in ticks(across.low, across.high):
        yield tag("text", f"{_tick_text(value)} s", x=across(value), y=_HEIGHT - 6, text_anchor="middle")


def _tick_text(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.6g}".replace("-", "−")


def _shades(strip: Sequence[tuple[float, str]], end: float, across: _Scale) -> Iterator[Html]:
    """The strip below a plot: one piece as long as the tag stays."""
    starts = [(next(run)[0], shade) for shade, run in groupby(strip, key=lambda piece: piece[1])]
    stops = [*(start for start, _ in starts[1:]), end]
    for (start, shade), stop in zip(starts, stops, strict=False):  # without a start there is nothing to stop
        width = float(across(stop)) - float(across(start))
        yield tag(
            "rect",
            x=across(start),
            y=_BOTTOM + 3,
            width=f"{max(width, 0.5):.1f}",
            height=6,
            class_=shade,
        )


def _curves(line: Sequence[Point], across: _Scale, up: _Scale) -> Iterator[Html]:
    """The line, the band from least to greatest value around it, and points that stand alone as dots."""
    for run in _runs(line):
        xs, ys = [across(point.time) for point in run], [up(point.value) for point in run]
        if len(run) == 1:
            yield tag("circle", cx=xs[0], cy=ys[0], r=2, class_="dot")
            continue
        if any(point.low[0] != point.high[0] for point in run):
            edge = [f"{x},{up(point.high[0])}" for x, point in zip(xs, run, strict=True)]
            back = [f"{x},{up(point.low[0])}" for x, point in zip(xs, run, strict=True)]
            yield tag("path", d=f"M{' '.join(edge + back[::-1])}Z", class_="band")
        yield tag("path", d=f"M{' '.join(f'{x},{y}' for x, y in zip(xs, ys, strict=True))}", class_="curve")


def _runs(line: Sequence[Point]) -> list[list[Point]]:
    """A line in pieces without a gap."""
    distances = [later.time - earlier.time for earlier, later in pairwise(line)]
    longest = _GAP * median(distances) if distances else 0.0
    runs = [list(line[:1])]
    for point, distance in zip(line[1:], distances, strict=True):
        if distance > longest:
            runs.append([])
        runs[-1].append(point)
    return [run for run in runs if run]


def _link(mark: Mark, across: _Scale, up: _Scale) -> Html:
    x, y = across(mark.time), up(mark.value)
    return tag(
        "a",
        tag("title", mark.title),
        tag("circle", cx=x, cy=y, r=11, class_="reach"),
        tag("circle", cx=x, cy=y, r=4, class_="mark"),
        href=f"#{mark.target}",
        aria_label=mark.title,
    )


def _bar(height: int, *parts: Html) -> Html:
    """A picture of a table's cell, 200 wide; the numbers in the other cells say the same."""
    return tag("svg", *parts, viewBox=f"0 0 200 {height}", aria_hidden="true", class_="bar")
