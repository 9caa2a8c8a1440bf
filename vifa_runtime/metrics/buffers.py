"""Arrays that are used again from one image to the next: fresh memory of that size takes longer than the arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Float64 arrays by name. Used by one thread at a time; what is in one is lost when it is asked for again."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.float64]] = {}

    def get(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The array of this name, whatever is in it; a new one where the shape is another than last time."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape)
        return array
