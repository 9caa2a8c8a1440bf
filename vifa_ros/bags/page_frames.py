"""The parts of the report that look at single frames: plots over time, and pictures of the worst ones."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

import cv2
import numpy as np

from vifa_ros.bags.page_html import Html, is_finite, is_number, join, number, plain_number, tag
from vifa_ros.bags.page_plots import Mark, frames_a_point, line_plot, thin
from vifa_ros.bags.page_words import bundle_key, metric_heading, metric_words, tag_key

MOST_PICTURES = 24  # that the page holds; of more, only the files are named
MOST_PIXELS = 640 * 480  # of a picture
_QUALITY = 82  # of its JPEG, 0..100

_NO_METRICS = frozenset({"index", "stamp", "tag", "bundle", "task"})

Row = Mapping[str, Any]


@dataclass
class Picture:
    """One file of the folder `worst`, and the rows whose worst frame it shows."""

    id: str
    file: str
    rows: list[Row] = field(default_factory=list)


def collect_pictures(worst: Sequence[Row]) -> list[Picture]:
    """The pictures of the rows of `worst`, each file once, in their order."""
    found: dict[str, Picture] = {}
    for row in worst:
        file = PurePath(str(row["file"])).name  # wherever a path leads, the pictures lie in one folder
        found.setdefault(file, Picture(f"picture-{len(found) + 1}", file)).rows.append(row)
    return list(found.values())


@dataclass(frozen=True)
class _Plots:
    """What all plots share: lines, shades, pictures to point at, and the time of their axis in nanoseconds."""

    bundles: Sequence[str]
    tags: Sequence[str]
    pictures: Sequence[Picture]
    start: int
    end: int
    each: int

    def seconds(self, row: Row) -> float:
        return (row["stamp"] - self.start) * 1e-9


def over_time(frames: Sequence[Row], bundles: Sequence[str], pictures: Sequence[Picture], start: int) -> Html | None:
    """A plot of every metric of every task over time, one line a bundle; None without frames.

    Args:
        start: nanoseconds, where the page's seconds begin.
    """
    if not frames:
        return None
    frames = sorted(frames, key=lambda row: row["stamp"])
    tags = list(dict.fromkeys(row["tag"] for row in frames))
    each = frames_a_point(len({row["index"] for row in frames}))
    plots = _Plots(bundles, tags, pictures, start, frames[-1]["stamp"], each)
    parts = [tag("p", _how_to_read(each))]
    if len(bundles) > 1:
        parts.append(_legend((bundle_key(index), name) for index, name in enumerate(bundles)))
    if len(tags) > 1:
        parts.append(_legend((tag_key(index), name) for index, name in enumerate(tags)))
    for task in dict.fromkeys(row["task"] for row in frames):
        own = [row for row in frames if row["task"] == task]
        metrics = dict.fromkeys(name for row in own for name in row if name not in _NO_METRICS)
        figures = (_figure(plots, own, metric) for metric in metrics)
        parts += [tag("h3", f"Task {task}"), tag("div", *figures, class_="plots")]
    return join(parts)


def _how_to_read(each: int) -> str:
    scales = "Seconds count from the first pair; every plot has its own scale, which need not begin at zero."
    if each == 1:
        return f"Each point is one pair. {scales}"
    return (
        f"There are more pairs than pixels, so each point stands for {each} pairs in a row: the line is their mean, "
        f"the pale band goes from their least to their greatest value. report.json has every pair. {scales}"
    )


def _legend(entries: Iterator[tuple[Html, str]]) -> Html:
    return tag("ul", *(tag("li", sign, name) for sign, name in entries), class_="legend")


def _figure(plots: _Plots, frames: Sequence[Row], metric: str) -> Html | None:
    """One plot, or a sentence where no pair has a value; None where the key holds no numbers at all."""
    if not any(is_number(row.get(metric)) for row in frames):
        return None
    values = [
        [(plots.seconds(row), row[metric]) for row in frames if row["bundle"] == name and is_finite(row.get(metric))]
        for name in plots.bundles
    ]
    heading = tag("figcaption", metric_heading(metric))
    if not any(values):
        return tag("figure", heading, tag("p", "No pair has a value."))
    said = " ".join(_summary(name, own) for name, own in zip(plots.bundles, values, strict=True) if own)
    tags = [(plots.seconds(row), plots.tags.index(row["tag"])) for row in frames]
    plot = line_plot(
        f"{metric_words(metric)[0]} over time. {said}",
        (0.0, (plots.end - plots.start) * 1e-9),
        [thin(own, plots.each) for own in values],
        tags if len(plots.tags) > 1 else (),
        list(_marks(plots, metric, frames[0]["task"])),
    )
    return tag("figure", heading, plot)


def _summary(bundle: str, values: Sequence[tuple[float, float]]) -> str:
    """What a plot shows of a bundle, in words."""
    (low_time, low), (high_time, high) = (choose(values, key=lambda one: one[1]) for choose in (min, max))
    return (
        f"{bundle}: mean {plain_number(fmean(value for _, value in values))}, "
        f"lowest {plain_number(low)} at {low_time:.2f} s, highest {plain_number(high)} at {high_time:.2f} s."
    )


def _marks(plots: _Plots, metric: str, task: str) -> Iterator[Mark]:
    for place, picture in enumerate(plots.pictures, 1):
        for row in picture.rows:
            if (row["metric"], row["task"]) == (metric, task) and is_finite(row["value"]):
                seconds = plots.seconds(row)
                title = f"Worst frame {place}: {plain_number(row['value'])} at {seconds:.2f} s"
                yield Mark(seconds, row["value"], picture.id, title)


def worst_frames(pictures: Sequence[Picture], folder: Path, start: int) -> Html | None:
    """The pictures with what is bad about them.

    Args:
        folder: where their files are.
        start: nanoseconds, where the page's seconds begin.
    """
    if not pictures:
        return None
    figures = [
        tag(
            "figure",
            _picture(picture, folder, place <= MOST_PICTURES, start),
            tag("figcaption", *_caption(picture, place, start)),
            id=picture.id,
        )
        for place, picture in enumerate(pictures, 1)
    ]
    return tag("div", *figures, class_="pictures")


def _caption(picture: Picture, place: int, start: int) -> Iterator[Html]:
    stamp = picture.rows[0]["stamp"]
    yield tag("h3", f"{place}. At {(stamp - start) * 1e-9:.2f} s")
    lines = (
        tag(
            "li",
            tag("b", metric_words(row["metric"])[0]),
            " ",
            number(row["value"]),
            f" {row['task']}, {row['bundle']}",
        )
        for row in picture.rows
    )
    yield tag("ul", *lines)
    yield tag("p", "Stamp ", tag("code", stamp), " ns")


def _picture(picture: Picture, folder: Path, is_wanted: bool, start: int) -> Html:
    """The picture as a JPEG in the page itself, no larger than it has to be."""
    if not is_wanted:
        return tag("p", "In the folder worst: ", tag("code", picture.file))
    try:
        image = cv2.imdecode(np.frombuffer((folder / picture.file).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, ValueError, cv2.error):  # not there, a name that no file can have, an empty file
        image = None
    if image is None:
        return tag("p", "Not a picture that can be read: worst/", tag("code", picture.file), class_="bad")
    height, width = image.shape[:2]
    scale = (MOST_PIXELS / (height * width)) ** 0.5
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
    row = picture.rows[0]
    return tag(
        "img",
        src=f"data:image/jpeg;base64,{data.decode()}",
        width=image.shape[1],
        height=image.shape[0],
        alt=f"Frame at {(row['stamp'] - start) * 1e-9:.2f} s, task {row['task']}, by {row['bundle']}",
    )
