"""One more task for a bundle: a reference model, a thin head taught by it, and new files beside the old ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vifa_runtime.bundle import BACKBONE, Bundle, check_new_bundle, write_bundle
from vifa_runtime.card import bundle_card
from vifa_runtime.half_weights import half_weights
from vifa_runtime.provenance import commit, today
from vifa_training.checkpoint import TrainingError
from vifa_training.data import DataSet
from vifa_training.distillation.reference import new_task, train_reference
from vifa_training.distillation.stage2 import teach_head
from vifa_training.export import head_graph
from vifa_training.networks import FusionNetwork, add_task_head, build_network
from vifa_training.pictures import Fused
from vifa_training.task_evaluation import evaluate_task
from vifa_training.task_model import JointModel
from vifa_training.task_recipe import TaskPreset, TaskRecipe
from vifa_training.tasks import TaskNetwork, task_graph


def check_addition(bundle: Bundle, recipe: TaskRecipe, drop: Sequence[str] = (), folder: Path | None = None) -> None:
    """Refuse, before anything is trained, what could not be written in the end (to `folder`, where it is known).

    Raises:
        TrainingError: the bundle has a task of that name that is not dropped, or lacks one that is.
        BundleError: something that is no bundle is in the folder, or no bundle can be called so.
    """
    for name in drop:
        if name not in bundle.task_names:
            raise TrainingError(
                f"bundle {bundle.name} has no task {name!r} to drop; it has {', '.join(bundle.task_names)}"
            )
    if recipe.task in bundle.task_names and recipe.task not in drop:
        raise TrainingError(
            f"bundle {bundle.name} has a task {recipe.task!r} already; --drop it, or name the recipe's task otherwise"
        )
    if folder is None:
        return
    check_new_bundle(folder)


def choose_like(bundle: Bundle, name: str | None) -> str:
    """The task of that name, the first one without.

    Raises:
        TrainingError: the bundle has no such task.
    """
    if name is not None and name not in bundle.task_names:
        raise TrainingError(f"bundle {bundle.name} has no task {name!r}; it has {', '.join(bundle.task_names)}")
    return name or bundle.task_names[0]


def learn_reference(
    network: FusionNetwork, like: str, recipe: TaskRecipe, preset: TaskPreset, pairs: DataSet, run: Path
) -> JointModel:
    """Train the task's reference model in `run`/reference, from the network as it is with its head of `like`."""
    fusion = build_network(network.name, [like])
    fusion.backbone.load_state_dict(network.backbone.state_dict())
    fusion.heads[like].load_state_dict(network.heads[like].state_dict())
    return train_reference(fusion, like, new_task(recipe, preset), pairs, recipe, preset, run / "reference")


def learn_head(
    network: FusionNetwork, recipe: TaskRecipe, preset: TaskPreset, reference: JointModel, pairs: DataSet, run: Path
) -> None:
    """Give the network a thin head for the task, taught by the reference model in `run`/stage2; nothing else changes.

    A head that it has for the task is replaced by the new one.
    """
    torch.manual_seed(preset.head.seed)
    if recipe.task in network.heads:
        del network.heads[recipe.task]
    add_task_head(network, recipe.task, recipe.head_layers)
    teach_head(network, recipe.task, reference, run / "reference", pairs, preset.head, run / "stage2")


def measure(network: FusionNetwork, task: TaskNetwork, recipe: TaskRecipe, pairs: DataSet) -> list[dict[str, Any]]:
    """Manifest rows `{data, task, metric, value}` of the new task on labelled pairs."""
    values = evaluate_task(task, Fused(network, recipe.task), pairs, recipe)
    return [
        {"data": recipe.validation, "task": recipe.task, "metric": metric, "value": round(value, 4)}
        for metric, value in values.items()
        if value == value
    ]


def write_with_task(
    bundle: Bundle,
    network: FusionNetwork,
    task: TaskNetwork,
    recipe: TaskRecipe,
    folder: Path,
    metrics: Sequence[Mapping[str, Any]] = (),
    drop: Sequence[str] = (),
) -> Bundle:
    """Write a bundle with one more task; the graphs of the older tasks are the same bytes.

    Args:
        bundle: what there is.
        network: its network, with a head for the new task.
        task: the task network that looks at the head's fused image.
        folder: of the new bundle, which may be the old one's.
        metrics: rows of the new task.
        drop: tasks to leave out.

    Raises:
        BundleError: the result does not pass the runtime's checks.
    """
    kept = [known for known in bundle.tasks if known.name not in drop]
    contents = {BACKBONE: bundle.graphs[BACKBONE]}
    contents |= {path: bundle.graphs[path] for known in kept for path in (known.head, known.graph) if path}
    contents[f"heads/{recipe.task}.onnx"] = head_graph(network, recipe.task)
    contents[f"tasks/{recipe.task}.onnx"] = half_weights(task_graph(task, recipe.shrink))
    manifest = extend_manifest(bundle.manifest, recipe, folder.resolve().name, metrics, drop)
    contents["README.md"] = bundle_card(manifest).encode()
    return write_bundle(folder, manifest, contents)


def extend_manifest(
    old: Mapping[str, Any], recipe: TaskRecipe, name: str, metrics: Sequence[Mapping[str, Any]], drop: Sequence[str]
) -> dict[str, Any]:
    """A bundle's manifest with one more task; licences and data of both stand side by side."""
    manifest = derive_manifest(old, name, recipe.training, recipe.name)
    entry = {"name": recipe.task, "kind": recipe.kind, "description": recipe.description}
    entry["classes"] = [{"name": known, "colour": list(colour)} for known, colour in recipe.classes.items()]
    manifest["tasks"] = [task for task in manifest["tasks"] if task["name"] not in drop] + [entry | recipe.thresholds]
    manifest["metrics"] = [row for row in manifest.get("metrics", []) if row["task"] not in drop] + list(metrics)
    for key in ("weights", "data"):
        kept = _without(manifest["licences"][key], drop)
        manifest["licences"][key] = _joined(kept, f"{recipe.task}: {recipe.licences[key]}")
    return manifest


def derive_manifest(old: Mapping[str, Any], name: str, data: str, recipe: str) -> dict[str, Any]:
    """A copy of a manifest for a bundle that is made of the old one today, as `write_bundle` takes it.

    Args:
        name: of the new bundle.
        data, recipe: what it learned beyond the old one, and by what; they go behind what is there.
    """
    manifest = {key: copy.deepcopy(value) for key, value in old.items() if key not in ("format", "files")}
    provenance = manifest["provenance"]
    provenance |= {"data": _joined(provenance["data"], data), "commit": commit(), "date": today()}
    provenance["recipe"] = _joined(provenance.get("recipe", ""), recipe)
    return {**manifest, "name": name}


def _without(text: str, tasks: Sequence[str]) -> str:
    """A text of `_joined` parts but for those that begin with the name of one of these tasks."""
    return "; ".join(part for part in text.split("; ") if part.partition(": ")[0] not in tasks)


def _joined(old: str, new: str) -> str:
    """Two texts with a semicolon between; the old one where the new one is in it already."""
    return old if f"; {new}; " in f"; {old}; " else f"{old}; {new}" if old else new
