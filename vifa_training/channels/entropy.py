"""How much a feature map tells, in bits."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 256


def entropy(maps: Tensor) -> Tensor:
    """Entropy of each map's histogram: 256 bins of equal width from its own least to its largest value.

    That is the entropy, as this field counts it (EN), of the gray image that FSIM compares. A channel's gain does not
    count: it is in the norm of Eq. 1 already. A map of one value has 0 bits.

    Args:
        maps: (C,H,W), finite.

    Returns:
        (C,) float64 on the CPU, 0..8.
    """
    return torch.stack([_entropy(one.flatten().double()) for one in maps]).cpu()


def _entropy(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    if low == high:
        return values.new_zeros(())
    bins = ((values - low) * (BINS / (high - low))).long().clamp_max_(BINS - 1)
    share = torch.bincount(bins, minlength=BINS).double() / len(values)
    return torch.special.entr(share).sum() / torch.log(share.new_tensor(2.0))
