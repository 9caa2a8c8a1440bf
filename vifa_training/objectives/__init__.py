"""What trainings minimise: the shared fusion loss, and each published network's own recipe, by name."""

from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss
from vifa_training.objectives.shared import SharedObjective

__all__ = ["FusionWeights", "Objective", "SharedObjective", "fusion_loss"]
