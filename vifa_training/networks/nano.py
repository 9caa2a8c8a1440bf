"""nano: our small fusion network, on pixel-unshuffled grids so that a robot's CPU keeps up.

Full-resolution convolutions cost most in the published networks. nano works on a half-size grid (four pixels a
cell) for detail and on a quarter-size grid for context, and predicts how far the fused luma moves from the visible
one. Every channel count is a multiple of 16: ONNX Runtime's kernels work in blocks of that size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head

DETAIL_CHANNELS = 16
CONTEXT_CHANNELS = 32


class Nano(FusionNetwork):
    """Five convolutions of 16 channels at half size, five of 32 at quarter size, a one-convolution head a task."""

    name = "nano"
    size_multiple = 4

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(NanoBackbone(), NanoHead, tasks)


class NanoBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `features` (B,16,H/2,W/2) and `luma` (B,4,H/2,W/2), the visible luma's pixels."""

    distilled_layers: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("stem", "detail"), DETAIL_CHANNELS),
        **dict.fromkeys(("down", "context1", "context2", "context3", "context4"), CONTEXT_CHANNELS),
        **dict.fromkeys(("joined", "merge1", "features"), DETAIL_CHANNELS),
    }
    handed_on = ("features", "luma")

    def __init__(self) -> None:
        super().__init__()
        d, c = DETAIL_CHANNELS, CONTEXT_CHANNELS
        self.stem = _conv(8, d)
        self.detail = _conv(d, d)
        self.down = _conv(d, c, stride=2)
        self.context = nn.Sequential(_conv(c, c), _conv(c, c, dilation=2), _conv(c, c, dilation=4), _conv(c, c))
        self.up = nn.ConvTranspose2d(c, d, kernel_size=2, stride=2)
        self.merge = nn.Sequential(_conv(d, d), _conv(d, d))

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        luma = to_cells(visible_y)
        named = {"luma": luma, "stem": F.relu(self.stem(torch.cat([luma, to_cells(thermal)], dim=1)))}
        named["detail"] = F.relu(self.detail(named["stem"]))
        named["down"] = context = F.relu(self.down(named["stem"]))
        for index, layer in enumerate(self.context, start=1):
            named[f"context{index}"] = context = F.relu(layer(context))
        named["joined"] = F.relu(named["detail"] + self.up(context))
        named["merge1"] = F.relu(self.merge[0](named["joined"]))
        named["features"] = F.relu(self.merge[1](named["merge1"]))
        return named


class NanoHead(Head):
    """One convolution: features -> the change of each cell's four pixels, added to the visible luma."""

    def __init__(self) -> None:
        super().__init__()
        self.change = _conv(DETAIL_CHANNELS, 4)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def luma(self, features: Features) -> Tensor:
        return to_pixels(features["luma"] + self.change(features["features"]))


def to_cells(image: Tensor) -> Tensor:
    """Pixel unshuffle by two: (B,1,H,W) -> (B,4,H/2,W/2), written as a convolution that exports as one operator."""
    return F.conv2d(image, _cells(image), stride=2)


def to_pixels(cells: Tensor) -> Tensor:
    """Pixel shuffle by two, the inverse of `to_cells`: (B,4,H/2,W/2) -> (B,1,H,W)."""
    return F.conv_transpose2d(cells, _cells(cells), stride=2)


def _cells(like: Tensor) -> Tensor:
    return torch.eye(4, dtype=like.dtype, device=like.device).view(4, 1, 2, 2)


def _conv(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return conv
