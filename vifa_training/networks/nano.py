"""nano: our small fusion network, on three coarser grids so that a robot's CPU keeps up.

Full-resolution convolutions cost most in the published networks. nano never makes one: it looks at both images on a
half-size grid for detail and on a quarter- and an eighth-size grid for context, and predicts how far the fused luma
moves from the visible one. Every channel count is a multiple of 16: ONNX Runtime's kernels work in blocks of that size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head, LastLayer

DETAIL_CHANNELS = 16
CONTEXT_CHANNELS = 32


class Nano(FusionNetwork):
    """Two convolutions of 16 channels at half size, six of 32 at quarter and eighth, a one-convolution head a task."""

    name = "nano"
    size_multiple = 8

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(NanoBackbone(), NanoHead, tasks)


class NanoBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `features` (B,16,H/2,W/2) and `luma` (B,1,H,W), which is visible_y."""

    distilled_layers: ClassVar[Mapping[str, int]] = {
        "stem": DETAIL_CHANNELS,
        **dict.fromkeys(("quarter", "near", "eighth", "far1", "far2", "context"), CONTEXT_CHANNELS),
        **dict.fromkeys(("joined", "features"), DETAIL_CHANNELS),
    }
    handed_on = ("features", "luma")

    def __init__(self) -> None:
        super().__init__()
        d, c = DETAIL_CHANNELS, CONTEXT_CHANNELS
        self.stem = _conv(2, d, side=6, stride=2)
        self.quarter = _conv(d, c, stride=2)
        self.near = _conv(c, c)
        self.eighth = _conv(c, c, stride=2)
        self.far1 = _conv(c, c)
        self.far2 = _conv(c, c)
        self.from_far = _conv(c, c, side=1)
        self.from_near = _conv(c, c)
        self.from_context = _conv(c, d, side=1)
        self.merge = _conv(d, d)

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        stem = F.relu(self.stem(torch.cat([visible_y, thermal], dim=1)))
        quarter = F.relu(self.quarter(stem))
        near = F.relu(self.near(quarter))
        eighth = F.relu(self.eighth(near))
        far1 = F.relu(self.far1(eighth))
        far2 = F.relu(self.far2(far1))
        context = F.relu(self.from_near(near) + _double(self.from_far(far2)))
        joined = F.relu(stem + _double(self.from_context(context)))
        features = F.relu(self.merge(joined))
        return {
            "stem": stem, "quarter": quarter, "near": near, "eighth": eighth, "far1": far1, "far2": far2,
            "context": context, "joined": joined, "features": features, "luma": visible_y,
        }  # fmt: skip


class NanoHead(Head):
    """One convolution: features -> the change of each cell's four pixels, added to the visible luma."""

    visible_y = "luma"

    def __init__(self) -> None:
        super().__init__()
        self.change = _conv(DETAIL_CHANNELS, 4)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def luma(self, features: Features) -> Tensor:
        return features["luma"] + to_pixels(self.change(features["features"]))

    def last_layer(self, features: Features) -> LastLayer:
        return LastLayer(
            self.change, features["features"], lambda fused: F.pixel_unshuffle(fused - features["luma"], 2)
        )


def to_pixels(cells: Tensor) -> Tensor:
    """Pixel shuffle by two: (B,4,H/2,W/2) -> (B,1,H,W), written as a convolution that exports as one operator."""
    return F.conv_transpose2d(cells, torch.eye(4, dtype=cells.dtype, device=cells.device).view(4, 1, 2, 2), stride=2)


def _double(image: Tensor) -> Tensor:
    """Twice the height and width, each pixel four times."""
    return F.interpolate(image, scale_factor=2.0, mode="nearest")


def _conv(inputs: int, outputs: int, *, side: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, side, stride=stride, padding=(side - 1) // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return conv
