"""The input checks that metrics call at their boundary: of gray images, and of which images of a data set count."""

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


def image_counts(images: ArrayLike | None, count: int) -> NDArray[np.int64]:
    """How often each of `count` images occurs in `images`: shape (count,).

    Args:
        images: shape (M,), integers 0..count-1 in any order, repeated or not; each image once where it is None.
        count: the number of images there are.

    Raises:
        ValueError: not a list of integers, or one of them out of range; names it.
    """
    if images is None:
        return np.ones(count, np.int64)
    indices = np.asarray(images)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ValueError(f"expected image indices (M,) of integers, got shape {indices.shape} of {indices.dtype}")
    wrong = indices[(indices < 0) | (indices >= count)]
    if wrong.size:
        raise ValueError(f"image {wrong[0]} is not among the {count} images; expected 0..{count - 1}")
    return np.bincount(indices.astype(np.int64), minlength=count).astype(np.int64)
