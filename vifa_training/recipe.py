"""Recipes: one YAML file that says what a training run trains, on what, for how long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vifa_runtime.bundle import Task
from vifa_training.networks import NETWORKS
from vifa_training.objectives import Objective, build_objective
from vifa_training.schedule import Schedule


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message names the file, the key and the mend."""


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: of the bundle that comes out.
        network: a name of `vifa_training.networks.NETWORKS`.
        training, validation: parts of the data folder (see `vifa_runtime.pairs.find_part`).
        tasks: in order, each with the weights of its loss (none where the objective treats all alike).
        objective: name and options of what is minimised (see `vifa_training.objectives.build_objective`).
        schedule: how long to train.
        licences: of code, weights and data, for the bundle.
    """

    name: str
    network: str
    training: list[str]
    validation: list[str]
    tasks: dict[Task, Mapping[str, float]]
    objective: Mapping[str, Any]
    schedule: Schedule
    licences: Mapping[str, str]

    def build_objective(self) -> Objective:
        """The objective with fresh weights."""
        options = {key: value for key, value in self.objective.items() if key != "name"}
        return build_objective(self.objective["name"], {t.name: w for t, w in self.tasks.items()}, options)

    @property
    def identity(self) -> str:
        """What makes another training of a recipe, beside its schedule: network, data, losses."""
        losses = {task.name: weights for task, weights in self.tasks.items()}
        parts = [self.network, self.training, self.validation, dict(self.objective), losses]
        return json.dumps(parts, sort_keys=True)


def load_recipe(name: str) -> Recipe:
    """Read a recipe file, or one of the shipped ones by name (`nano-fusion`).

    Raises:
        RecipeError: no such recipe, no YAML, or a key that is unknown, missing or out of range.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        shipped = files("vifa_training").joinpath("recipes")
        path = Path(str(shipped.joinpath(f"{name}.yaml")))
        if not path.is_file():
            known = ", ".join(sorted(p.name.removesuffix(".yaml") for p in shipped.iterdir()))
            raise RecipeError(f"no recipe is called {name!r}; use a .yaml file or one of {known}")
    try:
        content = yaml.safe_load(path.read_text())
        return _parse(content)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks the key {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise RecipeError(f"{path}: {reason}") from None


def _parse(content: Any) -> Recipe:
    tasks = {
        Task(name, "fusion", entry.get("description", "")): entry.get("loss", {})
        for name, entry in content["tasks"].items()
    }
    if content["network"] not in NETWORKS:
        raise ValueError(f"network {content['network']!r} is unknown; use one of {', '.join(NETWORKS)}")
    recipe = Recipe(
        name=content["name"],
        network=content["network"],
        training=content["training"],
        validation=content["validation"],
        tasks=tasks,
        objective=content.get("objective", {"name": "shared"}),
        schedule=Schedule(**content["schedule"]),
        licences=content["licences"],
    )
    recipe.build_objective()  # so that a wrong name or number is told now
    return recipe
