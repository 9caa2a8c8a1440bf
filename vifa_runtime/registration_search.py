"""The global part of a registration: every scale, rotation and shift is tried, on small images.

For each scale and rotation of the thermal images, Fourier transforms correlate their edge fields with the visible ones
for all shifts at once. They are summed over the frames before they are inverted, so that all frames speak together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from vifa_runtime.camera_model import Size
from vifa_runtime.edge_fields import Matrix, edge_field
from vifa_runtime.registration_frames import Frames

LONGEST = 80  # pixels of the visible images' longer side
MOST_FRAMES = 12
_SCALE_STEP, _ROTATION_STEP = 1.04, 2.0  # what half of a step moves at the image's border is about a pixel
_CANVAS = 1.6  # of the visible image's sides: what of an enlarged thermal image is kept, around its middle
_FULL_OVERLAP = 0.3  # of the visible image: less counts less, since little that overlaps correlates easily by chance
_LEAST_OVERLAP = 0.1
_DISTINCT = 0.1  # of the visible image's longer side, between the corners of two places that are not the same


@dataclass(frozen=True)
class SearchRange:
    """Where an alignment is looked for.

    Attributes:
        scale: smallest and largest scale of the thermal image in the visible one; at 1 both fields of view are equally
            large.
        rotation: degrees to both sides.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    rotation: float = 8.0

    def scales(self) -> NDArray[np.float64]:
        """The scales that are tried."""
        low, high = self.scale
        return np.geomspace(low, high, 1 + int(np.ceil(np.log(high / low) / np.log(_SCALE_STEP) - 1e-9)))

    def rotations(self) -> NDArray[np.float64]:
        """The rotations that are tried, degrees; 0 is among them."""
        steps = int(np.ceil(self.rotation / _ROTATION_STEP - 1e-9))
        return np.linspace(-self.rotation, self.rotation, 2 * steps + 1)


class Place(NamedTuple):
    """A place of the thermal image: how well its edges fit there (1 at most), and the matrix thermal to visible."""

    score: float
    matrix: Matrix


def search(
    frames: Frames, limits: SearchRange, report: Callable[[float], None] = lambda share: None
) -> tuple[Place, float]:
    """Find the place of the thermal images in the visible ones.

    Args:
        frames: of which at most `MOST_FRAMES` are used, evenly spread.
        limits: where to look.
        report: called with the share that is done, 0..1.

    Returns:
        The best place; and its score relative to that of the best one elsewhere: 1 where it is one of many.
    """
    count = min(len(frames), MOST_FRAMES)
    chosen = [index * len(frames) // count for index in range(count)]
    correlator = _Correlator(frames, chosen, max(limits.scale))
    places: list[Place] = []
    scales, rotations = limits.scales() * _same_view(frames), limits.rotations()
    for scale in scales:
        for angle in rotations:
            places.append(correlator(_turned(frames.thermal_size, scale, np.deg2rad(angle))))
            report(len(places) / (len(scales) * len(rotations)))
    best = max(places, key=lambda place: place.score)
    apart = _DISTINCT * max(frames.visible_size)
    others = [place.score for place in places if _distance(place.matrix, best.matrix, frames.thermal_size) > apart]
    elsewhere = max([*others, 0.0])
    return best, best.score / elsewhere if elsewhere > 0 else 1.0


def _distance(one: Matrix, other: Matrix, thermal: Size) -> float:
    """Visible pixels between the corners of the thermal image at two places: the median of the four."""
    moved = corners(one, thermal) - corners(other, thermal)
    return float(np.median(np.hypot(moved[:, 0], moved[:, 1])))


def corners(matrix: Matrix, size: Size) -> NDArray[np.float64]:
    """Where a 3x3 matrix takes the corners of an image of a size (height, width): (4, 2), x and y."""
    height, width = size
    points = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    mapped = np.c_[points, np.ones(4)] @ matrix.T
    places: NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
    return places


def _same_view(frames: Frames) -> float:
    """Visible pixels a thermal one where both fields of view are equally large."""
    (tall, wide), (height, width) = frames.visible_size, frames.thermal_size
    return float(np.sqrt(tall / height * wide / width))


def _turned(size: Size, scale: float, angle: float) -> Matrix:
    """Scale and turn an image by its middle, which becomes (0, 0)."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return turn @ np.array([[1, 0, -size[1] / 2], [0, 1, -size[0] / 2], [0, 0, 1]])


class _Correlator:
    """The transforms of the visible images, and how well thermal ones fit them at all shifts."""

    def __init__(self, frames: Frames, chosen: Sequence[int], largest: float) -> None:
        self._frames, self._level = frames, frames.level(LONGEST, chosen)
        # At the largest scale, a thermal pixel is then as large as a visible one.
        self._longest = ceil(
            LONGEST * largest * _same_view(frames) * max(frames.thermal_size) / max(frames.visible_size)
        )
        self._thermals = frames.thermals(chosen, self._longest)
        height, width = self._level.size
        self._canvas = (round(height * _CANVAS), round(width * _CANVAS))
        self._shape = (fft.next_fast_len(height + self._canvas[0]), fft.next_fast_len(width + self._canvas[1]))
        self._workers = len(os.sched_getaffinity(0))
        self._fields = fft.fft2(np.stack(self._level.fields), self._shape, workers=self._workers)
        energy = np.sum([np.abs(field) ** 2 for field in self._level.fields], axis=0, dtype=np.float32)
        self._energy = fft.rfft2(energy, self._shape)
        self._whole = fft.rfft2(np.ones(self._level.size, np.float32), self._shape)

    def __call__(self, turned: Matrix) -> Place:
        """The best shift of the thermal images at one scale and rotation."""
        shift = np.array([[1, 0, self._canvas[1] / 2], [0, 1, self._canvas[0] / 2], [0, 0, 1]])
        placed = shift @ self._level.matrix @ turned
        resample = self._frames.resampler(placed, self._canvas, self._longest)
        fields = np.stack([edge_field(resample(image)) for image in self._thermals]) * resample.inside
        energy: NDArray[np.float32] = (fields.real**2 + fields.imag**2).sum(axis=0)
        transforms = fft.fft2(fields, self._shape, workers=self._workers)
        sums = fft.ifft2(np.einsum("fij,fij->ij", self._fields, transforms.conj())).real
        scores = sums * self._weights(resample.inside.astype(np.float32), energy)
        down, right = (int(place) for place in np.unravel_index(int(scores.argmax()), scores.shape))
        height, width = self._level.size
        y, x = down - (self._shape[0] if down >= height else 0), right - (self._shape[1] if right >= width else 0)
        moved = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
        return Place(float(scores[down, right]), np.linalg.inv(self._level.matrix) @ moved @ placed)

    def _weights(self, inside: NDArray[np.float32], energy: NDArray[np.float32]) -> NDArray[np.float32]:
        """What turns sums at each shift into correlations of what overlaps there, less where that is little."""
        area = self._level.size[0] * self._level.size[1]
        mask = np.conj(fft.rfft2(inside, self._shape))
        overlap = fft.irfft2(self._whole * mask, self._shape) / area
        ours = fft.irfft2(self._energy * mask, self._shape)
        theirs = fft.irfft2(self._whole * np.conj(fft.rfft2(energy, self._shape)), self._shape)
        product = np.maximum(ours, 0) * np.maximum(theirs, 0)
        enough = (overlap > _LEAST_OVERLAP) & (product > 1e-6 * product.max())
        weight = np.zeros(self._shape, np.float32)
        weight[enough] = np.sqrt(np.minimum(1, overlap[enough] / _FULL_OVERLAP) / product[enough])
        return weight
