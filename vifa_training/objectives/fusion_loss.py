"""Unsupervised fusion losses: what a fused luma should keep of its two sources.

Every function takes tensors of shape (B,1,H,W) in 0..1 and returns a scalar. The default loss is the one that
PIAFusion and SwinFusion share: intensity maximum, gradient maximum, weighted structural similarity; `information`,
ours, keeps a fused image from trading the detail of one source for the other's.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    if weights.ssim:
        loss = loss + weights.ssim * ssim_loss(fused, visible_y, thermal, weights.ssim_visible)
    if weights.information:
        kept = information(fused, visible_y) + information(fused, thermal)
        loss = loss + weights.information * (1 - kept / 2)
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
    ssim_v, ssim_t = ssim_map(fused, visible_y), ssim_map(fused, thermal)
    if visible_share is None:
        share = gradient_share(visible_y, thermal)
    else:
        share = torch.as_tensor(visible_share, dtype=fused.dtype, device=fused.device)
    return 1 - (share * ssim_v + (1 - share) * ssim_t).mean()


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


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """SSIM over every other 7x7 uniform window inside the image, data range 1; shape (B,1,(H-5)/2,(W-5)/2)."""
    mean_a, mean_b = _mean(a), _mean(b)
    var_a, var_b = _mean(a * a) - mean_a**2, _mean(b * b) - mean_b**2
    covariance = _mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (var_a + var_b + c2)


def sobel(image: Tensor) -> Tensor:
    """Horizontal and vertical Sobel derivatives inside the image, shape (B,2,H-2,W-2)."""
    smooth = image.new_tensor([1.0, 2.0, 1.0])
    step = image.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, step), torch.outer(step, smooth)]).unsqueeze(1)
    return F.conv2d(image, kernels)


def thermal_prominence(thermal: Tensor) -> Tensor:
    """How much warmer each pixel is than its image's mean: 0..3 standard deviations, scaled to 0..1."""
    mean = thermal.mean(dim=(2, 3), keepdim=True)
    spread = thermal.std(dim=(2, 3), keepdim=True)
    return ((thermal - mean) / (3 * spread + 1e-6)).clamp(0, 1)


def _mean(image: Tensor) -> Tensor:
    """Mean over every other 7x7 window inside the image, as two passes of 7."""
    return F.avg_pool2d(F.avg_pool2d(image, (7, 1), stride=(2, 1)), (1, 7), stride=(1, 2))


def information(fused: Tensor, source: Tensor) -> Tensor:
    """Share of a source's local information kept: VIF with 7x7 windows at two scales, gain at most 1."""
    kept = total = 0
    fused, source = 255 * fused, 255 * source
    for scale in range(2):
        if scale:
            fused, source = F.avg_pool2d(fused, 2), F.avg_pool2d(source, 2)
        mean_s, mean_f = _mean(source), _mean(fused)
        var_s = (_mean(source * source) - mean_s**2).clamp(min=0)
        var_f = (_mean(fused * fused) - mean_f**2).clamp(min=0)
        covariance = _mean(source * fused) - mean_s * mean_f
        gain = (covariance / (var_s + 1e-2)).clamp(min=0)
        noise = (var_f - gain * covariance).clamp(min=0)
        kept = kept + torch.log2(1 + gain.clamp(max=1) ** 2 * var_s / (noise + 2)).sum((1, 2, 3))
        total = total + torch.log2(1 + var_s / 2).sum((1, 2, 3))
    return ((kept + 1e-3) / (total + 1e-3)).mean()
