"""Recipes: one YAML file that says what a training run trains, on what, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vifa_runtime.bundle import Task
from vifa_training.objectives import FusionWeights
from vifa_training.networks import NETWORKS
from vifa_training.trainer import Schedule


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message names the file, the key and the mend."""


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: of the bundle that comes out.
        network: a name of `vifa_training.networks.NETWORKS`.
        training, validation: parts of the data folder (see `vifa_runtime.pairs.find_part`).
        tasks: in order, each with the weights of its loss.
        schedule: how long to train.
        licences: of code, weights and data, for the bundle.
    """

    name: str
    network: str
    training: list[str]
    validation: list[str]
    tasks: dict[Task, FusionWeights]
    schedule: Schedule
    licences: Mapping[str, str]


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
        Task(name, "fusion", entry.get("description", "")): FusionWeights(**entry["loss"])
        for name, entry in content["tasks"].items()
    }
    if content["network"] not in NETWORKS:
        raise ValueError(f"network {content['network']!r} is unknown; use one of {', '.join(NETWORKS)}")
    return Recipe(
        name=content["name"],
        network=content["network"],
        training=content["training"],
        validation=content["validation"],
        tasks=tasks,
        schedule=Schedule(**content["schedule"]),
        licences=content["licences"],
    )
