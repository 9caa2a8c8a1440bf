"""Heads of more layers, for the question how many a task needs (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Features, Head, LastLayer


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


def deepen(make_head: Callable[[], Head], feature: str, channels: int, layers: int) -> Head:
    """A fresh head of `layers` more layers than `make_head` gives."""
    return DeeperHead(make_head(), feature, channels, layers) if layers else make_head()
