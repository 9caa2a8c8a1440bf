"""Heads of more layers than a network's own: how many a task needs is the question of the paper's Figure 4."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Features, FusionNetwork, Head, LastLayer


class DeeperHead(Head):
    """A head behind more convolutions, each of which adds its own to the feature tensor that the head reads."""

    def __init__(self, inner: Head, feature: str, channels: int, layers: int) -> None:
        """Put `layers` 3x3 convolutions of `channels` before `inner`, on the feature of this name."""
        super().__init__()
        self.inner, self.feature, self.visible_y = inner, feature, inner.visible_y
        self.more = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))

    def luma(self, features: Features) -> Tensor:
        return self.inner.luma(self._refine(features))

    def last_layer(self, features: Features) -> LastLayer | None:
        return self.inner.last_layer(self._refine(features))

    def _refine(self, features: Features) -> Features:
        refined = features[self.feature]
        for layer in self.more:
            refined = refined + F.relu(layer(refined))
        return {**features, self.feature: refined}


def add_task_head(network: FusionNetwork, task: str, layers: int = 1) -> Head:
    """Add a task: a fresh head of at least so many convolutions; a network's own head may have more.

    Raises:
        ValueError: the task is there already.
    """
    head = network.add_head(task)
    deepen(network, task, max(0, layers - count_layers(head)))
    return network.heads[task]


def deepen(network: FusionNetwork, task: str, more: int) -> None:
    """Put so many fresh convolutions before a task's head, on the first feature that heads are handed."""
    if more:
        head, feature = network.heads[task], network.backbone.handed_on[0]
        deeper = DeeperHead(head, feature, network.distilled_layers[feature], more)
        network.swap_head(task, deeper.train(head.training))


def count_layers(head: nn.Module) -> int:
    """Convolutions of a head."""
    return sum(isinstance(module, nn.Conv2d) for module in head.modules())
