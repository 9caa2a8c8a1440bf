"""Luma and colour in torch: what the exported graphs do to camera images, for training on colour images."""

from __future__ import annotations

from torch import Tensor

from vifa_runtime.luma import LUMA_WEIGHTS


def luma(rgb: Tensor) -> Tensor:
    """Luma (B,1,H,W) of RGB images (B,3,H,W), both 0..1."""
    return (rgb * rgb.new_tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def recolour(rgb: Tensor, fused_y: Tensor) -> Tensor:
    """RGB images (B,3,H,W) with a fused luma (B,1,H,W), all 0..1: clip(rgb + (fused_y - luma(rgb)), 0, 1)."""
    return (rgb + (fused_y.clamp(0, 1) - luma(rgb))).clamp(0, 1)
