"""SwinFusion: attention in shifted windows, within each modality and across both.

Tokens, one a pixel, are kept by windows: (B,H/8,W/8,8,8,C). So most of the work is on the last three sides alone, and
the network exports for any size. Written without the original's 8,430 parameters that nothing uses, and without its
stochastic depth, which the VIFA paper does not mention.

Source: Ma et al., "SwinFusion: cross-domain long-range learning for general image fusion via Swin transformer",
IEEE/CAA Journal of Automatica Sinica 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head, LastLayer

WIDTH = 60
ATTENTION_HEADS = 6
WINDOW = 8
EXTRACTION_BLOCKS = RECONSTRUCTION_BLOCKS = 4
FUSIONS = FUSION_BLOCKS = 2
_APART = -100.0  # added to the attention between pixels that only the shift brought into one window


class SwinFusion(FusionNetwork):
    """Shallow convolutions, Swin blocks a modality, two fusions with cross attention, reconstruction, the luma."""

    name = "swinfusion"
    size_multiple = WINDOW

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(SwinFusionBackbone(), SwinFusionHead, tasks)


class SwinFusionBackbone(Backbone):
    """visible_y, thermal (B,1,H,W) -> `narrowed` (B,30,H,W)."""

    distilled_layers: ClassVar[Mapping[str, int]] = {
        **{
            f"{stage}_{modality}": WIDTH
            for stage in ("shallow", "extracted", *(f"fusion{i + 1}" for i in range(FUSIONS)))
            for modality in ("visible", "thermal")
        },
        "merged": WIDTH,
        "reconstructed": WIDTH,
        "narrowed": WIDTH // 2,
    }
    handed_on = ("narrowed",)

    def __init__(self) -> None:
        super().__init__()
        self.shallow1 = nn.Conv2d(1, WIDTH // 2, 3, padding=1)
        self.shallow2 = nn.Conv2d(WIDTH // 2, WIDTH, 3, padding=1)
        self.embedding_norm = nn.LayerNorm(WIDTH)
        self.extract_visible = _blocks(EXTRACTION_BLOCKS)
        self.extract_thermal = _blocks(EXTRACTION_BLOCKS)
        self.extracted_norm_visible = nn.LayerNorm(WIDTH)
        self.extracted_norm_thermal = nn.LayerNorm(WIDTH)
        self.fusions = nn.ModuleList(FusionStage() for _ in range(FUSIONS))
        self.fused_norm_visible = nn.LayerNorm(WIDTH)
        self.fused_norm_thermal = nn.LayerNorm(WIDTH)
        self.merge = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
        self.reconstruct = _blocks(RECONSTRUCTION_BLOCKS)
        self.reconstructed_norm = nn.LayerNorm(WIDTH)
        self.narrow = nn.Conv2d(WIDTH, WIDTH // 2, 3, padding=1)

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        named = {"shallow_visible": self._shallow(visible_y), "shallow_thermal": self._shallow(thermal)}
        visible, thermal = (self._embed(named[f"shallow_{m}"]) for m in ("visible", "thermal"))
        named["extracted_visible"] = to_image(self.extracted_norm_visible(self.extract_visible(visible)))
        named["extracted_thermal"] = to_image(self.extracted_norm_thermal(self.extract_thermal(thermal)))
        visible, thermal = (self._embed(named[f"extracted_{m}"]) for m in ("visible", "thermal"))
        for index, fusion in enumerate(self.fusions, start=1):
            visible, thermal = fusion(visible, thermal)
            named[f"fusion{index}_visible"], named[f"fusion{index}_thermal"] = to_image(visible), to_image(thermal)
        both = torch.cat([self.fused_norm_thermal(thermal), self.fused_norm_visible(visible)], dim=-1)
        named["merged"] = _activate(self.merge(to_image(both)))
        reconstructed = self.reconstructed_norm(self.reconstruct(self._embed(named["merged"])))
        named["reconstructed"] = to_image(reconstructed)
        named["narrowed"] = _activate(self.narrow(named["reconstructed"]))
        return named

    def _shallow(self, image: Tensor) -> Tensor:
        return _activate(self.shallow2(_activate(self.shallow1(image))))

    def _embed(self, image: Tensor) -> Tensor:
        return self.embedding_norm(to_windows(image))


class SwinFusionHead(Head):
    """Two convolutions: 30 -> 15 -> 1."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(WIDTH // 2, WIDTH // 4, 3, padding=1)
        self.output = nn.Conv2d(WIDTH // 4, 1, 3, padding=1)

    def luma(self, features: Features) -> Tensor:
        return self.output(_activate(self.hidden(features["narrowed"])))

    def last_layer(self, features: Features) -> LastLayer:
        return LastLayer(self.output, _activate(self.hidden(features["narrowed"])), lambda fused: fused)


class FusionStage(nn.Module):
    """Blocks within each modality, then blocks in which each modality looks at the other."""

    def __init__(self) -> None:
        super().__init__()
        self.visible, self.thermal = _blocks(FUSION_BLOCKS), _blocks(FUSION_BLOCKS)
        self.cross_visible, self.cross_thermal = _blocks(FUSION_BLOCKS), _blocks(FUSION_BLOCKS)

    def forward(self, visible: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both modalities, each (B,H/8,W/8,8,8,C)."""
        visible, thermal = self.visible(visible), self.thermal(thermal)
        for of_visible, of_thermal in zip(self.cross_visible, self.cross_thermal, strict=True):
            normed_v, normed_t = of_visible.norm1(visible), of_thermal.norm1(thermal)
            visible = of_visible.update(visible, normed_v, normed_t)
            thermal = of_thermal.update(thermal, normed_t, normed_v)
        return visible, thermal


class SwinBlock(nn.Module):
    """Attention within windows of 8 x 8 pixels, then a two-layer perceptron, each added to what came in."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = WindowAttention(shift)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B,H/8,W/8,8,8,C) that look at themselves."""
        normed = self.norm1(tokens)
        return self.update(tokens, normed, normed)

    def update(self, tokens: Tensor, asking: Tensor, asked: Tensor) -> Tensor:
        """The tokens after `asking` (theirs, normed) looked at `asked` (theirs, or the other modality's)."""
        tokens = tokens + self.attention(asking, asked)
        return tokens + self.perceptron(self.norm2(tokens))


class WindowAttention(nn.Module):
    """Multi-head attention between the pixels of one window, with a learnt bias for each relative position."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.position_bias = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, ATTENTION_HEADS))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("relative_position", _relative_positions(), persistent=False)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """What the tokens `asking` (B,H/8,W/8,8,8,C) take over from the tokens `asked` of their windows."""
        if self.shift:
            rolled = roll(asking, self.shift)
            asking, asked = rolled, rolled if asked is asking else roll(asked, self.shift)
        q = _split(self.query(asking))
        k, v = (_split(part) for part in self.key_value(asked).chunk(2, dim=-1))
        likeness = (q * (WIDTH // ATTENTION_HEADS) ** -0.5) @ k.transpose(-2, -1)
        likeness = likeness + self.position_bias[self.relative_position].permute(2, 0, 1)
        if self.shift:
            likeness = likeness + shift_mask(asking, self.shift)
        found = self.project((likeness.softmax(dim=-1) @ v).transpose(-3, -2).flatten(-2))
        found = found.unflatten(3, (WINDOW, WINDOW))
        return roll(found, WINDOW - self.shift, back=True) if self.shift else found


def _split(tokens: Tensor) -> Tensor:
    """(B,H/8,W/8,8,8,C) -> (B,H/8,W/8,heads,64,C/heads)."""
    return tokens.flatten(3, 4).unflatten(-1, (ATTENTION_HEADS, WIDTH // ATTENTION_HEADS)).transpose(-3, -2)


def to_windows(image: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,H/8,W/8,8,8,C); one side is cut at a time, as the last, which exports by constant shapes."""
    columns = image.unflatten(3, (-1, WINDOW)).permute(0, 3, 4, 1, 2)  # (B,W/8,8,C,H)
    return columns.unflatten(4, (-1, WINDOW)).permute(0, 4, 1, 5, 2, 3)


def to_image(tokens: Tensor) -> Tensor:
    """(B,H/8,W/8,8,8,C) -> (B,C,H,W)."""
    columns = tokens.permute(0, 2, 4, 5, 1, 3).flatten(4, 5)  # (B,W/8,8,C,H)
    return columns.permute(0, 3, 4, 1, 2).flatten(3, 4)


def roll(tokens: Tensor, shift: int, back: bool = False) -> Tensor:
    """Move all pixels up and left by `shift` < 8; what leaves comes in again on the other side.

    With `back`, they move down and right by 8 - `shift` instead.
    """
    upper, lower = tokens.split((shift, WINDOW - shift), dim=3)
    if back:
        lower = torch.cat([lower[:, -1:], lower[:, :-1]], dim=1)
    else:
        upper = torch.cat([upper[:, 1:], upper[:, :1]], dim=1)
    left, right = torch.cat([lower, upper], dim=3).split((shift, WINDOW - shift), dim=4)
    if back:
        right = torch.cat([right[:, :, -1:], right[:, :, :-1]], dim=2)
    else:
        left = torch.cat([left[:, :, 1:], left[:, :, :1]], dim=2)
    return torch.cat([right, left], dim=4)


def shift_mask(tokens: Tensor, shift: int) -> Tensor:
    """What is added to the attention of rolled tokens: shape (H/8,W/8,1,64,64), 0 or `_APART`.

    Rolling brings the first rows and columns behind the last ones; pixels that are no neighbours must not meet.
    Made by slicing and padding, so that it exports for any size by operators that a bundle may hold.
    """
    zeros = tokens[0, :, :, :1, :1, 0] * 0  # (H/8,W/8,1,1)
    last_row = F.pad(zeros[1:], (0, 0, 0, 0, 0, 0, 0, 1), value=2.0)
    last_column = F.pad(zeros[:, 1:], (0, 0, 0, 0, 0, 1), value=1.0)
    came_in = (torch.arange(WINDOW, device=tokens.device) >= WINDOW - shift).to(tokens.dtype)
    region = (last_row * came_in.view(-1, 1) + last_column * came_in).flatten(2)  # (H/8,W/8,64)
    apart = (region.unsqueeze(-1) - region.unsqueeze(-2)).abs().clamp(max=1)
    return apart.unsqueeze(2) * _APART


def _relative_positions() -> Tensor:
    """Index of the bias between each two pixels of a window, (64,64)."""
    side = torch.arange(WINDOW)
    y, x = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    span = 2 * WINDOW - 1
    return (y[:, None] - y[None, :] + WINDOW - 1) * span + x[:, None] - x[None, :] + WINDOW - 1


def _blocks(count: int) -> nn.Sequential:
    """Swin blocks; every other one has its windows shifted by half."""
    return nn.Sequential(*(SwinBlock(shift=0 if index % 2 == 0 else WINDOW // 2) for index in range(count)))


def _activate(image: Tensor) -> Tensor:
    return F.leaky_relu(image, 0.2)
