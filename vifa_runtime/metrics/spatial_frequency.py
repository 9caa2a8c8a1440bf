"""SF: spatial frequency (the VIFA paper calls it structural fidelity)."""

from __future__ import annotations

import math

import cv2
from numpy.typing import ArrayLike

from vifa_runtime.metrics.validation import as_gray


def spatial_frequency(image: ArrayLike) -> float:
    """sqrt(mean dx^2 + mean dy^2) of first differences, in gray levels (0 and above).

    Args:
        image: shape (H, W), at least 2x2, range 0..255.

    Source: Eskicioglu and Fisher, "Image quality measures and their performance", 1995.
    """
    (gray,) = as_gray(image, smallest=2)
    height, width = gray.shape
    row = cv2.norm(gray[:, 1:], gray[:, :-1], cv2.NORM_L2SQR) / (height * (width - 1))
    column = cv2.norm(gray[1:], gray[:-1], cv2.NORM_L2SQR) / ((height - 1) * width)
    return math.sqrt(row + column)
