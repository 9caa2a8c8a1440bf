"""VIF: visual information fidelity in the pixel domain."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.metrics.validation import as_gray

SMALLEST = 41  # the least side, pixels, that leaves a pixel at the fourth scale
_WINDOWS = (17, 9, 5, 3)
_NOISE_VARIANCE = 2.0
_TINY = 1e-10

Image = NDArray[np.float64]


def vif(reference: ArrayLike, distorted: ArrayLike) -> float:
    """Visual information fidelity of `distorted` with regard to `reference`.

    Pixel-domain form with four scales, Gaussian windows 17, 9, 5, 3 (sigma = window / 5) and noise variance 2.
    1 for identical images; above 1 where contrast was raised without noise.

    Args:
        reference, distorted: shape (H, W), at least 41x41, range 0..255.

    Source: Sheikh and Bovik, "Image information and visual quality", IEEE TIP 2006.
    """
    ref, dist = as_gray(reference, distorted, smallest=SMALLEST)
    buffers = Buffers()
    return VifReference(scales_of(ref, buffers, "reference"), buffers, "reference").vif(
        scales_of(dist, buffers, "distorted"), buffers
    )


def fusion_vif(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """VIF of a fused image: the sum over both sources, as fusion papers report it."""
    return vif(visible, fused) + vif(thermal, fused)


@dataclass(frozen=True, eq=False)
class Scale:
    """One image at one scale, with what VIF needs of it alone.

    All arrays are of one shape, as operations on whole arrays take a third of the time of those on parts of them. What
    lies so near to the border that a window does not fit counts in no sum.

    Attributes:
        image: (h,w).
        mean, variance: of the window around every pixel; a variance below 1e-10 is 0.
    """

    image: Image
    mean: Image
    variance: Image


def scales_of(image: Image, buffers: Buffers, name: str) -> list[Scale]:
    """An image (H,W), 41 pixels and more a side, at VIF's four scales: once for all images it is compared with.

    The arrays lie in the buffers, under this name.
    """
    scales = []
    for number, window in enumerate(_WINDOWS):
        own = f"{name} {number}"
        if number > 0:
            half = _inside(_blur(image, window, buffers, f"half {number}"), window)[::2, ::2]
            image = buffers.get(f"{own} image", half.shape)
            np.copyto(image, half)
        mean = _blur(image, window, buffers, f"{own} mean")
        product = np.multiply(image, image, out=buffers.get(f"product {number}", image.shape))
        variance = _blur(product, window, buffers, f"{own} variance")
        variance -= np.multiply(mean, mean, out=product)
        cv2.threshold(variance, _TINY, 0, cv2.THRESH_TOZERO, dst=variance)
        scales.append(Scale(image, mean, variance))
    return scales


class VifReference:
    """An image that others are compared with, and what VIF needs of it alone."""

    def __init__(self, scales: list[Scale], buffers: Buffers, name: str) -> None:
        """Compute that; the arrays lie in the buffers, under this name.

        Args:
            scales: of the image.
        """
        self._scales = scales
        self._inverse: list[Image] = []
        self._weight: list[Image] = []
        self._total = 0.0
        for number, (scale, window) in enumerate(zip(scales, _WINDOWS, strict=True)):
            shape = scale.variance.shape
            inverse = np.add(scale.variance, _TINY, out=buffers.get(f"{name} {number} inverse", shape))
            np.divide(1, inverse, out=inverse)
            weight = np.multiply(inverse, inverse, out=buffers.get(f"{name} {number} weight", shape))
            weight *= scale.variance
            self._inverse.append(inverse)
            self._weight.append(weight)
            ratio = np.divide(scale.variance, _NOISE_VARIANCE, out=buffers.get(f"product {number}", shape))
            self._total += _bits(ratio, window)

    def vif(self, distorted: list[Scale], buffers: Buffers) -> float:
        """VIF of an image of the same shape, at its four scales.

        With the gain g = covariance / variance, what is preserved at a pixel is g^2 variance against the noise and the
        rest of the distorted image's variance, that less g covariance. A negative gain preserves nothing.
        """
        preserved = 0.0
        parts = zip(self._scales, distorted, self._inverse, self._weight, _WINDOWS, strict=True)
        for number, (ref, dist, inverse, weight, window) in enumerate(parts):
            product = np.multiply(ref.image, dist.image, out=buffers.get(f"product {number}", ref.image.shape))
            power = _blur(product, window, buffers, f"covariance {number}")
            power -= np.multiply(ref.mean, dist.mean, out=product)
            cv2.threshold(power, 0, 0, cv2.THRESH_TOZERO, dst=power)
            power *= power  # of the covariance
            residual = np.multiply(power, inverse, out=product)
            np.subtract(dist.variance, residual, out=residual)
            cv2.threshold(residual, 0, 0, cv2.THRESH_TOZERO, dst=residual)
            residual += _NOISE_VARIANCE
            power *= weight
            power /= residual
            preserved += _bits(power, window)
        return (preserved + _TINY) / (self._total + _TINY)


def _bits(ratios: Image, window: int) -> float:
    """The sum of log2(1 + ratio) where the window fits; `ratios` are overwritten."""
    ratios += 1
    cv2.log(ratios, dst=ratios)
    return float(_inside(ratios, window).sum() / np.log(2))


def _blur(image: Image, window: int, buffers: Buffers, name: str) -> Image:
    """Gaussian mean over `window` pixels, in the buffer of that name."""
    weights = cv2.getGaussianKernel(window, window / 5, cv2.CV_64F)
    blurred = buffers.get(name, image.shape)
    cv2.sepFilter2D(image, cv2.CV_64F, weights, weights, dst=blurred)
    return blurred


def _inside(image: Image, window: int) -> Image:
    """The part where the whole window fits."""
    margin = window // 2
    return image[margin:-margin, margin:-margin]
