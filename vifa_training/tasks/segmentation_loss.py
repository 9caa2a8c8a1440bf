"""What segmenters minimise: cross entropy and soft Dice over the pixels that are known."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_runtime.labels import UNKNOWN


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy plus soft Dice loss, a scalar; 0 where no pixel is known.

    Cross entropy is the mean over known pixels. Dice counts every class that is there alike, whether it covers a tenth
    of the image or a thousandth, so that rare classes do not vanish: 1 - 2 sum(p t) / (sum(p) + sum(t)), p the
    probability and t the truth, summed over the batch's known pixels, and the mean taken over the classes that are in
    the batch's truth.

    Source: Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical image segmentation",
    3DV 2016; the sum of both losses: Isensee et al., "nnU-Net", Nature Methods 2021.

    Args:
        logits: (B,K,H,W).
        mask: (B,H,W) int64 class ids below K, 255 where unknown.
    """
    logits = logits.float()
    known = mask != UNKNOWN
    entropy = F.cross_entropy(logits, mask, ignore_index=UNKNOWN, reduction="sum") / known.sum().clamp(min=1)
    return entropy + dice_loss(logits, mask)


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """The second part of `segmentation_loss`, 0..1."""
    known = (mask != UNKNOWN).unsqueeze(1)
    classes = torch.arange(logits.shape[1], device=mask.device).view(1, -1, 1, 1)
    truth = (mask.unsqueeze(1) == classes).to(logits.dtype)
    probability = logits.softmax(dim=1) * known
    common, both = ((probability * truth).sum((0, 2, 3)), (probability + truth).sum((0, 2, 3)))
    present = truth.sum((0, 2, 3)) > 0
    missed = torch.where(present, 1 - 2 * common / both.clamp(min=1), torch.zeros_like(common))
    return missed.sum() / present.sum().clamp(min=1)
