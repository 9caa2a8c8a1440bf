"""VIF: visual information fidelity in the pixel domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.validation import as_gray

_WINDOWS = (17, 9, 5, 3)
_NOISE_VARIANCE = 2.0
_TINY = 1e-10
_SMALLEST = 41  # the least side that leaves a pixel at the fourth scale


def vif(reference: ArrayLike, distorted: ArrayLike) -> float:
    """Visual information fidelity of `distorted` with regard to `reference`.

    Pixel-domain form with four scales, Gaussian windows 17, 9, 5, 3 (sigma = window / 5) and noise variance 2.
    1 for identical images; above 1 where contrast was raised without noise.

    Args:
        reference, distorted: shape (H, W), at least 41x41, range 0..255.

    Source: Sheikh and Bovik, "Image information and visual quality", IEEE TIP 2006.
    """
    ref, dist = as_gray(reference, distorted, smallest=_SMALLEST)
    preserved = total = 0.0
    for scale, window in enumerate(_WINDOWS):
        if scale > 0:
            ref = _blur(ref, window)[::2, ::2]
            dist = _blur(dist, window)[::2, ::2]
        mean_ref, mean_dist = _blur(ref, window), _blur(dist, window)
        var_ref = np.maximum(_blur(ref * ref, window) - mean_ref**2, 0)
        var_dist = np.maximum(_blur(dist * dist, window) - mean_dist**2, 0)
        covariance = _blur(ref * dist, window) - mean_ref * mean_dist

        gain = covariance / (var_ref + _TINY)
        flat = var_ref < _TINY
        gain[flat | (var_dist < _TINY) | (gain < 0)] = 0  # nothing is preserved there, whatever the residual
        var_ref[flat] = 0
        residual = np.maximum(var_dist - gain * covariance, _TINY)

        preserved += np.log2(1 + gain**2 * var_ref / (residual + _NOISE_VARIANCE)).sum()
        total += np.log2(1 + var_ref / _NOISE_VARIANCE).sum()
    return float((preserved + _TINY) / (total + _TINY))


def fusion_vif(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """VIF of a fused image: the sum over both sources, as fusion papers report it."""
    return vif(visible, fused) + vif(thermal, fused)


def _blur(image: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Gaussian mean over `window` pixels, only where the whole window fits."""
    from scipy.ndimage import correlate1d  # slow to load, and robots do without

    offset = np.arange(window) - window // 2
    kernel = np.exp(-(offset**2) / (2 * (window / 5) ** 2))
    kernel /= kernel.sum()
    blurred = correlate1d(correlate1d(image, kernel, axis=0), kernel, axis=1)
    margin = window // 2
    return blurred[margin:-margin, margin:-margin]
