"""Luma: the one gray value of a colour that every network, metric and graph here works on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B


def rgb_to_luma(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma of an RGB image (H, W, 3) uint8, as float32 (H, W) in 0..255, not rounded."""
    return rgb.astype(np.float32) @ np.asarray(LUMA_WEIGHTS, np.float32)
