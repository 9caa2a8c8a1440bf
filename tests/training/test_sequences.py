"""One task after the other, by its commands: which networks each method shows, and what of them is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest
import torch
from cli_cases import vifa_train
from safetensors.torch import load_file
from task_toys import DETECTION, SEGMENTATION, same, write_recipe
from torch import Tensor

from vifa_training import trainer
from vifa_training.channels import load_channels
from vifa_training.checkpoint import TrainingError
from vifa_training.experiments.diagnosis import curve_rows
from vifa_training.experiments.schedules import FUSION
from vifa_training.experiments.sequences import SequenceFold
from vifa_training.experiments.tasks import TasksExperiment
from vifa_training.networks import build_network
from vifa_training.task_recipe import load_task_recipe

pytestmark = pytest.mark.usefixtures("toys")

SEQUENCE = ["base", "ref", "seq", "seq_head", "ewc", "lwf", "replay", "vifa"]
ABLATION = ["seq", "key_channels", "reference", "vifa"]


class Done:
    """Two tasks, two folds: the sequence and the ablation."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root = root
        detection, segmentation = (
            write_recipe(root, DETECTION, data="street:6"),
            write_recipe(root, SEGMENTATION, data="street:6/5"),
        )
        self.names = ["tiny-detection", "tiny-segmentation"]
        self.options = ["--data", root, "--run", root / "run", "--preset", "smoke", "--folds", "2", "--more-pairs", ""]
        self.options += ["--task", f"{detection},{segmentation}"]
        self.printed = {}
        for name in ("two-task", "ablation"):
            self.printed[name] = vifa_train("experiment", name, "nano", *self.options, "--json", root / f"{name}.json")

    def rows(self, name: str) -> list[dict]:
        return json.loads((self.root / f"{name}.json").read_text())["rows"]

    def weights(self, path: str) -> dict[str, Tensor]:
        return load_file(self.root / "run/nano/smoke/fold1" / path)

    def sequence(self, path: str) -> dict[str, Tensor]:
        return self.weights(f"sequences/{'+'.join(self.names)}/{path}")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Done:
    return Done(tmp_path_factory.mktemp("sequences"))


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("name", "methods"), [("two-task", SEQUENCE), ("ablation", [*ABLATION, "ref"])])
def test_rows_are_of_every_method_task_and_metric(done: Done, name: str, methods: list[str]) -> None:
    rows = done.rows(name)
    keys = {"network", "sequence", "method", "task", "metric", "mean", "low", "high", "folds", "preset", "device"}
    assert all(keys <= row.keys() for row in rows)
    assert {row["sequence"] for row in rows} == {"tiny-detection+tiny-segmentation"}
    assert {(row["method"], row["task"]) for row in rows} == {(m, t) for m in methods for t in done.names}
    assert {row["metric"] for row in rows if row["task"] == "tiny-segmentation"} == {"miou"}
    assert all(method in done.printed[name] for method in methods)


def test_the_last_task_is_learned_from_the_first_tasks_reference(done: Done) -> None:
    """In seq: its fusion network starts there, so that after so few steps it is nearer to it than to the shared one."""
    first, after = (done.weights("tiny-detection/ref/best.safetensors"), done.sequence("seq/1/best.safetensors"))
    shared = done.weights("fusion/best.safetensors")
    moved = {
        key: sum(float((after[f"fusion.{name}"] - other).square().sum()) for name, other in start.items())
        for key, start in (("first", part(first, "fusion.")), ("shared", shared))
    }
    assert 0 < moved["first"] < moved["shared"]


@pytest.mark.parametrize("name", ["ewc", "lwf", "replay"])
def test_a_remedy_changes_what_the_sequence_learns(done: Done, name: str) -> None:
    plain, held = done.sequence("seq/1/best.safetensors"), done.sequence(f"{name}/1/best.safetensors")
    assert not same(part(plain, "fusion."), part(held, "fusion."))


def test_the_heads_of_seq_head_stand_on_the_backbone_of_seq(done: Done) -> None:
    backbone = part(done.sequence("seq/1/best.safetensors"), "fusion.backbone.")
    for index in (0, 1):
        assert same(backbone, part(done.sequence(f"seq_head/{index}/best.safetensors"), "network.backbone."))


def test_vifas_heads_stand_on_the_backbone_of_stage_1(done: Done) -> None:
    backbone = part(done.sequence("stage1/1/best.safetensors"), "backbone.")
    for index in (0, 1):
        assert same(backbone, part(done.sequence(f"vifa/{index}/best.safetensors"), "network.backbone."))
    assert not same(part(done.weights("tiny-detection/first/best.safetensors"), "backbone."), backbone)


def test_stage_1_remembers_the_first_data_set_alone(done: Done) -> None:
    path = done.root / "run/nano/smoke/fold1/sequences" / "+".join(done.names) / "stage1/1/channels.safetensors"
    found = load_channels(path, build_network("nano", ["shared"]))
    assert found.data == "street:6" and 0 < found.images < 6, "the held-out pairs are not looked at"


def test_references_alone_change_the_backbone_with_each_task(done: Done) -> None:
    after = [part(done.sequence(f"reference/{index}/best.safetensors"), "network.backbone.") for index in (0, 1)]
    assert not same(*after) and not same(
        part(done.weights("tiny-detection/first/best.safetensors"), "backbone."), after[0]
    )


def test_what_is_done_is_not_done_again(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer._Session, "_step", lambda session: pytest.fail("is trained already"))
    for name in ("two-task", "ablation"):
        assert vifa_train("experiment", name, "nano", *done.options).split() != []


def test_the_report_holds_every_table_and_the_command_that_makes_it_again(done: Done) -> None:
    folder = done.root / "run/nano/smoke/reports/two-task-tiny-detection+tiny-segmentation"
    text, result = (folder / "report.md").read_text(), json.loads((folder / "rows.json").read_text())
    assert result["rows"] == done.rows("two-task")
    command = result["meta"]["command"]
    assert command.startswith("vifa-train experiment two-task nano --task ") and f"`{command}`" in text
    assert text.startswith("# tiny-detection, then tiny-segmentation: nano")
    for method in SEQUENCE:
        assert text.count(f"\n| {method} | ") >= 3  # a table of each task, and what it means
    assert "fold 1 | fold 2 |" in text and "| tiny-segmentation: vifa of ref |" in text
    assert re.search(r"\| seq \| stem \| 0\.\d+ \|  \|  \|", text)  # one drift a layer of the whole networks
    assert re.search(r"\| vifa \| stem \| 0\.\d+ \| 0\.\d+ \|", text)  # and that of key channels of stage 1
    assert "| SegMif |  |  | 0.644 |" in text
    for name in ("report.png", "curves.png"):
        image = cv2.imread(str(folder / name))
        assert image is not None and min(image.shape[:2]) > 300 and image.std() > 5 and f"]({name})" in text


def test_learning_curves_are_of_every_training_for_the_later_task(done: Done) -> None:
    recipes = [load_task_recipe(str(done.root / f"{name}.yaml")) for name in done.names]
    experiment = TasksExperiment("nano", recipes, "smoke", FUSION["smoke"], [], 2, done.root, done.root / "run")
    rows = curve_rows(SequenceFold(experiment, 1), SEQUENCE)
    assert list(dict.fromkeys(row["method"] for row in rows)) == ["ref", "seq", "ewc", "lwf", "replay", "stage 1"]
    assert {row["task"] for row in rows} == {"tiny-segmentation"}
    assert [row["step"] for row in rows if row["method"] == "stage 1"] == [1, 2, 3, 4]
    log = done.root / "run/nano/smoke/fold1/sequences/tiny-detection+tiny-segmentation/ewc/1/log.jsonl"
    assert [row["loss"] for row in rows if row["method"] == "ewc"][-1] == json.loads(log.read_text())["loss"]


def test_fusion_alone_is_measured_before_and_after(done: Done) -> None:
    path = done.root / "fusion.json"
    vifa_train("experiment", "fusion-sequence", "nano", *done.options, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    value = {(row["method"], row["task"], row["metric"]): row["mean"] for row in rows}
    methods = ["seq1", "seq", "vifa", "ref", "average", "maximum", "visible", "thermal"]
    assert {key[0] for key in value} == set(methods) and {key[1] for key in value} == set(done.names)
    first, second = done.names
    for metric in ("en", "sf", "vif", "ssim"):
        assert value["seq1", first, metric] == value["ref", first, metric], "the first data set alone, both"
    assert value["seq", second, "vif"] != value["vifa", second, "vif"] != value["seq1", second, "vif"]
    assert value["visible", first, "ssim_visible"] == pytest.approx(1)
    assert all(row["low"] <= row["mean"] <= row["high"] and row["pairs"] == 6 for row in rows)


def test_a_baseline_by_itself_is_the_one_of_the_sequence(done: Done) -> None:
    path = done.root / "ewc.json"
    vifa_train("baseline", "ewc", "nano", *done.options, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert {row["method"] for row in rows} == {"ref", "ewc"}
    gains = ("gain", "gain_low", "gain_high")  # of VIFA, which is not here
    in_sequence = [{k: v for k, v in row.items() if k not in gains} for row in done.rows("two-task")]
    assert [row for row in in_sequence if row["method"] == "ewc"] == [row for row in rows if row["method"] == "ewc"]
    with pytest.raises(TrainingError, match="no baseline is called 'vifa'; use one of seq, seq_head, ewc, lwf, replay"):
        vifa_train("baseline", "vifa", "nano", *done.options)


def test_some_methods_are_reported_as_among_all(done: Done, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    vifa_train("experiment", "two-task", "nano", *done.options, "--json", path, "--methods", "vifa, seq,ref")
    result = json.loads(path.read_text())
    assert result["rows"] == [row for row in done.rows("two-task") if row["method"] in ("ref", "seq", "vifa")]
    assert result["meta"]["command"].endswith(" --methods ref,seq,vifa")
    with pytest.raises(TrainingError, match="no method is called sqe; use some of base,ref,seq"):
        vifa_train("experiment", "two-task", "nano", *done.options, "--methods", "ref,sqe")
    with pytest.raises(TrainingError, match="--methods names none; use some of base,ref,seq"):
        vifa_train("experiment", "two-task", "nano", *done.options, "--methods", ",")


def test_three_tasks_keep_the_key_channels_of_both_before(done: Done, tmp_path: Path) -> None:
    third = write_recipe(tmp_path, SEGMENTATION, name="tiny-third", task="third", data="street:6/9")
    options = [*done.options[:-1], f"{done.options[-1]},{third}"]
    options[3] = tmp_path / "run"
    path = tmp_path / "three.json"
    vifa_train("experiment", "three-task", "nano", *options, "--json", path)
    rows = json.loads(path.read_text())["rows"]
    assert {(row["method"], row["task"]) for row in rows} == {
        (m, t) for m in SEQUENCE for t in [*done.names, "tiny-third"]
    }
    folder = tmp_path / "run/nano/smoke/fold1/sequences/tiny-detection+tiny-segmentation+tiny-third"
    network = build_network("nano", ["shared"])
    kept = [load_channels(folder / f"stage1/{index}/channels.safetensors", network) for index in (1, 2)]
    assert [memory.data for memory in kept] == ["street:6", "street:6/5"]
    assert kept[0].backbone != kept[1].backbone, "each of the backbone as it stood after its data set"
    for method in ("seq", "ewc", "lwf", "replay", "stage1"):
        assert sorted(path.name for path in (folder / method).iterdir() if path.is_dir()) == ["1", "2"]


def test_one_task_is_no_sequence(done: Done) -> None:
    options = [*done.options[:-1], str(done.options[-1]).split(",")[0]]
    with pytest.raises(TrainingError, match="a sequence needs two tasks or more"):
        vifa_train("experiment", "two-task", "nano", *options)
