"""How much has changed between two pairs: what tells near-duplicates from pairs that are worth labelling."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COLUMNS = 64
_LEAST_CONTRAST = 1.0  # grey level, count or degree: what has less is taken for even
Thumbnails = tuple[NDArray[np.float32], NDArray[np.float32]]


def make_thumbnails(visible: NDArray[np.uint8], thermal: NDArray[Any]) -> Thumbnails:
    """What `measure_motion` compares: both images small, and each with mean 0 and standard deviation 1.

    Args:
        visible: RGB (H,W,3).
        thermal: (h,w) of any depth.

    Returns:
        Of each image the grey levels, averaged over areas to 64 columns and as many rows as its aspect wants.
    """
    return _shrink(cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY)), _shrink(thermal)


def measure_motion(first: Thumbnails, second: Thumbnails) -> float:
    """How far two pairs are apart: 0 for the same, about 1.4 for scenes that have nothing to do with each other.

    Of each camera, the root mean square of the difference of both thumbnails, which is sqrt(2 (1 - r)) for images
    whose correlation is r: brightness, gain and exposure don't count. Of the two cameras, the larger one. Images of
    another size are apart by 2, which nothing else exceeds.
    """
    return max(_distance(one, other) for one, other in zip(first, second, strict=True))


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return 2.0 if one.shape != other.shape else float(np.sqrt(np.mean((one - other) ** 2, dtype=np.float64)))


def _shrink(image: NDArray[Any]) -> NDArray[np.float32]:
    height, width = image.shape
    size = (COLUMNS, max(1, round(height * COLUMNS / width)))
    values = image.astype(np.float32)
    known = np.isfinite(values)  # cameras that send degrees mark dead pixels by NaN
    if not known.all():
        values[~known] = values[known].mean() if known.any() else 0.0
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    spread = max(float(small.std()), _LEAST_CONTRAST)
    return (small - small.mean()) / spread
