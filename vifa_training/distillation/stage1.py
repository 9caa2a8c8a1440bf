"""Stage 1, key channel-constrained distillation (section 3.2): the shared backbone learns a new data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vifa_training.channels import KeyChannels
from vifa_training.checkpoint import digest_names, fingerprint, load_weights
from vifa_training.data import Augmentation, Batch, DataSet
from vifa_training.distillation.channel_loss import channel_loss
from vifa_training.networks import Backbone, FusionNetwork
from vifa_training.objectives import Objective
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss
from vifa_training.schedule import Schedule
from vifa_training.trainer import train

WEIGHT = 0.1  # of Eq. 1 beside the fusion loss; chosen on validation parts: benchmarks/sequence_choices.py


def stage1(
    network: FusionNetwork,
    head: str,
    pairs: DataSet,
    memories: Sequence[KeyChannels],
    weights: FusionWeights,
    schedule: Schedule,
    run: Path,
    weight: float = WEIGHT,
    augmentation: Augmentation | None = None,
) -> None:
    """Train the backbone on new pairs without labels while the key channels of what it learned before stay.

    Args:
        network: as it was trained on the data sets before; ends with the new backbone.
        head: its head that shows what the backbone fuses, trained with it.
        pairs: the new data set; of the old ones nothing is needed.
        memories: masks of the data sets before, each from the backbone as it stood after that data set; without any,
            nothing is kept.
        weights: of the fusion loss.
        run: folder of the checkpoints; a training in it is gone on with.
        weight: of Eq. 1.

    Raises:
        TrainingError, DataError: as `vifa_training.trainer.train`.
    """
    teacher = copy.deepcopy(network.backbone).eval().requires_grad_(False)  # f^p, from which f starts
    objective = KeyChannelObjective(teacher, head, memories, weights, weight)
    identity = f"stage 1 on {digest_names(pairs.names)} from {fingerprint(network)} {head} {weights} {weight}"
    identity += "".join(f" {memory.identity}" for memory in memories)
    train(network, objective, pairs, None, schedule, run, identity, augmentation)
    load_weights(network, run / "best.safetensors")
    network.eval()


class KeyChannelObjective(Objective):
    """L_fusion on the new pairs, and Eq. 1 over the key channels of every earlier data set; other channels are free."""

    def __init__(
        self, teacher: Backbone, head: str, memories: Sequence[KeyChannels], weights: FusionWeights, weight: float
    ) -> None:
        super().__init__()
        self.teacher, self.head, self.weights, self.weight = teacher, head, weights, weight
        self.importance = [memory.importance for memory in memories]

    def train(self, mode: bool = True) -> KeyChannelObjective:
        """The teacher never leaves evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`."""
        layers = network.backbone.layers(batch.visible_y, batch.thermal)  # f
        fused = network.heads[self.head](layers).float()
        loss = fusion_loss(fused, batch.visible_y, batch.thermal, self.weights)
        if not self.importance:
            return loss
        before = self.teacher.layers(batch.visible_y, batch.thermal)  # f^p
        return loss + self.weight * channel_loss(layers, before, self.importance)  # Eq. 1, of each M^p
