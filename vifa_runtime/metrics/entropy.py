"""EN: Shannon entropy of the gray-level histogram."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vifa_runtime.metrics.validation import as_gray


def entropy(image: ArrayLike) -> float:
    """Entropy of the 256-bin histogram of one image, in bits (0..8).

    Args:
        image: shape (H, W), range 0..255; rounded to whole gray levels.
    """
    (gray,) = as_gray(image)
    levels = np.clip(np.rint(gray), 0, 255).astype(np.uint8)
    probability = cv2.calcHist([levels], [0], None, [256], [0, 256]).astype(np.float64) / levels.size
    occupied = probability[probability > 0]
    return float(-(occupied * np.log2(occupied)).sum()) + 0.0
