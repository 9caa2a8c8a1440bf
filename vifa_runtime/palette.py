"""Colours for classes that nobody chose one for."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.luma import LUMA_WEIGHTS

Colour = tuple[int, int, int]  # red, green, blue, 0..255

_LEVELS = range(0, 256, 32)
_FIRST = (224, 64, 32)


def default_colours(count: int) -> list[Colour]:
    """Bright colours, each as far as can be from all before it; fewer are the first of more.

    Raises:
        ValueError: more than there are.
    """
    every = np.array(list(itertools.product(_LEVELS, repeat=3)))
    candidates = every[(every @ LUMA_WEIGHTS >= 70) & (np.ptp(every, axis=1) >= 96)]  # neither dark nor gray
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count of colours must be 0 to {len(candidates)}, got {count}")
    chosen: list[Colour] = []
    distances = -_distance(candidates, np.array(_FIRST))
    for _ in range(count):
        best = candidates[int(distances.argmax())]
        nearest = _distance(candidates, best)
        distances = np.minimum(distances, nearest) if chosen else nearest
        chosen.append((int(best[0]), int(best[1]), int(best[2])))
    return chosen


def _distance(colours: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """How different colours (N,3) look from another, squared, in whole numbers; the "redmean" approximation."""
    red = (colours[:, 0] + other[0]) // 2
    difference = (colours - other) ** 2
    weights = np.stack([512 + red, np.full(len(colours), 1024), 767 - red], axis=1)
    return (weights * difference).sum(axis=1)
