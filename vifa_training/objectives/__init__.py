"""What trainings minimise: the shared fusion loss, and each published network's own recipe, by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from vifa_training.objectives.base import Objective
from vifa_training.objectives.didfuse import DIDFuseObjective
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss
from vifa_training.objectives.piafusion import PIAFusionObjective
from vifa_training.objectives.shared import SharedObjective
from vifa_training.objectives.swinfusion import SwinFusionObjective
from vifa_training.objectives.tardal import TarDALObjective

# Each takes task names and, by keyword, its options: numbers of 0 or more.
PUBLISHED: dict[str, Callable[..., Objective]] = {
    "piafusion": PIAFusionObjective,
    "tardal": TarDALObjective,
    "didfuse": DIDFuseObjective,
    "swinfusion": SwinFusionObjective,
}
OBJECTIVES = ("shared", *PUBLISHED)


def build_objective(name: str, tasks: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> Objective:
    """Make an objective from what a recipe says.

    Args:
        name: one of `OBJECTIVES`.
        tasks: task -> its own loss weights. `shared` reads `FusionWeights` from them; a published recipe treats all
            tasks alike and wants them empty.
        options: of a published recipe, the keywords of its class; `shared` has none.

    Raises:
        ValueError: an unknown objective, option or weight, or a value that it cannot take.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"no objective is called {name!r}; choose one of {', '.join(OBJECTIVES)}")
    if not tasks:
        raise ValueError(f"the objective {name!r} needs a task")
    if name == "shared":
        _check(f"the objective {name!r}", options, known=())
        return SharedObjective({task: _fusion_weights(task, weights) for task, weights in tasks.items()})
    for task, weights in tasks.items():
        if weights:
            raise ValueError(f"the task {task!r} has a loss of its own, which the objective {name!r} does not read")
    keywords = inspect.signature(PUBLISHED[name]).parameters.values()
    _check(f"the objective {name!r}", options, [k.name for k in keywords if k.kind is k.KEYWORD_ONLY])
    return PUBLISHED[name](tuple(tasks), **options)


def _fusion_weights(task: str, weights: Mapping[str, Any]) -> FusionWeights:
    given = {key: value for key, value in weights.items() if not (key == "ssim_visible" and value is None)}
    _check(f"the loss of the task {task!r}", given, [field.name for field in fields(FusionWeights)])
    return FusionWeights(**given)


def _check(where: str, options: Mapping[str, Any], known: list[str] | tuple[str, ...]) -> None:
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"{where} has no option {key!r}; it has {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{where}: {key} must be a number of 0 or more, got {value!r}")


__all__ = ["OBJECTIVES", "FusionWeights", "Objective", "SharedObjective", "build_objective", "fusion_loss"]
