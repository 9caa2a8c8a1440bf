"""What every fusion network offers to training, distillation and export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

Features = dict[str, Tensor]


class Backbone(nn.Module):
    """The shared part: everything up to the last hidden convolution.

    Attributes:
        distilled_layers: name -> channels of the tensors that distillation looks at, in order of depth.
        handed_on: names of the tensors that the heads read; what `forward` returns.
    """

    distilled_layers: ClassVar[Mapping[str, int]]
    handed_on: tuple[str, ...]

    def layers(self, visible_y: Tensor, thermal: Tensor) -> Features:
        """Every named tensor on the way, each (B,C,H',W') after its activation; none is changed in place later.

        Args:
            visible_y, thermal: (B,1,H,W), 0..1, H and W multiples of the network's `size_multiple`.
        """
        raise NotImplementedError

    def forward(self, visible_y: Tensor, thermal: Tensor) -> Features:
        """The tensors that the heads read, by name."""
        layers = self.layers(visible_y, thermal)
        return {name: layers[name] for name in self.handed_on}


class Head(nn.Module):
    """The thin part of one task: features -> fused luma (B,1,H,W).

    The luma is in 0..1 in evaluation. In training it is not clamped, so that a loss keeps its gradient beyond.

    Attributes:
        visible_y: name of the feature that is the visible luma itself, if any: a graph then need not compute it again.
    """

    visible_y: ClassVar[str | None] = None

    def luma(self, features: Features) -> Tensor:
        """Fused luma (B,1,H,W), not clamped."""
        raise NotImplementedError

    def forward(self, features: Features) -> Tensor:
        """Fused luma; see the class."""
        fused = self.luma(features)
        return fused if self.training else fused.clamp(0, 1)


class FusionNetwork(nn.Module):
    """A shared backbone and one thin head a task.

    Attributes:
        name: the registry's name.
        size_multiple: height and width of its input must be multiples of this.
        backbone: (visible_y (B,1,H,W), thermal (B,1,H,W)), both 0..1 -> named feature tensors.
        heads: task -> module, features -> fused luma (B,1,H,W).
        precision: context in which `forward` computes; a trainer may set one of mixed precision.
    """

    name: str
    size_multiple = 1
    precision: Callable[[], AbstractContextManager[Any]] = staticmethod(nullcontext)

    def __init__(self, backbone: Backbone, make_head: Callable[[], Head], tasks: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self._make_head = make_head
        self.heads = nn.ModuleDict({task: make_head() for task in tasks})

    @property
    def distilled_layers(self) -> Mapping[str, int]:
        """Name -> channels of the backbone's distilled tensors."""
        return self.backbone.distilled_layers

    def forward(self, visible_y: Tensor, thermal: Tensor) -> dict[str, Tensor]:
        """Fused luma of every task, each (B,1,H,W) float32 whatever the precision; see `Head`."""
        with self.precision():
            features = self.backbone(visible_y, thermal)
            return {task: head(features).float() for task, head in self.heads.items()}

    def add_head(self, task: str, like: str | None = None) -> Head:
        """Add a task: a head with fresh weights, or a copy of the head of the task `like`.

        Raises:
            ValueError: the task is there already, or `like` is not.
        """
        if task in self.heads:
            raise ValueError(f"there is a head for {task!r} already; swap it instead")
        head = self._make_head() if like is None else copy.deepcopy(self._head(like))
        head.train(self.training)
        self.heads[task] = head
        return head

    def swap_head(self, task: str, head: Head) -> Head:
        """Put another head in a task's place and return the one that was there.

        Raises:
            ValueError: no such task.
        """
        old = self._head(task)
        self.heads[task] = head
        return old

    def _head(self, task: str) -> Head:
        if task not in self.heads:
            raise ValueError(f"there is no head for {task!r}; the tasks are {', '.join(self.heads)}")
        return self.heads[task]


def count_parameters(module: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in module.parameters())
