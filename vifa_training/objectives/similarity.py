"""Structural similarity under Gaussian windows, as the published recipes use it.

Every function takes images of shape (B,1,H,W) in 0..1 and returns a map of that shape; constants are those of Wang et
al. 2004 for a data range of 1. Borders are reflected (the papers are silent; their code pads with zeros or reflects),
so that a map has no dark rim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

C1, C2 = 0.01**2, 0.03**2
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
MULTI_SCALE_SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
LARGEST_RADIUS = 16


def gaussian_ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """SSIM by an 11x11 Gaussian window of sigma 1.5 (Wang et al. 2004); images of at least 6x6."""
    luminance, contrast = _similarity(a, b, SSIM_SIGMA, SSIM_RADIUS)
    return luminance * contrast


def ms_ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale SSIM at full resolution: luminance under the widest window times contrast under each of five.

    Windows of growing sigma stand for the pyramid of Wang et al. 2003, so that a crop of any size from 17x17 has all
    scales: Zhao et al., "Loss functions for image restoration with neural networks", 2017, which TarDAL's code uses.
    """
    product = torch.ones_like(a)
    for sigma in MULTI_SCALE_SIGMAS:
        luminance, contrast = _similarity(a, b, sigma, window_radius(sigma))
        product = product * contrast
    return product * luminance


def gaussian_blur(images: Tensor, sigma: float, radius: int) -> Tensor:
    """Convolve each channel of (B,C,H,W) with a Gaussian of 2 radius + 1 pixels; H and W above `radius`."""
    batch, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = window / window.sum()
    stack = F.pad(images.reshape(batch * channels, 1, height, width), (radius,) * 4, mode="reflect")
    stack = F.conv2d(F.conv2d(stack, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return stack.reshape(batch, channels, height, width)


def window_radius(sigma: float) -> int:
    """Four sigmas, at most the 16 pixels where the published windows end."""
    return min(math.ceil(4 * sigma), LARGEST_RADIUS)


def _similarity(a: Tensor, b: Tensor, sigma: float, radius: int) -> tuple[Tensor, Tensor]:
    """SSIM's luminance part, and its contrast and structure part."""
    # In bfloat16 the variances, small differences of large means, would be nothing but rounding.
    a, b = (image.to(torch.promote_types(image.dtype, torch.float32)) for image in (a, b))
    with torch.autocast(a.device.type, enabled=False):
        moments = gaussian_blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), sigma, radius)
    mean_a, mean_b, square_a, square_b, product = moments.split(1, dim=1)
    variances = square_a - mean_a**2 + square_b - mean_b**2
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    contrast = (2 * (product - mean_a * mean_b) + C2) / (variances + C2)
    return luminance, contrast
