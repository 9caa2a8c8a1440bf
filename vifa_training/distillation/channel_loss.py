"""Key channel-constrained distillation (section 3.2, Eq. 1): key channels stay what they were, the others go free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Importance = Mapping[str, Tensor]


def join_importance(masks: Sequence[Importance]) -> dict[str, Tensor]:
    """What several earlier data sets p ask for together: the sum of their M^p, layer by layer.

    Eq. 1 is linear in M: with one previous model f^p for all, its sum over the data sets is this.

    Args:
        masks: one or more, each layer -> (C,), of the same layers and channels.

    Raises:
        ValueError: none, or of different layers or channels.
    """
    sizes = [{name: len(importance) for name, importance in mask.items()} for mask in masks]
    if not sizes or any(size != sizes[0] for size in sizes):
        raise ValueError("importance masks of one network are needed, of the same layers and channels; make them again")
    return {name: torch.stack([mask[name] for mask in masks]).sum(dim=0) for name in sizes[0]}


def channel_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    importance: Importance | Sequence[Importance],
    per_pixel: bool = True,
) -> Tensor:
    """Eq. 1: sum over layers l and key channels c of M_lc * ||f_lc - f^p_lc||_2, the mean over the batch's images.

    The norm is over the pixels of one channel of one image. It grows with the square root of their number: `per_pixel`
    divides by that, so that the weight of the loss means the same whatever the crop and the layer's grid. Without, it
    is Eq. 1 as printed.

    Where student and teacher agree, as at the start, the gradient is zero. Channels of importance 0 get none anywhere.

    Args:
        student: layer -> features (B,C,H,W) of the network in training; more layers than `importance` has are fine.
        teacher: the same of the previous model; no gradient reaches it.
        importance: layer -> M (C,), 0 and above; or one such mask for each earlier data set, which are summed.
        per_pixel: whether to divide each norm by the square root of H * W.

    Returns:
        A scalar, 0 and above; float32 whatever the precision of the features.

    Raises:
        ValueError: a layer is missing, or its features do not fit each other or the mask.
    """
    masks = importance if isinstance(importance, Mapping) else join_importance(importance)
    total = torch.zeros(())
    for name, weights in masks.items():
        own, previous = _features(student, name, "student"), _features(teacher, name, "teacher")
        if own.shape != previous.shape or own.shape[1] != len(weights):
            raise ValueError(
                f"layer {name}: features {tuple(own.shape)} of the student, {tuple(previous.shape)} of the teacher and "
                f"a mask of {len(weights)} channels do not fit; use one network and masks made of it"
            )
        weights = weights.to(own.device, torch.float32)
        key = weights > 0
        difference = own[:, key].float() - previous[:, key].detach().float()
        norms = torch.linalg.vector_norm(difference, dim=(2, 3))  # (B,keys); its gradient at 0 is 0
        if per_pixel:
            norms = norms / (own.shape[2] * own.shape[3]) ** 0.5
        total = total.to(norms.device) + (norms @ weights[key]).mean()
    return total


def _features(features: Mapping[str, Tensor], name: str, whose: str) -> Tensor:
    if name not in features:
        raise ValueError(f"the {whose} gives no layer {name}; pass what its backbone's layers() gives")
    return features[name]
