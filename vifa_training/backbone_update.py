"""A bundle whose backbone learns new pairs: stage 1, new files, and what that costs its older tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BACKBONE, Bundle, Task, write_bundle
from vifa_runtime.card import bundle_card
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.scoring import for_evaluation
from vifa_training.add_task import choose_like, derive_manifest
from vifa_training.bundle_network import network_of
from vifa_training.channels import KeyChannels, load_channels
from vifa_training.checkpoint import TrainingError, fingerprint
from vifa_training.data import DataSet
from vifa_training.distillation.stage1 import WEIGHT, stage1
from vifa_training.drift import layer_drift
from vifa_training.evaluation import evaluate, mean_rows, place_of
from vifa_training.experiments.schedules import FUSION
from vifa_training.export import backbone_graph, head_graph
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.schedule import Schedule
from vifa_training.task_data import open_labelled
from vifa_training.task_evaluation import Prediction, measure_predictions
from vifa_training.task_recipe import TaskRecipe, load_task_recipe


@dataclass(frozen=True)
class Update:
    """What a backbone is to learn, and what it keeps.

    Attributes:
        bundle: as it is.
        head: its task whose head is trained along.
        memories: key channels of each earlier data set.
        older: recipes of its labelled tasks that stay, to measure what they lose.
        weights: of the fusion loss.
        schedule: of the training.
        weight: of Eq. 1.
    """

    bundle: Bundle
    head: str
    memories: Sequence[KeyChannels]
    older: Sequence[TaskRecipe]
    weights: FusionWeights
    schedule: Schedule
    weight: float


def plan_update(
    bundle: Bundle,
    like: str | None,
    channels: Sequence[Path],
    older: Sequence[str],
    preset: str,
    weights: FusionWeights,
    drop: Sequence[str] = (),
    weight: float = WEIGHT,
) -> Update:
    """Read and check everything that an update needs but for its pairs.

    Args:
        like: task whose head is trained along; the first one without.
        channels: files of `vifa-train channels`, one for each earlier data set, the newest last.
        older: task recipes, of each labelled task of the bundle that is not in `drop`.
        preset: of `FUSION`.

    Raises:
        TrainingError, RecipeError: something is missing, or not of this bundle's backbone.
    """
    if preset not in FUSION:
        raise TrainingError(f"no backbone is trained by preset {preset!r}; use one of {', '.join(FUSION)}")
    recipes = [load_task_recipe(name) for name in older]
    _check_older(bundle, recipes, drop)
    memories = _open_memories(channels, bundle)
    return Update(bundle, choose_like(bundle, like), memories, recipes, weights, FUSION[preset], weight)


def update_backbone(
    update: Update,
    pairs: DataSet,
    data: Sequence[str],
    root: Path,
    run: Path,
    folder: Path,
    show: Callable[[str, Sequence[Mapping[str, Any]]], None],
) -> Bundle:
    """Stage 1 on new pairs; write the bundle with what it gave, and show how far layers and older metrics went.

    Args:
        pairs, data: what is learned, and its name.
        root: folder of the data sets that older tasks are measured on.
        run: folder of the training.
        folder: of the new bundle.
        show: told of the title and rows of each table.
    """
    before = network_of(update.bundle)
    network = copy.deepcopy(before)
    stage1(network, update.head, pairs, update.memories, update.weights, update.schedule, run, update.weight)
    written = write_with_backbone(update.bundle, network, update.head, data, folder)
    keys = {name: layer.key for name, layer in update.memories[-1].layers.items()}
    show("features on the new pairs, relative change", layer_drift(before, network, pairs, keys))
    show("older tasks", cost_rows(update.bundle, written, root, update.older))
    return written


def write_with_backbone(bundle: Bundle, network: FusionNetwork, head: str, data: Sequence[str], folder: Path) -> Bundle:
    """Write a bundle with another backbone and the head that was trained with it.

    The other heads and all task graphs are the same bytes. Metrics were those of the old backbone, and are left out.

    Raises:
        BundleError: the result does not pass the runtime's checks.
    """
    contents = dict(bundle.graphs) | {BACKBONE: backbone_graph(network)}
    contents[_task(bundle, head).head] = head_graph(network, head)
    manifest = derive_manifest(bundle.manifest, folder.resolve().name, ", ".join(data), "stage 1") | {"metrics": []}
    return write_bundle(folder, manifest, contents | {"README.md": bundle_card(manifest).encode()})


def cost_rows(before: Bundle, after: Bundle, root: Path, older: Sequence[TaskRecipe]) -> list[dict[str, Any]]:
    """What the older tasks measure on either backbone, on ONNX Runtime.

    Labelled tasks are measured on their recipes' validation parts; tasks of fusion alone on the parts that the first
    bundle's manifest has metrics of, where they are below `root`.

    Returns:
        Rows `{data, task, metric, before, after, change}`, to four decimals.
    """
    rows: list[dict[str, Any]] = []
    for recipe in older:
        pairs = open_labelled(root, recipe.validation, recipe)
        values = [measure_bundle(bundle, recipe, pairs) for bundle in (before, after)]
        rows += [
            _cost(recipe.validation, recipe.task, metric, old, values[1][metric])
            for metric, old in values[0].items()
            if old == old
        ]
    return rows + _fusion_costs(before, after, root)


def measure_bundle(bundle: Bundle, recipe: TaskRecipe, pairs: DataSet) -> dict[str, float]:
    """Metric -> value of a bundle's task on labelled pairs, through the runtime that robots run; NaN where undefined.

    Args:
        bundle: with the recipe's task.
        recipe: says which classes count.
    """
    lenient = for_evaluation(bundle.with_tasks([_task(bundle, recipe.task)]))
    pipeline = FusionPipeline(lenient, prepare("onnxruntime", lenient, Options()))
    made = []
    for sample in (pairs[index] for index in range(len(pairs))):
        found = pipeline.process(sample.visible, sample.thermal)
        mask = found.masks.get(recipe.task)
        mask = None if mask is None else mask.copy()
        made.append(Prediction(sample.name, found.detections.get(recipe.task), mask))
    pipeline.close()
    return measure_predictions(recipe, pairs, made)


def _fusion_costs(before: Bundle, after: Bundle, root: Path) -> list[dict[str, Any]]:
    names = [task.name for task in before.tasks if task.kind == "fusion" and task.name in after.task_names]
    parts = list(dict.fromkeys(row["data"] for row in before.manifest["metrics"] if row["task"] in names))
    parts = [part for part in parts if (root / part).is_dir()]
    if not parts:
        return []
    renamed = replace(after, name=f"{before.name} after")
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in mean_rows(evaluate([before, renamed], root, parts)):
        if row["task"] in names:
            values.setdefault((place_of(row), row["task"], row["metric"]), []).append(row["value"])
    return [_cost(*place, old, new) for place, (old, new) in values.items()]


def _cost(data: str, task: str, metric: str, before: float, after: float) -> dict[str, Any]:
    rounded = {"before": round(before, 4), "after": round(after, 4), "change": round(after - before, 4)}
    return {"data": data, "task": task, "metric": metric, **rounded}


def _task(bundle: Bundle, name: str) -> Task:
    return next(task for task in bundle.tasks if task.name == name)


def _open_memories(paths: Sequence[Path], bundle: Bundle) -> list[KeyChannels]:
    network = network_of(bundle)
    memories = [load_channels(path, network) for path in paths]
    if not memories or memories[-1].backbone != fingerprint(network.backbone):
        named = f"{paths[-1]} is of another backbone than {bundle.name} has" if paths else "no key channels are given"
        raise TrainingError(f"{named}; make them by vifa-train channels, and give the newest last as --channels")
    return memories


def _check_older(bundle: Bundle, recipes: Sequence[TaskRecipe], drop: Sequence[str] = ()) -> None:
    """Refuse a bundle with a labelled task whose recipe is not given: what the change costs it could not be told.

    Raises:
        TrainingError: names the tasks, or the recipe that is of no task of the bundle.
    """
    labelled = {task.name for task in bundle.tasks if task.kind != "fusion" and task.name not in drop}
    given = {recipe.task for recipe in recipes}
    if missing := sorted(labelled - given):
        raise TrainingError(
            f"bundle {bundle.name} finds {', '.join(missing)} too; give the recipe of each as --older, so that "
            "what the new backbone costs them can be measured"
        )
    if foreign := sorted(given - labelled):
        raise TrainingError(f"--older: bundle {bundle.name} keeps no task {', '.join(foreign)}")
