"""Task recipes: one YAML file that says which task network learns what, on which labelled pairs, for how long."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vifa_training.data import Augmentation
from vifa_training.data.opening import TIMES, parse_part
from vifa_training.objectives import build_objective
from vifa_training.recipe import RecipeError
from vifa_training.schedule import Schedule
from vifa_training.tasks import TASK_NETWORKS

PRESETS = ("smoke", "cpu", "ship", "paper")
KINDS = ("detection", "segmentation")
MOST_CLASSES = 254  # of a bundle's task


@dataclass(frozen=True)
class TaskPreset:
    """How long: `task` trains the task network, with and without the fusion network; `head` is stage 2."""

    task: Schedule
    head: Schedule


@dataclass(frozen=True)
class TaskRecipe:
    """A labelled task.

    Attributes:
        name: of the recipe.
        task, description: of the bundle's task.
        kind: `detection` or `segmentation`.
        network: a name of `vifa_training.tasks.TASK_NETWORKS`.
        classes: class -> colour (R, G, B), in the order of the labels.
        rare: classes that are reported but left out of the primary metric.
        data: part of the data folder with all labelled pairs, for cross-validation.
        training: part that the bundle that ships is trained on.
        validation: part that choices are made on.
        shrink: the task network sees the fused image averaged over so many pixels squared.
        thresholds: `score`, `iou`, `max_detections` of the bundle, for detection.
        augmentation: of the crops.
        fusion_weight: of the fusion loss beside the task's loss in a reference model; 0 is Eq. 2 as printed.
        fusion_share: share of the learning rate that the backbone of fusion gets in a reference model.
        head_share: that its head gets.
        head_layers: convolutions of the thin head that stage 2 teaches, at least; a network's own head may have more.
        fusion_loss: weights of `FusionWeights`.
        presets: name -> schedules; `crop` in pixels of what the task network sees.
        licences: of weights and data.
    """

    name: str
    task: str
    kind: str
    network: str
    classes: Mapping[str, tuple[int, int, int]]
    data: str
    training: str
    validation: str
    presets: Mapping[str, TaskPreset]
    licences: Mapping[str, str]
    description: str = ""
    rare: tuple[str, ...] = ()
    shrink: int = 1
    thresholds: Mapping[str, float] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)
    fusion_weight: float = 1.0
    fusion_share: float = 0.1
    head_share: float = 1.0
    head_layers: int = 1
    fusion_loss: Mapping[str, float] = field(default_factory=dict)

    @property
    def task_identity(self) -> str:
        """What makes another training of the task network by itself, beside its schedule and data."""
        parts = [self.network, self.shrink, list(self.classes), asdict(self.augmentation)]
        return json.dumps(parts, sort_keys=True)

    @property
    def identity(self) -> str:
        """The same of a reference model, whose fusion network is trained too."""
        parts = [self.network, self.shrink, self.fusion_weight, self.fusion_share, self.head_share]
        parts += [dict(self.fusion_loss), list(self.classes), asdict(self.augmentation)]
        return json.dumps(parts, sort_keys=True)

    def preset(self, name: str) -> TaskPreset:
        """The schedules of a preset.

        Raises:
            RecipeError: the recipe has none of that name.
        """
        if name not in self.presets:
            raise RecipeError(f"recipe {self.name} has no preset {name!r}; use one of {', '.join(self.presets)}")
        return self.presets[name]


def load_task_recipe(name: str) -> TaskRecipe:
    """Read a task recipe file, or one of the shipped ones by name (`msrs-detection`).

    With `@day` or `@night` behind it, it is a task of its own on the pairs of that time alone.

    Raises:
        RecipeError: no such recipe, no YAML, or a key that is unknown, missing or out of range.
    """
    before, at, time = name.rpartition("@")
    return _at_time(_load(before), time) if at and time in TIMES else _load(name)


def _at_time(recipe: TaskRecipe, time: str) -> TaskRecipe:
    parts = {key: getattr(recipe, key) for key in ("data", "training", "validation")}
    changed = {key: f"{part}{',' if '@' in part else '@'}{time}" for key, part in parts.items()}
    return replace(recipe, name=f"{recipe.name}-{time}", task=f"{recipe.task}_{time}", **changed)


def _load(name: str) -> TaskRecipe:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        shipped = files("vifa_training").joinpath("recipes/tasks")
        path = Path(str(shipped.joinpath(f"{name}.yaml")))
        if not path.is_file():
            known = ", ".join(sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir()))
            raise RecipeError(f"no task recipe is called {name!r}; use a .yaml file or one of {known}")
    try:
        return _parse(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"lacks the key {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise RecipeError(f"{path}: {reason}") from None


def _parse(content: Any) -> TaskRecipe:
    _check_keys(content)
    _check_values(content)
    presets = {name: _parse_preset(name, preset) for name, preset in content["presets"].items()}
    options = dict(content.get("augmentation", {}))
    if isinstance(options.get("scale"), list):
        options["scale"] = tuple(options["scale"])
    classes = {str(name): tuple(colour) for name, colour in content["classes"].items()}
    changed = {"presets": presets, "rare": tuple(content.get("rare", ())), "classes": classes}
    return TaskRecipe(**{**content, **changed, "augmentation": _make("augmentation", Augmentation, options)})


def _parse_preset(name: str, preset: Any) -> TaskPreset:
    if not isinstance(preset, Mapping) or set(preset) != {"task", "head"}:
        raise ValueError(f"presets.{name} must hold task and head, and nothing else")
    return TaskPreset(*(_make(f"presets.{name}.{part}", Schedule, preset[part]) for part in ("task", "head")))


def _make(where: str, kind: type[Any], options: Any) -> Any:
    """`kind` with these options; what is wrong with them is told with the place in the file."""
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}") from None


def _check_keys(content: Any) -> None:
    """Refuse what is no recipe, with an unknown key, or without one that every recipe has."""
    if not isinstance(content, Mapping):
        raise ValueError("holds no keys; begin with a copy of a shipped recipe")
    known = {field.name: field for field in fields(TaskRecipe)}
    for key in content:
        if key not in known:
            raise ValueError(f"the key {key!r} is unknown; use {', '.join(known)}")
    for key, entry in known.items():
        if key not in content and entry.default is entry.default_factory is MISSING:
            raise KeyError(key)
    for key in ("classes", "presets", "licences", "thresholds", "augmentation", "fusion_loss"):
        if not isinstance(content.get(key, {}), Mapping):
            raise ValueError(f"{key} must be a mapping, got {content[key]!r}")
    for key in ("weights", "data"):
        if not isinstance(content["licences"].get(key), str):
            raise ValueError(f"licences lacks a text {key!r}")


def _check_values(content: Mapping[str, Any]) -> None:
    """Refuse values that a training or the bundle could not take: better now than after hours of training."""
    network, kind = content["network"], content["kind"]
    if str(network) not in TASK_NETWORKS:
        raise ValueError(f"network {network!r} is unknown; use one of {', '.join(TASK_NETWORKS)}")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; use {' or '.join(KINDS)}")
    if TASK_NETWORKS[network].kind != kind:
        raise ValueError(f"network {network!r} is for {TASK_NETWORKS[network].kind}, not for kind {kind!r}")
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", str(content["task"])):
        raise ValueError(f"task {content['task']!r} must be small letters, digits and underscores, as in topics")
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]*", str(content["name"])):
        raise ValueError(f"name {content['name']!r} must be letters, digits and _.-, as it names folders")
    for key in ("name", "description", "data", "training", "validation"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"{key} must be a text, got {content[key]!r}")
    for key in ("data", "training", "validation"):
        parse_part(content[key])
    if not content["presets"]:
        raise ValueError(f"presets holds none; give one or more of {', '.join(PRESETS)}")
    _check_classes(content["classes"], content.get("rare", ()))
    _check_thresholds(content.get("thresholds", {}), kind)
    for key in ("shrink", "head_layers"):
        if not _is_whole(content.get(key, 1), 1):
            raise ValueError(f"{key} must be a whole number of 1 or more, got {content[key]!r}")
    for key in ("fusion_weight", "fusion_share", "head_share"):
        if not _is_number(content.get(key, 1.0), math.inf):
            raise ValueError(f"{key} must be a number of 0 or more, got {content[key]!r}")
    build_objective("shared", {content["task"]: content.get("fusion_loss", {})}, {})


def _check_classes(classes: Mapping[str, Any], rare: Any) -> None:
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"classes must name 1 to {MOST_CLASSES}, got {len(classes)}")
    if len({str(name) for name in classes}) != len(classes):
        raise ValueError("two classes share a name; rename one")
    for name, colour in classes.items():
        if not (1 <= len(str(name)) <= 64 and str(name).isprintable()):
            raise ValueError(f"class {name!r} must have a name of 1 to 64 characters that can be printed")
        if not (isinstance(colour, list) and len(colour) == 3 and all(_is_whole(c, 0, 255) for c in colour)):
            raise ValueError(f"classes.{name} must be a colour of three numbers in 0..255, got {colour!r}")
    if not (isinstance(rare, (list, tuple)) and all(isinstance(name, str) for name in rare)):
        raise ValueError(f"rare must be a list of classes, got {rare!r}")
    if unknown := [name for name in rare if name not in classes]:
        raise ValueError(f"rare names {', '.join(unknown)}, which are no classes")
    if len(set(rare)) == len(classes):
        raise ValueError("rare names every class, so that none is left for the primary metric")


def _check_thresholds(thresholds: Mapping[str, Any], kind: str) -> None:
    if thresholds and kind != "detection":
        raise ValueError(f"thresholds are for detection; remove them from a recipe of {kind}")
    for key, value in thresholds.items():
        if key not in ("score", "iou", "max_detections"):
            raise ValueError(f"thresholds.{key} is unknown; use score, iou, max_detections")
        if not (_is_whole(value, 1, 10_000) if key == "max_detections" else _is_number(value, 1)):
            wanted = "a whole number in 1..10000" if key == "max_detections" else "in 0..1"
            raise ValueError(f"thresholds.{key} must be {wanted}, got {value!r}")


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high and value < math.inf
