"""SwinFusion's loss for visible and infrared images.

Source: Ma et al., "SwinFusion: cross-domain long-range learning for general image fusion via Swin transformer",
IEEE/CAA Journal of Automatica Sinica 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import gradient_share, magnitude_loss
from vifa_training.objectives.similarity import gaussian_ssim_map


class SwinFusionObjective(Objective):
    """20 |F - max|_1 + 20 |grad F - max grad|_1 + 10 (1 - sum of w SSIM(source, F)), summed over tasks.

    Published: the terms, their weights, SSIM's 11x11 Gaussian window, w in proportion to a source's mean Sobel
    gradient. Ours: w of each pair by itself, where the published code takes one w for a batch; the borders (see
    `magnitude_loss` and `similarity`).
    """

    def __init__(
        self, tasks: Sequence[str], *, maximum: float = 20.0, gradient: float = 20.0, ssim: float = 10.0
    ) -> None:
        """Weights of the three terms."""
        super().__init__()
        self.tasks = tuple(tasks)
        self.maximum, self.gradient, self.ssim = maximum, gradient, ssim

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`."""
        visible_y = batch.visible_y
        fused = network(visible_y, batch.thermal)
        return torch.stack([self._loss(fused[task], visible_y, batch.thermal) for task in self.tasks]).sum()

    def _loss(self, fused: Tensor, visible_y: Tensor, thermal: Tensor) -> Tensor:
        return (
            self.maximum * F.l1_loss(fused, torch.maximum(visible_y, thermal))
            + self.gradient * magnitude_loss(fused, visible_y, thermal)
            + self.ssim * weighted_ssim_loss(fused, visible_y, thermal)
        )


def weighted_ssim_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor) -> Tensor:
    """1 - (w SSIM(Y, F) + (1 - w) SSIM(IR, F)), w the visible image's share of the mean gradient; (B,1,H,W) each."""
    share = gradient_share(visible_y, thermal)
    kept = share * gaussian_ssim_map(visible_y, fused) + (1 - share) * gaussian_ssim_map(thermal, fused)
    return 1 - kept.mean()
