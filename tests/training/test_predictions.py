"""Predictions as files, pooled metrics against hand-computed cases, and what a network predicts of one picture."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from task_toys import DETECTION, SEGMENTATION, TOYS, InMemory, ToyDetector, ToySegmenter, make_recipe, noise_sample
from torch import Tensor, nn

from vifa_runtime.decode import decode_detections
from vifa_runtime.metrics import Detections
from vifa_training.checkpoint import TrainingError
from vifa_training.data import Sample
from vifa_training.experiments.report import print_rows
from vifa_training.pictures import show_visible
from vifa_training.predictions import load_predictions, save_predictions
from vifa_training.task_evaluation import Pooled, Prediction, evaluate_task, predict, predict_one
from vifa_training.tasks import TASK_NETWORKS, TaskNetwork, task_graph

BOX, ELSEWHERE = [10, 10, 30, 30], [50, 50, 60, 60]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, network in TOYS.items():
        monkeypatch.setitem(TASK_NETWORKS, name, network)


def found(*boxes: tuple[list[float], float, int], name: str = "") -> Prediction:
    """Boxes with score and class, as a detector's prediction."""
    corners = np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4)
    scores, labels = np.float32([score for _, score, _ in boxes]), np.int64([label for *_, label in boxes])
    return Prediction(name, detections=Detections(corners, scores, labels))


def pair(name: str, *boxes: tuple[list[float], int], tags: tuple[str, ...] = ()) -> Sample:
    """A pair with boxes of classes."""
    corners = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4)
    return noise_sample(name, 64, 64, boxes=corners, labels=np.int64([label for _, label in boxes]), tags=tags)


def values(rows: list[dict[str, Any]], method: str = "one") -> dict[str, float | None]:
    return {row["metric"]: row["mean"] for row in rows if row["method"] == method}


# Files


def test_detections_come_back_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = Detections(rng.random((40, 4), np.float32) * 640, rng.random(40, np.float32), rng.integers(0, 3, 40))
    some = [Prediction("00001D", detections=made), found(name="nothing"), found((BOX, 0.5, 1), name="é n")]
    save_predictions(tmp_path / "new/some.json", some)
    again = load_predictions(tmp_path / "new/some.json")
    assert [p.name for p in again] == ["00001D", "nothing", "é n"]
    np.testing.assert_allclose(again[0].detections.boxes, made.boxes, rtol=0, atol=0.0051)
    np.testing.assert_allclose(again[0].detections.scores, made.scores, rtol=0, atol=0.6e-6)
    assert again[0].detections.labels.tolist() == made.labels.tolist()
    assert again[1].detections.boxes.shape == (0, 4) and again[1].detections.scores.shape == (0,)
    for prediction in again:
        assert [array.dtype for array in prediction.detections] == [np.float32, np.float32, np.int64]
        assert prediction.mask is None


def test_masks_come_back_to_the_byte(tmp_path: Path) -> None:
    masks = [np.random.default_rng(seed).integers(0, 256, (33, 47 + seed), np.uint8) for seed in range(3)]
    save_predictions(tmp_path / "masks.json", [Prediction(str(i), mask=mask) for i, mask in enumerate(masks)])
    for prediction, mask in zip(load_predictions(tmp_path / "masks.json"), masks, strict=True):
        np.testing.assert_array_equal(prediction.mask, mask)
        assert prediction.mask.dtype == np.uint8 and prediction.detections is None


def png(mask: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()


@pytest.mark.parametrize(
    "content",
    [
        "", "[", "{}", "3", "null", "[3]", '["mask"]', "[{}]", "\udcff",
        '[{"name": "a"}]',
        '[{"name": "a", "boxes": [[1, 2, 3]], "scores": [1], "labels": [0]}]',
        '[{"name": "a", "boxes": [[1, 2, 3, 4]], "scores": [0.5, 0.4], "labels": [0]}]',
        '[{"name": "a", "boxes": [], "scores": ["high"], "labels": [0]}]',
        '[{"name": "a", "mask": "not base64"}]',
        '[{"name": "a", "mask": ""}]',
        '[{"name": "a", "mask": "bm8gcG5n"}]',
        '[{"mask": "bm8gcG5n"}]',
        json.dumps([{"name": "a", "mask": png(np.zeros((4, 4, 3), np.uint8))}]),
        json.dumps([{"name": "a", "mask": png(np.zeros((4, 4), np.uint16))}]),
        json.dumps([{"name": "a", "mask": png(np.zeros((4, 4), np.uint8))[:60]}]),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_predictions_is_named_with_the_mend(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vifa.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(TrainingError, match=r"vifa\.json holds no predictions \(.+\); remove it, and") as refusal:
        load_predictions(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_in_its_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"vifa\.json does not exist; run the experiment to its end first"):
        load_predictions(tmp_path / "vifa.json")
    (tmp_path / "vifa.json").mkdir()
    with pytest.raises(TrainingError, match=r"vifa\.json holds no predictions"):
        load_predictions(tmp_path / "vifa.json")


# Pooled metrics


def test_detections_of_all_folds_are_ranked_together(tmp_path: Path) -> None:
    """Hit (0.9), miss (0.8), hit (0.5): precision 1 up to a recall of 1/2, at 51 of 101 points, then 2/3.

    The mean of the two images by themselves would be (1 + 1/2) / 2.
    """
    recipe = make_recipe(tmp_path, DETECTION)
    pairs = [pair("a", (BOX, 0)), pair("b", (BOX, 0))]
    made = [found((BOX, 0.9, 0)), found((ELSEWHERE, 0.8, 0), (BOX, 0.5, 0))]
    rows = Pooled(recipe, pairs, {"one": made}).rows("one", resamples=10)
    expected = round((51 + 50 * 2 / 3) / 101, 4)
    assert values(rows) == {"map50": expected, "map50_all": expected, "ap50_person": expected, "ap50_car": None}
    assert {row["pairs"] for row in rows} == {2}


def test_rare_classes_count_in_the_map_of_all_alone(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, DETECTION, rare=["car"])
    pairs = [pair("a", (BOX, 0), (ELSEWHERE, 1)), pair("b", (BOX, 1))]
    made = [found((BOX, 0.9, 0), (ELSEWHERE, 0.8, 1)), found((ELSEWHERE, 0.9, 1))]
    half = 0.5 * 51 / 101  # the car's only hit comes after a miss, and the other car is not found
    assert values(Pooled(recipe, pairs, {"one": made}).rows("one", 10)) == {
        "map50": 1, "map50_all": round((1 + half) / 2, 4), "ap50_person": 1, "ap50_car": round(half, 4),
    }  # fmt: skip


def test_the_gain_of_a_method_over_others_is_paired(tmp_path: Path) -> None:
    """The worse method lacks the last of twelve pairs: what a resample tells apart is how often it holds that one."""
    recipe = make_recipe(tmp_path, DETECTION)
    pairs = [pair(name, (BOX, 0)) for name in "abcdefghijkl"]
    made = {"good": [found((BOX, 0.9, 0))] * 12, "bad": [found((BOX, 0.9, 0))] * 11 + [found((ELSEWHERE, 0.1, 0))]}
    pooled = Pooled(recipe, pairs, made)
    gains = {row["method"]: row for row in pooled.rows("good", 200, against="good") if row["metric"] == "map50"}
    bad, good = gains["bad"], gains["good"]
    assert (good["gain"], good["gain_low"], good["gain_high"]) == (0, 0, 0)
    assert bad["gain"] == pytest.approx(good["mean"] - bad["mean"], abs=1e-4)
    assert bad["gain_low"] == 0 < bad["gain"] < bad["gain_high"], "some resamples do not hold it"
    assert "gain" not in pooled.rows("good", 10)[0]


def test_day_and_night_are_of_their_own_pairs(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, DETECTION)
    tags = ["day", "night", "day", "night", "day"]
    pairs = [pair(str(index), (BOX, 0), tags=(tag,)) for index, tag in enumerate(tags)]
    made = [found((BOX, 0.9, 0)) if tag == "day" else found((ELSEWHERE, 0.9, 0)) for tag in tags]
    rows = Pooled(recipe, pairs, {"one": made}).rows("one", 50)
    assert (values(rows)["map50_day"], values(rows)["map50_night"]) == (1, 0)
    assert {row["metric"]: row["pairs"] for row in rows if row["metric"].startswith("map50_")} == {
        "map50_all": 5, "map50_day": 3, "map50_night": 2,
    }  # fmt: skip
    by_day = Pooled(recipe, pairs[::2], {"one": made[::2]}).rows("one", 10)
    assert "map50_night" not in values(by_day) and values(by_day)["map50_day"] == 1


def test_pixels_of_all_images_are_counted_together(tmp_path: Path) -> None:
    """4 + 60 pixels, one class 1 in each image; class 2 is nowhere, and what is unknown counts nowhere.

    Class 0: 2 + 58 right of 3 + 59 either way. Class 1: 1 + 1 right of 2 + 2.
    """
    recipe = make_recipe(tmp_path, SEGMENTATION)
    truths = [np.zeros((2, 2), np.uint8), np.zeros((6, 10), np.uint8)]
    made = [truth.copy() for truth in truths]
    for truth, mask in zip(truths, made, strict=True):
        truth[0, 0] = mask[0, 0] = 1
        mask[0, 1] = 1
    truths[1] = np.vstack([truths[1], np.full((1, 10), 255, np.uint8)])
    made[1] = np.vstack([made[1], np.full((1, 10), 2, np.uint8)])
    pairs = [noise_sample(str(i), *mask.shape, mask=mask) for i, mask in enumerate(truths)]
    pooled = Pooled(recipe, pairs, {"one": [Prediction("", mask=mask) for mask in made]})
    assert values(pooled.rows("one", 10)) == {"miou": round((60 / 62 + 2 / 4) / 2, 4)}


def test_a_resample_without_a_rare_class_says_nothing_of_the_map_of_all(tmp_path: Path) -> None:
    """Every person is found and no car: of person and car the map is 1/2, of person alone it would be 1."""
    recipe = make_recipe(tmp_path, DETECTION, rare=["car"])
    pairs = [pair(str(index), (BOX, 0), *([(ELSEWHERE, 1)] if index == 0 else [])) for index in range(8)]
    pooled = Pooled(recipe, pairs, {"one": [found((BOX, 0.9, 0))] * 8})
    rows = {row["metric"]: row for row in pooled.rows("one", resamples=200)}
    assert [rows["map50_all"][key] for key in ("mean", "low", "high")] == [0.5, 0.5, 0.5]
    assert [rows["map50"][key] for key in ("mean", "low", "high")] == [1, 1, 1]
    images, score = pooled.metrics()["map50_all"]
    assert score(pooled.of["one"], images) == 0.5 and np.isnan(score(pooled.of["one"], images[1:]))


def random_pooled(folder: Path, kind: dict, count: int = 24) -> Pooled:
    """Two methods, of which `good` is wrong in a tenth of the cases and `poor` in half of them."""
    rng = np.random.default_rng(3)
    names = [f"{index:02}{'DN'[index % 2]}" for index in range(count)]
    tags = [("day", "night")[index % 2] for index in range(count)]
    recipe, made = make_recipe(folder, kind), {}
    if kind is DETECTION:
        labels = rng.integers(0, 2, count)
        pairs = [pair(name, (BOX, label), tags=(tag,)) for name, label, tag in zip(names, labels, tags, strict=True)]
        for method, wrong in (("good", 0.1), ("poor", 0.5)):
            boxes = [ELSEWHERE if rng.random() < wrong else BOX for _ in names]
            made[method] = [
                found((box, score, label))
                for box, label, score in zip(boxes, labels, rng.random(count).astype(np.float32), strict=True)
            ]
    else:
        masks = [rng.integers(0, 3, (8, 8)).astype(np.uint8) for _ in names]
        pairs = [noise_sample(n, 8, 8, mask=m, tags=(t,)) for n, m, t in zip(names, masks, tags, strict=True)]
        for method, wrong in (("good", 0.1), ("poor", 0.5)):
            guesses = [np.where(rng.random((8, 8)) < wrong, 0, mask).astype(np.uint8) for mask in masks]
            made[method] = [Prediction("", mask=guess) for guess in guesses]
    return Pooled(recipe, pairs, made)


@pytest.mark.parametrize("kind", [DETECTION, SEGMENTATION])
def test_intervals_hold_their_mean_and_ratios_are_to_the_reference(tmp_path: Path, kind: dict) -> None:
    rows = random_pooled(tmp_path, kind).rows("good", resamples=200)
    means = {(row["method"], row["metric"]): row["mean"] for row in rows}
    for row in rows:
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 1
        assert row["low"] < row["high"]
        if row["method"] == "good":
            assert row["ratio"] == row["ratio_low"] == row["ratio_high"] == 1
        else:
            expected = row["mean"] / means["good", row["metric"]]
            assert row["ratio"] == pytest.approx(expected, abs=2e-4)
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert [row["method"] for row in rows] == ["good", "poor"] * (len(rows) // 2)
    assert rows == random_pooled(tmp_path, kind).rows("good", resamples=200), "by the seed alone"


@pytest.mark.parametrize("count", [1, 2])
def test_a_pair_or_two_give_rows_too(tmp_path: Path, count: int) -> None:
    for kind in (DETECTION, SEGMENTATION):
        rows = random_pooled(tmp_path, kind, count).rows("good", resamples=10)
        assert {row["pairs"] for row in rows} <= {1, 2} and json.dumps(rows, allow_nan=False)


def test_what_is_not_defined_is_no_number_in_rows_and_a_dash_in_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detection, segmentation = make_recipe(tmp_path, DETECTION), make_recipe(tmp_path, SEGMENTATION)
    unknown = np.full((4, 4), 255, np.uint8)
    cases = [
        Pooled(detection, [pair("a"), pair("b")], {"one": [found(), found((BOX, 0.9, 1))]}),
        Pooled(segmentation, [noise_sample("a", 4, 4, mask=unknown)], {"one": [Prediction("a", mask=unknown)]}),
        Pooled(detection, [pair("a", (BOX, 0)), pair("b")], {"one": [found(), found()]}),
    ]
    expected = [
        dict.fromkeys(("map50", "map50_all", "ap50_person", "ap50_car")),
        {"miou": None},
        {"map50": 0, "map50_all": 0, "ap50_person": 0, "ap50_car": None},
    ]
    for pooled, means in zip(cases, expected, strict=True):
        rows = pooled.rows("one", resamples=20)
        assert values(rows) == means
        assert json.dumps(rows, allow_nan=False)
        print_rows([{"task": "tiny", "network": "nano", **row} for row in rows])
        printed = capsys.readouterr().out
        assert "nan" not in printed.replace("nano", "").lower() and "None" not in printed and " - " in f"{printed} "


# Predicting


def bright_detector() -> ToyDetector:
    """Believes in class 1 where a cell is all white, in nothing elsewhere."""
    detector = ToyDetector(2)
    for parameter in detector.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        detector.layers[0].weight[0] = 1 / 192
        detector.layers[2].weight[1, 0] = 40
        detector.layers[2].bias.copy_(torch.tensor([-20.0, -20.0]))
    return detector


@pytest.mark.parametrize("shrink", [1, 2])
def test_boxes_are_in_pixels_of_the_picture_and_end_at_its_edge(shrink: int) -> None:
    picture, side = np.zeros((64 * shrink, 96 * shrink, 3), np.uint8), 8 * shrink
    picture[2 * side : 3 * side, 5 * side : 6 * side] = picture[:side, :side] = 255
    boxes, scores, labels = predict_one(bright_detector(), picture, "p", shrink).detections
    order = np.argsort(boxes[:, 0])
    middle = [4.5 * side, 1.5 * side, 6.5 * side, 3.5 * side]
    np.testing.assert_allclose(boxes[order], [[0, 0, 1.5 * side, 1.5 * side], middle], atol=1e-3)
    assert labels.tolist() == [1, 1] and scores.min() > 0.999


class Twice(ToyDetector):
    """Finds everything two times."""

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        return {key: tensor.repeat(1, 2, 1) for key, tensor in super().predict(image).items()}


def test_one_box_stays_of_several_in_one_place_and_none_where_nothing_is() -> None:
    detector, picture = Twice(2), np.zeros((64, 64, 3), np.uint8)
    detector.load_state_dict(bright_detector().state_dict())
    assert predict_one(detector, picture).detections.boxes.shape == (0, 4)
    picture[16:24, 16:32] = 255
    boxes = predict_one(detector, picture).detections.boxes
    np.testing.assert_allclose(boxes[np.argsort(boxes[:, 0])], [[12, 12, 28, 28], [20, 12, 36, 28]], atol=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (65, 99)])
@pytest.mark.parametrize("shrink", [1, 2])
@pytest.mark.parametrize("kind", [ToySegmenter, ToyDetector])
def test_predictions_are_those_of_the_exported_graph(
    kind: type[TaskNetwork], shrink: int, size: tuple[int, int]
) -> None:
    network, graph = network_and_graph(kind, shrink)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    picture = noise_sample("p", *size).visible
    made = predict_one(network, picture, "p", shrink)
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(names, {"image": picture[None]}), strict=True))
    if kind is ToySegmenter:
        assert made.mask.shape == size and made.detections is None
        assert (made.mask == results["mask"][0]).mean() > 0.999 and len(np.unique(made.mask)) > 1
        return
    edges = np.float32([size[1], size[0]] * 2)
    expected = decode_detections(np.clip(results["boxes"][0], 0, edges), results["scores"][0], 0.001, 0.6, 300)
    for ours, theirs in zip(made.detections, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert len(expected.boxes) > 20


@cache
def network_and_graph(kind: type[TaskNetwork], shrink: int) -> tuple[TaskNetwork, bytes]:
    torch.manual_seed(0)
    network = kind(3).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network, task_graph(network, shrink)


def test_every_pair_is_predicted_under_its_name_in_order() -> None:
    pairs = InMemory(*(noise_sample(f"pair{seed}", 64, 64, seed) for seed in (2, 0, 1)))
    torch.manual_seed(0)
    network = ToySegmenter(3)
    made = predict(network, show_visible, pairs)
    assert [prediction.name for prediction in made] == ["pair2", "pair0", "pair1"]
    for prediction, sample in zip(made, pairs.samples, strict=True):
        np.testing.assert_array_equal(prediction.mask, predict_one(network, sample.visible).mask)
    assert not network.training


def test_a_task_network_is_evaluated_as_its_predictions_are(tmp_path: Path) -> None:
    """The bright cell's box is the person's; with the label of the other class it finds nothing."""
    white = np.zeros((64, 64, 3), np.uint8)
    white[16:24, 16:24] = 255
    right = replace(pair("a", ([12, 12, 28, 28], 1)), visible=white)
    wrong = replace(right, labels=np.int64([0]))
    recipe = make_recipe(tmp_path, DETECTION)
    for sample, expected in ((right, 1), (wrong, 0)):
        assert evaluate_task(bright_detector(), show_visible, InMemory(sample), recipe)["map50"] == expected
