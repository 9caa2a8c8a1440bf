"""The frames of a registration: pairs of one warp, reduced to what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import AlignmentError, Size
from vifa_runtime.edge_fields import Field, Image, Matrix, Resampler, edge_field, shrink
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings

LONGEST = 640  # pixels of a longer side: larger images are averaged to that
_SMALL = 80  # pixels of a longer side, at which pairs are looked at before they are taken
_BLANK = 1 / 255  # standard deviation below which an image shows nothing
_SAME = 0.9  # correlation of edges above which two images show the same scene; noise of 10 gray levels leaves 0.98
_BORDER = 7  # pixels: what never changes is no part of the scene if it is so wide; less may be dead pixels


class RegistrationError(AlignmentError):
    """Frames from which an alignment cannot be told; the message says why and the mend."""


@dataclass(frozen=True)
class Level:
    """The visible images at one size.

    Attributes:
        size: (height, width), pixels.
        fields: the edge field (height, width) of each frame.
        matrix: 3x3, from the visible camera's pixels to this size's.
    """

    size: Size
    fields: Sequence[Field]
    matrix: Matrix


class Frames:
    """Pairs that share one warp, in their order, of at most `LONGEST` pixels a side.

    Attributes:
        visible_size, thermal_size: (height, width) as the cameras send them; (0, 0) before the first pair.
        names: of the pairs that were taken.
        blank: names of those that were not, as an image of them shows nothing.
        repeated: names of those that were not, as they show the same scene as the one before.
    """

    def __init__(self) -> None:
        self.visible_size: Size = (0, 0)
        self.thermal_size: Size = (0, 0)
        self.names: list[str] = []
        self.blank: list[str] = []
        self.repeated: list[str] = []
        self._visible: list[Image] = []
        self._thermal: list[Image] = []
        self._last: Field | None = None
        self._lowest: NDArray[Any] | None = None
        self._highest: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self._visible)

    def add(self, visible: NDArray[np.uint8], thermal: NDArray[Any], name: str) -> bool:
        """Take a pair, or leave it out as blank or repeated.

        Args:
            visible: (H, W, 3) RGB, uint8.
            thermal: (h, w), uint8, uint16 or float32, as the camera sends it.
            name: of the pair, for messages.

        Returns:
            Whether it was taken.

        Raises:
            RegistrationError: images of another size than before.
            ThermalError: a thermal image without a finite pixel, or of another shape or dtype.
        """
        normalised = ThermalNormaliser(ThermalSettings())(thermal)
        self._check_sizes(visible.shape[:2], thermal.shape[:2], name)
        luma = shrink(rgb_to_luma(visible) / np.float32(255), fitted(self.visible_size))
        warmth = shrink(normalised, fitted(self.thermal_size))
        small = shrink(luma, fitted(self.visible_size, _SMALL))
        if min(small.std(), shrink(warmth, fitted(self.thermal_size, _SMALL)).std()) < _BLANK:
            self.blank.append(name)
            return False
        field = edge_field(small)
        if self._last is not None and _correlation(field, self._last) > _SAME:
            self.repeated.append(name)
            return False
        self._last = field
        self.names.append(name)
        self._visible.append(luma)
        self._thermal.append(warmth)
        self._lowest = thermal.copy() if self._lowest is None else np.fmin(self._lowest, thermal)
        self._highest = thermal.copy() if self._highest is None else np.fmax(self._highest, thermal)
        return True

    def _check_sizes(self, visible: Size, thermal: Size, name: str) -> None:
        if self.visible_size == (0, 0):
            self.visible_size, self.thermal_size = visible, thermal
        known = {"visible": (visible, self.visible_size), "thermal": (thermal, self.thermal_size)}
        for which, (size, before) in known.items():
            if size != before:
                raise RegistrationError(
                    f"{name}: the {which} image is {size[1]}x{size[0]}, those before are {before[1]}x{before[0]}; "
                    "align pairs of one size"
                )

    def visible(self, index: int) -> Image:
        """The luma of a visible image, (H, W) float32, 0..1."""
        return self._visible[index]

    def level(self, longest: int, chosen: Sequence[int]) -> Level:
        """Some of the visible images at a size whose longer side is `longest` pixels, or that they have if smaller."""
        size = fitted(self.visible_size, min(longest, LONGEST))
        fields = [edge_field(shrink(self._visible[index], size)) for index in chosen]
        return Level(size, fields, scaling(self.visible_size, size))

    def thermals(self, chosen: Sequence[int], longest: int = LONGEST) -> list[Image]:
        """Some of the thermal images, (h, w) float32, 0..1, of at most so many pixels a side."""
        size = fitted(self.thermal_size, min(longest, LONGEST))
        return [shrink(self._thermal[index], size) for index in chosen]

    def resampler(self, matrix: Matrix, target: Size, longest: int = LONGEST) -> Resampler:
        """What brings `thermals` onto a target grid, by a matrix from the thermal camera's pixels to the grid's."""
        size = fitted(self.thermal_size, min(longest, LONGEST))
        return Resampler(matrix @ scaling(size, self.thermal_size), target, self._alive(size))

    def _alive(self, size: Size) -> NDArray[np.bool_]:
        """(h, w): whether a thermal pixel shows the scene, not a border that never changes, as rectified images have.

        One frame alone does not tell.
        """
        if len(self) < 2 or self._lowest is None or self._highest is None:
            return np.ones(size, bool)
        still = ~(self._highest > self._lowest)  # so NaN, for pixels that never were finite, is still
        wide = cv2.morphologyEx(still.astype(np.uint8), cv2.MORPH_OPEN, np.ones((_BORDER, _BORDER), np.uint8))
        return shrink(1 - wide.astype(np.float32), size) > 1 - 1e-6


def _correlation(one: Field, other: Field) -> float:
    """Of two edge fields where they lie: 1 for the same."""
    product = float(np.real(np.vdot(one, other)))
    return product / max(float(np.sqrt(np.vdot(one, one).real * np.vdot(other, other).real)), 1e-12)


def fitted(size: Size, longest: int = LONGEST) -> Size:
    """A size of the same aspect whose longer side is `longest`, or the size itself where it is not larger."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def scaling(source: Size, target: Size) -> Matrix:
    """The 3x3 matrix between the pixels of an image at two sizes."""
    return np.diag([target[1] / source[1], target[0] / source[0], 1.0])
