"""Pictures for people: contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.geometry import resize

LABEL_HEIGHT = 24
GAP = 4
_PAPER, _INK = 255, (20, 20, 20)


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
    cv2.putText(label, text, (4, LABEL_HEIGHT - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
    return label
