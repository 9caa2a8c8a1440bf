"""PIAFusion's loss: how much of which source an image keeps follows from how well it is lit.

Source: Tang et al., "PIAFusion: a progressive infrared and visible image fusion network based on illumination aware",
Information Fusion 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import magnitude_loss
from vifa_training.objectives.illumination import (
    IlluminationClassifier,
    train_illumination_classifier,
    visible_weight,
)


class PIAFusionObjective(Objective):
    """3 L_illumination + 7 L_maximum + 50 L_gradient, summed over tasks, by a classifier that `prepare` trains.

    Published: the terms, their weights, the classifier and that it is trained first and then frozen. Ours: gradients
    only inside the image (see `magnitude_loss`).
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        illumination: float = 3.0,
        maximum: float = 7.0,
        gradient: float = 50.0,
        classifier_steps: int = 2000,
        classifier_rate: float = 1e-3,
    ) -> None:
        """Weights of the three terms; for how many steps, at which learning rate the classifier is trained.

        Raises:
            ValueError: no step for the classifier.
        """
        super().__init__()
        if classifier_steps < 1 or classifier_steps != int(classifier_steps):
            raise ValueError(f"classifier_steps must be a whole number of 1 or more, got {classifier_steps}")
        self.tasks = tuple(tasks)
        self.illumination, self.maximum, self.gradient = illumination, maximum, gradient
        self.classifier_steps, self.classifier_rate = int(classifier_steps), classifier_rate
        self.classifier = IlluminationClassifier()
        self.register_buffer("classifier_is_trained", torch.tensor(False))

    def prepare(self, draw: Callable[[int], Batch], report: Callable[[str], None] = print) -> None:
        """Train the day and night classifier; see `Objective.prepare`.

        Raises:
            ValueError: a sample has neither the tag `day` nor `night`.
        """
        if self.classifier_is_trained:
            return
        accuracy = train_illumination_classifier(self.classifier, draw, self.classifier_steps, self.classifier_rate)
        self.classifier_is_trained.fill_(True)
        report(f"illumination classifier: {accuracy:.1%} of the last training crops right as day or night")

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`.

        Raises:
            RuntimeError: the classifier is not trained.
        """
        if not self.classifier_is_trained:
            raise RuntimeError("the illumination classifier is not trained; call prepare before the first step")
        visible_y = batch.visible_y
        share = visible_weight(self.classifier(batch.visible))
        fused = network(visible_y, batch.thermal)
        return torch.stack([self._loss(fused[task], visible_y, batch.thermal, share) for task in self.tasks]).sum()

    def _loss(self, fused: Tensor, visible_y: Tensor, thermal: Tensor, share: Tensor) -> Tensor:
        return (
            self.illumination * illumination_loss(fused, visible_y, thermal, share)
            + self.maximum * F.l1_loss(fused, torch.maximum(visible_y, thermal))
            + self.gradient * magnitude_loss(fused, visible_y, thermal)
        )


def illumination_loss(fused: Tensor, visible_y: Tensor, thermal: Tensor, share: Tensor) -> Tensor:
    """w_ir |F - IR|_1 + w_vi |F - Y|_1 with w_vi = `share` (B,1,1,1) and w_ir the rest; images (B,1,H,W)."""
    return ((1 - share) * (fused - thermal).abs() + share * (fused - visible_y).abs()).mean()
