"""One shared backbone for several tasks against each task's own network, by cross-validation.

    for each fold:   fusion network without labels, on the training blocks of all tasks   -> the shared backbone
      for each task: task network on a source, on the average, on the shared fusion         visible thermal average base
                     fusion and task network as one (Eq. 2)                                 ref
                     thin head on the shared backbone, taught by ref (Eq. 3)                vifa
                     each predicts the block that nobody saw
    pool the blocks, average, bootstrap

Every step leaves a file behind and is skipped where it is there, so a run that was stopped goes on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vifa_training.checkpoint import TrainingError, digest_names, fingerprint, load_weights
from vifa_training.data import Concatenation, DataSet, Subset, contiguous_folds, open_checked
from vifa_training.data.pair_files import day_or_night
from vifa_training.distillation.reference import new_task, train_alone, train_reference
from vifa_training.distillation.stage2 import teach_head
from vifa_training.networks import FusionNetwork, add_task_head, build_network
from vifa_training.objectives import build_objective
from vifa_training.pictures import SOURCES, Fused, Picture, Pictures
from vifa_training.predictions import load_predictions, save_predictions
from vifa_training.schedule import Schedule
from vifa_training.task_data import open_labelled
from vifa_training.task_evaluation import Prediction, predict
from vifa_training.task_model import JointModel
from vifa_training.task_recipe import TaskRecipe
from vifa_training.tasks import TaskNetwork
from vifa_training.trainer import train

METHODS = ("visible", "thermal", "average", "base", "ref", "vifa")
CONTROLS = ("floor", "vifa_tuned")
SHARED = "shared"  # the head that the backbone is trained with, and every task's head starts from


@dataclass(frozen=True)
class TasksExperiment:
    """What to compare.

    Attributes:
        network: a name of `vifa_training.networks.NETWORKS`.
        recipes: the tasks.
        preset: of the recipes.
        fusion: how long the shared fusion network is trained.
        more_pairs: parts without labels that it is trained on beside the tasks' own.
        folds: of the cross-validation.
        data: folder of the data sets.
        run: folder of everything that is made.
    """

    network: str
    recipes: Sequence[TaskRecipe]
    preset: str
    fusion: Schedule
    more_pairs: Sequence[str]
    folds: int
    data: Path
    run: Path

    def fold_folder(self, fold: int) -> Path:
        """Folder of fold 1, 2, ...; 0 is that of the recipes' validation parts, which choices are made on."""
        return self.run / self.network / self.preset / (f"fold{fold}" if fold else "validation")

    @property
    def reports(self) -> Path:
        """Folder of the reports."""
        return self.run / self.network / self.preset / "reports"

    def predictions(self, fold: int, recipe: str, method: str) -> Path:
        """File of what a method predicted for a recipe's pairs that a fold holds out."""
        return self.fold_folder(fold) / recipe / f"{method}.json"


def run_fold(
    experiment: TasksExperiment,
    fold: int,
    methods: Sequence[str] = (*METHODS, *CONTROLS),
    say: Callable[[str], None] = print,
) -> None:
    """Do what is left of a fold: all trainings, and the predictions of the block that none of them saw."""
    folder = experiment.fold_folder(fold)
    blocks = {recipe.name: open_blocks(experiment, recipe, fold) for recipe in experiment.recipes}
    shared = train_shared(experiment, {name: training for name, (training, _) in blocks.items()}, folder / "fusion")
    for recipe in experiment.recipes:
        training, held_out = blocks[recipe.name]
        inside = folder / recipe.name
        for method, make in _methods(experiment, recipe, shared, training, inside):
            path = experiment.predictions(fold, recipe.name, method)
            if method not in methods or path.exists():
                continue
            say(f"fold {fold} of {experiment.folds}, {recipe.name}: {method}")
            picture, task = make()
            save_predictions(path, predict(task, picture, held_out, recipe.shrink))


def _methods(
    experiment: TasksExperiment, recipe: TaskRecipe, shared: FusionNetwork, training: DataSet, folder: Path
) -> Iterator[tuple[str, Callable[[], tuple[Picture, TaskNetwork]]]]:
    """Each method's name, and how to get what it shows and the task network that looks at it."""
    preset = recipe.preset(experiment.preset)

    def alone(name: str, picture: Picture) -> tuple[Picture, TaskNetwork]:
        return picture, _task_network(experiment, recipe, training, picture, name, folder / name)

    def reference() -> JointModel:
        return reference_of(experiment, recipe, shared, training, folder)

    def ref() -> tuple[Fused, TaskNetwork]:
        model = reference()
        return Fused(model.fusion, SHARED), model.task

    def vifa() -> tuple[Fused, TaskNetwork]:
        model, network = reference(), copy.deepcopy(shared)
        torch.manual_seed(preset.head.seed)
        add_task_head(network, recipe.task, recipe.head_layers)
        teach_head(network, recipe.task, model, folder / "ref", training, preset.head, folder / "vifa")
        return Fused(network, recipe.task), model.task

    def tuned() -> tuple[Fused, TaskNetwork]:
        picture, task = vifa()
        pictures = Pictures(training, picture, recipe.shrink)
        schedule = replace(
            preset.task, steps=max(1, preset.task.steps // 5), learning_rate=preset.task.learning_rate / 5
        )
        schedule = replace(schedule, validate_every=schedule.steps, warm_up=0)
        shorter, shown = replace(preset, task=schedule), fingerprint(picture.network)
        return picture, train_alone(task, pictures, recipe, shorter, folder / "vifa_tuned", shown)

    for name, picture in SOURCES.items():
        yield name, lambda name=name, picture=picture: alone(name, picture)
    yield "base", lambda: (Fused(shared, SHARED), base_task(experiment, recipe, shared, training, folder))
    yield "ref", ref
    yield "floor", lambda: (Fused(shared, SHARED), reference().task)
    yield "vifa", vifa
    yield "vifa_tuned", tuned


def base_task(
    experiment: TasksExperiment, recipe: TaskRecipe, shared: FusionNetwork, training: DataSet, folder: Path
) -> TaskNetwork:
    """The task network trained on what the shared network shows, which stays; its run is `folder`/base."""
    shown = fingerprint(shared)
    return _task_network(experiment, recipe, training, Fused(shared, SHARED), shown, folder / "base")


def _task_network(
    experiment: TasksExperiment, recipe: TaskRecipe, training: DataSet, picture: Picture, shown: str, run: Path
) -> TaskNetwork:
    preset, pictures = recipe.preset(experiment.preset), Pictures(training, picture, recipe.shrink)
    return train_alone(new_task(recipe, preset), pictures, recipe, preset, run, shown)


def reference_of(
    experiment: TasksExperiment, recipe: TaskRecipe, shared: FusionNetwork, training: DataSet, folder: Path
) -> JointModel:
    """A task's reference model (Eq. 2), from a copy of the shared network; its run is `folder`/ref."""
    preset = recipe.preset(experiment.preset)
    task = new_task(recipe, preset)
    return train_reference(copy.deepcopy(shared), SHARED, task, training, recipe, preset, folder / "ref")


def train_shared(experiment: TasksExperiment, blocks: Mapping[str, DataSet], run: Path) -> FusionNetwork:
    """The fusion network whose backbone all tasks share, without labels, whatever the order of the tasks.

    Args:
        blocks: recipe's name -> what is trained on.
    """
    return train_unlabelled(experiment, [blocks[name] for name in sorted(blocks)], run)


def train_unlabelled(experiment: TasksExperiment, labelled: Sequence[DataSet], run: Path) -> FusionNetwork:
    """A fusion network trained without labels on these pairs and the experiment's further ones, in evaluation mode."""
    more = [open_checked(experiment.data, [part]) for part in experiment.more_pairs]
    pairs = Concatenation([Unlabelled(dataset) for dataset in [*labelled, *more]])
    torch.manual_seed(experiment.fusion.seed)
    network = build_network(experiment.network, [SHARED])
    weights = shared_fusion_loss(experiment.recipes)
    objective = build_objective("shared", {SHARED: weights}, {})
    identity = f"{experiment.network} on {digest_names(pairs.names)} by {json.dumps(weights, sort_keys=True)}"
    train(network, objective, pairs, None, experiment.fusion, run, identity)
    load_weights(network, run / "best.safetensors")
    return network.eval()


def shared_fusion_loss(recipes: Sequence[TaskRecipe]) -> Mapping[str, float]:
    """The weights of the loss without labels: those of the first recipe by name, whatever their order."""
    return min(recipes, key=lambda recipe: recipe.name).fusion_loss


def open_task_data(experiment: TasksExperiment, recipe: TaskRecipe) -> DataSet:
    """All labelled pairs of a task.

    Raises:
        DataError: lists everything that is wrong with them.
    """
    return open_labelled(experiment.data, recipe.data, recipe)


def open_blocks(experiment: TasksExperiment, recipe: TaskRecipe, fold: int) -> tuple[DataSet, DataSet]:
    """What a fold of a task trains on, and the pairs it is measured on; fold 0: the recipe's training and validation.

    Raises:
        TrainingError, DataError: there is no such fold; everything that is wrong with the pairs.
    """
    if fold:
        return split_fold(open_task_data(experiment, recipe), fold, experiment.folds)
    return tuple(open_labelled(experiment.data, part, recipe) for part in (recipe.training, recipe.validation))


def split_fold(pairs: DataSet, fold: int, folds: int) -> tuple[Subset, Subset]:
    """What fold 1, 2, ... trains on, and the block it holds out; blocks are cut by day and by night apart.

    Raises:
        TrainingError: there is no such fold.
        DataError: there are fewer pairs than folds.
    """
    if not 1 <= fold <= folds:
        raise TrainingError(f"there is no fold {fold} of {folds}; use 1 to {folds}")
    blocks = contiguous_folds(pairs.names, folds, [day_or_night(name) for name in pairs.names])
    held_out = blocks[fold - 1]
    kept = sorted(set(range(len(pairs))) - set(held_out))
    return Subset(pairs, kept), Subset(pairs, held_out)


class Unlabelled(Subset):
    """A data set whose labels are left out, so that sets of different classes can stand side by side."""

    def __init__(self, dataset: DataSet) -> None:
        super().__init__(dataset, range(len(dataset)))
        self.classes = self.mask_classes = ()

    def __getitem__(self, index: int):
        return replace(super().__getitem__(index), boxes=None, labels=None, mask=None)


def pooled_predictions(
    experiment: TasksExperiment, recipe: TaskRecipe, files: Sequence[Path], names: Sequence[str]
) -> list[Prediction]:
    """The predictions of all folds, one file each, for the pairs of these names.

    Raises:
        TrainingError: a fold has not been run, or the folds are others than those that were run.
    """
    folder = experiment.run / experiment.network / experiment.preset
    made: dict[str, Prediction] = {}
    for file in files:
        made |= {prediction.name: prediction for prediction in load_predictions(file)}
    if set(made) != set(names):
        raise TrainingError(
            f"{folder} does not hold {experiment.folds} folds of {recipe.data}; use --folds and --data as they were run"
        )
    return [made[name] for name in names]
