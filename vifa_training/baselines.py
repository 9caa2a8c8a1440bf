"""Usual remedies against forgetting, for a whole fusion network that is trained on one task after the other (Seq).

Each adds a term to the loss of the new task (Eq. 2) that holds on to the task before. What they are measured against,
key channels and thin heads, is in `vifa_training/distillation/`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vifa_training.data import Augmentation, Batch, DataSet, draw_batch
from vifa_training.task_model import JointModel


class Remedy(nn.Module):
    """What keeps a fusion network near what it was. Nothing of it is trained.

    Attributes:
        identity: what makes a training with it another one.
    """

    identity: str

    def forward(self, model: JointModel, batch: Batch) -> Tensor:
        """The scalar that is added to the loss of the new task on a batch of its pairs."""
        raise NotImplementedError


class ElasticWeights(Remedy):
    """EWC (Kirkpatrick et al. 2017, Eq. 3): weights that mattered to the old task are held by springs.

    weight / 2 * sum_i F_i (theta_i - theta*_i)^2, with the diagonal of the empirical Fisher information F.
    """

    def __init__(
        self, old: JointModel, pairs: DataSet, weight: float, images: int, crop: int | tuple[int, int]
    ) -> None:
        """Measure what mattered.

        Args:
            old: fusion and task network as they stand after the old task.
            pairs: labelled, of the old task.
            weight: of the springs.
            images: how many crops the Fisher information is a mean over, each by itself.
            crop: their size, pixels.
        """
        super().__init__()
        self.weight, self.identity = weight, f"ewc {weight} {images}"
        mode = old.training
        old.eval()
        names = [name for name, _ in old.fusion.named_parameters()]
        parameters = list(old.fusion.parameters())
        information = [torch.zeros_like(parameter) for parameter in parameters]
        for index in range(images):
            batch = draw_batch(pairs, 1, crop, np.random.default_rng([0, index])).to(parameters[0].device)
            loss = old.loss(batch)
            if not loss.requires_grad:
                continue
            for total, gradient in zip(
                information, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
            ):
                if gradient is not None:
                    total += gradient.square() / images
        old.train(mode)
        self._keys = {name: f"p{index}" for index, name in enumerate(names)}
        for key, parameter, total in zip(self._keys.values(), parameters, information, strict=True):
            self.register_buffer(f"{key}_value", parameter.detach().clone())
            self.register_buffer(f"{key}_information", total)

    def forward(self, model: JointModel, batch: Batch) -> Tensor:
        springs = [
            (getattr(self, f"{self._keys[name]}_information") * (parameter - self._value(name)).square()).sum()
            for name, parameter in model.fusion.named_parameters()
            if name in self._keys
        ]
        return self.weight / 2 * torch.stack(springs).sum()

    def _value(self, name: str) -> Tensor:
        return getattr(self, f"{self._keys[name]}_value")


class AllChannels(Remedy):
    """Learning without forgetting (Li and Hoiem 2017), as fusion networks can: every channel stays near what it was.

    The mean squared difference of each distilled layer, over the old layer's mean square, and that of the fused luma,
    on the new task's pairs: no old data is needed.
    """

    def __init__(self, old: JointModel, weight: float) -> None:
        super().__init__()
        self.weight, self.identity = weight, f"lwf {weight}"
        self.old = copy.deepcopy(old.fusion).eval().requires_grad_(False)
        self.head = old.head

    def train(self, mode: bool = True) -> AllChannels:
        """The old network never leaves evaluation mode."""
        super().train(mode)
        self.old.eval()
        return self

    def forward(self, model: JointModel, batch: Batch) -> Tensor:
        names = self.old.distilled_layers
        with torch.no_grad():
            before = self.old.backbone.layers(batch.visible_y, batch.thermal)
            luma = self.old.heads[self.head].luma(before)
        after = model.fusion.backbone.layers(batch.visible_y, batch.thermal)
        changes = [_change(after[name], before[name]) for name in names]
        changes.append(_change(model.fusion.heads[model.head].luma(after), luma))
        return self.weight * torch.stack(changes).mean()


class Replay(Remedy):
    """A few stored pairs of the old task, shown to its task network in each step (experience replay)."""

    def __init__(
        self,
        old: JointModel,
        pairs: DataSet,
        weight: float,
        batch: int,
        crop: int | tuple[int, int],
        augmentation: Augmentation | None = None,
    ) -> None:
        """Keep what is needed.

        Args:
            old: its task network judges the images, and is not trained any further.
            pairs: the stored ones, labelled.
            weight: of the old task's loss.
            batch, crop, augmentation: of the crops of a step.
        """
        super().__init__()
        self.weight, self.identity = weight, f"replay {weight} {batch} {crop} of {len(pairs)}"
        self.old = copy.deepcopy(old).eval().requires_grad_(False)
        self._draw = (pairs, batch, crop, augmentation)

    def train(self, mode: bool = True) -> Replay:
        """The old task network never leaves evaluation mode."""
        super().train(mode)
        self.old.eval()
        return self

    def forward(self, model: JointModel, batch: Batch) -> Tensor:
        pairs, count, crop, augmentation = self._draw
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))  # torch's seed is that of the step
        stored = draw_batch(pairs, count, crop, rng, augmentation).to(batch.visible.device)
        return self.weight * self.old.loss_of(model.fuse(stored), stored)


class Several(Remedy):
    """More than one, as for more than one task before."""

    def __init__(self, remedies: Sequence[Remedy]) -> None:
        super().__init__()
        self.remedies = nn.ModuleList(remedies)
        self.identity = " and ".join(remedy.identity for remedy in remedies)

    def forward(self, model: JointModel, batch: Batch) -> Tensor:
        return torch.stack([remedy(model, batch) for remedy in self.remedies]).sum()


def _change(now: Tensor, before: Tensor) -> Tensor:
    """Mean squared difference, in mean squares of what was."""
    return (now - before).square().mean() / (before.square().mean() + 1e-8)
