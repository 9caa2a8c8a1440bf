"""Reference models (section 3.3, Eq. 2): a whole fusion network and a task network trained as one, for one task."""

from __future__ import annotations

from pathlib import Path

import torch

from vifa_training.baselines import Remedy
from vifa_training.checkpoint import digest_names, fingerprint, load_weights
from vifa_training.data import DataSet
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.task_model import JointModel, TaskModel, TaskObjective
from vifa_training.task_recipe import TaskPreset, TaskRecipe
from vifa_training.tasks import TaskNetwork, build_task_network
from vifa_training.trainer import train


def train_reference(
    fusion: FusionNetwork,
    head: str,
    task: TaskNetwork,
    pairs: DataSet,
    recipe: TaskRecipe,
    preset: TaskPreset,
    run: Path,
    remedy: Remedy | None = None,
) -> JointModel:
    """Train `fusion` by the task's loss through the task network (Eq. 2), both from where they stand.

    Args:
        fusion: trained without labels, so that the task network is shown a sensible image from the start; from other
            weights it is another training.
        head: the fusion network's task that becomes the reference's.
        pairs: labelled; of the camera's size.
        run: folder of the checkpoints; a training in it is gone on with.
        remedy: against forgetting what `fusion` learned before.

    Returns:
        The joint model with the trained weights, in evaluation mode.

    Raises:
        TrainingError, DataError: as `vifa_training.trainer.train`.
    """
    model = JointModel(fusion, head, task, recipe.shrink, recipe.fusion_share, recipe.head_share)
    objective = TaskObjective(FusionWeights(**recipe.fusion_loss), recipe.fusion_weight, remedy)
    schedule = preset.task.enlarged(recipe.shrink)
    identity = f"{recipe.identity} on {digest_names(pairs.names)} from {fingerprint(fusion)} {head}"
    identity += f" with {remedy.identity}" if remedy else ""
    train(model, objective, pairs, None, schedule, run, identity, recipe.augmentation)
    load_weights(model, run / "best.safetensors")
    return model.eval()


def new_task(recipe: TaskRecipe, preset: TaskPreset) -> TaskNetwork:
    """The recipe's task network with fresh weights, the same ones for the same seed."""
    torch.manual_seed(preset.task.seed)
    return build_task_network(recipe.network, len(recipe.classes))


def train_alone(
    task: TaskNetwork, pictures: DataSet, recipe: TaskRecipe, preset: TaskPreset, run: Path, shown: str = ""
) -> TaskNetwork:
    """Train a task network on pictures that do not change, for as many steps and on as much of them as a reference.

    Args:
        shown: says what the pictures show; other ones make another training.

    Returns:
        It, with the trained weights, in evaluation mode.
    """
    model = TaskModel(task)
    identity = f"{recipe.task_identity} on {digest_names(pictures.names)} {shown} from {fingerprint(task)}"
    train(model, TaskObjective(), pictures, None, preset.task, run, identity, recipe.augmentation)
    load_weights(model, run / "best.safetensors")
    return task.eval()
