"""SF: spatial frequency (the VIFA paper calls it structural fidelity)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vifa_runtime.metrics.validation import as_gray


def spatial_frequency(image: ArrayLike) -> float:
    """sqrt(mean dx^2 + mean dy^2) of first differences, in gray levels (0 and above).

    Args:
        image: shape (H, W), at least 2x2, range 0..255.

    Source: Eskicioglu and Fisher, "Image quality measures and their performance", 1995.
    """
    (gray,) = as_gray(image, smallest=2)
    row = np.mean(np.diff(gray, axis=1) ** 2)
    column = np.mean(np.diff(gray, axis=0) ** 2)
    return float(np.sqrt(row + column))
