"""`vifa-train stage1` and `add-task --train-backbone`: a bundle's backbone learns, and what that costs older tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cli_cases import vifa_train
from safetensors.torch import load_file
from task_toys import DETECTION, SEGMENTATION, ToySegmenter, exported, place, same, write_recipe

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BundleError, load_bundle
from vifa_runtime.pipeline import FusionPipeline
from vifa_training.backbone_update import cost_rows, measure_bundle
from vifa_training.bundle_network import network_of
from vifa_training.channels import load_channels
from vifa_training.checkpoint import TrainingError
from vifa_training.data.street import StreetData
from vifa_training.drift import layer_drift
from vifa_training.pictures import Fused
from vifa_training.task_data import open_labelled
from vifa_training.task_evaluation import evaluate_task
from vifa_training.task_recipe import load_task_recipe

pytestmark = pytest.mark.usefixtures("toys")


class Made:
    """`old`, its key channels, and `new` after stage 1 on other streets."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root, self.channels = root, root / "old.safetensors"
        _, bundle = exported("nano")
        place(bundle, root / "old", name="old")
        vifa_train("channels", root / "old", "--data", root, "--part", "street:3", "--images", "2", "-o", self.channels)
        self.options = ["--data", root, "--part", "street:3/7", "--channels", self.channels, "--preset", "smoke"]
        self.printed = vifa_train("stage1", root / "old", *self.options, "-r", root / "run", "-o", root / "new")
        self.old, self.new = load_bundle(root / "old"), load_bundle(root / "new")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("stage1"))


def test_the_backbone_and_the_head_trained_with_it_are_new_and_the_other_head_is_not(made: Made) -> None:
    changed = {path for path in made.old.graphs if made.old.graphs[path] != made.new.graphs[path]}
    assert made.new.graphs.keys() == made.old.graphs.keys()
    assert changed == {"backbone.onnx", "heads/first.onnx"}


def test_the_manifest_says_what_it_learned_and_no_metric_that_is_no_longer_true(made: Made) -> None:
    manifest = made.new.manifest
    assert manifest["name"] == "new" and manifest["metrics"] == [] and made.old.manifest["metrics"]
    assert manifest["provenance"]["data"].endswith("; street:3/7")
    assert manifest["provenance"]["recipe"] == "by-hand; stage 1"
    assert (made.root / "new/README.md").read_text().startswith("# new\n")


def test_the_new_bundle_fuses_as_its_network_does(made: Made) -> None:
    sample = StreetData(1, size=(96, 128))[0]
    results = [
        FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1))).process(
            sample.visible, sample.thermal
        )
        for bundle in (made.old, made.new)
    ]
    for task in ("first", "second"):
        assert np.isfinite(results[1].fused[task]).all()
        assert (results[0].fused[task] != results[1].fused[task]).any()


def test_drift_by_hand_and_in_the_table(made: Made) -> None:
    before, after = network_of(made.old), network_of(made.new)
    keys = {name: layer.key for name, layer in load_channels(made.channels, before).layers.items()}
    pairs = StreetData(3, seed=7)
    rows = layer_drift(before, after, pairs, keys, images=1)
    assert [row["layer"] for row in rows] == list(before.distilled_layers)
    with torch.no_grad():
        visible = torch.from_numpy(pairs[0].visible.astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) / 255)
        thermal = torch.from_numpy(pairs[0].thermal.astype(np.float32) / 255)
        old, new = (n.backbone.layers(visible[None, None], thermal[None, None])["stem"][0] for n in (before, after))
    key = keys["stem"]
    share = float(((new - old)[key] ** 2).sum().sqrt() / (old[key] ** 2).sum().sqrt())
    assert rows[0]["key_drift"] == pytest.approx(share, abs=2e-4) and share > 0
    whole = float(((new - old) ** 2).sum().sqrt() / (old**2).sum().sqrt())
    assert rows[0]["drift"] == pytest.approx(whole, abs=2e-4)
    assert rows[0]["keys"] == int(key.sum()) and "key_drift" in made.printed and "joined" in made.printed
    assert layer_drift(before, before, pairs, keys)[0]["drift"] == 0


def test_key_channels_of_another_backbone_are_refused(made: Made) -> None:
    with pytest.raises(TrainingError, match=r"old\.safetensors is of another backbone than .*new has"):
        vifa_train("stage1", made.root / "new", *made.options, "-r", made.root / "r2", "-o", made.root / "n2")
    assert not (made.root / "n2").exists()


def test_a_folder_that_is_no_bundle_is_refused_before_anything_is_trained(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(BundleError, match="is no bundle"):
        vifa_train("stage1", made.root / "old", *made.options, "-r", made.root / "r3", "-o", tmp_path)
    assert not (made.root / "r3").exists()


def test_an_unknown_preset_is_named(made: Made) -> None:
    options = [*made.options[:-1], "forever"]
    with pytest.raises(TrainingError, match="no backbone is trained by preset 'forever'; use one of smoke, cpu, paper"):
        vifa_train("stage1", made.root / "old", *options, "-r", made.root / "r4", "-o", made.root / "n4")


# With a labelled task that is older


class Grown:
    """`two` finds road users; `three` was given a segmenter by add-task --train-backbone."""

    def __init__(self, made: Made) -> None:
        self.root, self.channels = made.root, made.channels
        self.older = write_recipe(made.root, DETECTION, validation="street:4/1")
        self.newer = write_recipe(made.root, SEGMENTATION)
        self.common = ["--data", made.root, "--preset", "smoke"]
        vifa_train(
            "add-task", made.root / "old", self.older, *self.common, "-r", made.root / "a", "-o", made.root / "two"
        )
        self.command = ["add-task", made.root / "two", self.newer, *self.common, "--train-backbone"]
        self.given = ["--channels", made.channels, "--older", self.older]
        self.printed = vifa_train(*self.command, *self.given, "-r", made.root / "b", "-o", made.root / "three")
        self.two, self.three = load_bundle(made.root / "two"), load_bundle(made.root / "three")


@pytest.fixture(scope="module")
def grown(made: Made, toys: None) -> Grown:
    return Grown(made)


def test_the_task_is_added_to_the_backbone_that_learned_its_pairs(grown: Grown) -> None:
    assert grown.three.task_names == ["first", "second", "road_users", "street_parts"]
    changed = {path for path in grown.two.graphs if grown.two.graphs[path] != grown.three.graphs[path]}
    assert changed == {"backbone.onnx", "heads/first.onnx"}
    trained = load_file(grown.root / "b/stage1/best.safetensors")
    backbone = {key: value for key, value in trained.items() if key.startswith("backbone.")}
    assert same(backbone, dict(network_of(grown.three).state_dict()), "backbone.")
    assert grown.three.manifest["provenance"]["recipe"] == "by-hand; tiny-detection; stage 1; tiny-segmentation"


def test_what_older_tasks_measure_is_told_before_and_after(grown: Grown) -> None:
    recipe = load_task_recipe(str(grown.older))
    pairs = open_labelled(grown.root, recipe.validation, recipe)
    rows = cost_rows(grown.two, grown.three, grown.root, [recipe])
    values = [measure_bundle(bundle, recipe, pairs) for bundle in (grown.two, grown.three)]
    assert [row["metric"] for row in rows] == [name for name, value in values[0].items() if value == value]
    for row in rows:
        assert (row["data"], row["task"]) == ("street:4/1", "road_users")
        assert [row["before"], row["after"]] == [round(value[row["metric"]], 4) for value in values]
        assert row["change"] == pytest.approx(values[1][row["metric"]] - values[0][row["metric"]], abs=1e-4)
    assert "older tasks" in grown.printed and "map50" in grown.printed and "key_drift" in grown.printed


def test_the_runtime_measures_what_torch_does(grown: Grown) -> None:
    """The whole chain in ONNX Runtime on whole pairs, against the networks that were exported."""
    recipe = load_task_recipe(str(grown.newer))
    pairs = open_labelled(grown.root, recipe.validation, recipe)
    network, task = network_of(grown.three), ToySegmenter(3)
    joint = load_file(grown.root / "b/reference/best.safetensors")
    task.load_state_dict({key.removeprefix("task."): value for key, value in joint.items() if key.startswith("task.")})
    wanted = evaluate_task(task.eval(), Fused(network, "street_parts"), pairs, recipe)["miou"]
    assert measure_bundle(grown.three, recipe, pairs)["miou"] == pytest.approx(wanted, abs=0.01) and wanted > 0.05


@pytest.mark.parametrize("command", ["stage1", "add-task"])
def test_the_cost_of_a_labelled_task_is_not_left_untold(grown: Grown, command: str) -> None:
    options = ["--channels", grown.channels, "-r", grown.root / "c", "-o", grown.root / "none"]
    start = (
        grown.command if command == "add-task" else ["stage1", grown.root / "two", *grown.common, "--part", "street:3"]
    )
    with pytest.raises(TrainingError, match="bundle two finds road_users too; give the recipe of each as --older"):
        vifa_train(*start, *options)
    with pytest.raises(TrainingError, match="--older: bundle two keeps no task street_parts"):
        vifa_train(*start, *options, "--older", grown.older, "--older", grown.newer)
    with pytest.raises(TrainingError, match="no key channels are given; make them by vifa-train channels"):
        vifa_train(*start, *options[2:], "--older", grown.older)
    assert not (grown.root / "c").exists() and not (grown.root / "none").exists()


def test_key_channels_without_a_backbone_to_train_are_refused(grown: Grown) -> None:
    command = [part for part in grown.command if part != "--train-backbone"]
    with pytest.raises(TrainingError, match="--channels and --older go with --train-backbone"):
        vifa_train(*command, *grown.given, "-r", grown.root / "d", "-o", grown.root / "none")
