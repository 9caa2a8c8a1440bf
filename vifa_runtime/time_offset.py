"""The time offset between two cameras' stamps: when both see things move, and when they stand still.

How fast the images of a camera change is its motion energy. That of both cameras rises and falls together, whatever
they see, so the offset at which their courses correlate best is the one between their clocks. Frames may come at any
times and different rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from vifa_runtime.camera_model import AlignmentError

Course = NDArray[np.float64]

LARGEST = 1.0  # seconds
FEWEST = 30  # frames of each camera
_LONGEST = 160  # pixels of a longer side, at which frames are compared
_SMOOTHING = 1.5  # standard deviation, pixels
_STEPS = 8  # a frame interval: so finely courses are compared
_SLOW = 2.0  # seconds: changes slower than that are left out, as they tell the time badly
_FLOOR = 0.1  # of the usual motion: less is as little
_PIECES, _RESAMPLES, _SHARE = 16, 200, 90  # of the bootstrap; percentile
_LEAST_CORRELATION, _LEAST_RATIO = 0.3, 1.15
_APART = 0.1  # seconds at least, between two peaks that are not the same
_LEAST_CHANGE = 1e-4  # of a frame, relative to its contrast: what is less is no motion
_LEAST_VARIATION = 1.3  # of the largest changes to the smallest; those by sensor noise alone vary less
_LARGEST_SPREAD = 0.02  # seconds
_LEAST_COMMON = 3.0  # seconds


class TimeOffsetError(AlignmentError):
    """Streams from which the time offset cannot be told; the message says why and the mend."""


@dataclass(frozen=True)
class TimeOffset:
    """A time offset between two cameras.

    Attributes:
        seconds: what is to be added to the thermal stamps so that they agree with the visible ones: the node's
            parameter `thermal_offset`.
        spread: seconds within which 90 % of the results from resampled pieces of the recording lie (bootstrap).
        correlation: of the courses at the best offset, 0..1.
        peak_ratio: that correlation relative to the best one elsewhere.
        duration: seconds that both cameras recorded.
        frames: of the visible and of the thermal camera.
    """

    seconds: float
    spread: float
    correlation: float
    peak_ratio: float
    duration: float
    frames: tuple[int, int]


class Motion:
    """How fast the images of one camera change, from its frames one by one; of them none is kept but the last.

    Attributes:
        frames: how many were taken. One whose stamp is not above the last one's is not.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._last: NDArray[np.float32] | None = None
        self._stamps: list[int] = []
        self._changes: list[float] = []

    def add(self, image: NDArray[Any], stamp: int) -> None:
        """Take the next frame.

        Args:
            image: (H, W) of any numbers, or (H, W, 3) RGB, uint8; NaN and infinity count as 0.
            stamp: nanoseconds.
        """
        if self._stamps and stamp <= self._stamps[-1]:
            return
        small = _standardise(image)
        if self._last is None or self._last.shape != small.shape:
            self._changes.append(0.0)
        else:
            self._changes.append(float(np.abs(small - self._last).mean()))
        self._last = small
        self._stamps.append(stamp)
        self.frames += 1

    @property
    def stamps(self) -> NDArray[np.int64]:
        """(frames,), nanoseconds, rising."""
        return np.array(self._stamps, np.int64)

    @property
    def changes(self) -> NDArray[np.float64]:
        """(frames,): mean change since the frame before, relative to the image's contrast; 0 for the first."""
        return np.array(self._changes, np.float64)


def find_offset(visible: Motion, thermal: Motion, largest: float = LARGEST, seed: int = 0) -> TimeOffset:
    """Find the time offset between two cameras that saw the same motion.

    Args:
        visible, thermal: their motion.
        largest: offset that is looked for, seconds, to both sides.
        seed: of the bootstrap.

    Raises:
        TimeOffsetError: the streams do not determine it; the message says why.
    """
    for name, motion in (("visible", visible), ("thermal", thermal)):
        _check_motion(name, motion)
    zero = min(visible.stamps[0], thermal.stamps[0])
    ours, theirs = ((motion.stamps - zero) * 1e-9 for motion in (visible, thermal))
    common, needed = float(min(ours[-1], theirs[-1]) - max(ours[0], theirs[0])), max(_LEAST_COMMON, 2 * largest)
    if common < needed:
        raise TimeOffsetError(
            f"the stamps of both cameras have {max(0.0, common):.1f} s in common, but {needed:.1f} s are needed; "
            "record longer, or pair by arrival if the clocks differ"
        )
    interval = max(float(np.median(np.diff(ours))), float(np.median(np.diff(theirs))))
    step = interval / _STEPS
    grid = np.arange(min(ours[0], theirs[0]), max(ours[-1], theirs[-1]) + step, step)
    steps = int(np.ceil(largest / step))
    products = _products(
        _course(ours, visible.changes, grid, interval),
        _course(theirs, thermal.changes, grid, interval),
        np.arange(-steps, steps + 1),
    )
    apart = round(max(_APART, 2 * interval) / step)
    best, correlation, ratio = _peak(products.sum(axis=0), apart)
    drawn = np.random.default_rng(seed).integers(0, _PIECES, (_RESAMPLES, _PIECES))
    others = np.array([_peak(products[numbers].sum(axis=0), apart)[0] for numbers in drawn])
    spread = float(np.percentile(np.abs(others - best), _SHARE)) * step
    frames = visible.frames, thermal.frames
    found = TimeOffset((best - steps) * step, spread, correlation, ratio, common, frames)
    if correlation < _LEAST_CORRELATION or ratio < _LEAST_RATIO or spread > _APART:
        raise TimeOffsetError(_why_unclear(found, visible, thermal, largest))
    _check_offset(found, largest)
    return found


def _standardise(image: NDArray[Any]) -> NDArray[np.float32]:
    """An image small, smooth and of one mean and contrast, so that gain and brightness do not count."""
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gray = np.asarray(gray, np.float32)
    if image.dtype.kind == "f":
        gray = np.nan_to_num(gray, posinf=0, neginf=0)
    factor = min(1.0, _LONGEST / max(gray.shape))
    size = (max(1, round(gray.shape[1] * factor)), max(1, round(gray.shape[0] * factor)))
    small = cv2.GaussianBlur(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), (0, 0), _SMOOTHING)
    contrast = float(small.std())
    standard: NDArray[np.float32] = (small - small.mean()) / max(contrast, 1e-9)
    return standard


def _check_motion(name: str, motion: Motion) -> None:
    if motion.frames < FEWEST:
        raise TimeOffsetError(
            f"too few {name} frames for a time offset: {motion.frames}, at least {FEWEST} are needed; record longer"
        )
    if np.percentile(motion.changes[1:], 95) < _LEAST_CHANGE:
        raise TimeOffsetError(
            f"the {name} camera sees a static scene, which tells no time offset; turn the cameras a few times while "
            "recording"
        )


def _course(times: Course, changes: Course, grid: Course, interval: float) -> Course:
    """How motion rises and falls: (N,) at the times of a grid, around 0; NaN where the camera did not record.

    A change belongs to all of the time between its two frames. Its logarithm is taken, so that the strength with which
    a camera sees motion does not count, nor one sudden change more than all others.
    """
    total = np.cumsum(changes)
    ends = np.interp(grid + interval / 2, times, total, np.nan, np.nan)
    starts = np.interp(grid - interval / 2, times, total, np.nan, np.nan)
    speed = (ends - starts) / interval
    known = ~np.isnan(speed)
    usual = float(np.median(speed[known]))
    course = np.full(grid.shape, np.nan)
    logarithm = np.log(speed[known] + max(_FLOOR * usual, 1e-9))
    course[known] = logarithm - uniform_filter1d(logarithm, max(3, round(_SLOW / (grid[1] - grid[0]))), mode="nearest")
    return course


def _products(visible: Course, thermal: Course, lags: NDArray[np.intp]) -> NDArray[np.float64]:
    """(pieces, 3, lags): for pieces of the time, the sums of both courses' product and of their squares.

    At lag n, `thermal[i - n]` is beside `visible[i]`.
    """
    cuts = np.arange(_PIECES) * len(visible) // _PIECES
    found = np.empty((_PIECES, 3, len(lags)))
    for column, lag in enumerate(lags):
        shifted = np.full(thermal.shape, np.nan)
        if lag >= 0:
            shifted[lag:] = thermal[: len(thermal) - lag]
        else:
            shifted[:lag] = thermal[-lag:]
        both = ~(np.isnan(visible) | np.isnan(shifted))
        ours, theirs = np.where(both, visible, 0), np.where(both, shifted, 0)
        for row, product in enumerate((ours * theirs, ours * ours, theirs * theirs)):
            found[:, row, column] = np.add.reduceat(product, cuts)
    return found


def _peak(products: NDArray, apart: int) -> tuple[float, float, float]:
    """Where the correlation at all lags is largest, between two of them; how large, and relative to the largest beyond
    `apart` lags."""
    correlation = products[0] / np.sqrt(np.maximum(products[1] * products[2], 1e-12))
    best = int(correlation.argmax())
    elsewhere = correlation[np.abs(np.arange(len(correlation)) - best) > apart]
    ratio = correlation[best] / max(float(elsewhere.max()) if elsewhere.size else 0.0, 1e-6)
    place = float(best)
    if 0 < best < len(correlation) - 1:
        before, at, after = correlation[best - 1 : best + 2]
        if (bend := before - 2 * at + after) < 0:
            place += 0.5 * (before - after) / bend
    return place, float(correlation[best]), float(ratio)


def _why_unclear(found: TimeOffset, visible: Motion, thermal: Motion, largest: float) -> str:
    still = []
    for name, motion in (("visible", visible), ("thermal", thermal)):
        little, much = np.percentile(motion.changes[1:], (5, 95))
        if much < _LEAST_VARIATION * little:
            still.append(name)
    seen = f"; the {' and '.join(still)} images change evenly, of a static scene or steady motion" if still else ""
    return (
        f"no time offset within {largest:g} s at which both cameras see the same motion{seen}; the best correlates by "
        f"{found.correlation:.2f}, {found.peak_ratio:.2f} times as well as another ({_LEAST_CORRELATION} and "
        f"{_LEAST_RATIO} are needed), and is known to {found.spread:.2f} s ({_APART:.2f} are allowed); "
        "turn the cameras a few times while recording, in a scene with texture"
    )


def _check_offset(found: TimeOffset, largest: float) -> None:
    if abs(found.seconds) > 0.98 * largest:
        raise TimeOffsetError(
            f"the time offset is {largest:g} s or more, which is as far as was looked; look farther, or pair by arrival"
        )
    if found.spread > _LARGEST_SPREAD:
        raise TimeOffsetError(
            f"the time offset is known to {found.spread * 1e3:.0f} ms only ({_LARGEST_SPREAD * 1e3:.0f} are allowed); "
            "record longer, and turn the cameras a few times"
        )
