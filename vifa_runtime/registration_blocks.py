"""The local part of a registration: how far each block of the image must move, and the one map that explains it.

For every block of the visible images, the thermal edges are correlated at all displacements of a few pixels, frame by
frame. A map is then chosen by what the sums over frames say at the displacements that it gives to the blocks: no block
has to decide for itself, so one that knows only part of the answer (an edge tells nothing along itself) or nothing (a
blank wall) does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d, spline_filter1d
from scipy.optimize import minimize

from vifa_runtime.camera_model import Size
from vifa_runtime.edge_fields import REACH, Field, Matrix, edge_field
from vifa_runtime.registration_frames import Frames, Level

SIMILARITY, AFFINE, HOMOGRAPHY = MODELS = ("similarity", "affine", "homography")
NUMBERS = {SIMILARITY: 4, AFFINE: 6, HOMOGRAPHY: 8}
_ALONG_LONGER = 8  # blocks along the longer side
_WEAK = 0.3  # of the strongest blocks' energy, added to each: weak blocks count less than in proportion
_STRONGEST = 80  # percentile of the blocks' energies


@dataclass(frozen=True)
class Evidence:
    """What each frame says about each block.

    Attributes:
        sums: (frames, blocks, 2 * reach + 1, 2 * reach + 1): how well the edges fit where the block's content lies
            displaced by (down, right), in pixels, from where the current map puts it.
        energies: (frames, blocks): largest value that a sum could take.
        centres: (blocks, 2), x and y, in -1..1 along the image's width and less along its height.
        size: (height, width) of the images.
        reach: the largest displacement, pixels.
    """

    sums: NDArray[np.float32]
    energies: NDArray[np.float32]
    centres: NDArray[np.float64]
    size: Size
    reach: int


def collect(frames: Frames, chosen: Sequence[int], level: Level, matrix: Matrix, reach: int) -> Evidence:
    """Correlate the blocks of all frames.

    Args:
        frames: the pairs.
        chosen: which of them.
        level: their visible images at one size.
        matrix: 3x3, thermal to visible camera pixels: the current map.
        reach: pixels at that size.
    """
    height, width = level.size
    block = min(max(height, width) // _ALONG_LONGER, height, width)
    tops = [row * height // (height // block) for row in range(height // block)]
    lefts = [column * width // (width // block) for column in range(width // block)]
    margin = reach + REACH
    canvas = (height + 2 * margin, width + 2 * margin)
    shift = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1]])
    resample = frames.resampler(shift @ level.matrix @ matrix, canvas)
    certain = _erode(resample.inside, reach)[margin:-margin, margin:-margin]  # there at every displacement
    shape = (fft.next_fast_len(block + 2 * reach), fft.next_fast_len(block + 2 * reach))
    sums, energies = [], []
    for image, visible in zip(frames.thermals(chosen), level.fields, strict=True):
        thermal = (edge_field(resample(image)) * resample.inside)[REACH:-REACH, REACH:-REACH]
        wide = _blocks(thermal, tops, lefts, block + 2 * reach)
        ours = _blocks(visible * certain, tops, lefts, block)
        found = fft.ifft2(fft.fft2(wide, shape) * np.conj(fft.fft2(ours, shape))).real
        sums.append(found[:, : 2 * reach + 1, : 2 * reach + 1])
        energies.append(np.sqrt(_energy(ours) * _energy(wide[:, reach:-reach, reach:-reach])))
    middles = np.stack(np.meshgrid(np.add(lefts, block / 2), np.add(tops, block / 2)), axis=-1).reshape(-1, 2)
    centres = (middles - (width / 2, height / 2)) / (width / 2)
    return Evidence(np.array(sums, np.float32), np.array(energies, np.float32), centres, level.size, reach)


class Fit:
    """The map that fits best to the evidence of frames, each counted so many times.

    Numbers of a map, in pixels by which it moves the middle of the image's left and right border: right, down, larger,
    turned; and for the richer models two of shear, two of perspective.
    """

    def __init__(self, evidence: Evidence, tolerance: float, counts: NDArray | None = None) -> None:
        if counts is None:
            counts = np.ones(len(evidence.sums), np.float32)
        counts = np.asarray(counts, np.float32)
        total = np.tensordot(counts, evidence.sums, 1)
        energy = counts @ evidence.energies
        total /= (energy + _WEAK * np.percentile(energy, _STRONGEST) + 1e-6)[:, None, None]
        for axis in (1, 2):
            total = gaussian_filter1d(total, tolerance, axis=axis, mode="nearest")
            total = spline_filter1d(total, 3, axis=axis, mode="mirror")
        self._coefficients = total
        self._evidence = evidence
        self._blocks = np.arange(len(total))[:, None, None]

    def score(self, numbers: NDArray) -> float:
        """How well a map fits: a mean over blocks."""
        return -self._loss(np.asarray(numbers, np.float64), self._basis(len(numbers)))[0]

    def solve(self, model: str, start: NDArray | None = None, far: bool = False) -> NDArray[np.float64]:
        """The best map of a model.

        Args:
            model: of `MODELS`.
            start: numbers of a map, of this model or a simpler one; none for no movement.
            far: whether the best one may be far from the start, with worse ones between.
        """
        numbers = np.zeros(NUMBERS[model])
        if start is not None:
            numbers[: len(start)] = start
        basis = self._basis(len(numbers))
        if far:
            options = {"xtol": 0.05, "ftol": 1e-6, "maxiter": 20}
            numbers = minimize(lambda n: self._loss(n, basis)[0], numbers, method="Powell", options=options).x
        unit = max(abs(self._loss(numbers, basis)[0]), 1e-6)

        def loss(numbers: NDArray) -> tuple[float, NDArray[np.float64]]:
            value, slope = self._loss(numbers, basis)
            return value / unit, slope / unit

        found = minimize(loss, numbers, method="BFGS", jac=True, options={"gtol": 1e-4, "maxiter": 60})
        return np.asarray(found.x, np.float64)

    def _basis(self, numbers: int) -> NDArray[np.float64]:
        """(blocks, 2, numbers): how each number moves each block, x and y."""
        x, y = self._evidence.centres.T
        none, one = np.zeros_like(x), np.ones_like(x)
        across = [one, none, x, -y, x, y, x * x, x * y]
        down = [none, one, y, x, -y, x, x * y, y * y]
        return np.stack([np.stack(across[:numbers], -1), np.stack(down[:numbers], -1)], axis=1)

    def _loss(self, numbers: NDArray, basis: NDArray) -> tuple[float, NDArray[np.float64]]:
        """Minus the mean of the blocks' splines at their displacements, and its derivative."""
        reach = self._evidence.reach
        moved = basis @ numbers
        held = np.clip(moved, -reach, reach) + reach
        (base_x, weight_x, slope_x), (base_y, weight_y, slope_y) = (_spline(held[:, i], 2 * reach) for i in (0, 1))
        patch = self._coefficients[self._blocks, base_y[:, :, None], base_x[:, None, :]]
        along_x = np.einsum("nij,nj->ni", patch, weight_x)
        slopes = np.stack(
            [np.einsum("ni,nij,nj->n", weight_y, patch, slope_x), np.einsum("ni,ni->n", slope_y, along_x)], axis=1
        )
        slopes[np.abs(moved) > reach] = 0
        value = np.einsum("ni,ni->", weight_y, along_x)
        return -float(value) / len(moved), -np.einsum("nk,nkp->p", slopes, basis) / len(moved)


def movement(numbers: NDArray, size: Size) -> Matrix:
    """The 3x3 matrix, in pixels of images of a size, of a map's numbers."""
    height, width = size
    half = width / 2
    full = np.zeros(8)
    full[: len(numbers)] = np.asarray(numbers) / half
    right, down, larger, turned, shear_x, shear_y, tilt_x, tilt_y = full
    unit = np.array(
        [
            [1 + larger + shear_x, -turned + shear_y, right],
            [turned + shear_y, 1 + larger - shear_x, down],
            [-tilt_x, -tilt_y, 1],
        ]
    )
    to_unit = np.array([[1 / half, 0, -1], [0, 1 / half, -height / 2 / half], [0, 0, 1]])
    return np.linalg.inv(to_unit) @ unit @ to_unit


def moved(matrix: Matrix, level: Level, numbers: NDArray) -> Matrix:
    """A map thermal to visible after its content was found displaced by a map of `numbers` at a level."""
    back = np.linalg.inv(level.matrix) @ np.linalg.inv(movement(numbers, level.size)) @ level.matrix
    better = back @ matrix
    return better / better[2, 2]


def _spline(places: NDArray, last: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """For places (N,) in 0..last: the four knots around each, mirrored at the ends, their weights and derivatives."""
    base = np.minimum(np.floor(places), last - 1).astype(np.intp)
    t = places - base
    s = 1 - t
    weights = np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], axis=1) / 6
    slopes = np.stack([-(s**2), 3 * t**2 - 4 * t, -3 * s**2 + 4 * s, t**2], axis=1) / 2
    knots = np.abs(base[:, None] + np.arange(-1, 3))
    return last - np.abs(last - knots), weights, slopes


def _blocks(image: Field, tops: list[int], lefts: list[int], side: int) -> Field:
    return np.stack([image[top : top + side, left : left + side] for top in tops for left in lefts])


def _energy(blocks: Field) -> NDArray[np.float32]:
    return np.sum(blocks.real**2 + blocks.imag**2, axis=(1, 2), dtype=np.float32)


def _erode(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Pixels around which `mask` holds for so many pixels in every direction; the image's own border is none."""
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=1).astype(bool)
