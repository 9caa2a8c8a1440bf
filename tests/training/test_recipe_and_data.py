"""Recipes: what they accept and how they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vifa_training.networks import build_network
from vifa_training.recipe import RecipeError, load_recipe

SHIPPED = Path(__file__).resolve().parents[2] / "vifa_training" / "recipes" / "nano-fusion.yaml"


def test_the_shipped_recipe() -> None:
    recipe = load_recipe("nano-fusion")
    assert recipe == load_recipe(str(SHIPPED))
    assert [task.name for task in recipe.tasks] == ["saliency", "texture"]
    saliency, texture = recipe.build_objective().tasks.values()
    assert saliency.hot > 0 == texture.hot
    assert texture.thermal_gain < 1 == saliency.thermal_gain
    assert not set(recipe.training) & set(recipe.validation)


def test_tardal_is_trained_by_the_loss_and_on_the_data_of_nano() -> None:
    nano, tardal = load_recipe("nano-fusion"), load_recipe("tardal-fusion")
    assert (tardal.tasks, tardal.objective) == (nano.tasks, nano.objective)
    assert (tardal.training, tardal.validation) == (nano.training, nano.validation)


@pytest.mark.parametrize("path", sorted(SHIPPED.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_followed(path: Path) -> None:
    recipe = load_recipe(str(path))
    network = build_network(recipe.network, [task.name for task in recipe.tasks])
    assert recipe.name == path.stem
    assert set(recipe.build_objective().tasks) <= set(network.heads)
    assert recipe.schedule.rate(0) == recipe.schedule.learning_rate


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"network": "giant"}, "'giant' is unknown"),
        ({"schedule": {"steps": 1, "speed": 2}}, "'speed'"),
        ({"tasks": {"a": {"loss": {"beauty": 1}}}}, "'beauty'"),
        ({"objective": {"name": "beauty"}}, "'beauty'"),
        ({"schedule": {"steps": 0}}, "schedule.steps"),
        ({"licences": None}, None),
    ],
)
def test_wrong_recipes_are_refused_by_file_and_key(tmp_path: Path, change: dict, reason: str | None) -> None:
    content = {**yaml.safe_load(SHIPPED.read_text()), **change}
    if reason is None:
        del content["licences"]
        reason = "lacks the key 'licences'"
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"wrong\.yaml") as refusal:
        load_recipe(str(path))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="nano-fusion"):
        load_recipe("micro-fusion")


def test_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(RecipeError, match=r"broken\.yaml"):
        load_recipe(str(path))
