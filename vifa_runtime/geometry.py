"""Between camera pixels and the grid a network works on: resize, pad, and the exact way back.

Coordinates are continuous: x right, y down, (0, 0) the outer corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

ASPECTS = ("letterbox", "stretch")
LARGEST_SIDE = 16384


class GeometryError(ValueError):
    """An image size that cannot be worked on; the message says why."""


@dataclass(frozen=True)
class WorkingGrid:
    """Where a source image lies on the padded grid that a network sees. All sizes are (height, width) in pixels.

    Attributes:
        source: the camera image.
        content: the part of the grid that shows it.
        offset: (top, left) of that part.
        padded: the whole grid.
    """

    source: tuple[int, int]
    content: tuple[int, int]
    offset: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def fit(
        cls,
        source: tuple[int, int],
        *,
        multiple: int,
        working: tuple[int, int] | None = None,
        aspect: str = "letterbox",
    ) -> WorkingGrid:
        """Choose the grid for images of one size.

        Args:
            source: (height, width) of the camera image.
            multiple: both padded sides are multiples of this.
            working: (height, width) to work at, or None for the source's own size.
            aspect: `letterbox` keeps the aspect ratio and centres the content, `stretch` fills `working`.

        Raises:
            GeometryError: a side below 1 or above 16384, or an unknown aspect.
        """
        if min(source) < 1 or max(source) > LARGEST_SIDE:
            raise GeometryError(f"image size {source[1]}x{source[0]} is outside 1..{LARGEST_SIDE} pixels a side")
        if aspect not in ASPECTS:
            raise GeometryError(f"aspect {aspect!r} is unknown; use one of {', '.join(ASPECTS)}")
        if working is None:
            return cls(source, source, (0, 0), _round_up(source, multiple))
        padded = _round_up(working, multiple)
        if aspect == "stretch":
            return cls(source, padded, (0, 0), padded)
        scale = min(padded[0] / source[0], padded[1] / source[1])
        content = (
            min(padded[0], max(1, round(source[0] * scale))),
            min(padded[1], max(1, round(source[1] * scale))),
        )
        return cls(source, content, ((padded[0] - content[0]) // 2, (padded[1] - content[1]) // 2), padded)

    @property
    def is_identity(self) -> bool:
        """Whether the grid is the source image itself."""
        return self.source == self.padded

    @property
    def resizes(self) -> bool:
        """Whether the grid shows the source image at another size."""
        return self.content != self.source

    def place(self, image: NDArray, out: NDArray | None = None) -> NDArray:
        """Resize and pad (repeating the edge) an image onto the grid; the image itself where nothing is to do.

        Args:
            image: shape (H, W) or (H, W, C), uint8 or float32, of the size `source`; where the grid `resizes`, of any
                size that shows the same.
            out: shape (*padded[, C]), same dtype; filled and returned where something is to do.
        """
        if self.is_identity:
            return image
        if out is None:
            out = np.empty((*self.padded, *image.shape[2:]), image.dtype)
        (top, left), (height, width) = self.offset, self.content
        bottom, right = top + height, left + width
        inner = out[top:bottom, left:right]
        if self.resizes:
            resize(image, self.content, out=inner)
        else:
            np.copyto(inner, image)
        out[:top, left:right] = inner[:1]
        out[bottom:, left:right] = inner[-1:]
        out[:, :left] = out[:, left : left + 1]
        out[:, right:] = out[:, right - 1 : right]
        return out

    def restore(self, image: NDArray, out: NDArray | None = None) -> NDArray:
        """Crop and resize a grid image (H, W[, C]) back to the source size; a view where only cropping is to do.

        Args:
            out: shape (*source[, C]), same dtype; filled and returned where the grid `resizes`.
        """
        (top, left), (height, width) = self.offset, self.content
        image = image[top : top + height, left : left + width]
        return resize(image, self.source, out=out) if self.resizes else image

    def restore_mask(self, mask: NDArray, out: NDArray | None = None) -> NDArray:
        """As `restore`, for (H, W) uint8 that must not be averaged: a source pixel takes the nearest grid pixel's."""
        (top, left), (height, width) = self.offset, self.content
        mask = mask[top : top + height, left : left + width]
        if not self.resizes:
            return mask
        return cv2.resize(mask, (self.source[1], self.source[0]), dst=out, interpolation=cv2.INTER_NEAREST_EXACT)

    def restore_boxes(self, boxes: NDArray) -> NDArray[np.float32]:
        """Map boxes (N, 4), x1 y1 x2 y2 in grid pixels, to source pixels and clip them to the image.

        One that lies outside the image becomes one without area, on its edge.
        """
        corners = self.to_source(np.asarray(boxes).reshape(-1, 2))
        height, width = self.source
        return np.clip(corners, 0, (width, height)).reshape(-1, 4).astype(np.float32)

    def to_grid(self, points: NDArray) -> NDArray[np.float64]:
        """Map points (N, 2), (x, y) in source pixels, to grid pixels."""
        return np.asarray(points, np.float64) * self._scale() + self._origin()

    def to_source(self, points: NDArray) -> NDArray[np.float64]:
        """Map points (N, 2), (x, y) in grid pixels, to source pixels; the inverse of `to_grid`."""
        return (np.asarray(points, np.float64) - self._origin()) / self._scale()

    def _scale(self) -> NDArray[np.float64]:
        return np.array([self.content[1] / self.source[1], self.content[0] / self.source[0]])

    def _origin(self) -> NDArray[np.float64]:
        return np.array([self.offset[1], self.offset[0]], np.float64)


def resize(image: NDArray, size: tuple[int, int], out: NDArray | None = None) -> NDArray:
    """Resize to (height, width): area average where it shrinks, linear where it grows."""
    shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
    return cv2.resize(image, (size[1], size[0]), dst=out, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
