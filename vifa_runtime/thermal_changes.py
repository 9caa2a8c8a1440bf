"""Dead rows, columns and pixels of a thermal sensor: those that never change while the others do.

Every living pixel of a raw image carries noise, so it changes from frame to frame. Images of 8 bits, or with coarse
counts, hide that noise in quiet scenes: there nothing can be told of a pixel that stays, and what was known is kept.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MEMORY = 32  # frames in which a rate takes over 63 % of a change; a pixel that dies is below DEAD after 4 times that
DEAD = 0.02  # changes a frame; a pixel that changes in every fourth gets there once in 10 thousand million frames
ALIVE = 0.25  # changes a frame, as noise of a third of a count gives; with less, rounding alone may hold a pixel
ALL_ALIVE = 0.95  # share of the other pixels that must be alive before one that stays is called dead
FEWEST_OTHERS = (
    0.4  # share of the image that they must be: more than a fire in a smoothed scene, less than half a sensor
)
REACH = 4  # lines: a dead line has living ones this near on both sides, unlike the black border of analogue video
WIDE = 3  # samples: regions that stay and are this wide both ways may be a scene's, clipped or smoothed
LARGEST_CLIPPED = 0.25  # share of the image that such regions at the lowest and highest value may have
NEAR = 1 / 4  # of the span of values: how near to an end the next value is in a scene, clipped or not
_VERDICT_EVERY = 16  # frames; dead pixels are not urgent


class DeadPixels:
    """What is dead of one sensor, from exponential means of how often each line and sampled pixel changes.

    Attributes:
        rows, columns: shapes (H,) and (W,), bool: dead lines.
        share: of the sampled pixels that are dead, those of dead lines among them, 0..1.
    """

    def __init__(self, shape: tuple[int, int], step: int) -> None:
        """For images of `shape` (H, W), of which every `step`-th pixel of every `step`-th row is sampled."""
        self.rows, self.columns = np.zeros(shape[0], bool), np.zeros(shape[1], bool)
        self.share = 0.0
        self._step, self._frames = step, 0
        # A rate of 1 to begin with: alive until shown otherwise.
        self._row_rates, self._column_rates = np.ones(shape[0], np.float32), np.ones(shape[1], np.float32)
        self._rates = np.ones((-(-shape[0] // step), -(-shape[1] // step)), np.float32)

    def add(self, changed: NDArray[np.bool_], image: NDArray) -> None:
        """Take in one frame.

        Args:
            changed: shape (H, W): pixels that differ from the frame before.
            image: shape (H, W): the frame.
        """
        mask = changed.view(np.uint8)
        self._row_rates += (cv2.reduce(mask, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] - self._row_rates) / MEMORY
        self._column_rates += (cv2.reduce(mask, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0] - self._column_rates) / MEMORY
        cv2.accumulateWeighted(np.ascontiguousarray(mask[:: self._step, :: self._step]), self._rates, 1 / MEMORY)
        self._frames += 1
        if self._frames % _VERDICT_EVERY == 0:
            self.rows = find_dead_lines(self._row_rates, self.rows)
            self.columns = find_dead_lines(self._column_rates, self.columns)
            self.share = find_dead_share(self._rates, image[:: self._step, :: self._step], self.share)


def find_dead_lines(rates: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows, or columns, that do not change although lines near on both sides do.

    Args:
        rates: shape (N,), changes a frame of each line.
        known: shape (N,), lines that were dead before; they are until they change.
    """
    n = len(rates)
    padded = np.zeros(n + 2 * REACH, np.float32)
    padded[REACH : REACH + n] = rates
    before = np.maximum.reduce([padded[near : near + n] for near in range(REACH)])
    after = np.maximum.reduce([padded[REACH + 1 + near :][:n] for near in range(REACH)])
    beside = np.minimum(before, after)
    return ((beside >= ALIVE) & (rates < DEAD * beside)) | (known & (rates < DEAD))


def find_dead_share(rates: NDArray[np.float32], sample: NDArray, known: float) -> float:
    """Share of pixels that do not change although nearly all others do, 0..1.

    Args:
        rates: shape (h, w), changes a frame of the sampled pixels.
        sample: shape (h, w), their values now. Pixels at a clipped end do not count: they stay in a living sensor.
            Where values have 8 bits, nor do wide regions, as smoothed skies look the same. With more bits wide
            regions do, but small ones at the lowest or highest value, which may be the border of a rectified image.
        known: the share before, kept in scenes that do not tell, as far as so many pixels still stay.
    """
    dead = rates < DEAD
    others = np.count_nonzero(~dead)
    if others == dead.size:
        return 0.0
    if others < FEWEST_OTHERS * dead.size or np.count_nonzero(rates >= ALIVE) < ALL_ALIVE * others:
        return min(known, np.count_nonzero(dead) / dead.size)
    wide = cv2.morphologyEx(dead.view(np.uint8), cv2.MORPH_OPEN, np.ones((WIDE, WIDE), np.uint8)).view(bool)
    values = sample[np.isfinite(sample)]
    ends = (values.min(), values.max()) if values.size > 0 else ()
    if sample.dtype != np.uint8:
        wide &= np.isin(sample, ends) | ~np.isfinite(sample)
        if np.count_nonzero(wide) > LARGEST_CLIPPED * wide.size:
            wide[:] = False
    clipped = np.isin(sample, [end for end in ends if is_scene_end(values, end)])
    return np.count_nonzero(dead & ~wide & ~clipped) / dead.size


def is_scene_end(values: NDArray, end: float) -> bool:
    """Whether the lowest or highest of some finite values, `end`, has another one within `NEAR`.

    That of a scene has, be it clipped there or not; broken pixels and borders of zeros mostly lie apart.
    """
    others = values[values != end]
    if others.size == 0:
        return False
    low, high = float(values.min()), float(values.max())
    nearest = float(others.max() if end == high else others.min())
    return abs(float(end) - nearest) <= NEAR * (high - low)
