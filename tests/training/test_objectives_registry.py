"""Objectives by name, and the recipes that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from objective_cases import street_batch

import vifa_training
from vifa_training.networks import build_network
from vifa_training.objectives import OBJECTIVES, FusionWeights, SharedObjective, build_objective

RECIPES = Path(vifa_training.__file__).parent / "recipes"
PUBLISHED = sorted(set(OBJECTIVES) - {"shared"})


def test_shared_reads_each_tasks_weights() -> None:
    objective = build_objective("shared", {"a": {"maximum": 3}, "b": {"ssim_visible": None}}, {})
    assert isinstance(objective, SharedObjective)
    assert objective.tasks == {"a": FusionWeights(maximum=3), "b": FusionWeights()}


def test_options_reach_the_objective() -> None:
    objective = build_objective("tardal", {"a": {}, "b": {}}, {"adversarial": 0.1, "warmup": 0.5})
    assert (objective.tasks, objective.adversarial, objective.warmup) == (("a", "b"), 0.1, 0.5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_is_restored(name: str) -> None:
    one, other = (build_objective(name, {"a": {}}, {}) for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(one.state_dict()[key], tensor) for key, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    "name,tasks,options,message",
    [
        ("fusion", {"a": {}}, {}, "no objective is called 'fusion'; choose one of shared, piafusion"),
        ("tardal", {}, {}, "'tardal' needs a task"),
        ("tardal", {"a": {}}, {"k": 1}, "'tardal' has no option 'k'; it has similarity"),
        ("tardal", {"a": {}}, {"tasks": 1}, "has no option 'tasks'"),
        ("didfuse", {"a": {}}, {"ssim": "much"}, "ssim must be a number of 0 or more, got 'much'"),
        ("didfuse", {"a": {}}, {"ssim": -1}, "ssim must be a number"),
        ("didfuse", {"a": {}}, {"ssim": float("nan")}, "ssim must be a number"),
        ("didfuse", {"a": {}}, {"ssim": True}, "ssim must be a number"),
        ("swinfusion", {"a": {"ssim": 1}}, {}, "task 'a' has a loss of its own, which the objective 'swinfusion'"),
        ("shared", {"a": {"colour": 1}}, {}, "loss of the task 'a' has no option 'colour'; it has thermal_gain"),
        ("shared", {"a": {"ssim": "x"}}, {}, "loss of the task 'a': ssim must be a number"),
        ("shared", {"a": {}}, {"maximum": 1}, "'shared' has no option 'maximum'; it has none"),
        ("piafusion", {"a": {}}, {"classifier_steps": 1.5}, "classifier_steps must be a whole number"),
    ],
)
def test_mistakes_are_named(name: str, tasks: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        build_objective(name, tasks, options)
    assert message in str(error.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_recipe_names_its_network_and_objective(name: str) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}-published.yaml").read_text())
    assert recipe["network"] == recipe["objective"]["name"] == name
    options = {key: value for key, value in recipe["objective"].items() if key != "name"}
    losses = {task: entry.get("loss", {}) for task, entry in recipe["tasks"].items()}
    objective = build_objective(name, losses, options)
    network = build_network(name, list(losses))
    if name == "piafusion":
        objective.classifier_steps = 1
    objective.prepare(lambda step: street_batch(), report=lambda line: None)
    assert torch.isfinite(objective(network, street_batch(), 0.5))
