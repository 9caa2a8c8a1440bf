"""How long a training lasts, in what portions, at which learning rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

DECAYS = ("cosine", "linear_second_half", "steps", "constant")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to train.

    Attributes:
        steps: optimiser steps in all.
        batch: crops a step, over all processes.
        crop: side of a square crop, or its height and width, pixels.
        learning_rate: Adam's, at the first step after the warm-up.
        warm_up: steps in which the rate rises linearly to what `decay` gives.
        decay: what becomes of it: `cosine` (half a cosine to zero), `linear_second_half` (constant, then linearly to
            zero), `steps` (times `factor` at each of `milestones`), `constant`.
        milestones: steps, ascending; decay `steps` alone reads them.
        factor: see `milestones`.
        validate_every: steps between two looks at the validation pairs.
        validation_pairs: how many of them to look at, evenly spread; 0 for all.
        patience: looks without gain after which the training ends; 0 for never.
        ema: share of the past that the averaged weights keep a step (0..1); these are validated and kept. 0 for none.
        precision: `float32`, or `bfloat16` for what may be computed so (mixed precision; weights stay float32).
        norm_batches: training batches over which the statistics of batch norms are estimated anew before every look at
            the validation pairs and at the end; 0 for never. Running statistics lag behind in short trainings.
        freeze_norms: share of the steps after which batch norms use their running statistics, as in evaluation, and
            learn scale and offset alone; 1 for never. Crops of few images have other statistics than whole images.
        clip: largest gradient norm.
        seed: of weights and crops.

    Raises:
        ValueError: a value out of its range, by name.
    """

    steps: int
    batch: int = 8
    crop: int | tuple[int, int] = 128
    learning_rate: float = 1e-3
    warm_up: int = 0
    decay: str = "cosine"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    validate_every: int = 500
    validation_pairs: int = 0
    patience: int = 0
    ema: float = 0.0
    precision: str = "float32"
    norm_batches: int = 0
    freeze_norms: float = 1.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if isinstance(self.crop, list):
            object.__setattr__(self, "crop", tuple(self.crop))
        sides = self.crop if isinstance(self.crop, tuple) and len(self.crop) == 2 else (self.crop,)
        if not all(isinstance(side, int) and side >= 1 for side in sides):
            raise ValueError(f"schedule.crop must be one or two whole numbers of 1 or more, got {self.crop!r}")
        for name in ("steps", "batch", "validate_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"schedule.{name} must be a whole number of 1 or more, got {getattr(self, name)!r}")
        for name in ("warm_up", "validation_pairs", "patience", "norm_batches", "seed"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"schedule.{name} must be a whole number of 0 or more, got {getattr(self, name)!r}")
        for name in ("learning_rate", "factor", "clip"):
            if not (_is_number(getattr(self, name)) and 0 < getattr(self, name) < math.inf):
                raise ValueError(f"schedule.{name} must be a number above 0, got {getattr(self, name)!r}")
        if not (_is_number(self.ema) and 0 <= self.ema < 1):
            raise ValueError(f"schedule.ema must be in 0..1 and below 1, got {self.ema!r}")
        if not (_is_number(self.freeze_norms) and 0 < self.freeze_norms <= 1):
            raise ValueError(f"schedule.freeze_norms must be above 0 and at most 1, got {self.freeze_norms!r}")
        for name, known in (("decay", DECAYS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"schedule.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"schedule.milestones must ascend, got {list(self.milestones)}")

    @property
    def crop_sides(self) -> tuple[int, int]:
        """Height and width of a crop, pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    def enlarged(self, factor: int) -> Schedule:
        """The same with crops of `factor` times the side."""
        height, width = self.crop_sides
        return replace(self, crop=(factor * height, factor * width))

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        done = step / self.steps
        if self.decay == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * done))
        elif self.decay == "linear_second_half":
            share = min(1.0, 2 * (1 - done))
        elif self.decay == "steps":
            share = self.factor ** bisect_right(self.milestones, step)
        else:
            share = 1.0
        return self.learning_rate * share * min(1.0, (step + 1) / (self.warm_up + 1))


def _is_number(value: object) -> bool:
    """YAML takes 1e-3, without a point, for text."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
