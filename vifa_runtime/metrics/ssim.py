"""SSIM: structural similarity, in the two conventions that fusion papers use."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.validation import as_gray


def fusion_ssim(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """SSIM summed over both sources, 7x7 uniform window, data range 2 on 0..255 images (metric `ssim`).

    This is what papers of this field print: scikit-image's old default for float images.

    Args:
        visible, thermal, fused: shape (H, W), at least 7x7, range 0..255.
    """
    return sum(ssim(source, fused, window="uniform", data_range=2.0) for source in (visible, thermal))


def fusion_ssim_mean(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """Mean over both sources of the standard SSIM: Gaussian window, data range 255 (metric `ssim_mean`)."""
    return sum(ssim(source, fused) for source in (visible, thermal)) / 2


def ssim(a: ArrayLike, b: ArrayLike, *, window: str = "gaussian", data_range: float = 255.0) -> float:
    """Mean structural similarity of two gray images (-1..1), over windows that lie inside the image.

    Args:
        a, b: shape (H, W), range 0..`data_range` by the standard.
        window: "gaussian" (11x11, sigma 1.5, population covariance) or "uniform" (7x7, sample covariance).
        data_range: L of the constants (0.01 L)^2 and (0.03 L)^2.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter  # slow to load, and robots do without

    if window == "gaussian":
        size, bessel = 11, 1.0
    elif window == "uniform":
        size, bessel = 7, 49 / 48
    else:
        raise ValueError(f"window must be 'gaussian' or 'uniform', got {window!r}")
    x, y = as_gray(a, b, smallest=size)

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        if window == "gaussian":
            return gaussian_filter(image, 1.5, truncate=3.5)  # a radius of 5
        return uniform_filter(image, size)

    mean_x, mean_y = mean(x), mean(y)
    var_x = bessel * (mean(x * x) - mean_x**2)
    var_y = bessel * (mean(y * y) - mean_y**2)
    covariance = bessel * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    margin = size // 2
    return float((luminance * structure)[margin:-margin, margin:-margin].mean())
