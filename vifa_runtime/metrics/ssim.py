"""SSIM: structural similarity, in the two conventions that fusion papers use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    return ssim_of(Windowed.of(x, window), Windowed.of(y, window), data_range)


@dataclass(frozen=True, eq=False)
class Windowed:
    """One image with what SSIM needs of it alone, computed once for all images that it is compared with.

    Attributes:
        image: (H,W) float64.
        window: as of `ssim`.
        mean, power, variance: of every window inside the image: its mean, the mean's square and its variance.
    """

    image: NDArray[np.float64]
    window: str
    mean: NDArray[np.float64]
    power: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, image: NDArray[np.float64], window: str) -> Windowed:
        """The windows of a finite image (H,W), at least as large as one of them."""
        mean = _mean(image, window)
        power = mean * mean
        variance = _mean(image * image, window)
        variance -= power
        variance *= _bessel(window)
        return cls(image, window, mean, power, variance)


def ssim_of(a: Windowed, b: Windowed, data_range: float) -> float:
    """`ssim` of two images of one shape that were looked at through the same windows."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    both = a.mean * b.mean
    covariance = _mean(a.image * b.image, a.window)
    covariance -= both
    covariance *= 2 * _bessel(a.window)
    covariance += c2
    both *= 2
    both += c1
    likeness = np.multiply(both, covariance, out=both)
    power = np.add(a.power, b.power)
    power += c1
    variance = np.add(a.variance, b.variance, out=covariance)
    variance += c2
    power *= variance
    likeness /= power
    return float(likeness.mean())


def _size(window: str) -> int:
    if window not in ("gaussian", "uniform"):
        raise ValueError(f"window must be 'gaussian' or 'uniform', got {window!r}")
    return _GAUSSIAN if window == "gaussian" else _UNIFORM


def _bessel(window: str) -> float:
    """What makes a variance of the population that of a sample, for the window that wants it."""
    return 1.0 if window == "gaussian" else _UNIFORM**2 / (_UNIFORM**2 - 1)


def _mean(image: NDArray[np.float64], window: str) -> NDArray[np.float64]:
    """Weighted means over windows, only where the whole window fits."""
    size = _size(window)
    if window == "gaussian":
        weights = cv2.getGaussianKernel(size, _SIGMA, cv2.CV_64F)
        means = cv2.sepFilter2D(image, cv2.CV_64F, weights, weights)
    else:
        means = cv2.boxFilter(image, cv2.CV_64F, (size, size))
    margin = size // 2
    return np.asarray(means, np.float64)[margin:-margin, margin:-margin]
