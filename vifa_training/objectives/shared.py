"""The unsupervised loss that all networks share; stage 1's L_fusion by default."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss


class SharedObjective(Objective):
    """The sum over tasks of `fusion_loss`, each with weights of its own."""

    def __init__(self, tasks: Mapping[str, FusionWeights]) -> None:
        super().__init__()
        self.tasks = dict(tasks)

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`."""
        visible_y = batch.visible_y
        fused = network(visible_y, batch.thermal)
        losses = [fusion_loss(fused[task], visible_y, batch.thermal, w) for task, w in self.tasks.items()]
        return torch.stack(losses).sum()
