"""Samples that were read once and are kept while there is room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vifa_training.data.base import Sample

CACHE_BYTES = 512 * 2**20


class SampleCache:
    """Keeps the first samples that fit, for good: a set that is drawn from at random gains nothing by any exchange."""

    def __init__(self, room: int = CACHE_BYTES) -> None:
        """Keep at most `room` bytes of arrays."""
        self._room = room
        self._kept: dict[int, Sample] = {}

    def get(self, index: int, read: Callable[[int], Sample]) -> Sample:
        """Sample `index`, read if it isn't kept; its arrays are made read-only, as they will be handed out again."""
        if index in self._kept:
            return self._kept[index]
        sample = read(index)
        arrays = [array for array in vars(sample).values() if isinstance(array, np.ndarray)]
        for array in arrays:
            array.flags.writeable = False
        size = sum(array.nbytes for array in arrays)
        if size <= self._room:
            self._room -= size
            self._kept[index] = sample
        return sample
