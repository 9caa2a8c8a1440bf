"""What a data set gives, and what a training step takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vifa_runtime.pairs import PairError
from vifa_training.colour import luma

_SHOWN_PROBLEMS = 20


class DataError(PairError):
    """What is wrong with data, all at once; `problems` holds one text each, with path and mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        shown = list(problems[:_SHOWN_PROBLEMS])
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        super().__init__(shown[0] if len(problems) == 1 else f"{len(problems)} problems:\n  " + "\n  ".join(shown))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Sample:
    """One pixel-aligned pair and what is known of it.

    Attributes:
        name: unique in its data set; without suffix.
        visible: RGB (H,W,3) uint8.
        thermal: (H,W) uint8.
        boxes: (N,4) float32, xyxy in pixels; None where the data set has no boxes, (0,4) where nothing is there.
        labels: (N,) int64, class of each box; None with `boxes`.
        mask: (H,W) uint8 class ids, 255 where unknown; None where the data set has no masks.
        tags: what reports are split by, like `day` or `night`.
        fused: (H,W) float32, 0..1: a fused luma to imitate; None without.
    """

    name: str
    visible: NDArray[np.uint8]
    thermal: NDArray[np.uint8]
    boxes: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    mask: NDArray[np.uint8] | None = None
    tags: tuple[str, ...] = ()
    fused: NDArray[np.float32] | None = None


class DataSet(Protocol):
    """Samples by index, in a fixed order."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes that `labels` count through, or `mask` where there are no boxes.

        Empty without either, and where nobody named them.
        """

    @property
    def mask_classes(self) -> Sequence[str]:
        """Names of the classes that `mask` counts through; as `classes` where there are only masks."""

    @property
    def names(self) -> Sequence[str]:
        """Of the samples, in order; known without reading an image."""

    def __len__(self) -> int:
        """How many samples."""

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, 0 and above; its arrays may be read-only.

        Raises:
            DataError: names everything that is wrong with it.
            IndexError: there is no such sample.
        """


@dataclass(frozen=True)
class Batch:
    """What one training step sees; everything float is in 0..1.

    Attributes:
        visible: RGB (B,3,H,W) float32.
        thermal: (B,1,H,W) float32.
        boxes: one (N,4) float32 tensor a sample, xyxy in pixels; None without boxes.
        labels: one (N,) int64 tensor a sample; None with `boxes`.
        mask: (B,H,W) int64 class ids, 255 where unknown; None without masks.
        tags: tags of each sample.
        fused: (B,1,H,W) float32, fused luma to imitate; None where a sample has none.
        names: of each sample.
    """

    visible: Tensor
    thermal: Tensor
    boxes: list[Tensor] | None = None
    labels: list[Tensor] | None = None
    mask: Tensor | None = None
    tags: tuple[tuple[str, ...], ...] = ()
    fused: Tensor | None = None
    names: tuple[str, ...] = ()

    @property
    def visible_y(self) -> Tensor:
        """Luma of `visible`, (B,1,H,W)."""
        return luma(self.visible)

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return replace(
            self,
            visible=self.visible.to(device),
            thermal=self.thermal.to(device),
            boxes=None if self.boxes is None else [boxes.to(device) for boxes in self.boxes],
            labels=None if self.labels is None else [labels.to(device) for labels in self.labels],
            mask=None if self.mask is None else self.mask.to(device),
            fused=None if self.fused is None else self.fused.to(device),
        )
