"""Pictures for people: contact sheets, and overlays of what was found in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.geometry import resize
from vifa_runtime.luma import LUMA_WEIGHTS
from vifa_runtime.palette import Colour

if TYPE_CHECKING:
    from vifa_runtime.bundle import Task, TaskClass
    from vifa_runtime.metrics import Detections
    from vifa_runtime.pipeline import Results

LABEL_HEIGHT = 24
GAP = 4
_PAPER, _INK = 255, (20, 20, 20)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_A_ROW, _SMALLEST_TEXT = 1 / 960, 0.4  # font scale by rows of the image: at 640x480 capitals are 11 pixels high


def contact_sheet(rows: Sequence[Sequence[NDArray]], titles: Sequence[str], tile_width: int = 360) -> NDArray[np.uint8]:
    """Lay out images in rows under a line of titles.

    Args:
        rows: each with one image a title: uint8 (H,W) or (H,W,3) RGB, or float (H,W) in 0..1.
        titles: one a column.
        tile_width: every image is scaled to this width, pixels.

    Returns:
        uint8 (H,W,3) RGB.

    Raises:
        ValueError: no rows, or a row without one image a title.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"expected rows of {len(titles)} images, got {[len(row) for row in rows]}")
    lines = [np.hstack([_title(text, tile_width) for text in titles])]
    for row in rows:
        tiles = [_tile(image, tile_width) for image in row]
        height = max(tile.shape[0] for tile in tiles)
        lines.append(np.hstack([_pad(tile, height) for tile in tiles]))
    return np.vstack(lines)


def render_overlay(results: Results, task: Task) -> NDArray[np.uint8]:
    """Draw what a task found over its fused image: boxes, or the mask; a copy of the image where it finds nothing.

    Args:
        results: of a call that ran the task.
        task: of the bundle.

    Returns:
        uint8 (H,W,3) RGB.
    """
    image = results.fused[task.name]
    if task.name in results.detections:
        return draw_detections(image, results.detections[task.name], task.classes)
    if task.name in results.masks:
        return draw_mask(image, results.masks[task.name], task.classes)
    return image.copy()


def draw_detections(
    image: NDArray[np.uint8], detections: Detections, classes: Sequence[TaskClass]
) -> NDArray[np.uint8]:
    """Draw each box in the colour of its class, with the name of the class and the score; better ones on top.

    OpenCV's letters are ASCII only; others become question marks.

    Args:
        image: uint8 (H,W,3) RGB, left as it is.
        detections: boxes in the image's pixels, labels of `classes`.

    Returns:
        uint8 (H,W,3) RGB.
    """
    drawn = np.ascontiguousarray(image).copy()
    boxes, scores, labels = map(np.asarray, detections)
    for index in np.argsort(scores, kind="stable"):
        found = classes[labels[index]]
        _draw_box(drawn, boxes[index], f"{found.name} {scores[index]:.2f}", found.colour)
    return drawn


def draw_mask(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], classes: Sequence[TaskClass], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Blend the colour of each pixel's class over an image; pixels of no class, such as 255, stay as they are.

    Args:
        image: uint8 (H,W,3) RGB, left as it is.
        mask: class ids, uint8 (H,W).
        opacity: of the colours, 0..1.

    Returns:
        uint8 (H,W,3) RGB.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = [found.colour for found in classes]
    blended = cv2.addWeighted(np.ascontiguousarray(image), 1 - opacity, colours[mask], opacity, 0)
    return np.where((mask < len(classes))[:, :, None], blended, image)


def _draw_box(image: NDArray[np.uint8], box: NDArray, text: str, colour: Colour) -> None:
    """Draw a box with its label, in place."""
    scale = max(_SMALLEST_TEXT, image.shape[0] * _TEXT_A_ROW)
    left, top, right, bottom = np.rint(box).astype(int).tolist()
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), colour, max(1, round(3 * scale)))
    _draw_label(image, left, top, text, scale, colour)


def _draw_label(image: NDArray[np.uint8], left: int, bottom: int, text: str, scale: float, colour: Colour) -> None:
    """Write text on a ground of `colour` that ends above the row `bottom`, or begins there where no room is above."""
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    width, height = width + 4, height + below + 2
    top = bottom - height if bottom >= height else bottom
    left = max(0, min(left, image.shape[1] - width))
    cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), colour, cv2.FILLED)
    ink = _INK if np.dot(colour, LUMA_WEIGHTS) > 128 else (255, 255, 255)
    cv2.putText(image, text, (left + 2, top + height - below), _FONT, scale, ink, 1, cv2.LINE_AA)


def _tile(image: NDArray, width: int) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return resize(image, (max(1, round(image.shape[0] * width / image.shape[1])), width))


def _pad(tile: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    padding = ((0, height - tile.shape[0] + GAP), (0, GAP), (0, 0))
    return np.pad(tile, padding, constant_values=_PAPER)


def _title(text: str, width: int) -> NDArray[np.uint8]:
    label = np.full((LABEL_HEIGHT, width + GAP, 3), _PAPER, np.uint8)
    cv2.putText(label, text, (4, LABEL_HEIGHT - 7), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    return label
