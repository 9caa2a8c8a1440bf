"""The parts of the report that look at single frames: plots over time, and pictures of the worst ones."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from vifa_ros.bags.page_html import Html, is_finite, join, number, plain_number, tag
from vifa_ros.bags.page_plots import Mark, line_plot
from vifa_ros.bags.page_series import Line, Point, Series
from vifa_ros.bags.page_words import bundle_key, metric_heading, metric_words, of_task, swatch, tag_shades

MOST_PICTURES = 24  # that the page holds; of more, only the files are named
MOST_PIXELS = 640 * 640  # of a picture
_QUALITY = 82  # of its JPEG, 0..100

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


def over_time(series: Series, bundles: Sequence[str], pictures: Sequence[Picture]) -> Html | None:
    """A plot of every metric of every task over time, one line a bundle; None where there are no values."""
    if not series.lines:
        return None
    parts = [tag("p", _how_to_read(series.each))]
    if len(bundles) > 1:
        parts.append(_legend((bundle_key(index), name) for index, name in enumerate(bundles)))
    if len(series.tags) > 1:
        parts.append(
            _legend((swatch(shade), name) for shade, name in zip(tag_shades(series.tags), series.tags, strict=True))
        )
    for task in dict.fromkeys(task for task, _ in series.lines):
        metrics = [metric for of, metric in series.lines if of == task]
        figures = (_figure(series, task, metric, bundles, pictures) for metric in metrics)
        parts += [tag("h3", f"Task {task}"), tag("div", *figures, class_="plots")]
    return join(parts)


def _how_to_read(each: int) -> str:
    scales = "Seconds count from the first pair; every plot has its own scale, which need not begin at zero."
    if each == 1:
        return f"Each point is one pair. {scales}"
    return (
        f"There are more pairs than pixels, so each point stands for up to {each} pairs in a row: the line is their "
        f"mean, the pale band goes from their least to their greatest value. report.json has every pair. {scales}"
    )


def _legend(entries: Iterator[tuple[Html, str]]) -> Html:
    return tag("ul", *(tag("li", sign, name) for sign, name in entries), class_="legend")


def _figure(series: Series, task: str, metric: str, bundles: Sequence[str], pictures: Sequence[Picture]) -> Html:
    """One plot, or a sentence where no pair has a value."""
    of_bundles = series.lines[task, metric]
    lines = [of_bundles.get(name, Line()) for name in bundles]
    heading = tag("figcaption", metric_heading(metric))
    if not any(line.points for line in lines):
        return tag("figure", heading, tag("p", "No pair has a value."))
    shades = tag_shades(series.tags)
    said = " ".join(_summary(name, line.whole()) for name, line in zip(bundles, lines, strict=True) if line.points)
    plot = line_plot(
        f"{metric_words(metric)[0]} over time. {said}",
        (series.seconds(series.start), series.seconds(series.end)),
        [line.in_time() for line in lines],
        [(start, shades[number]) for start, number in series.strip()] if len(series.tags) > 1 else (),
        list(_marks(series, task, metric, pictures)),
    )
    return tag("figure", heading, plot)


def _summary(bundle: str, whole: Point) -> str:
    """What a plot shows of a bundle, in words."""
    (low, low_time), (high, high_time) = whole.low, whole.high
    return (
        f"{bundle}: mean {plain_number(whole.value)}, lowest {plain_number(low)} at {low_time:.2f} s, "
        f"highest {plain_number(high)} at {high_time:.2f} s."
    )


def _marks(series: Series, task: str, metric: str, pictures: Sequence[Picture]) -> Iterator[Mark]:
    for place, picture in enumerate(pictures, 1):
        for row in picture.rows:
            if (row["metric"], row["task"]) == (metric, task) and is_finite(row["value"]):
                seconds = series.seconds(row["stamp"])
                title = f"Worst frame {place}: {plain_number(row['value'])} at {seconds:.2f} s"
                yield Mark(seconds, row["value"], picture.id, title)


def worst_frames(pictures: Sequence[Picture], folder: Path, series: Series) -> Html | None:
    """The pictures with what is bad about them.

    Args:
        folder: where their files are.
        series: tells the seconds of their stamps.
    """
    if not pictures:
        return None
    figures = [
        tag(
            "figure",
            _picture(picture, folder, place <= MOST_PICTURES, series),
            tag("figcaption", *_caption(picture, place, series)),
            id=picture.id,
        )
        for place, picture in enumerate(pictures, 1)
    ]
    return tag("div", *figures, class_="pictures")


def _caption(picture: Picture, place: int, series: Series) -> Iterator[Html]:
    stamp = picture.rows[0]["stamp"]
    yield tag("h3", f"{place}. At {series.seconds(stamp):.2f} s")
    lines = (
        tag("li", tag("b", metric_words(row["metric"])[0]), " ", number(row["value"]), " ", of_task(row))
        for row in picture.rows
    )
    yield tag("ul", *lines)
    yield tag("p", "Stamp ", tag("code", stamp), " ns")


def _picture(picture: Picture, folder: Path, is_wanted: bool, series: Series) -> Html:
    """The picture as a JPEG in the page itself, no larger than it has to be; a wide one may be moved sideways."""
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
    words = f"Frame at {series.seconds(row['stamp']):.2f} s, task {row['task']}, by {row['bundle']}"
    source = f"data:image/jpeg;base64,{data.decode()}"
    shown = tag("img", src=source, width=image.shape[1], height=image.shape[0], alt=words)
    if width < 2 * height:
        return shown
    return tag("div", shown, class_="scroll", tabindex="0", role="group", aria_label=words)
