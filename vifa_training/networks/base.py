"""What every fusion network offers to training, distillation and export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
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


class LastLayer(NamedTuple):
    """The last layer of a head, which is linear: fused luma = activation(layer(inputs)).

    Attributes:
        layer: a convolution.
        inputs: what it reads, (B,C,H',W').
        wanted: fused luma (B,1,H,W) -> what the layer has to give for it, (B,C',H',W'); the activation undone.
    """

    layer: nn.Conv2d
    inputs: Tensor
    wanted: Callable[[Tensor], Tensor]


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

    def last_layer(self, features: Features) -> LastLayer | None:
        """The last layer on these features, for an exact solution; None where a norm follows it."""
        return None

    def forward(self, features: Features) -> Tensor:
        """Fused luma; see the class."""
        fused = self.luma(features)
        return fused if self.training else fused.clamp(0, 1)


class Trainable(nn.Module):
    """What a trainer trains.

    Attributes:
        size_multiple: height and width of its input must be multiples of this.
        precision: context in which `forward` computes; a trainer may set one of mixed precision.
    """

    size_multiple = 1
    precision: Callable[[], AbstractContextManager[Any]] = staticmethod(nullcontext)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For an optimiser: `params`, and the `share` of the schedule's learning rate that they get."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad], "share": 1.0}]


class FusionNetwork(Trainable):
    """A shared backbone and one thin head a task.

    Attributes:
        name: the registry's name.
        backbone: (visible_y (B,1,H,W), thermal (B,1,H,W)), both 0..1 -> named feature tensors.
        heads: task -> module, features -> fused luma (B,1,H,W).
    """

    name: str

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


def atanh(value: Tensor) -> Tensor:
    """The inverse of tanh, finite for bytes too: what lies beyond 0.998 is taken for it."""
    return torch.atanh(value.clamp(-0.998, 0.998))


def count_parameters(module: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in module.parameters())
