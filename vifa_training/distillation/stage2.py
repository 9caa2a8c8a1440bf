"""Stage 2, reference model-guided distillation (section 3.3): a thin head learns to imitate a reference model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vifa_training.checkpoint import digest, digest_names, fingerprint, load_weights
from vifa_training.data import Augmentation, Batch, DataSet, Sample
from vifa_training.distillation.extended import ExtendedData
from vifa_training.distillation.features import FeatureCrops, whole
from vifa_training.distillation.least_squares import solve_last_layer
from vifa_training.networks import FusionNetwork, Head, Trainable, count_layers
from vifa_training.objectives import Objective
from vifa_training.pictures import Fused
from vifa_training.schedule import Schedule
from vifa_training.task_model import JointModel
from vifa_training.trainer import estimating_norms, train

CROPS, CROPS_OF_A_PAIR = 1024, 4
AS_FUSED = Augmentation(mirror=0, stretch=0)  # changed pairs would have other fused images than those to imitate


def stage2(
    network: FusionNetwork,
    task: str,
    reference: Callable[[Sample], NDArray[np.float32]],
    pairs: DataSet,
    schedule: Schedule,
    run: Path,
    taught_by: str,
) -> None:
    """Train the head of `task` so that the shared backbone fuses what the reference model fuses; nothing else changes.

    Args:
        network: with a fresh head for `task`; ends with the trained one.
        reference: a sample -> fused luma (H,W), 0..1, of the reference model: the ground truth of Eq. 3.
        pairs: what to imitate it on.
        run: folder of the extended data set and of the training.
        taught_by: what tells this reference model from others: a sum of its weights.

    Raises:
        TrainingError, DataError: as `vifa_training.trainer.train`.
    """
    extended = ExtendedData(pairs, reference, run / f"extended-{taught_by[:12]}")  # (ir, vi, û)
    student = HeadModel(network, task).eval()  # the backbone is frozen, its batch norms too
    if not (run / "last.safetensors").exists():
        begin(student, extended)
    identity = f"{taught_by} on {digest_names(pairs.names)} behind {fingerprint(network.backbone)}"
    identity += f", a head of {count_layers(student.head)} layers"
    crops = FeatureCrops(network, extended, schedule.crop, count_crops(schedule, len(pairs)), schedule.seed)
    student.features = crops.features
    train(student, ImitationObjective(), crops, None, schedule, run, identity, AS_FUSED)  # Eq. 3
    load_weights(student, run / "best.safetensors")
    network.eval()


def teach_head(
    network: FusionNetwork,
    task: str,
    reference: JointModel,
    reference_run: Path,
    pairs: DataSet,
    schedule: Schedule,
    run: Path,
) -> None:
    """Stage 2 by a reference model: the head of `task` learns to fuse what the model's own head fuses.

    Args:
        reference, reference_run: what `train_reference` gave, and where it was trained.
        network, task, pairs, schedule, run: as of `stage2`, which tells the errors too.
    """
    taught_by = digest(reference_run / "best.safetensors")
    stage2(network, task, Fused(reference.fusion, reference.head).luma, pairs, schedule, run, taught_by)


def imitate(
    network: FusionNetwork,
    task: str,
    reference: Callable[[Sample], NDArray[np.float32]],
    pairs: DataSet,
    schedule: Schedule,
    run: Path,
    taught_by: str,
) -> None:
    """Train the backbone and the head of `task` by Eq. 3: references without a frozen backbone, for comparison.

    Args, Raises: as `stage2`.
    """
    extended = ExtendedData(pairs, reference, run / f"extended-{taught_by[:12]}")
    student = WholeModel(network, task)
    identity = f"{taught_by} on {digest_names(pairs.names)} from {fingerprint(network)}"
    train(student, ImitationObjective(), extended, None, schedule, run, identity, AS_FUSED)
    load_weights(student, run / "best.safetensors")
    network.eval()


def count_crops(schedule: Schedule, pairs: int) -> int:
    """How many crops a head learns from: few enough that their features are kept, no more than it is shown."""
    return min(schedule.steps * schedule.batch, max(CROPS, CROPS_OF_A_PAIR * pairs))


def begin(student: HeadModel, extended: DataSet) -> None:
    """Give the head a good start: batch norms the statistics of the pairs, a linear last layer its exact solution."""
    network = student.network
    with estimating_norms(student) as norms:
        for index in range(len(extended) if norms else 0):
            student.head(student.features(whole(extended[index], network)))
    network.eval()
    solve_last_layer(network, student.task, (whole(extended[i], network) for i in range(len(extended))))


class HeadModel(Trainable):
    """A fusion network of which one head is trained."""

    def __init__(self, network: FusionNetwork, task: str) -> None:
        super().__init__()
        self.network, self.task, self.size_multiple = network, task, network.size_multiple
        self.features: Callable[[Batch], dict[str, Tensor]] = self.compute_features
        network.requires_grad_(False)
        self.head.requires_grad_(True)

    @property
    def head(self) -> Head:
        """The head that is trained."""
        return self.network.heads[self.task]

    def train(self, mode: bool = True) -> HeadModel:
        """Only the head ever leaves evaluation mode."""
        super().train(mode)
        self.network.eval()
        self.head.train(mode)
        return self

    @torch.no_grad()
    def compute_features(self, batch: Batch) -> dict[str, Tensor]:
        """What the frozen backbone gives of a batch."""
        return self.network.backbone(batch.visible_y, batch.thermal)

    def forward(self, batch: Batch) -> Tensor:
        """Fused luma (B,1,H,W); in training not clamped, so that saturated pixels keep a gradient."""
        with self.precision():
            return self.head(self.features(batch)).float()


class WholeModel(Trainable):
    """A fusion network of which the backbone and one head are trained."""

    def __init__(self, network: FusionNetwork, task: str) -> None:
        super().__init__()
        self.network, self.task, self.size_multiple = network, task, network.size_multiple
        network.requires_grad_(False)
        network.backbone.requires_grad_(True)
        network.heads[task].requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        """Fused luma (B,1,H,W); in training not clamped."""
        with self.precision():
            return self.network.heads[self.task](self.network.backbone(batch.visible_y, batch.thermal)).float()


class ImitationObjective(Objective):
    """Eq. 3: the L2 norm of the difference to the reference's image, over the square root of its number of pixels.

    Both images end at black and white: where the reference's does, how far beyond the head goes makes no difference.
    """

    def forward(self, network: HeadModel | WholeModel, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`; a mean over images."""
        fused = network(batch)
        difference = (fused - batch.fused).masked_fill(fused.clamp(0, 1) == batch.fused, 0).flatten(1)
        return (difference.square().mean(dim=1) + 1e-12).sqrt().mean()
