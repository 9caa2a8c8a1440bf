"""VIF: visual information fidelity in the pixel domain."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.validation import as_gray

SMALLEST = 41  # the least side, pixels, that leaves a pixel at the fourth scale
_WINDOWS = (17, 9, 5, 3)
_NOISE_VARIANCE = 2.0
_TINY = 1e-10


def vif(reference: ArrayLike, distorted: ArrayLike) -> float:
    """Visual information fidelity of `distorted` with regard to `reference`.

    Pixel-domain form with four scales, Gaussian windows 17, 9, 5, 3 (sigma = window / 5) and noise variance 2.
    1 for identical images; above 1 where contrast was raised without noise.

    Args:
        reference, distorted: shape (H, W), at least 41x41, range 0..255.

    Source: Sheikh and Bovik, "Image information and visual quality", IEEE TIP 2006.
    """
    ref, dist = as_gray(reference, distorted, smallest=SMALLEST)
    return vif_of(scales_of(ref), scales_of(dist))


def fusion_vif(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """VIF of a fused image: the sum over both sources, as fusion papers report it."""
    return vif(visible, fused) + vif(thermal, fused)


@dataclass(frozen=True, eq=False)
class Scale:
    """One image at one scale, with what VIF needs of it alone.

    Attributes:
        image: (h,w) float64.
        mean, variance: of every window inside it.
    """

    image: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def scales_of(image: NDArray[np.float64]) -> list[Scale]:
    """An image (H,W), 41 pixels and more a side, at VIF's four scales: once for all images it is compared with."""
    scales = []
    for number, window in enumerate(_WINDOWS):
        if number > 0:
            image = np.ascontiguousarray(_blur(image, window)[::2, ::2])
        mean = _blur(image, window)
        variance = _blur(image * image, window)
        variance -= mean * mean
        scales.append(Scale(image, mean, np.maximum(variance, 0, out=variance)))
    return scales


def vif_of(reference: list[Scale], distorted: list[Scale]) -> float:
    """`vif` of two images of one shape, each at its four scales."""
    preserved = total = 0.0
    for ref, dist, window in zip(reference, distorted, _WINDOWS, strict=True):
        covariance = _blur(ref.image * dist.image, window)
        covariance -= ref.mean * dist.mean
        gain = np.divide(covariance, ref.variance + _TINY)
        # Where either is flat, nothing is preserved, whatever the residual.
        gain *= (ref.variance >= _TINY) & (dist.variance >= _TINY) & (gain >= 0)
        variance = ref.variance * (ref.variance >= _TINY)
        covariance *= gain
        residual = np.subtract(dist.variance, covariance, out=covariance)
        np.maximum(residual, _TINY, out=residual)
        residual += _NOISE_VARIANCE
        gain *= gain
        gain *= variance
        gain /= residual
        preserved += _bits(gain)
        variance /= _NOISE_VARIANCE
        total += _bits(variance)
    return (preserved + _TINY) / (total + _TINY)


def _bits(ratios: NDArray[np.float64]) -> float:
    """The sum of log2(1 + ratio); `ratios` are overwritten."""
    ratios += 1
    return float(cv2.log(ratios, dst=ratios).sum() / np.log(2))


def _blur(image: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Gaussian mean over `window` pixels, only where the whole window fits."""
    weights = cv2.getGaussianKernel(window, window / 5, cv2.CV_64F)
    blurred = np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, weights, weights), np.float64)
    margin = window // 2
    return blurred[margin:-margin, margin:-margin]
