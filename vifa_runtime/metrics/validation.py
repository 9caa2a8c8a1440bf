"""The one input check that every metric calls at its boundary."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_gray(*images: ArrayLike, smallest: int = 1) -> list[NDArray[np.float64]]:
    """Return gray images as float64 after checking that they can be compared.

    Args:
        images: each of shape (H, W), any real dtype, range 0..255.
        smallest: least height and width that the metric's window needs.

    Raises:
        ValueError: not two-dimensional, of different shapes, too small, or not finite.
    """
    arrays = [np.asarray(image, np.float64) for image in images]
    shape = arrays[0].shape
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"expected a gray image of shape (H, W), got shape {array.shape}")
        if array.shape != shape:
            raise ValueError(f"expected images of one shape, got {shape} and {array.shape}")
        if min(array.shape) < smallest:
            raise ValueError(f"expected at least {smallest}x{smallest} pixels, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("expected finite pixel values, got NaN or infinity")
    return arrays
