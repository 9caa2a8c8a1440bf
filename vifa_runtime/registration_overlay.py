"""A picture of an alignment for people to judge: edges of thermal images drawn over visible ones, before and after."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import Size
from vifa_runtime.edge_fields import Image, Matrix
from vifa_runtime.pixel_maps import HomographyMap
from vifa_runtime.registration_frames import LONGEST, Frames, fitted, scaling
from vifa_runtime.registration_search import corners
from vifa_runtime.render import contact_sheet

ROWS = 3
_EDGE, _OUTLINE = np.array((1.0, 0.45, 0.0), np.float32), (0.2, 0.9, 1.0)  # orange, light blue
_DIMMED = 0.7  # luma of what is bright, so that edges stand out
_STRONG = 97  # percentile, of an image's edges, that are drawn in full; of its luma, that becomes `_DIMMED`
_FAINT = 0.25  # of such edges: weaker ones are not drawn
_DARKEST = 0.2  # luma that is still made so bright


def render_alignment(frames: Frames, pixels: HomographyMap, rows: int = ROWS) -> NDArray[np.uint8]:
    """Draw some of the pairs, evenly spread, one a row: left as if both cameras saw the same, right as aligned.

    Args:
        frames: one pair or more.
        pixels: the alignment.
        rows: at most so many.

    Returns:
        uint8 (H,W,3) RGB. Orange: edges of the thermal image; blue: its border. Where orange lies on the edges of the
        visible image, it is aligned.
    """
    before = HomographyMap.same_view(frames.thermal_size, frames.visible_size)
    size = fitted(frames.visible_size, LONGEST)
    rows = min(rows, len(frames))
    chosen = [(2 * row + 1) * len(frames) // (2 * rows) for row in range(rows)]
    sides = [np.array(way.matrix).reshape(3, 3) for way in (before, pixels)]
    lines = [[_draw(frames, index, matrix, size) for matrix in sides] for index in chosen]
    return contact_sheet(lines, ["before", "aligned"], tile_width=size[1])


def _draw(frames: Frames, index: int, matrix: Matrix, size: Size) -> NDArray[np.uint8]:
    placed = scaling(frames.visible_size, size) @ matrix
    resample = frames.resampler(placed, size)
    (thermal,) = frames.thermals([index])
    strength = _strength(resample(thermal)) * resample.inside
    full = max(float(np.percentile(strength[resample.inside], _STRONG)) if resample.inside.any() else 0.0, 1e-6)
    share = np.clip((strength / full - _FAINT) / (1 - _FAINT), 0, 1)[:, :, None]
    luma = frames.visible(index)
    gray = luma * np.float32(_DIMMED / max(float(np.percentile(luma, _STRONG)), _DARKEST))
    shown: Image = np.repeat(gray[:, :, None], 3, axis=2)
    shown += share * (_EDGE - shown)
    outline = np.rint(corners(placed, frames.thermal_size)).astype(np.int32)
    cv2.polylines(shown, [outline], True, _OUTLINE, 1, cv2.LINE_AA)
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def _strength(image: Image) -> Image:
    """Of the edges of an image (H, W): the gradient's length."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    strength: Image = np.hypot(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    return strength
