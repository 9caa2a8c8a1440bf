"""Cross-validation of shared backbones by its commands: who is trained on what, what is pooled, what is done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_cases import vifa_train
from data_cases import write_folder
from safetensors.torch import load_file
from task_toys import DETECTION, SCHEDULE, SEGMENTATION, InMemory, ToySegmenter, make_recipe, noise_sample
from task_toys import write_recipe as write

from vifa_runtime.metrics import Detections, confusion_matrices, mean_iou
from vifa_training import trainer
from vifa_training.cli import MENDABLE
from vifa_training.commands.experiment import make_experiment
from vifa_training.data import DataError, draw_batch
from vifa_training.data.street import StreetData
from vifa_training.distillation.reference import train_alone
from vifa_training.experiments.report import pool
from vifa_training.experiments.tasks import TasksExperiment, run_fold, split_fold
from vifa_training.networks import FusionNetwork, build_network
from vifa_training.pictures import SOURCES, Fused, Picture, Pictures, show_thermal
from vifa_training.predictions import load_predictions, save_predictions
from vifa_training.task_evaluation import Prediction, evaluate_task, predict
from vifa_training.task_recipe import load_task_recipe

pytestmark = pytest.mark.usefixtures("toys")

METHODS = ["visible", "thermal", "average", "base", "ref", "vifa"]
KEYS = {"network", "method", "task", "metric", "mean", "low", "high", "folds", "preset", "device"}
PAIRS = 12


class Watch:
    """What trainings do: their steps, and the pairs that they draw."""

    def __init__(self, patch: pytest.MonkeyPatch, stop_after: int = 0) -> None:
        self.steps, self.drawn = 0, set()
        step = trainer._Session._step

        def watched(session: trainer._Session) -> float:
            if stop_after and self.steps == stop_after:
                self.steps = 0
                raise KeyboardInterrupt
            self.steps += 1
            return step(session)

        def draw(*arguments: Any) -> Any:
            batch = draw_batch(*arguments)
            self.drawn |= {name.partition("#")[0] for name in batch.names}
            return batch

        patch.setattr(trainer._Session, "_step", watched)
        patch.setattr(trainer, "draw_batch", draw)


class Done:
    """An experiment of two tasks on two folds, run to its end; the first fold by itself before."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root, self.json = root, root / "rows.json"
        recipes = [write(root, DETECTION), write(root, SEGMENTATION)]
        self.options = ["--data", root, "--run", root / "run", "--preset", "smoke", "--folds", "2"]
        self.options += ["--task", ",".join(map(str, recipes))]
        self.command = ["experiment", "tasks", "nano", *self.options, "--more-pairs", ""]
        with pytest.MonkeyPatch.context() as patch:
            self.first = Watch(patch)
            vifa_train(*self.command, "--only-fold", "1")
        with pytest.MonkeyPatch.context() as patch:
            self.second = Watch(patch)
            self.printed = vifa_train(*self.command, "--json", self.json)
        self.result = json.loads(self.json.read_text())
        self.rows = self.result["rows"]

    def fold(self, number: int) -> Path:
        return self.root / "run/nano/smoke" / f"fold{number}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Done:
    return Done(tmp_path_factory.mktemp("experiment"))


# Folds


def names_of(count: int) -> list[str]:
    """Days and nights in no order."""
    names = [f"{index:05}{'DDN'[index % 3]}" for index in range(count)]
    return list(np.random.default_rng(0).permutation(names))


@pytest.mark.parametrize(("count", "folds"), [(12, 2), (25, 4), (7, 7)])
def test_every_pair_is_held_out_once_in_a_block_of_neighbours_and_not_trained_on(count: int, folds: int) -> None:
    pairs = InMemory(*(noise_sample(name, 8, 8) for name in names_of(count)))
    everything, held = set(pairs.names), []
    for fold in range(1, folds + 1):
        training, held_out = split_fold(pairs, fold, folds)
        assert set(training.names) | set(held_out.names) == everything
        assert not set(training.names) & set(held_out.names)
        assert [training[i].name for i in range(len(training))] == list(training.names)
        for time in "DN":
            order = sorted(name for name in everything if name.endswith(time))
            block = [order.index(name) for name in sorted(held_out.names) if name.endswith(time)]
            assert block == list(range(block[0], block[0] + len(block))) if block else len(order) < folds
        held += held_out.names
    assert sorted(held) == sorted(everything)


@pytest.mark.parametrize("fold", [0, 3])
def test_there_is_no_fold_beyond_the_last(fold: int) -> None:
    with pytest.raises(MENDABLE, match=f"there is no fold {fold} of 2; use 1 to 2"):
        split_fold(StreetData(4, size=(64, 64)), fold, 2)
    with pytest.raises(DataError, match="3 samples can't be divided into 4 folds"):
        split_fold(InMemory(*(noise_sample(str(i), 8, 8) for i in range(3))), 1, 4)


def predicted(done: Done, fold: int, task: str, method: str) -> list[str]:
    return [prediction.name for prediction in load_predictions(done.fold(fold) / task / f"{method}.json")]


@pytest.mark.parametrize("task", ["tiny-detection", "tiny-segmentation"])
def test_no_network_has_seen_a_pair_that_it_predicts(done: Done, task: str) -> None:
    """By the names in the batches that its trainings drew."""
    everything = set(StreetData(PAIRS).names)
    for fold, watch in ((1, done.first), (2, done.second)):
        for method in [*METHODS, "floor", "vifa_tuned"]:
            held_out = predicted(done, fold, task, method)
            assert len(held_out) == len(set(held_out)) == PAIRS / 2
            assert watch.drawn and not watch.drawn & set(held_out)
            assert watch.drawn <= everything
    both = predicted(done, 1, task, "vifa") + predicted(done, 2, task, "vifa")
    assert sorted(both) == sorted(everything)


def test_stage_2_imitates_on_all_pairs_of_its_fold_and_no_other(done: Done) -> None:
    for fold in (1, 2):
        [extended] = (done.fold(fold) / "tiny-detection/vifa").glob("extended-*")
        learnt = {path.stem for path in extended.glob("*.png")}
        assert learnt == set(StreetData(PAIRS).names) - set(predicted(done, fold, "tiny-detection", "vifa"))


# Methods


def shown_by(done: Done, method: str) -> tuple[Picture, ToySegmenter]:
    """What a method shows in the first fold, and the task network that looks at it, from the files of its trainings."""
    inside = done.fold(1) / "tiny-segmentation"
    shared = fusion_of(load_file(done.fold(1) / "fusion/best.safetensors"), "")
    joint = load_file(inside / "ref/best.safetensors")
    task = joint if method in ("ref", "vifa", "floor") else load_file(inside / method / "best.safetensors")
    taught = load_file(inside / "vifa/best.safetensors")
    pictures = {
        **SOURCES,
        "base": Fused(shared, "shared"),
        "floor": Fused(shared, "shared"),
        "ref": Fused(fusion_of(joint, "fusion."), "shared"),
        "vifa": Fused(fusion_of(taught, "network."), "street_parts"),
        "vifa_tuned": Fused(fusion_of(taught, "network."), "street_parts"),
    }
    segmenter = ToySegmenter(3)
    own = {name.removeprefix("task."): tensor for name, tensor in task.items() if name.startswith("task.")}
    segmenter.load_state_dict(own)
    return pictures[method], segmenter.eval()


def fusion_of(weights: dict[str, torch.Tensor], prefix: str) -> FusionNetwork:
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    heads = list(dict.fromkeys(name.split(".")[1] for name in own if name.startswith("heads.")))
    network = build_network("nano", heads)
    network.load_state_dict(own)
    return network.eval()


@pytest.mark.parametrize("method", [*METHODS, "floor", "vifa_tuned"])
def test_each_method_predicts_from_its_own_picture_by_its_own_network(done: Done, method: str) -> None:
    picture, segmenter = shown_by(done, method)
    made = load_predictions(done.fold(1) / "tiny-segmentation" / f"{method}.json")
    names, pairs = [prediction.name for prediction in made], StreetData(PAIRS)
    samples = InMemory(*(pairs[list(pairs.names).index(name)] for name in names[:3]))
    for ours, expected in zip(made, predict(segmenter, picture, samples), strict=False):
        assert (ours.mask == expected.mask).mean() > 0.9999, "but for rounding where two classes are as likely"


@pytest.mark.parametrize("method", ["visible", "thermal", "average", "base"])
def test_networks_alone_learn_from_what_they_are_shown(done: Done, tmp_path: Path, method: str) -> None:
    """Trained here once more on that picture of that fold's pairs, one comes out the same to the bit."""
    recipe = load_task_recipe(str(done.root / "tiny-segmentation.yaml"))
    training, _ = split_fold(StreetData(PAIRS), 1, 2)
    pictures = Pictures(training, shown_by(done, method)[0])
    torch.manual_seed(0)
    again = train_alone(ToySegmenter(3), pictures, recipe, recipe.preset("smoke"), tmp_path).state_dict()
    kept = load_file(done.fold(1) / "tiny-segmentation" / method / "best.safetensors")
    assert kept.keys() == {f"task.{name}" for name in again}
    assert all(torch.equal(kept[f"task.{name}"], tensor) for name, tensor in again.items())


def test_all_tasks_share_one_backbone_to_the_bit(done: Done) -> None:
    shared = load_file(done.fold(1) / "fusion/best.safetensors")
    for task in ("tiny-detection", "tiny-segmentation"):
        taught = load_file(done.fold(1) / task / "vifa/best.safetensors")
        for name, tensor in shared.items():
            assert torch.equal(taught[f"network.{name}"], tensor)


# Rows


def test_rows_are_flat_and_of_every_method_and_metric(done: Done) -> None:
    metrics = {
        "tiny-detection": ["map50", "map50_all", "map50_day", "map50_night", "ap50_person", "ap50_car"],
        "tiny-segmentation": ["miou"],
    }
    assert {"command", "machine", "versions", "commit", "seed", "date"} <= set(done.result["meta"])
    for row in done.rows:
        assert set(row) >= KEYS
        assert (row["network"], row["folds"], row["preset"]) == ("nano", 2, "smoke")
        assert all(value is None or isinstance(value, (str, int, float)) for value in row.values())
        if row["mean"] is not None:
            assert 0 <= row["low"] <= row["high"] <= 1 and 0 <= row["mean"] <= 1
    for task, names in metrics.items():
        found = [(row["metric"], row["method"]) for row in done.rows if row["task"] == task]
        assert len(found) == len(set(found))
        assert set(found) >= {(metric, method) for metric in names for method in METHODS}
    assert {row["task"] for row in done.rows} == set(metrics)


def test_the_mean_is_that_of_all_held_out_pixels_together(done: Done) -> None:
    pairs = StreetData(PAIRS)
    truths = {name: pairs[index].mask for index, name in enumerate(pairs.names)}
    for row in done.rows:
        if row["metric"] == "miou":
            files = [done.fold(fold) / "tiny-segmentation" / f"{row['method']}.json" for fold in (1, 2)]
            made = [prediction for path in files for prediction in load_predictions(path)]
            masks = [truths[p.name] for p in made], [p.mask for p in made]
            assert row["mean"] == pytest.approx(mean_iou(confusion_matrices(*masks, 3).sum(axis=0)), abs=5.1e-5)


def test_pairs_are_pooled_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Neighbours in time stand side by side, whatever folder they lie in: resamples draw blocks of them."""
    names = ["00001D", "00003N", "00000D", "00002N"]
    write_folder(tmp_path / "b", names[:2], labels="0 0.5 0.5 0.5 0.5")
    write_folder(tmp_path / "a", names[2:], labels="0 0.5 0.5 0.5 0.5")
    recipe = write(tmp_path, DETECTION, data="b+a")
    experiment = make_experiment("nano", tmp_path, tmp_path / "run", str(recipe), "smoke", 2)
    nothing, hit = Detections(np.zeros((0, 4)), [], []), Detections(np.array([[8, 6, 24, 18]]), [0.9], [0])
    for fold, own in ((1, names[2:]), (2, names[:2])):
        made = [Prediction(name, detections=hit if name == "00002N" else nothing) for name in own]
        save_predictions(experiment.fold_folder(fold) / "tiny-detection" / "ref.json", made)
    pooled = pool(experiment, experiment.recipes[0], ["ref"])
    assert pooled.tags == [("day",), ("day",), ("night",), ("night",)]
    _, score = pooled.metrics()["ap50_person"]
    assert [score(pooled.of["ref"], np.array([index])) for index in range(4)] == [0, 0, 1, 0]


def test_every_method_and_number_is_in_the_table(done: Done) -> None:
    lines = done.printed.splitlines()
    for row in done.rows:
        [*own] = (line for line in lines if line.split()[:1] == [row["method"]])
        assert len(own) == 2, "one a task"
        assert row["mean"] is None or any(f"{row['mean']:.3f}" in line for line in own)
    assert "nan" not in done.printed.replace("nano", "")


def test_evaluate_pools_the_same_rows(done: Done, tmp_path: Path) -> None:
    vifa_train("evaluate", *done.options, "--json", tmp_path / "again.json")
    result = json.loads((tmp_path / "again.json").read_text())
    assert result["rows"] == done.rows
    assert result["meta"]["command"].startswith("vifa-train evaluate")


# Going on


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*.json"))}


def test_what_is_done_is_not_done_again(done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, watch = files_of(done.root / "run"), Watch(monkeypatch)
    assert done.first.steps > 20 and done.second.steps == done.first.steps, "the second run left the first fold alone"
    vifa_train(*done.command, "--json", tmp_path / "rows.json")
    assert watch.steps == 0
    assert files_of(done.root / "run") == before
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == done.rows


def test_an_experiment_that_is_stopped_again_and_again_gives_the_same_predictions(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    experiment = experiment_of(done, run=tmp_path)
    Watch(monkeypatch, stop_after=7)
    stops = 0
    while True:
        try:
            run_fold(experiment, 1, say=lambda text: None)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    whole = {path.relative_to(done.fold(1)): path.read_bytes() for path in done.fold(1).rglob("*.json")}
    broken = {path.relative_to(experiment.fold_folder(1)): path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert broken == whole and len(whole) == 2 * 8


def experiment_of(done: Done, run: Path | None = None) -> TasksExperiment:
    recipes = ",".join(str(done.root / f"tiny-{kind}.yaml") for kind in ("detection", "segmentation"))
    return make_experiment("nano", done.root, run or done.root / "run", recipes, "smoke", 2)


# Figure 4


def test_head_depth_gives_rows_of_each_depth_beside_the_reference(done: Done, tmp_path: Path) -> None:
    command = ["experiment", "head-depth", "nano", *done.options, "--more-pairs", "", "--depths", "1,3"]
    vifa_train(*command, "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert set(rows[0]) >= KEYS | {"layers", "head_params", "fold"}
    assert {(row["task"], row["layers"]) for row in rows} == {
        (task, layers) for task in ("tiny-detection", "tiny-segmentation") for layers in (0, 1, 3)
    }
    parameters = {row["layers"]: row["head_params"] for row in rows}
    assert parameters[3] - parameters[1] == 2 * (16 * 16 * 9 + 16) and parameters[0] == 0
    references = {(row["task"], row["metric"]): row for row in rows if row["layers"] == 0}
    for (task, metric), row in references.items():
        assert row["ratio"] in (1, None), (task, metric)


# Learning


def test_a_segmenter_of_a_few_dozen_steps_beats_the_commonest_class(tmp_path: Path) -> None:
    schedule = SCHEDULE | {"steps": 40, "batch": 4, "crop": 96, "learning_rate": 0.02, "validate_every": 40}
    schedule |= {"norm_batches": 4}
    recipe = make_recipe(tmp_path, SEGMENTATION, presets={"smoke": {"task": schedule, "head": SCHEDULE}})
    training, unseen = StreetData(8, seed=5), StreetData(6, seed=6)
    torch.manual_seed(0)
    pictures, preset = Pictures(training, show_thermal), recipe.preset("smoke")
    segmenter = train_alone(ToySegmenter(3), pictures, recipe, preset, tmp_path / "run")
    truths = [unseen[index].mask for index in range(6)]
    common = int(np.bincount(np.concatenate([mask.ravel() for mask in truths])).argmax())
    trivial = mean_iou(confusion_matrices(truths, [np.full_like(mask, common) for mask in truths], 3).sum(axis=0))
    assert evaluate_task(segmenter, show_thermal, unseen, recipe)["miou"] > trivial + 0.05


# Refusals


def refused(message: str, *arguments: str | Path) -> None:
    with pytest.raises(MENDABLE, match=message) as caught:
        vifa_train(*arguments)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_run_is_refused_in_one_line(done: Done, tmp_path: Path) -> None:
    run = ["--data", done.root, "--run", tmp_path / "run"]
    detection = done.root / "tiny-detection.yaml"
    one = [*run, "--task", detection, "--preset", "smoke", "--more-pairs", ""]
    tasks = ["experiment", "tasks"]
    refused("no fusion network is called 'giant'; use one of ", *tasks, "giant", *one)
    refused("share a name; give each once", *tasks, "nano", *run, "--task", f"{detection},{detection}")
    refused("recipe tiny-detection has no preset 'paper'", *tasks, "nano", *one, "--preset", "paper")
    refused("no task recipe is called 'nothing'; use", *tasks, "nano", *run, "--task", "nothing")
    refused("there is no fold 5 of 4; use 1 to 4", *tasks, "nano", *one, "--only-fold", "5")
    refused("12 samples can't be divided into 13 folds", *tasks, "nano", *one, "--folds", "13")
    again = write(tmp_path / "again", DETECTION, name="again")
    refused("are of one task; rename it in one of the files", *tasks, "nano", *run, "--task", f"{detection},{again}")
    shared = write(tmp_path / "recipes", DETECTION, task="shared")
    refused("the backbone's own head is called shared; rename", *tasks, "nano", *one, "--task", shared)
    refused("--depths must be whole numbers of 1 or more", "experiment", "head-depth", "nano", *one, "--depths", "0,1")
    assert not (tmp_path / "run").exists()


def test_evaluate_names_what_is_missing(done: Done, tmp_path: Path) -> None:
    refused("does not exist; run the experiment to its end first", "evaluate", *done.options, "--network", "tardal")
    options = [*done.options, "--folds", "3"]
    refused("does not exist; run the experiment to its end first", "evaluate", *options)
    other = write(tmp_path, SEGMENTATION, data="street:10")
    refused("does not hold 2 folds of street:10; use --folds and", "evaluate", *done.options, "--task", other)
    refused("--folds goes with --run", "evaluate", "--data", done.root, "--folds", "2")
    refused("--folds goes with --run", "evaluate", *done.options, "--part", "street:10")
    refused("--folds must be 2 or more, got 1", "evaluate", *done.options, "--folds", "1")


def test_a_file_that_cannot_be_written_is_named(done: Done, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(r"cannot write .*rows\.json", "evaluate", *done.options, "--json", tmp_path / "file" / "rows.json")


def test_other_folds_are_not_mixed_into_a_run(done: Done) -> None:
    options = [*done.options, "--folds", "3"]
    refused("belongs to a training by another recipe", "experiment", "tasks", "nano", *options, "--more-pairs", "")
