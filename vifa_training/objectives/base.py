"""What a training minimises."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork


class Objective(nn.Module):
    """A loss, and whatever has to be trained beside the network for it.

    Its own parameters that require a gradient are an opponent (a discriminator, say): the trainer gives them an
    optimiser of their own, which minimises `opponent_loss` in each step before the network's turn. All its tensors are
    part of the checkpoint.
    """

    def prepare(self, draw: Callable[[int], Batch], report: Callable[[str], None] = print) -> None:
        """Train what has to be ready before the network's first step; does nothing the second time.

        Args:
            draw: step -> a training batch; the same one for the same step.
            report: takes a line about how it went.
        """
        return None

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """The scalar that the network is to minimise.

        Args:
            network: in training mode in a training step, in evaluation mode on validation pairs.
            batch: see `Batch`.
            progress: share of the training that is done, 0..1; for what begins later or changes with time.
        """
        raise NotImplementedError

    def opponent_loss(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor | None:
        """The scalar that the opponent is to minimise; None where there is none, or not yet."""
        return None
