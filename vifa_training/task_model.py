"""A task network behind what it is shown: a picture that a data set holds, or one that a fusion network makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.colour import recolour
from vifa_training.data import Batch
from vifa_training.networks import FusionNetwork, Trainable
from vifa_training.objectives import Objective
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss
from vifa_training.tasks import TaskNetwork

FEWER = 4


class TaskModel(Trainable):
    """A task network alone: the batch's visible image is the picture, as `vifa_training.pictures.Pictures` gives it."""

    def __init__(self, task: TaskNetwork) -> None:
        super().__init__()
        self.task = task

    def loss(self, batch: Batch) -> Tensor:
        """The task's loss, a mean over images."""
        return self.show(batch.visible, batch)

    def show(self, picture: Tensor, batch: Batch) -> Tensor:
        """The task's loss when it is shown a picture (B,3,H,W) that the batch's labels fit."""
        with self.precision():
            return self.task.loss(picture, batch)


class JointModel(TaskModel):
    """Eq. 2: a whole fusion network and a task network, trained as one."""

    def __init__(
        self,
        fusion: FusionNetwork,
        head: str,
        task: TaskNetwork,
        shrink: int = 1,
        fusion_share: float = 1.0,
        head_share: float = 1.0,
    ) -> None:
        """Join them.

        Args:
            head: the fusion network's task whose fused image the task network sees.
            shrink: the picture is averaged over so many pixels squared before.
            fusion_share: share of the learning rate that the fusion network's backbone gets.
            head_share: that its head gets.
        """
        super().__init__(task)
        self.fusion, self.head, self.shrink = fusion, head, shrink
        self.fusion_share, self.head_share = fusion_share, head_share
        self.size_multiple = fusion.size_multiple

    def parameter_groups(self) -> list[dict[str, Any]]:
        fusion = self.fusion
        shares = ((self.task, 1.0), (fusion.backbone, self.fusion_share), (fusion.heads, self.head_share))
        return [{"params": [p for p in part.parameters() if p.requires_grad], "share": share} for part, share in shares]

    def fuse(self, batch: Batch) -> Tensor:
        """Fused luma (B,1,H,W); in training not clamped."""
        with self.precision():
            features = self.fusion.backbone(batch.visible_y, batch.thermal)
            return self.fusion.heads[self.head](features).float()

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of(self.fuse(batch), batch)

    def loss_of(self, fused_y: Tensor, batch: Batch) -> Tensor:
        """The task's loss when it is shown the fused luma."""
        picture = F.avg_pool2d(recolour(batch.visible, fused_y), self.shrink)
        return self.show(picture, shrink_labels(batch, self.shrink))


def shrink_labels(batch: Batch, shrink: int) -> Batch:
    """The batch's boxes and mask in pixels of a picture that is `shrink` times smaller."""
    if shrink == 1:
        return batch
    mask = batch.mask
    if mask is not None:
        rows, columns = (side - side % shrink for side in mask.shape[1:])
        mask = mask[:, shrink // 2 : rows : shrink, shrink // 2 : columns : shrink]
    return replace(batch, boxes=None if batch.boxes is None else [b / shrink for b in batch.boxes], mask=mask)


class TaskObjective(Objective):
    """The loss of a task; of a joint model, that of fusion beside it."""

    def __init__(
        self, fusion: FusionWeights | None = None, fusion_weight: float = 0.0, remedy: nn.Module | None = None
    ) -> None:
        """Eq. 2 as it is printed has no fusion loss: a `fusion_weight` above 0 keeps the fused image near one.

        It is taken of one in `FEWER` images of a batch: of all, it would cost more than both networks together.

        Args:
            remedy: (joint model, batch) -> what is added against forgetting; see `vifa_training.baselines`.
        """
        super().__init__()
        self.fusion, self.fusion_weight, self.remedy = fusion or FusionWeights(), fusion_weight, remedy

    def forward(self, network: TaskModel, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`."""
        if not isinstance(network, JointModel):
            return network.loss(batch)
        fused_y = network.fuse(batch)
        loss = network.loss_of(fused_y, batch)
        if self.fusion_weight:
            some = slice(max(1, len(fused_y) // FEWER))
            fusion = fusion_loss(fused_y[some], batch.visible_y[some], batch.thermal[some], self.fusion)
            loss = loss + self.fusion_weight * fusion
        return loss if self.remedy is None else loss + self.remedy(network, batch)
