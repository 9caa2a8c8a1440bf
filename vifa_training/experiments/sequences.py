"""One task after the other: what a fusion network forgets, and what helps (the paper's Tables 1 to 4, and 7).

    for each fold:   shared fusion network, and each task's reference from it               base ref   (of tasks.py)
      sequentially:  the first task's reference, gone on with for the next task             seq
                     the same with a usual remedy against forgetting                        ewc lwf replay
                     the backbone of seq, a fresh thin head for each task (Eq. 3)           seq_head
      VIFA:          no labels: first data set, stage 1 on the next (Eq. 1);
                     then a thin head for each task (Eq. 3)                                 vifa
      its parts:     stage 1 alone, with the head that it trained                           key_channels
                     references alone: backbone and head taught by them, one after other    reference
    each task's network, as its own training left it, predicts the block that nobody saw

Every step leaves a file behind and is skipped where it is there, so a run that was stopped goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from vifa_training.baselines import AllChannels, ElasticWeights, Remedy, Replay, Several
from vifa_training.channels import Choice, remember
from vifa_training.checkpoint import digest
from vifa_training.data import DataSet, Subset
from vifa_training.distillation.reference import train_reference
from vifa_training.distillation.stage1 import stage1
from vifa_training.distillation.stage2 import imitate, stage2
from vifa_training.experiments.layout import FROM_TASKS, sequence_folder, sequence_predictions
from vifa_training.experiments.tasks import (
    SHARED,
    TasksExperiment,
    new_task,
    open_task_data,
    reference_of,
    run_fold,
    split_fold,
    train_shared,
    train_unlabelled,
)
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.pictures import Fused
from vifa_training.predictions import save_predictions
from vifa_training.task_evaluation import predict
from vifa_training.task_model import JointModel
from vifa_training.task_recipe import TaskRecipe
from vifa_training.tasks import TaskNetwork

EWC, LWF, REPLAY = 100.0, 1.0, 1.0  # weights of the remedies
FISHER_IMAGES = 64
IMAGES = 32  # that key channels are found on; the paper takes 128, which would take as long as all else on a CPU
STORED = 8  # pairs of a task that replay keeps

Shown = list[tuple[Fused, TaskNetwork]]  # for each task, what its network is shown, and that network


class SequenceFold:
    """A fold of an experiment whose recipes come one after the other; networks are made when they are asked for."""

    def __init__(self, experiment: TasksExperiment, fold: int) -> None:
        self.experiment, self.fold, self.recipes = experiment, fold, experiment.recipes
        self.fold_folder = experiment.fold_folder(fold)
        self.folder = sequence_folder(experiment, fold)

    def run(self, methods: Sequence[str], say: Callable[[str], None] = print) -> None:
        """Do what is left of these methods: trainings, and the predictions of the blocks that none of them saw."""
        run_fold(self.experiment, self.fold, [method for method in methods if method in FROM_TASKS], say)
        for method in methods:
            paths = [sequence_predictions(self.experiment, self.fold, r.name, method) for r in self.recipes]
            if method in FROM_TASKS or all(path.exists() for path in paths):
                continue
            say(f"fold {self.fold} of {self.experiment.folds}: {method}")
            shown = getattr(self, method)()
            for recipe, held_out, path, (picture, task) in zip(self.recipes, self.held_out, paths, shown, strict=True):
                save_predictions(path, predict(task, picture, held_out, recipe.shrink))

    @cached_property
    def blocks(self) -> list[tuple[Subset, Subset]]:
        opened = (open_task_data(self.experiment, recipe) for recipe in self.recipes)
        return [split_fold(pairs, self.fold, self.experiment.folds) for pairs in opened]

    @property
    def training(self) -> list[Subset]:
        return [training for training, _ in self.blocks]

    @property
    def held_out(self) -> list[Subset]:
        return [held_out for _, held_out in self.blocks]

    @cached_property
    def references(self) -> list[JointModel]:
        """Each task's own networks (Eq. 2)."""
        names = [recipe.name for recipe in self.recipes]
        shared = train_shared(
            self.experiment, dict(zip(names, self.training, strict=True)), self.fold_folder / "fusion"
        )
        return [
            reference_of(self.experiment, recipe, shared, training, self.fold_folder / recipe.name)
            for recipe, training in zip(self.recipes, self.training, strict=True)
        ]

    # Sequentially, the whole fusion network

    def seq(self) -> Shown:
        models = self._one_after_other("seq", None)
        return [(Fused(models[-1].fusion, SHARED), model.task) for model in models]

    def seq_head(self) -> Shown:
        return self._with_heads(copy.deepcopy(self._one_after_other("seq", None)[-1].fusion), "seq_head")

    def ewc(self) -> Shown:
        def springs(old: JointModel, training: DataSet, recipe: TaskRecipe) -> Remedy:
            crop = recipe.preset(self.experiment.preset).task.enlarged(recipe.shrink).crop
            return ElasticWeights(old, training, EWC, FISHER_IMAGES, crop)

        return self._remedied("ewc", springs)

    def lwf(self) -> Shown:
        return self._remedied("lwf", lambda old, training, recipe: AllChannels(old, LWF))

    def replay(self) -> Shown:
        def stored(old: JointModel, training: DataSet, recipe: TaskRecipe) -> Remedy:
            schedule = recipe.preset(self.experiment.preset).task.enlarged(recipe.shrink)
            kept = Subset(training, [index * len(training) // STORED for index in range(min(STORED, len(training)))])
            return Replay(old, kept, REPLAY, max(1, schedule.batch // 4), schedule.crop, recipe.augmentation)

        return self._remedied("replay", stored)

    def _remedied(self, name: str, remedy: Callable[[JointModel, DataSet, TaskRecipe], Remedy]) -> Shown:
        models = self._one_after_other(name, remedy)
        return [(Fused(models[-1].fusion, SHARED), model.task) for model in models]

    def _one_after_other(
        self, name: str, remedy: Callable[[JointModel, DataSet, TaskRecipe], Remedy] | None
    ) -> list[JointModel]:
        """The first task's reference, then each task's joint model from the fusion network of the one before."""
        models = [self.references[0]]
        for index, recipe in enumerate(self.recipes[1:], start=1):
            before = zip(models, self.training, self.recipes, strict=False)
            held = None if remedy is None else Several([remedy(*given) for given in before])
            preset, run = recipe.preset(self.experiment.preset), self.folder / name / str(index)
            fusion, task = copy.deepcopy(models[-1].fusion), new_task(recipe, preset.task)
            models.append(train_reference(fusion, SHARED, task, self.training[index], recipe, preset, run, held))
        return models

    # VIFA and its parts

    def vifa(self) -> Shown:
        return self._with_heads(self._key_channel_network(), "vifa")

    def key_channels(self) -> Shown:
        network = self._key_channel_network()
        return [(Fused(network, SHARED), reference.task) for reference in self.references]

    def reference(self) -> Shown:
        network = self._first_network()
        for index, recipe in enumerate(self.recipes):
            schedule = recipe.preset(self.experiment.preset).head
            torch.manual_seed(schedule.seed)
            network.add_head(recipe.task, like=SHARED)
            run = self.folder / "reference" / str(index)
            imitate(network, recipe.task, self._luma(index), self.training[index], schedule, run, self._sum(index))
        return [
            (Fused(network, recipe.task), reference.task)
            for recipe, reference in zip(self.recipes, self.references, strict=True)
        ]

    def _first_network(self) -> FusionNetwork:
        """Step 1 of Fig. 2: without labels, on the first data set."""
        return train_unlabelled(self.experiment, self.training[:1], self.folder / "first")

    def _key_channel_network(self) -> FusionNetwork:
        """Steps 2 and 3 of Fig. 2: key channels of each data set, then stage 1 on the next."""
        network, memories = self._first_network(), []
        weights = FusionWeights(**min(self.recipes, key=lambda recipe: recipe.name).fusion_loss)
        for index in range(1, len(self.recipes)):
            run = self.folder / "stage1" / str(index)
            learned, choice = self.training[index - 1], Choice(images=IMAGES)
            data = self.recipes[index - 1].data
            memories.append(remember(network, learned, run / "channels.safetensors", data, choice))
            stage1(network, SHARED, self.training[index], memories, weights, self.experiment.fusion, run)
        return network

    def _with_heads(self, network: FusionNetwork, name: str) -> Shown:
        """A thin head for each task on a backbone that stays, taught by the task's reference (Eq. 3)."""
        shown = []
        for index, recipe in enumerate(self.recipes):
            schedule = recipe.preset(self.experiment.preset).head
            torch.manual_seed(schedule.seed)
            network.add_head(recipe.task)
            run = self.folder / name / str(index)
            stage2(network, recipe.task, self._luma(index), self.training[index], schedule, run, self._sum(index))
            shown.append((Fused(network, recipe.task), self.references[index].task))
        return shown

    def _luma(self, index: int) -> Callable:
        return Fused(self.references[index].fusion, SHARED).luma

    def _sum(self, index: int) -> str:
        return digest(self.fold_folder / self.recipes[index].name / "ref/best.safetensors")
