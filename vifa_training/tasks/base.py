"""What every task network offers to training, distillation and export."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vifa_runtime.labels import UNKNOWN
from vifa_training.data.base import Batch


class TaskNetworkError(ValueError):
    """A task network that cannot be made or used so; the message names the mend."""


class TaskNetwork(nn.Module):
    """A detector or segmenter on RGB images of 32 pixels or more a side, also odd ones.

    Exported graphs are traced at sizes that are multiples of 32, so whatever depends on a size must follow that of a
    tensor by `vifa_training.tasks.following`, and everything else be the same for any size.

    Attributes:
        name: the registry's name.
        kind: `detection` or `segmentation`.
        licence: of the library that the network comes from, as SPDX names it.
        classes: how many it tells apart.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    licence: ClassVar[str]

    def __init__(self, classes: int) -> None:
        super().__init__()
        if not 1 <= classes <= UNKNOWN:
            raise TaskNetworkError(f"a task network tells 1 to {UNKNOWN} classes apart, got {classes}")
        self.classes = classes

    def loss(self, image: Tensor, batch: Batch) -> Tensor:
        """The scalar that training minimises, a mean over the images: as large for a batch as for two copies of it.

        Args:
            image: (B,3,H,W) RGB, 0..1; its gradient is defined.
            batch: what is known of these images: `boxes` and `labels` for a detector, `mask` for a segmenter, all in
                pixels of `image`. Without any box, or without any known pixel, the loss is finite.

        Raises:
            TaskNetworkError: the batch knows nothing of the kind.
        """
        raise NotImplementedError

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """What the network finds, before non-maximum suppression or choosing classes.

        Args:
            image: (B,3,H,W) RGB, 0..1.

        Returns:
            Detection: `boxes` (B,A,4) xyxy in pixels of `image` and `scores` (B,A,K) in 0..1, one of them a class.
            Segmentation: `logits` (B,K,H,W).
        """
        raise NotImplementedError
