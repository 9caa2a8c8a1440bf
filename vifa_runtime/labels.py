"""Labels on disk: YOLO text, Pascal VOC XML, VEDAI annotations and class-id masks become arrays.

Boxes are (N,4) float32, x1 y1 x2 y2 in pixels, clipped to the image; labels are (N,) int64, the class of each box;
masks are (H,W) uint8 class ids, 255 where unknown. Everything wrong in one file is told at once, with its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.metrics.matching import Labels
from vifa_runtime.pairs import PairError, decode_image, read_bytes
from vifa_runtime.voc import VocError, VocObject, parse_voc_xml

Row = TypeVar("Row")

UNKNOWN = 255  # in masks
YOLO_TOLERANCE = 1e-3  # by which rounding may push a normalised value out of 0..1

# Codes of VEDAI's annotation files. Motorcycles (7) and buses (8) count as "other", as in the data set's paper.
VEDAI_CLASSES = ("car", "truck", "tractor", "camping car", "van", "other", "pickup", "boat", "plane")
_VEDAI_CODES = {1: 0, 2: 1, 4: 2, 5: 3, 9: 4, 10: 5, 7: 5, 8: 5, 11: 6, 23: 7, 31: 8}
_VEDAI_COLUMNS, _VEDAI_TABLE_COLUMNS = 14, 15
_VEDAI_WITHOUT_CORNERS = 5


class LabelError(PairError):
    """Labels that cannot be read; `problems` holds one text each, with file, line and mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def parse_yolo(text: str, size: tuple[int, int], class_count: int | None, source: str) -> Labels:
    """Read YOLO text: a line `class cx cy w h` an object, all but the class as shares of width and height.

    Args:
        text: the file's content; empty where nothing is there.
        size: (height, width) of the image, pixels.
        class_count: classes are 0 up to this; None where it isn't known.
        source: name for messages.

    Raises:
        LabelError: names every wrong line.
    """

    def read(words: list[str]) -> tuple[int, list[float]]:
        if len(words) != 5:
            raise ValueError(f"has {len(words)} words; expected `class cx cy w h`")
        label = _class_number(words[0])
        if class_count is not None and label >= class_count:
            raise ValueError(f"has class {label}, but there are {class_count}; correct it or name more classes")
        cx, cy, width, height = _numbers(words[1:])
        if not all(-YOLO_TOLERANCE <= value <= 1 + YOLO_TOLERANCE for value in (cx, cy, width, height)):
            raise ValueError(f"has {' '.join(words[1:])}; expected shares of the image in 0..1")
        if width <= 0 or height <= 0:
            raise ValueError("has a box without area; remove it")
        corners = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
        scaled = [value * size[1 - axis % 2] for axis, value in enumerate(corners)]
        if _clip(scaled, size) is None:
            raise ValueError("has a box outside the image; remove it")
        return label, scaled

    return _collect(_parse_lines(text, source, read), size)


def format_yolo(labels: Labels, size: tuple[int, int]) -> str:
    """Write boxes as `parse_yolo` reads them, exact to a thousandth of a pixel.

    Args:
        labels: boxes in pixels.
        size: (height, width) of the image, pixels.
    """
    height, width = size
    lines = []
    for (left, top, right, bottom), label in zip(labels.boxes.astype(float), labels.labels, strict=True):
        centre, extent = ((left + right) / 2 / width, (top + bottom) / 2 / height), (right - left, bottom - top)
        lines.append(f"{label} {centre[0]:.8f} {centre[1]:.8f} {extent[0] / width:.8f} {extent[1] / height:.8f}\n")
    return "".join(lines)


def parse_voc(data: bytes, size: tuple[int, int], classes: Sequence[str], source: str) -> Labels:
    """Read a Pascal VOC annotation, as M3FD has them; names compare without regard to case.

    Corners are taken as the edges of the box, as the data set's authors do.

    Args:
        data: the XML file's content.
        size: (height, width) of the image, pixels; an annotation that was made for another size is refused.
        classes: names in order.
        source: name for messages.

    Raises:
        LabelError: no XML, a document type or entities in it, an unknown name, a box that is incomplete or outside.
    """
    numbers = {name.casefold(): number for number, name in enumerate(classes)}
    try:
        annotation = parse_voc_xml(data)
    except VocError as error:
        raise LabelError([f"{source}: {error}"]) from None
    problems, found = [], []
    # Some tools write 0 where they did not know the size.
    if annotation.size and all(annotation.size) and annotation.size != size:
        height, width = annotation.size
        problems.append(
            f"{source}: is made for an image of {width}x{height}, the image is {size[1]}x{size[0]}; use the image "
            "that was labelled"
        )
    for item in annotation.objects:
        try:
            found.append(_read_voc_object(item, size, numbers))
        except ValueError as error:
            problems.append(f"{source}, line {item.line}: {error}")
    if problems:
        raise LabelError(problems)
    return _collect(found, size)


def parse_vedai(text: str, size: tuple[int, int], source: str) -> Labels | None:
    """Read the annotation of one VEDAI image: `x y orientation class contained occluded x1..x4 y1..y4` a line.

    The oriented box becomes the smallest upright one around its four corners. Vehicles outside the image are left out.

    Args:
        text: the file's content.
        size: (height, width) of the image, pixels; of 512 or 1024, whichever the annotation was made for.
        source: name for messages.

    Returns:
        Boxes with classes of `VEDAI_CLASSES`; None where a line has no corners, as in a few files of the data set.

    Raises:
        LabelError: names every wrong line.
    """
    return _collect_vedai(_parse_lines(text, source, _read_vedai_row), size)


def parse_vedai_table(text: str, size: tuple[int, int], source: str) -> dict[str, Labels | None]:
    """Read VEDAI's one file for all images: `name x y orientation x1..x4 y1..y4 class contained occluded` a line.

    Args:
        text, size, source: as of `parse_vedai`.

    Returns:
        Name of the image -> as `parse_vedai`.

    Raises:
        LabelError: names every wrong line.
    """

    def read(words: list[str]) -> tuple[str, tuple[int, list[float]] | None]:
        name, rest = words[0], words[1:]
        if len(words) == _VEDAI_WITHOUT_CORNERS + 1:
            return name, None
        if len(words) != _VEDAI_TABLE_COLUMNS:
            raise ValueError(f"has {len(words)} columns; expected {_VEDAI_TABLE_COLUMNS}")
        return name, _read_vedai_row([*rest[:3], *rest[11:], *rest[3:11]])

    rows: dict[str, list[tuple[int, list[float]] | None]] = {}
    for name, row in _parse_lines(text, source, read):
        rows.setdefault(name, []).append(row)
    return {name: _collect_vedai(found, size) for name, found in rows.items()}


def check_mask(image: NDArray, class_count: int | None, source: str) -> NDArray[np.uint8]:
    """Check a class-id mask; three equal channels become one.

    Args:
        image: as it was read, (H,W) or (H,W,C).
        class_count: ids are 0 up to this, or 255 for unknown; None where it isn't known.
        source: name for messages.

    Returns:
        (H,W) uint8.

    Raises:
        LabelError: a colour image, another depth, or an id out of range.
    """
    if image.ndim == 3:
        if not (image[:, :, :1] == image[:, :, :3]).all():
            raise LabelError([f"{source} is a colour image (or one with a palette); save the class ids as gray levels"])
        image = image[:, :, 0]
    if image.dtype != np.uint8:
        raise LabelError([f"{source} holds {image.dtype}; save the class ids in 8 bits"])
    if class_count is not None:
        ids = np.unique(image)
        wrong = ids[(ids >= class_count) & (ids != UNKNOWN)]
        if len(wrong):
            shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise LabelError([f"{source} has the class ids {shown}; expected 0..{class_count - 1}, or 255 for unknown"])
    return np.ascontiguousarray(image)


def read_yolo(path: Path, size: tuple[int, int], class_count: int | None) -> Labels:
    """Read a YOLO text file; see `parse_yolo`."""
    return parse_yolo(read_text(path), size, class_count, str(path))


def read_voc(path: Path, size: tuple[int, int], classes: Sequence[str]) -> Labels:
    """Read a Pascal VOC annotation file; see `parse_voc`."""
    return parse_voc(read_bytes(path).tobytes(), size, classes, str(path))


def read_mask(path: Path, class_count: int | None) -> NDArray[np.uint8]:
    """Read a class-id mask, (H,W) uint8; see `check_mask`."""
    return check_mask(decode_image(path, cv2.IMREAD_UNCHANGED), class_count, str(path))


def read_text(path: Path) -> str:
    """Read a text file, which may be empty.

    Raises:
        LabelError: it is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError([f"cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise LabelError([f"{path} is no text in UTF-8; save it as such"]) from None


def _parse_lines(text: str, source: str, read: Callable[[list[str]], Row]) -> list[Row]:
    """Apply `read` to the words of every line that has any."""
    rows, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not (words := line.split()):
            continue
        try:
            rows.append(read(words))
        except ValueError as error:
            problems.append(f"{source}, line {number}: {error}")
    if problems:
        raise LabelError(problems)
    return rows


def _read_voc_object(item: VocObject, size: tuple[int, int], numbers: Mapping[str, int]) -> tuple[int, list[float]]:
    label = numbers.get(item.name.casefold())
    if label is None:
        raise ValueError(f"the class {item.name!r} is unknown; use one of {', '.join(numbers)}")
    missing = [key for key in ("xmin", "ymin", "xmax", "ymax") if key not in item.box]
    if missing:
        raise ValueError(f"the box lacks {', '.join(missing)}; add or remove it")
    box = _numbers([item.box[key] for key in ("xmin", "ymin", "xmax", "ymax")])
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("the box has no area; remove it")
    if _clip(box, size) is None:
        raise ValueError("the box is outside the image; remove it")
    return label, box


def _read_vedai_row(words: list[str]) -> tuple[int, list[float]] | None:
    if len(words) == _VEDAI_WITHOUT_CORNERS:
        return None
    if len(words) != _VEDAI_COLUMNS:
        raise ValueError(f"has {len(words)} columns; expected {_VEDAI_COLUMNS}")
    code = _class_number(words[3])
    if code not in _VEDAI_CODES:
        raise ValueError(f"has the class code {code}; expected one of {', '.join(map(str, sorted(_VEDAI_CODES)))}")
    corners = _numbers(words[6:])
    x, y = corners[:4], corners[4:]
    return _VEDAI_CODES[code], [min(x), min(y), max(x), max(y)]


def _collect_vedai(rows: Sequence[tuple[int, list[float]] | None], size: tuple[int, int]) -> Labels | None:
    boxes = [row for row in rows if row is not None]
    return _collect(boxes, size) if len(boxes) == len(rows) else None


def _collect(rows: Sequence[tuple[int, list[float]]], size: tuple[int, int]) -> Labels:
    """Clip boxes to the image and put them into arrays; boxes outside it are left out."""
    kept = [(label, clipped) for label, box in rows if (clipped := _clip(box, size)) is not None]
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    return Labels(boxes, np.array([label for label, _ in kept], np.int64))


def _clip(box: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    height, width = size
    left, right = (min(max(value, 0.0), width) for value in (box[0], box[2]))
    top, bottom = (min(max(value, 0.0), height) for value in (box[1], box[3]))
    return [left, top, right, bottom] if left < right and top < bottom else None


def _class_number(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"has the class {word[:20]!r}; expected a whole number")
    return int(word[:9])


def _numbers(words: Sequence[str]) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"has {' '.join(words)[:60]!r}; expected numbers")
    return values
