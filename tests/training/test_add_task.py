"""One more task for a bundle, by the commands: new files stand beside the old ones, which nothing changes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cli_cases import vifa_train
from safetensors.torch import load_file
from task_toys import DETECTION, SEGMENTATION, InMemory, ToyDetector, exported, noise_sample, place, write_recipe
from typer.testing import CliRunner

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.card import bundle_card
from vifa_runtime.pipeline import FusionPipeline, Results
from vifa_training.add_task import extend_manifest, measure
from vifa_training.bundle_network import network_of
from vifa_training.cli import MENDABLE, app
from vifa_training.pictures import Fused
from vifa_training.task_recipe import load_task_recipe

pytestmark = pytest.mark.usefixtures("toys")

SAMPLE = noise_sample("p", 88, 120, seed=5)


class Made:
    """`old` with two tasks, `new` with a third, and `other` with one of them dropped and one replaced."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root, self.folders = root, {name: root / name for name in ("old", "new", "other")}
        _, bundle = exported("nano")
        place(bundle, self.folders["old"], name="old")
        self.recipe = write_recipe(root, DETECTION)
        options = ["--data", root, "--run", root / "run", "--preset", "smoke"]
        given = [self.folders["old"], self.recipe, *options]
        vifa_train("reference", *given)
        vifa_train("stage2", *given)
        self.trained = sums(root / "run")
        self.printed = vifa_train("add-task", *given, "-o", self.folders["new"])
        other = write_recipe(root, SEGMENTATION, task="second")
        options[3] = root / "other-run"
        choice = ["--like", "second", "--drop", "first,second"]
        vifa_train("add-task", self.folders["new"], other, *options, *choice, "-o", self.folders["other"])
        self.old, self.new, self.other = (load_bundle(folder) for folder in self.folders.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Made:
    return Made(tmp_path_factory.mktemp("bundles"))


def sums(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what it holds."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def process(bundle: Bundle) -> Results:
    return FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1))).process(
        SAMPLE.visible, SAMPLE.thermal
    )


# Older tasks


def test_older_files_are_the_same_to_the_byte(made: Made) -> None:
    old, new = sums(made.folders["old"]), sums(made.folders["new"])
    told = {"bundle.yaml", "README.md"}
    assert {name: new[name] for name in old.keys() - told} == {name: old[name] for name in old.keys() - told}
    assert new.keys() - old.keys() - told == {"heads/road_users.onnx", "tasks/road_users.onnx"}


def test_older_outputs_are_equal_to_the_bit(made: Made) -> None:
    before, after = process(made.old).fused, process(made.new).fused
    assert list(before) == ["first", "second"] and list(after) == ["first", "second", "road_users"]
    for task, image in before.items():
        np.testing.assert_array_equal(after[task], image)
        assert (after["road_users"] != image).any()


def test_the_bundle_that_a_task_is_added_to_stays_as_it_is(made: Made, tmp_path: Path) -> None:
    _, bundle = exported("nano")
    assert sums(made.folders["old"]) == sums(place(bundle, tmp_path / "old", name="old"))


# The new task


def test_the_new_head_fuses_what_stage_2_taught_it(made: Made) -> None:
    network = network_of(made.old)
    network.add_head("road_users")
    trained = load_file(made.root / "run/stage2/best.safetensors")
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in trained.items()})
    difference = process(made.new).fused["road_users"].astype(int) - Fused(network, "road_users")(SAMPLE)
    assert np.abs(difference).max() <= 1


def test_the_new_task_graph_finds_what_the_reference_models_task_network_finds(made: Made) -> None:
    detector = ToyDetector(2)
    trained = load_file(made.root / "run/reference/best.safetensors")
    own = {name.removeprefix("task."): tensor for name, tensor in trained.items() if name.startswith("task.")}
    detector.load_state_dict(own)
    graph = made.new.graphs["tasks/road_users.onnx"]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"image": SAMPLE.visible[None]})
    with torch.no_grad():
        found = detector.predict(torch.tensor(SAMPLE.visible / np.float32(255)).permute(2, 0, 1)[None])
    np.testing.assert_allclose(boxes, found["boxes"], atol=1e-3)
    np.testing.assert_allclose(scores, found["scores"], atol=1e-3)
    assert scores.std() > 0.01


def test_the_manifest_tells_all_of_the_new_task(made: Made) -> None:
    task = made.new.tasks[-1]
    assert (task.name, task.kind, task.description) == ("road_users", "detection", "people and cars")
    assert [(known.name, known.colour) for known in task.classes] == [
        ("person", (230, 60, 60)),
        ("car", (70, 130, 240)),
    ]
    assert (task.score, task.iou, task.max_detections) == (0.3, 0.6, 20)
    old, new = made.old.manifest, made.new.manifest
    assert made.new.name == "new" and new["tasks"][:2] == old["tasks"]
    assert new["licences"]["weights"] == "Apache-2.0; road_users: Apache-2.0"
    assert new["licences"]["data"] == "none; road_users: synthetic streets"
    assert new["licences"]["code"] == old["licences"]["code"]
    assert new["provenance"]["data"] == "none; street:4"
    assert new["provenance"]["recipe"] == "by-hand; tiny-detection"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", new["provenance"]["date"])
    for key in ("network", "size_multiple", "aspect", "working_size", "thermal"):
        assert new[key] == old[key]


def test_its_metrics_are_of_the_validation_part_and_numbers(made: Made) -> None:
    rows = made.new.manifest["metrics"]
    assert rows[:1] == made.old.manifest["metrics"]
    assert {(row["data"], row["task"]) for row in rows[1:]} == {("street:2/1", "road_users")}
    metrics = {"map50", "map50_all", "map50_day", "map50_night", "ap50_person", "ap50_car"}
    assert "map50" in {row["metric"] for row in rows[1:]} <= metrics
    assert all(0 <= row["value"] <= 1 for row in rows)
    assert f"{made.folders['new']}: first, second, road_users; road_users on street:2/1: map50 " in made.printed


def test_metrics_that_are_not_defined_are_left_out(made: Made) -> None:
    recipe, network = load_task_recipe(str(made.recipe)), network_of(made.new)
    box, nothing = np.float32([[8, 8, 24, 24]]), np.zeros((0, 4), np.float32)
    person, empty = (
        noise_sample("p", 64, 64, boxes=boxes, labels=np.zeros(len(boxes), np.int64)) for boxes in (box, nothing)
    )
    for pairs, metrics in ((InMemory(person, empty), {"map50", "map50_all", "ap50_person"}), (InMemory(empty), set())):
        rows = measure(network, ToyDetector(2), recipe, pairs)
        assert {row["metric"] for row in rows} == metrics
        assert all(row["value"] >= 0 and row["task"] == "road_users" for row in rows)


def test_the_card_is_made_of_the_manifest(made: Made) -> None:
    card = (made.folders["new"] / "README.md").read_text()
    assert card == bundle_card(made.new.manifest)
    for told in ("# new\n", "| road_users | detection | person, car | people and cars |", "synthetic streets"):
        assert told in card


def test_what_reference_and_stage2_trained_is_not_trained_again(made: Made) -> None:
    assert sums(made.root / "run") == made.trained
    assert {"reference/best.safetensors", "stage2/best.safetensors"} <= made.trained.keys()


# Dropping and replacing


def test_dropped_tasks_are_gone_and_the_others_the_same_bytes(made: Made) -> None:
    assert made.other.task_names == ["road_users", "second"]
    assert sums(made.folders["other"]).keys() == {
        "bundle.yaml", "README.md", "backbone.onnx",
        "heads/road_users.onnx", "tasks/road_users.onnx", "heads/second.onnx", "tasks/second.onnx",
    }  # fmt: skip
    for path in ("backbone.onnx", "heads/road_users.onnx", "tasks/road_users.onnx"):
        assert made.other.graphs[path] == made.new.graphs[path]
    assert {row["task"] for row in made.other.manifest["metrics"]} == {"road_users", "second"}
    assert "first" not in (made.folders["other"] / "README.md").read_text()


def test_licences_of_dropped_tasks_go_with_them(made: Made, tmp_path: Path) -> None:
    recipe = load_task_recipe(str(write_recipe(tmp_path, SEGMENTATION, task="parts")))
    without = extend_manifest(made.new.manifest, recipe, "without", [], ["road_users"])["licences"]
    assert "road_users: synthetic streets" in made.new.manifest["licences"]["data"]
    assert without["data"] == f"{made.old.manifest['licences']['data']}; parts: synthetic streets"


def test_a_replaced_task_has_a_new_head_and_kind(made: Made) -> None:
    assert made.other.graphs["heads/second.onnx"] != made.new.graphs["heads/second.onnx"]
    before, after = process(made.new), process(made.other)
    assert (before.fused["second"] != after.fused["second"]).any()
    np.testing.assert_array_equal(before.fused["road_users"], after.fused["road_users"])
    assert "second" not in before.masks and after.masks["second"].shape == SAMPLE.thermal.shape


def test_the_reference_starts_from_the_head_that_is_asked_for(made: Made) -> None:
    heads = [load_file(made.root / run / "reference/best.safetensors") for run in ("run", "other-run")]
    assert any(name.startswith("fusion.heads.first.") for name in heads[0])
    assert any(name.startswith("fusion.heads.second.") for name in heads[1])


# Refusals


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"task": "first"}, [], "bundle old has a task 'first' already; --drop it, or name the recipe's task"),
        ({"training": "nowhere"}, [], r"nowhere/vi does not exist"),
        ({"validation": "nowhere"}, [], r"nowhere/vi does not exist"),
        ({"classes": {"car": [1, 2, 3], "person": [4, 5, 6]}}, [], "recipe tiny-detection wants car, person"),
        ({"classes": {"person": [1, 2, 3]}}, [], "has the classes person, car; recipe tiny-detection wants person"),
        ({}, ["--drop", "third"], "bundle old has no task 'third' to drop; it has first, second"),
        ({}, ["--like", "third"], "bundle old has no task 'third'; it has first, second"),
        ({}, ["--preset", "slow"], "recipe tiny-detection has no preset 'slow'; use one of smoke"),
        ({}, ["--output", "My bundle"], "a bundle is called as its folder, .* and My bundle is not; choose another"),
        ({}, ["--output", "taken"], "taken exists and is no bundle; choose another output folder"),
    ],
)
def test_what_cannot_be_added_is_refused_before_anything_is_trained(
    made: Made, tmp_path: Path, change: dict, options: list[str], message: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    place(made.new, tmp_path / "output", name="output")
    before = sums(tmp_path)
    recipe = write_recipe(tmp_path / "recipes", DETECTION, **change)
    if options[:1] == ["--output"]:
        options = ["--output", tmp_path / options[1]]
    given = ["--data", tmp_path, "--run", tmp_path / "run", "--preset", "smoke", "-o", tmp_path / "output", *options]
    with pytest.raises(MENDABLE, match=message):
        vifa_train("add-task", made.folders["old"], recipe, *given)
    assert not (tmp_path / "run").exists()
    recipe.unlink()
    assert sums(tmp_path) == before


@pytest.mark.parametrize("missing", ["recipe", "bundle"])
def test_a_missing_recipe_or_bundle_is_named(made: Made, tmp_path: Path, missing: str) -> None:
    given = {"bundle": made.folders["old"], "recipe": made.recipe, missing: "no-such-thing"}
    with pytest.raises(MENDABLE, match="no-such-thing") as refusal:
        vifa_train("add-task", *given.values(), "--data", tmp_path, "--run", tmp_path, "-o", tmp_path / "output")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_stage_2_needs_a_reference_model(made: Made, tmp_path: Path) -> None:
    with pytest.raises(MENDABLE, match="holds no reference model; run vifa-train reference first"):
        vifa_train("stage2", made.folders["old"], made.recipe, "--data", tmp_path, "--run", tmp_path / "run")


def test_stage_2_of_a_task_that_is_to_be_replaced_goes_before_add_task(made: Made, tmp_path: Path) -> None:
    options = ["--data", tmp_path, "--run", tmp_path / "run", "--preset", "smoke"]
    given = [made.folders["new"], made.recipe, *options]
    vifa_train("reference", *given)
    with pytest.raises(MENDABLE, match="bundle new has a task 'road_users' already; --drop it"):
        vifa_train("stage2", *given)
    vifa_train("stage2", *given, "--drop", "road_users")
    trained = sums(tmp_path / "run")
    vifa_train("add-task", *given, "--drop", "road_users", "-o", tmp_path / "replaced")
    assert sums(tmp_path / "run") == trained
    assert load_bundle(tmp_path / "replaced").task_names == ["first", "second", "road_users"]


def test_a_stop_before_the_end_leaves_the_output_as_it_was(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of writing: the graphs are there already."""
    output = place(made.new, tmp_path / "output", name="output")
    before = sums(tmp_path)

    def stop(manifest: dict) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("vifa_training.add_task.bundle_card", stop)
    given = ["--data", tmp_path, "--run", made.root / "run", "--preset", "smoke", "-o", output]
    done = CliRunner().invoke(app, [*map(str, ["add-task", made.folders["old"], made.recipe, *given])])
    assert done.exit_code != 0
    assert sums(tmp_path) == before


def test_texts_of_old_and_new_stand_side_by_side_once(made: Made) -> None:
    recipe = load_task_recipe(str(made.recipe))
    old = dict(made.old.manifest)
    old |= {"provenance": old["provenance"] | {"recipe": "tiny-detection-long", "data": "street:40"}}
    once = extend_manifest(old, recipe, "a", [], [])
    assert once["provenance"]["recipe"] == "tiny-detection-long; tiny-detection"
    assert once["provenance"]["data"] == "street:40; street:4"
    twice = extend_manifest(once, recipe, "a", [], ["road_users"])
    assert twice["provenance"] == once["provenance"] and twice["licences"] == once["licences"]
    assert [task["name"] for task in twice["tasks"]] == ["first", "second", "road_users"]
