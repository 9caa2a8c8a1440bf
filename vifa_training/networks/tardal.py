"""TarDAL's generator: a dense convolutional network.

Source: Liu et al., "Target-aware dual adversarial learning and a multi-scenario multi-modality benchmark to fuse
infrared and visible for object detection", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head, LastLayer, atanh

WIDTH = 32
DENSE_LAYERS = 3


class TarDAL(FusionNetwork):
    """First convolution, three dense layers, and a funnel of 128, 64, 32 channels to the luma."""

    name = "tardal"

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(TarDALBackbone(), TarDALHead, tasks)


class TarDALBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `funnel2` (B,64,H,W)."""

    distilled_layers: ClassVar[Mapping[str, int]] = {
        "first": WIDTH,
        **{f"dense{i + 1}": WIDTH for i in range(DENSE_LAYERS)},
        "funnel1": 4 * WIDTH,
        "funnel2": 2 * WIDTH,
    }
    handed_on = ("funnel2",)

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(2, WIDTH)
        self.dense = nn.ModuleList(_conv((i + 1) * WIDTH, WIDTH) for i in range(DENSE_LAYERS))
        self.funnel1 = nn.Sequential(nn.Conv2d((1 + DENSE_LAYERS) * WIDTH, 4 * WIDTH, 3, padding=1), nn.ReLU())
        self.funnel2 = _conv(4 * WIDTH, 2 * WIDTH)

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        first = self.first(torch.cat([thermal, visible_y], dim=1))
        named, stack = {"first": first}, first
        for index, layer in enumerate(self.dense):
            named[f"dense{index + 1}"] = new = layer(stack)
            stack = torch.cat([stack, new], dim=1)
        named["funnel1"] = self.funnel1(stack)
        named["funnel2"] = self.funnel2(named["funnel1"])
        return named


class TarDALHead(Head):
    """Two convolutions: 64 -> 32 -> 1. The published targets are 0..1 although tanh reaches -1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = _conv(2 * WIDTH, WIDTH)
        self.output = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def luma(self, features: Features) -> Tensor:
        return torch.tanh(self.output(self.hidden(features["funnel2"])))

    def last_layer(self, features: Features) -> LastLayer:
        return LastLayer(self.output, self.hidden(features["funnel2"]), atanh)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
