"""The paper's Figure 4: how many task-specific layers a task needs when they learn from a reference model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from vifa_training.distillation.stage2 import teach_head
from vifa_training.experiments.report import device_name
from vifa_training.experiments.tasks import (
    SHARED,
    TasksExperiment,
    open_blocks,
    reference_of,
    train_shared,
)
from vifa_training.networks import FusionNetwork, add_task_head, count_layers, count_parameters
from vifa_training.pictures import Fused
from vifa_training.predictions import load_predictions, save_predictions
from vifa_training.task_evaluation import Pooled, predict
from vifa_training.task_recipe import TaskRecipe


def run_head_depth(experiment: TasksExperiment, fold: int, depths: Sequence[int]) -> list[dict[str, Any]]:
    """Stage 2 with heads of so many layers, on one fold, shown to the reference's task network.

    Returns:
        Rows `{network, task, layers, head_params, metric, mean, low, high, ratio, ...}`; 0 layers is the reference.
    """
    folder = experiment.fold_folder(fold)
    blocks = [open_blocks(experiment, recipe, fold) for recipe in experiment.recipes]
    named = zip(experiment.recipes, blocks, strict=True)
    shared = train_shared(experiment, {recipe.name: training for recipe, (training, _) in named}, folder / "fusion")
    own_layers = count_layers(shared.heads[SHARED])
    rows: list[dict[str, Any]] = []
    for recipe, (training, held_out) in zip(experiment.recipes, blocks, strict=True):
        inside, preset = folder / recipe.name, recipe.preset(experiment.preset)
        model = reference_of(experiment, recipe, shared, training, inside)
        made = {"0": predict(model.task, Fused(model.fusion, model.head), held_out, recipe.shrink)}
        heads = {"0": 0}
        for depth in depths:
            if depth < own_layers:
                continue
            network = with_fresh_head(shared, recipe, depth, preset.head.seed)
            run = inside / f"depth{depth}"
            teach_head(network, recipe.task, model, inside / "ref", training, preset.head, run)
            if not (run / "predictions.json").exists():
                shown = Fused(network, recipe.task)
                save_predictions(run / "predictions.json", predict(model.task, shown, held_out, recipe.shrink))
            made[str(depth)] = load_predictions(run / "predictions.json")
            heads[str(depth)] = count_parameters(network.heads[recipe.task])
        pooled = Pooled(recipe, [held_out[index] for index in range(len(held_out))], made)
        for row in pooled.rows("0"):
            layers = row.pop("method")
            head = {"network": experiment.network, "method": f"{layers} layers", "task": recipe.name}
            tail = {"layers": int(layers), "head_params": heads[layers], "fold": fold, "folds": experiment.folds}
            rows.append({**head, **row, **tail, "preset": experiment.preset, "device": device_name()})
    return rows


def with_fresh_head(shared: FusionNetwork, recipe: TaskRecipe, layers: int, seed: int) -> FusionNetwork:
    """A copy of the shared network with a fresh head of so many convolutions for the task."""
    network = copy.deepcopy(shared)
    torch.manual_seed(seed)
    add_task_head(network, recipe.task, layers)
    return network.eval()
