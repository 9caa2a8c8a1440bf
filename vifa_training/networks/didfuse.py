"""DIDFuse: one auto-encoder for both images; what is fused is their sum in feature space.

Source: Zhao et al., "DIDFuse: deep image decomposition for infrared and visible image fusion", IJCAI 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head

WIDTH = 64
ENCODED = ("first", "second", "base", "detail")


class DIDFuse(FusionNetwork):
    """A shared encoder into first, second, base and detail features; decoder layers back to the luma."""

    name = "didfuse"

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(DIDFuseBackbone(), DIDFuseHead, tasks)


class DIDFuseBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `decoder1`, `second`, `first`, each (B,64,H,W)."""

    distilled_layers: ClassVar[Mapping[str, int]] = dict.fromkeys((*ENCODED, "decoder1"), WIDTH)
    handed_on = ("decoder1", "second", "first")

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(1, WIDTH, nn.PReLU(), padding_mode="reflect")
        self.second = _conv(WIDTH, WIDTH, nn.PReLU())
        self.base = _conv(WIDTH, WIDTH, nn.Tanh())
        self.detail = _conv(WIDTH, WIDTH, nn.Tanh())
        self.decoder1 = _conv(2 * WIDTH, WIDTH, nn.PReLU())

    def encode(self, image: Tensor) -> Features:
        """The four feature tensors of one image (B,1,H,W), each (B,64,H,W)."""
        first = self.first(image)
        second = self.second(first)
        return {"first": first, "second": second, "base": self.base(second), "detail": self.detail(second)}

    def decode(self, encoded: Features) -> Features:
        """The encoded tensors and the first decoder layer's, which the head reads."""
        return {**encoded, "decoder1": self.decoder1(torch.cat([encoded["base"], encoded["detail"]], dim=1))}

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        of_visible, of_thermal = self.encode(visible_y), self.encode(thermal)
        return self.decode({name: of_visible[name] + of_thermal[name] for name in ENCODED})


class DIDFuseHead(Head):
    """Two convolutions over the decoder's and the encoder's features: 128 -> 64, 128 -> 1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = _conv(2 * WIDTH, WIDTH, nn.PReLU())
        self.output = _conv(2 * WIDTH, 1, nn.Sigmoid(), padding_mode="reflect")

    def luma(self, features: Features) -> Tensor:
        hidden = self.hidden(torch.cat([features["decoder1"], features["second"]], dim=1))
        return self.output(torch.cat([hidden, features["first"]], dim=1))


def _conv(inputs: int, outputs: int, activation: nn.Module, padding_mode: str = "zeros") -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding_mode)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), activation)
