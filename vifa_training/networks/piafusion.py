"""PIAFusion: two convolutional encoders that exchange what differs, and one decoder.

Source: Tang et al., "PIAFusion: a progressive infrared and visible image fusion network based on illumination aware",
Information Fusion 2022; sizes as in its PyTorch port, which is what the VIFA paper counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head, LastLayer, atanh

ENCODER = (16, 16, 32, 64, 128)
DECODER = (256, 128, 64)
EXCHANGES = (2, 3, 4)  # after which encoder layers, counted from 1, the modalities exchange


class PIAFusion(FusionNetwork):
    """Five encoder layers a modality with three exchanges, then four decoder layers and the luma.

    Exchanges weigh channels by their global mean: a crop does not give the same pixels as the whole image.
    """

    name = "piafusion"

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(PIAFusionBackbone(), PIAFusionHead, tasks)


class PIAFusionBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `decoder3` (B,64,H,W)."""

    distilled_layers: ClassVar[Mapping[str, int]] = {
        **{f"{modality}{i + 1}": width for i, width in enumerate(ENCODER) for modality in ("visible", "thermal")},
        **{f"decoder{i + 1}": width for i, width in enumerate(DECODER)},
    }
    handed_on = ("decoder3",)

    def __init__(self) -> None:
        super().__init__()
        self.visible = _encoder()
        self.thermal = _encoder()
        widths = (2 * ENCODER[-1], *DECODER)
        self.decoder = nn.ModuleList(_conv(a, b) for a, b in pairwise(widths))

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        named: Features = {}
        for index, (conv_v, conv_t) in enumerate(zip(self.visible, self.thermal, strict=True), start=1):
            visible_y, thermal = F.leaky_relu(conv_v(visible_y)), F.leaky_relu(conv_t(thermal))
            if index in EXCHANGES:
                visible_y, thermal = exchange(visible_y, thermal)
            named[f"visible{index}"], named[f"thermal{index}"] = visible_y, thermal
        decoded = torch.cat([visible_y, thermal], dim=1)
        for index, conv in enumerate(self.decoder, start=1):
            named[f"decoder{index}"] = decoded = F.leaky_relu(conv(decoded))
        return named


class PIAFusionHead(Head):
    """Two convolutions: 64 -> 32 -> 1, and tanh brought to 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = _conv(DECODER[-1], 32)
        self.output = nn.Conv2d(32, 1, 1)

    def luma(self, features: Features) -> Tensor:
        return torch.tanh(self.output(self._hidden(features))) / 2 + 0.5

    def last_layer(self, features: Features) -> LastLayer:
        return LastLayer(self.output, self._hidden(features), lambda fused: atanh(2 * fused - 1))

    def _hidden(self, features: Features) -> Tensor:
        return F.leaky_relu(self.hidden(features["decoder3"]))


def exchange(visible: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-modality differential attention: each takes over what the other has more of, weighed by channel."""
    difference = thermal - visible
    mean = difference.mean(dim=(2, 3), keepdim=True)
    return visible + difference * torch.sigmoid(mean), thermal - difference * torch.sigmoid(-mean)


def _encoder() -> nn.ModuleList:
    rest = (_conv(a, b) for a, b in pairwise(ENCODER))
    return nn.ModuleList([nn.Conv2d(1, ENCODER[0], 1), *rest])


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
