"""Recipes and data folders: what they accept and how they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from vifa_runtime.pairs import PairError, write_image
from vifa_training.data import PairFolder
from vifa_training.recipe import RecipeError, load_recipe

SHIPPED = Path(__file__).resolve().parents[2] / "vifa_training" / "recipes" / "nano-fusion.yaml"


def test_the_shipped_recipe() -> None:
    recipe = load_recipe("nano-fusion")
    assert recipe == load_recipe(str(SHIPPED))
    assert [task.name for task in recipe.tasks] == ["saliency", "texture"]
    saliency, texture = recipe.tasks.values()
    assert saliency.hot > 0 == texture.hot
    assert texture.thermal_gain < 1 == saliency.thermal_gain
    assert not set(recipe.training) & set(recipe.validation)


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"network": "giant"}, "'giant' is unknown"),
        ({"schedule": {"steps": 1, "speed": 2}}, "'speed'"),
        ({"tasks": {"a": {"loss": {"beauty": 1}}}}, "'beauty'"),
        ({"tasks": {"a": {}}}, "lacks the key 'loss'"),
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


def test_everything_wrong_in_a_data_folder_is_told_at_once(tmp_path: Path) -> None:
    image = np.zeros((40, 40), np.uint8)
    for name in ("good", "small", "broken"):
        write_image(tmp_path / "set" / "vi" / f"{name}.png", image)
        write_image(tmp_path / "set" / "ir" / f"{name}.png", image)
    write_image(tmp_path / "set" / "ir" / "small.png", image[:20])
    (tmp_path / "set" / "vi" / "broken.png").write_bytes(b"no image")
    with pytest.raises(PairError) as refusal:
        PairFolder(tmp_path, ["set", "missing"])
    assert all(name in str(refusal.value) for name in ("small.png", "broken.png", "missing"))
    assert "good.png" not in str(refusal.value)


def test_crops_keep_the_pair_together_and_repeat_with_the_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        gray = rng.integers(0, 256, (50, 60), np.uint8)
        write_image(tmp_path / "set" / "vi" / f"{index}.png", gray)
        write_image(tmp_path / "set" / "ir" / f"{index}.png", gray)
    pairs = PairFolder(tmp_path, ["set"])
    visible, thermal = pairs.crops(16, 24, np.random.default_rng(1))
    again, _ = pairs.crops(16, 24, np.random.default_rng(1))
    assert (visible == again).all()
    assert visible.shape == thermal.shape == (16, 1, 24, 24)
    # The thermal image is the visible one, at most stretched: the same place, mirrored alike.
    for seen, warm in zip(visible.numpy()[:, 0], thermal.numpy()[:, 0], strict=True):
        assert np.corrcoef(seen.ravel(), warm.ravel())[0, 1] > 0.99


def test_pairs_smaller_than_the_crops_are_named(data: Path) -> None:
    with pytest.raises(PairError, match="128x96, smaller than crops of 200"):
        PairFolder(data, ["train"]).crops(1, 200, np.random.default_rng(0))
