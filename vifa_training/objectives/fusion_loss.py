"""Unsupervised fusion losses: what a fused luma should keep of its two sources.

Every function takes tensors of shape (B,1,H,W) in 0..1 and returns a scalar. The default loss is the one that
PIAFusion and SwinFusion share: intensity maximum, gradient maximum, weighted structural similarity; `information`,
ours, keeps a fused image from trading the detail of one source for the other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SOBEL_SUM = 8  # of the absolute weights of a Sobel kernel: over it, a derivative is in gray levels a pixel


@dataclass(frozen=True)
class FusionWeights:
    """How much each term of the fusion loss counts.

    Attributes:
        thermal_gain: dims the thermal image before every term; below 1 the visible image leads.
        maximum: pull to the brighter source at each pixel.
        visible, thermal: pull to the one source alone.
        hot: extra weight of `maximum` where the thermal image stands out (0 none).
        gradient: pull to the stronger of the two sources' gradients.
        ssim: structural similarity with both sources.
        ssim_visible: share of the visible image in `ssim`, 0..1; the thermal one gets the rest.
            None: by each source's mean gradient, as SwinFusion does.
        information: share of each source's local information that is kept (see `information`).
    """

    thermal_gain: float = 1.0
    maximum: float = 0.0
    visible: float = 0.0
    thermal: float = 0.0
    hot: float = 0.0
    gradient: float = 20.0
    ssim: float = 10.0
    ssim_visible: float | None = None
    information: float = 0.0


def fusion_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor, weights: FusionWeights) -> Tensor:
    """The weighted sum of all terms for one task's fused luma (before its clamp)."""
    thermal = weights.thermal_gain * thermal
    loss = weights.gradient * gradient_loss(fused, visible_y, thermal)
    if weights.maximum:
        importance = 1 + weights.hot * thermal_prominence(thermal)
        loss = loss + weights.maximum * (importance * (fused - torch.maximum(visible_y, thermal)).abs()).mean()
    if weights.visible:
        loss = loss + weights.visible * F.l1_loss(fused, visible_y)
    if weights.thermal:
        loss = loss + weights.thermal * F.l1_loss(fused, thermal)
    if weights.ssim or weights.information:
        sources = torch.cat([visible_y, thermal], dim=1)
        local = local_statistics(fused, sources)
        if weights.ssim:
            loss = loss + weights.ssim * _ssim_loss(_ssim(local), visible_y, thermal, weights.ssim_visible)
        if weights.information:
            loss = loss + weights.information * (1 - _information(local, fused, sources))
    return loss


def gradient_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor) -> Tensor:
    """|grad F - the stronger source's gradient|_1, signed, by Sobel in x and y.

    The papers compare magnitudes; keeping the sign also forbids inverted edges.
    """
    gf, gv, gt = sobel(fused), sobel(visible_y), sobel(thermal)
    stronger = torch.where(gv.abs() >= gt.abs(), gv, gt)
    return F.l1_loss(gf, stronger)


def ssim_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor, visible_share: float | None = None) -> Tensor:
    """1 - sum of w SSIM(source, F); w by each source's mean Sobel gradient, or `visible_share` and the rest."""
    return _ssim_loss(ssim_map(fused, torch.cat([visible_y, thermal], dim=1)), visible_y, thermal, visible_share)


def _ssim_loss(ssim: Tensor, visible_y: Tensor, thermal: Tensor, visible_share: float | None) -> Tensor:
    """See `ssim_loss`; `ssim` is of both sources, (B,2,h,w)."""
    if visible_share is None:
        share = gradient_share(visible_y, thermal)
    else:
        share = torch.as_tensor(visible_share, dtype=ssim.dtype, device=ssim.device)
    return 1 - (share * ssim[:, :1] + (1 - share) * ssim[:, 1:]).mean()


def gradient_share(visible_y: Tensor, thermal: Tensor) -> Tensor:
    """The visible image's share of both images' mean Sobel gradient, (B,1,1,1); one half where neither has any."""
    strength_v = sobel(visible_y).abs().mean(dim=(1, 2, 3))
    strength_t = sobel(thermal).abs().mean(dim=(1, 2, 3))
    return ((strength_v + 1e-6) / (strength_v + strength_t + 2e-6)).view(-1, 1, 1, 1)


def magnitude_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor) -> Tensor:
    """|grad F - max(grad Y, grad IR)|_1 with grad = |Sobel x| + |Sobel y|, as PIAFusion and SwinFusion write it.

    The published code pads with zeros before Sobel, which adds the picture's rim as an edge; here only pixels inside
    the image count.
    """
    gf, gv, gt = (sobel(image).abs().sum(dim=1, keepdim=True) for image in (fused, visible_y, thermal))
    return F.l1_loss(gf, torch.maximum(gv, gt))


def ssim_map(fused: Tensor, sources: Tensor) -> Tensor:
    """SSIM over every other 7x7 uniform window inside the image, data range 1; see `local_statistics` for shapes."""
    return _ssim(local_statistics(fused, sources))


def sobel(image: Tensor) -> Tensor:
    """Horizontal and vertical Sobel derivatives inside the image, shape (B,2,H-2,W-2)."""
    down = image[:, :, :-2] + 2 * image[:, :, 1:-1] + image[:, :, 2:]
    across = image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]
    return torch.cat([down[..., 2:] - down[..., :-2], across[:, :, 2:] - across[:, :, :-2]], dim=1)


def thermal_prominence(thermal: Tensor) -> Tensor:
    """How much warmer each pixel is than its image's mean: 0..3 standard deviations, scaled to 0..1."""
    mean = thermal.mean(dim=(2, 3), keepdim=True)
    spread = thermal.std(dim=(2, 3), keepdim=True)
    return ((thermal - mean) / (3 * spread + 1e-6)).clamp(0, 1)


def information(fused: Tensor, sources: Tensor) -> Tensor:
    """Share of each source's local information kept, mean: VIF with 7x7 windows at two scales, gain at most 1."""
    return _information(local_statistics(fused, sources), fused, sources)


class LocalStatistics(NamedTuple):
    """Of a fused image a (B,1,h,w) and S sources b (B,S,h,w), a value a window."""

    mean_a: Tensor
    mean_b: Tensor
    variance_a: Tensor
    variance_b: Tensor
    covariance: Tensor


def local_statistics(fused: Tensor, sources: Tensor) -> LocalStatistics:
    """Means, variances and covariances over every other 7x7 uniform window inside the image, of all in two passes.

    Args:
        fused: (B,1,H,W).
        sources: (B,S,H,W), of which no gradient is needed.

    Returns:
        Maps of (H-5)/2 rows and (W-5)/2 columns.
    """
    count = sources.shape[1]
    constant = _mean(torch.cat([sources, sources * sources], dim=1))
    mean_b, square_b = constant[:, :count], constant[:, count:]
    varying = _mean(torch.cat([fused, fused * fused, fused * sources], dim=1))
    mean_a, square_a, product = varying[:, :1], varying[:, 1:2], varying[:, 2:]
    return LocalStatistics(mean_a, mean_b, square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b)


def _mean(images: Tensor) -> Tensor:
    """Mean over every other 7x7 window inside each image: 14 shifted sums, faster on a CPU than pooling is."""
    height, width = images.shape[2:]
    rows = sum(images[:, :, shift : height - 6 + shift : 2] for shift in range(7))
    return sum(rows[..., shift : width - 6 + shift : 2] for shift in range(7)) / 49


def _ssim(local: LocalStatistics) -> Tensor:
    """SSIM of each source (B,S,h,w)."""
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * local.mean_a * local.mean_b + c1) / (local.mean_a**2 + local.mean_b**2 + c1)
    return luminance * (2 * local.covariance + c2) / (local.variance_a + local.variance_b + c2)


def _information(local: LocalStatistics, fused: Tensor, sources: Tensor) -> Tensor:
    """See `information`; `local` is of these images."""
    kept = total = 0
    for scale in range(2):
        if scale:
            local = local_statistics(F.avg_pool2d(fused, 2), F.avg_pool2d(sources, 2))
        variance_a, variance_b, both = (255**2 * part for part in local[2:])  # in gray levels, as VIF's noise of 2
        image, source = variance_a.clamp(min=0), variance_b.clamp(min=0)
        gain = (both / (source + 1e-2)).clamp(min=0)
        noise = (image - gain * both).clamp(min=0)
        kept = kept + torch.log2(1 + gain.clamp(max=1) ** 2 * source / (noise + 2)).sum((2, 3))
        total = total + torch.log2(1 + source / 2).sum((2, 3))
    return ((kept + 1e-3) / (total + 1e-3)).mean()
