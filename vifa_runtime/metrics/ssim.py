"""SSIM: structural similarity, in the two conventions that fusion papers use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.metrics.validation import as_gray

PRINTED_RANGE = 2.0  # that of scikit-image for float images: what papers of this field divide by on images of 0..255
_GAUSSIAN, _UNIFORM = 11, 7  # pixels
_SIGMA = 1.5


def fusion_ssim(visible: ArrayLike, thermal: ArrayLike, fused: ArrayLike) -> float:
    """SSIM summed over both sources, 7x7 uniform window, data range 2 on 0..255 images (metric `ssim`).

    This is what papers of this field print: scikit-image's old default for float images.

    Args:
        visible, thermal, fused: shape (H, W), at least 7x7, range 0..255.
    """
    return sum(ssim(source, fused, window="uniform", data_range=PRINTED_RANGE) for source in (visible, thermal))


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
    x, y = as_gray(a, b, smallest=_size(window))
    buffers = Buffers()
    first, second = Windowed.of(x, window, buffers, "first"), Windowed.of(y, window, buffers, "second")
    return ssim_of(first, second, data_range, buffers)


@dataclass(frozen=True, eq=False)
class Windowed:
    """One image with what SSIM needs of it alone, computed once for all images that it is compared with.

    Attributes:
        image: (H,W) float64.
        window: as of `ssim`.
        mean, power, variance: of the window around every pixel: its mean, the mean's square and its variance. Where
            the window does not fit they count in no sum.
    """

    image: NDArray[np.float64]
    window: str
    mean: NDArray[np.float64]
    power: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, image: NDArray[np.float64], window: str, buffers: Buffers, name: str) -> Windowed:
        """The windows of a finite image (H,W), at least as large as one of them.

        The arrays lie in the buffers, under this name.
        """
        mean = _mean(image, window, buffers, f"{name} mean")
        power = np.multiply(mean, mean, out=buffers.get(f"{name} power", mean.shape))
        square = np.multiply(image, image, out=buffers.get("product", image.shape))
        variance = _mean(square, window, buffers, f"{name} variance")
        variance -= power
        variance *= _bessel(window)
        return cls(image, window, mean, power, variance)


def ssim_of(a: Windowed, b: Windowed, data_range: float, buffers: Buffers) -> float:
    """`ssim` of two images of one shape that were looked at through the same windows."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    product = np.multiply(a.image, b.image, out=buffers.get("product", a.image.shape))
    structure = _mean(product, a.window, buffers, "covariance")
    likeness = np.multiply(a.mean, b.mean, out=buffers.get("likeness", a.mean.shape))
    structure -= likeness
    structure *= 2 * _bessel(a.window)
    structure += c2
    likeness *= 2
    likeness += c1
    likeness *= structure
    power = np.add(a.power, b.power, out=structure)
    power += c1
    likeness /= power
    variance = np.add(a.variance, b.variance, out=power)
    variance += c2
    likeness /= variance
    margin = _size(a.window) // 2
    return float(likeness[margin:-margin, margin:-margin].mean())


def _size(window: str) -> int:
    if window not in ("gaussian", "uniform"):
        raise ValueError(f"window must be 'gaussian' or 'uniform', got {window!r}")
    return _GAUSSIAN if window == "gaussian" else _UNIFORM


def _bessel(window: str) -> float:
    """What makes a variance of the population that of a sample, for the window that wants it."""
    return 1.0 if window == "gaussian" else _UNIFORM**2 / (_UNIFORM**2 - 1)


def _mean(image: NDArray[np.float64], window: str, buffers: Buffers, name: str) -> NDArray[np.float64]:
    """Weighted means over windows, in the buffer of that name."""
    size, means = _size(window), buffers.get(name, image.shape)
    if window == "gaussian":
        weights = cv2.getGaussianKernel(size, _SIGMA, cv2.CV_64F)
        cv2.sepFilter2D(image, cv2.CV_64F, weights, weights, dst=means)
    else:
        cv2.boxFilter(image, cv2.CV_64F, (size, size), dst=means)
    return means
