"""One task after the other: what a fusion network forgets, and what helps (the paper's Tables 1 to 4, and 7).

    for each fold:   shared fusion network, and each task's reference from it               base ref   (of tasks.py)
      sequentially:  the first task's reference, gone on with for the next task             seq
                     the same with a usual remedy against forgetting                        ewc lwf replay
                     the backbone of seq, a fresh thin head for each task (Eq. 3)           seq_head
      VIFA:          no labels: first data set, stage 1 on the next (Eq. 1);
                     then a thin head for each task (Eq. 3)                                 vifa
      its parts:     stage 1 alone, with the head that it trained, shown to base's tasks    key_channels
                     references alone: backbone and head taught by them, one after other    reference
    each task's network, as its own training left it, predicts the block that nobody saw

Every step leaves a file behind and is skipped where it is there, so a run that was stopped goes on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from vifa_training.baselines import AllChannels, ElasticWeights, Remedy, Replay, Several
from vifa_training.channels import Choice, remember
from vifa_training.checkpoint import digest
from vifa_training.data import DataSet, Subset
from vifa_training.distillation.reference import new_task, train_reference
from vifa_training.distillation.stage1 import WEIGHT, stage1
from vifa_training.distillation.stage2 import imitate, teach_head
from vifa_training.experiments.layout import FROM_TASKS, sequence_folder, sequence_predictions
from vifa_training.experiments.tasks import (
    SHARED,
    TasksExperiment,
    base_task,
    open_blocks,
    reference_of,
    run_fold,
    shared_fusion_loss,
    train_shared,
    train_unlabelled,
)
from vifa_training.networks import FusionNetwork, add_task_head
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.pictures import Fused
from vifa_training.predictions import save_predictions
from vifa_training.task_evaluation import predict
from vifa_training.task_model import JointModel
from vifa_training.task_recipe import TaskRecipe
from vifa_training.tasks import TaskNetwork

FISHER_IMAGES = 64
STORED = 8  # pairs of a task that replay keeps

Shown = list[tuple[Fused, TaskNetwork]]  # for each task, what its network is shown, and that network


@dataclass(frozen=True)
class Settings:
    """How much each method holds on to what was; chosen on the validation parts by `benchmarks/sequence_choices.py`.

    Attributes:
        stage1: weight of Eq. 1 beside the fusion loss.
        ewc, lwf, replay: weights of the remedies beside the loss of the new task.
        choice: of key channels. The paper looks at 128 images, which on a CPU would take as long as all else.
    """

    stage1: float = WEIGHT
    ewc: float = 100.0
    lwf: float = 10.0
    replay: float = 1.0
    choice: Choice = field(default_factory=lambda: Choice(images=32))


class SequenceFold:
    """A fold of an experiment whose recipes come one after the other; networks are made when they are asked for."""

    def __init__(
        self, experiment: TasksExperiment, fold: int, settings: Settings | None = None, folder: Path | None = None
    ) -> None:
        """Nothing is trained yet.

        Args:
            fold: 1, 2, ...; 0 for the validation parts.
            settings: of the methods.
            folder: of the trainings of these settings; by default that of the order of tasks.
        """
        self.experiment, self.fold, self.recipes = experiment, fold, experiment.recipes
        self.settings = settings or Settings()
        self.fold_folder = experiment.fold_folder(fold)
        self.folder = folder or sequence_folder(experiment, fold)

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
    def blocks(self) -> list[tuple[DataSet, DataSet]]:
        return [open_blocks(self.experiment, recipe, self.fold) for recipe in self.recipes]

    @property
    def training(self) -> list[DataSet]:
        return [training for training, _ in self.blocks]

    @property
    def held_out(self) -> list[DataSet]:
        return [held_out for _, held_out in self.blocks]

    @cached_property
    def references(self) -> list[JointModel]:
        """Each task's own networks (Eq. 2)."""
        return [
            reference_of(self.experiment, recipe, self.shared, training, self.fold_folder / recipe.name)
            for recipe, training in zip(self.recipes, self.training, strict=True)
        ]

    @cached_property
    def shared(self) -> FusionNetwork:
        """Trained without labels on all tasks' pairs at once; not to be changed."""
        names = [recipe.name for recipe in self.recipes]
        blocks = dict(zip(names, self.training, strict=True))
        return train_shared(self.experiment, blocks, self.fold_folder / "fusion")

    # Sequentially, the whole fusion network

    def seq(self) -> Shown:
        return _last_fusion(self.models("seq"))

    def seq_head(self) -> Shown:
        return self._with_heads(copy.deepcopy(self.models("seq")[-1].fusion), "seq_head")

    def ewc(self) -> Shown:
        return _last_fusion(self.models("ewc"))

    def lwf(self) -> Shown:
        return _last_fusion(self.models("lwf"))

    def replay(self) -> Shown:
        return _last_fusion(self.models("replay"))

    def models(self, method: str) -> list[JointModel]:
        """The first task's reference, then each task's joint model from the fusion network of the one before."""
        models = [self.references[0]]
        for index, recipe in enumerate(self.recipes[1:], start=1):
            preset, run = recipe.preset(self.experiment.preset), self.folder / method / str(index)
            before = zip(models, self.training, self.recipes, strict=False)
            held = None if method == "seq" else Several([self._remedy(method, *given) for given in before])
            fusion, task = copy.deepcopy(models[-1].fusion), new_task(recipe, preset)
            models.append(train_reference(fusion, SHARED, task, self.training[index], recipe, preset, run, held))
        return models

    def _remedy(self, method: str, old: JointModel, training: DataSet, recipe: TaskRecipe) -> Remedy:
        """What holds on to a task that was learned before."""
        if method == "lwf":
            return AllChannels(old, self.settings.lwf)
        schedule = recipe.preset(self.experiment.preset).task.enlarged(recipe.shrink)
        if method == "ewc":
            return ElasticWeights(old, training, self.settings.ewc, FISHER_IMAGES, schedule.crop)
        kept = Subset(training, [index * len(training) // STORED for index in range(min(STORED, len(training)))])
        few = max(1, schedule.batch // 4)
        return Replay(old, kept, self.settings.replay, few, schedule.crop, recipe.augmentation)

    # VIFA and its parts

    def vifa(self) -> Shown:
        return self._with_heads(self.key_channel_network(), "vifa")

    def key_channels(self) -> Shown:
        """No task tells the fusion network anything, so each looks on as base's task network, trained apart, does."""
        network = self.key_channel_network()
        return [
            (
                Fused(network, SHARED),
                base_task(self.experiment, recipe, self.shared, training, self.fold_folder / recipe.name),
            )
            for recipe, training in zip(self.recipes, self.training, strict=True)
        ]

    def reference(self) -> Shown:
        network = self.first_network()
        for index, recipe in enumerate(self.recipes):
            schedule = recipe.preset(self.experiment.preset).head
            torch.manual_seed(schedule.seed)
            network.add_head(recipe.task, like=SHARED)
            run = self.folder / "reference" / str(index)
            luma = Fused(self.references[index].fusion, SHARED).luma
            taught_by = digest(self._reference_run(index) / "best.safetensors")
            imitate(network, recipe.task, luma, self.training[index], schedule, run, taught_by)
        return [
            (Fused(network, recipe.task), reference.task)
            for recipe, reference in zip(self.recipes, self.references, strict=True)
        ]

    def first_network(self) -> FusionNetwork:
        """Step 1 of Fig. 2: without labels, on the first data set."""
        return self.unlabelled_network(0)

    def unlabelled_network(self, index: int) -> FusionNetwork:
        """Trained without labels, on the data set of that task alone (and the pairs that have no labels at all)."""
        run = self.fold_folder / self.recipes[index].name / "first"
        return train_unlabelled(self.experiment, [self.training[index]], run)

    def key_channel_network(self) -> FusionNetwork:
        """Steps 2 and 3 of Fig. 2: key channels of each data set, then stage 1 on the next."""
        return self._without_labels("stage1", self.settings.stage1)

    def free_network(self) -> FusionNetwork:
        """The same trainings with nothing held: Seq of fusion alone, as in the paper's Table 2."""
        return self._without_labels("free", 0)

    def memory_file(self, index: int) -> Path:
        """Where the key channels are that task 1, 2, ... had to keep of the data set before it."""
        return self.folder / "stage1" / str(index) / "channels.safetensors"

    def _without_labels(self, name: str, weight: float) -> FusionNetwork:
        network, memories = self.first_network(), []
        losses = FusionWeights(**shared_fusion_loss(self.recipes))
        for index in range(1, len(self.recipes)):
            learned, data = self.training[index - 1], self.recipes[index - 1].data
            if weight:
                memories.append(remember(network, learned, self.memory_file(index), data, self.settings.choice))
            run = self.folder / name / str(index)
            stage1(network, SHARED, self.training[index], memories, losses, self.experiment.fusion, run, weight)
        return network

    def _with_heads(self, network: FusionNetwork, name: str) -> Shown:
        """A thin head for each task on a backbone that stays, taught by the task's reference (Eq. 3)."""
        shown = []
        for index, recipe in enumerate(self.recipes):
            model, schedule = self.references[index], recipe.preset(self.experiment.preset).head
            torch.manual_seed(schedule.seed)
            add_task_head(network, recipe.task, recipe.head_layers)
            run = self.folder / name / str(index)
            teach_head(network, recipe.task, model, self._reference_run(index), self.training[index], schedule, run)
            shown.append((Fused(network, recipe.task), model.task))
        return shown

    def _reference_run(self, index: int) -> Path:
        return self.fold_folder / self.recipes[index].name / "ref"


def _last_fusion(models: Sequence[JointModel]) -> Shown:
    """Every task's own network looks at what the last fusion network shows."""
    return [(Fused(models[-1].fusion, SHARED), model.task) for model in models]
