"""`vifa-train evaluate`: rows, means and files against values computed here, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from skimage.measure import shannon_entropy
from skimage.metrics import structural_similarity
from task_graphs import CELLS, GLARE, detector, segmenter
from typer.testing import CliRunner

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, BundleError, Task, load_bundle, write_bundle
from vifa_runtime.files import write_atomically
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.labels import format_yolo, read_yolo
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.metrics import Labels, mean_average_precision
from vifa_runtime.pairs import PairError, find_pairs, read_thermal, read_visible, write_image
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.scoring import Scores, for_evaluation, gray_thermal
from vifa_training.commands.evaluate import evaluate as evaluate_command
from vifa_training.evaluation import (
    BASELINES,
    METRICS,
    EvaluationError,
    evaluate,
    mean_rows,
    read_metric_rows,
    split_of,
)
from vifa_training.export import export_bundle
from vifa_training.networks import build_network

PROVENANCE = {"data": "none", "seed": 0, "commit": "none", "date": "2026-01-01"}
LICENCES = {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bundles: `one`, a small network with two random heads, and `other` with the second of them as `first`."""
    root, tasks = tmp_path_factory.mktemp("bundles"), [Task(name, "fusion", name) for name in ("first", "second")]
    torch.manual_seed(0)
    network = build_network("nano", [task.name for task in tasks])
    for head in network.heads.values():
        torch.nn.init.normal_(head.change.weight, std=0.05)
    manifest = {"name": "one", "licences": LICENCES, "provenance": PROVENANCE}
    one = export_bundle(network, tasks, root / "one", manifest, "card")
    manifest = {key: value for key, value in one.manifest.items() if key not in ("format", "files")}
    graphs = {"backbone.onnx": one.graphs["backbone.onnx"], "heads/first.onnx": one.graphs["heads/second.onnx"]}
    write_bundle(root / "other", {**manifest, "name": "other", "tasks": manifest["tasks"][:1]}, graphs)
    return {name: root / name for name in ("one", "other")}


@pytest.fixture(scope="module")
def bundles(folders: dict[str, Path]) -> list[Bundle]:
    return [load_bundle(folder) for folder in folders.values()]


def run(*arguments: str | Path) -> list[str]:
    """Lines that the command prints; its errors are raised, as `vifa-train` sees them."""
    app = typer.Typer()
    app.command()(evaluate_command)
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def by_hand(data: Path, fuse: dict[str, object]) -> dict[str, dict[str, float]]:
    """Means over `data` of what can be written down in a line, by method; `fuse` gives images of (rgb, y, thermal)."""
    means = {}
    for name, function in fuse.items():
        values = []
        for pair in find_pairs(data):
            rgb, t = read_visible(pair.visible), read_thermal(pair.thermal).astype(float)
            y = np.rint(rgb_to_luma(rgb)).astype(float)
            f = function(rgb, y, t)
            values.append(
                [
                    shannon_entropy(f),
                    np.sqrt((np.diff(f, axis=0) ** 2).mean() + (np.diff(f, axis=1) ** 2).mean()),
                    sum(structural_similarity(source, f, data_range=2) for source in (y, t)),
                    f[t >= np.percentile(t, 98)].mean() - f.mean(),
                ]
            )
        means[name] = dict(zip(("en", "sf", "ssim", "target_contrast"), np.mean(values, axis=0), strict=True))
    return means


def test_the_command_prints_and_writes_every_row(data: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    files = ["--json", tmp_path / "out" / "means.json", "--csv", tmp_path / "out" / "images.csv"]
    printed = run(*folders.values(), "--data", data, "--part", "train", "--part", "val", *files)
    for name in ("one", "other", "first", "second", *BASELINES):
        assert any(name in line for line in printed)

    result = json.loads((tmp_path / "out" / "means.json").read_text())
    assert {"command", "machine", "versions", "commit", "seed", "date", "bundles"} == set(result["meta"])
    assert result["meta"]["bundles"]["other"] == {"network": "nano", **PROVENANCE}
    rows = result["rows"]
    first_keys = ["data", "split", "network", "metric", "value", "epochs"]
    assert all(list(row) == [*first_keys, "task", "pairs", "bundle"] for row in rows)
    methods = [("nano", "first", "one"), ("nano", "second", "one"), ("nano", "first", "other")]
    methods += [(name, None, None) for name in BASELINES]
    expected = [(split, *method, metric) for split in ("train", "val") for method in methods for metric in METRICS]
    assert [(row["split"], row["network"], row["task"], row["bundle"], row["metric"]) for row in rows] == expected
    assert {row["data"] for row in rows} == {data.name}
    assert {(row["split"], row["pairs"]) for row in rows} == {("train", 12), ("val", 4)}
    assert {(row["bundle"] is None, row["epochs"]) for row in rows} == {(True, 0), (False, None)}

    first, second, other = ([row["value"] for row in rows[k : k + 7]] for k in (0, 7, 14))
    assert other == second != first  # `other` has that head

    images = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert Counter(image["split"] for image in images) == {"train": 12 * 7, "val": 4 * 7}
    assert len({(i["split"], i["image"], i["network"], i["task"], i["bundle"]) for i in images}) == 16 * 7
    for row in rows:
        key = {name: row[name] or "" for name in ("data", "split", "network", "task", "bundle")}
        own = [float(image[row["metric"]]) for image in images if key.items() <= image.items()]
        assert row["value"] == pytest.approx(np.mean(own), abs=1e-6)  # the file has 6 decimals


def test_the_values_are_those_computed_by_hand(data: Path, bundles: list[Bundle]) -> None:
    pipeline = FusionPipeline(bundles[0], prepare("onnxruntime", bundles[0], Options(threads=1)))
    fuse = {
        "second": lambda rgb, y, t: np.rint(
            rgb_to_luma(pipeline.process(rgb, t.astype(np.uint8)).fused["second"])
        ).astype(float),
        "average": lambda rgb, y, t: np.rint((y + t) / 2),
        "maximum": lambda rgb, y, t: np.where(y > t, y, t),
        "visible": lambda rgb, y, t: y,
        "thermal": lambda rgb, y, t: t,
    }
    rows = mean_rows(evaluate(bundles[:1], data, ["val"]))
    values = {(row["task"] or row["network"], row["metric"]): row["value"] for row in rows}
    for name, expected in by_hand(data / "val", fuse).items():
        for metric, value in expected.items():
            assert values[name, metric] == pytest.approx(value, abs=1e-9), (name, metric)
    assert values["visible", "ssim_visible"] == 1
    assert values["visible", "vif"] > 1 and values["thermal", "vif"] > 1  # 1 for the copied source, and the other
    assert values["visible", "ssim_mean"] == values["thermal", "ssim_mean"] > 0.5


def test_several_processes_give_the_same(data: Path, bundles: list[Bundle]) -> None:
    steps: list[tuple[int, int]] = []
    alone = evaluate(bundles, data, ["train"], advance=lambda *step: steps.append(step))
    assert steps == [(0, 12), (4, 12), (8, 12), (12, 12)]
    assert evaluate(bundles, data, ["train"], jobs=2) == alone


def test_any_thermal_depth_and_size_is_evaluated_at_the_visible_images(
    data: Path, bundles: list[Bundle], tmp_path: Path
) -> None:
    for pair in find_pairs(data / "val"):
        gray = read_thermal(pair.thermal)
        gray[0, 0], gray[0, 4] = 0, 255  # both in the sample that limits are measured on
        for folder, thermal in (
            ("gray", gray),
            ("raw", 30000 + 40 * gray.astype(np.uint16)),
            ("small", gray[::2, ::2]),
        ):
            write_image(tmp_path / folder / "vi" / f"{pair.name}.png", read_visible(pair.visible))
            write_image(tmp_path / folder / "ir" / f"{pair.name}.png", thermal)
    values = {}
    for row in mean_rows(evaluate(bundles[:1], tmp_path, ["gray", "raw", "small"])):
        assert row["split"] == "all" and row["pairs"] == 4
        values.setdefault((row["network"], row["metric"]), []).append(row["value"])
    for gray_level, raw, small in (values["thermal", "en"], values["maximum", "vif"]):
        assert raw == pytest.approx(gray_level, rel=0.2)
        assert small == pytest.approx(gray_level, rel=0.4)


# What tasks find


@pytest.fixture(scope="module")
def finding(bundles: list[Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose tasks find cells and glare (see task_graphs.py) in the image of the first head."""
    manifest = {key: value for key, value in bundles[0].manifest.items() if key not in ("format", "files")}
    graphs = {"backbone.onnx": bundles[0].graphs["backbone.onnx"], "tasks/cells.onnx": detector()}
    graphs |= {f"heads/{name}.onnx": bundles[0].graphs["heads/first.onnx"] for name in ("cells", "glare")}
    folder = tmp_path_factory.mktemp("finding") / "finding"
    tasks = [{**CELLS, "score": 0.9}, GLARE]
    write_bundle(folder, {**manifest, "name": "finding", "tasks": tasks}, {**graphs, "tasks/glare.onnx": segmenter()})
    return folder


def open_lenient(bundle: Bundle) -> FusionPipeline:
    """A pipeline whose detector gives all it finds, written down here once more."""
    tasks = (replace(bundle.tasks[0], score=0.001, iou=0.6, max_detections=300), bundle.tasks[1])
    bundle = replace(bundle, tasks=tasks)
    return FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))


@pytest.fixture(scope="module")
def labelled(data: Path, finding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs of `val`; the first three with boxes near some of those that are found, the first two with masks."""
    root, pipeline = tmp_path_factory.mktemp("labelled"), open_lenient(load_bundle(finding))
    for name in ("vi", "ir"):
        shutil.copytree(data / "val" / name, root / "set" / name)
    for index, pair in enumerate(find_pairs(root / "set")[:3]):
        found = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal)).detections["cells"]
        chosen = np.flatnonzero(found.labels < 2)[index::9]  # so that nothing is blue
        boxes = (found.boxes[chosen] + [index, 1, 0, 1]).clip(0).astype(np.float32)
        text = format_yolo(Labels(boxes, found.labels[chosen]), (96, 128))
        write_atomically(root / "set/labels" / f"{pair.name}.txt", text.encode())
        if index < 2:
            mask = (read_visible(pair.visible).sum(axis=2) > 300).astype(np.uint8)
            mask[:9] = 255
            write_image(root / "set/masks" / f"{pair.name}.png", mask)
    return root


def test_boxes_and_masks_are_measured_where_there_are_labels(finding: Path, labelled: Path) -> None:
    bundle = load_bundle(finding)
    rows = mean_rows(evaluate([bundle], labelled, ["set"], jobs=2))
    values = {
        (row["task"], row["metric"]): (row["value"], row["pairs"]) for row in rows if row["metric"] not in METRICS
    }

    pipeline = open_lenient(bundle)
    found, true, hit, either = [], [], np.zeros(2), np.zeros(2)
    for pair in find_pairs(labelled / "set"):
        results = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal))
        if (text := labelled / "set/labels" / f"{pair.name}.txt").exists():
            found.append(results.detections["cells"])
            true.append(read_yolo(text, (96, 128), 3))
        if (path := labelled / "set/masks" / f"{pair.name}.png").exists():
            mask, predicted = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), results.masks["glare"]
            for number in (0, 1):
                a, b = mask == number, (predicted == number) & (mask != 255)
                hit[number] += (a & b).sum()
                either[number] += (a | b).sum()
    expected = mean_average_precision(found, true, 3)
    assert values.pop(("cells", "map50_all")) == (pytest.approx(expected.map50, abs=1e-12), 3)
    assert 0.01 < expected.map50 < 0.99
    assert values.pop(("cells", "map50_95_all")) == (pytest.approx(expected.map50_95, abs=1e-12), 3)
    for name, value in zip(("red", "green"), expected.ap50, strict=False):
        assert values.pop(("cells", f"ap50_{name}")) == (pytest.approx(value, abs=1e-12), 3)
    assert values.pop(("glare", "miou")) == (pytest.approx((hit / either).mean(), abs=1e-12), 2)
    for name, value in zip(("dark", "bright"), hit / either, strict=True):
        assert values.pop(("glare", f"iou_{name}")) == (pytest.approx(value, abs=1e-12), 2)
    assert not values, "no true box is blue, so that this class has no value"


def test_the_numbers_are_those_of_the_runtimes_own_scores(finding: Path, labelled: Path) -> None:
    """By which the tests of `vifa evaluate` measure a folder too: so a bag and its folder agree."""
    bundle = for_evaluation(load_bundle(finding))
    pipeline, scores = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1))), Scores(bundle)
    labels = LabelFolder(labelled / "set", bundle.tasks)
    for pair in find_pairs(labelled / "set"):
        rgb, raw = read_visible(pair.visible), read_thermal(pair.thermal)
        results, size = pipeline.process(rgb, raw), rgb.shape[:2]
        scores.add(rgb, gray_thermal(raw, size), results, *labels.read(pair.name, size))
    rows = mean_rows(evaluate([load_bundle(finding)], labelled, ["set"]))
    found = {(row["task"], row["metric"]): (row["value"], row["pairs"]) for row in rows if row["bundle"]}
    for row in scores.rows():
        value, pairs = found[row["task"], row["metric"]]
        assert (value, pairs) == (pytest.approx(row["value"], abs=1e-12), row["pairs"])
    assert {"map50_all", "miou", "en", "vif"} <= {row["metric"] for row in scores.rows()}


def test_the_command_prints_what_was_found(finding: Path, labelled: Path, tmp_path: Path) -> None:
    printed = run(finding, "--data", labelled, "--part", "set", "--json", tmp_path / "means.json")
    rows = json.loads((tmp_path / "means.json").read_text())["rows"]
    value = next(row["value"] for row in rows if row["metric"] == "map50_all")
    assert any({"finding", "cells", "map50_all", f"{value:.3f}", "3"} <= set(line.split()) for line in printed)
    assert read_metric_rows(tmp_path / "means.json", "finding", ["cells"])[-5]["metric"] in METRICS


def test_labels_of_other_classes_are_none_of_a_task(finding: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled / "set", tmp_path / "set")
    (tmp_path / "set/classes.txt").write_text("dog\ncat\nmouse\n")
    (tmp_path / "set/mask_classes.txt").write_text("dark\nbright\n")
    rows = mean_rows(evaluate([load_bundle(finding)], tmp_path, ["set"]))
    measured = {row["metric"] for row in rows} - set(METRICS)
    assert measured == {"miou", "iou_dark", "iou_bright"}


def test_a_label_that_is_wrong_is_named(finding: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled / "set", tmp_path / "set")
    path = sorted((tmp_path / "set/labels").iterdir())[1]
    path.write_text("7 0.5 0.5 0.1 0.1\n")
    refused(
        PairError, f"{path.name}, line 1: has class 7, but there are 3", finding, "--data", tmp_path, "--part", "set"
    )


def test_epochs_come_from_the_provenance(data: Path, bundles: list[Bundle]) -> None:
    manifest = {**bundles[1].manifest, "provenance": {**PROVENANCE, "epochs": 12.5}}
    rows = mean_rows(evaluate([replace(bundles[1], manifest=manifest)], data, ["val"]))
    assert {(row["network"], row["epochs"]) for row in rows} == {("nano", 12.5), *((name, 0) for name in BASELINES)}


def test_the_baselines_need_no_bundle(data: Path) -> None:
    printed = "\n".join(run("--data", data, "--part", "val"))
    assert all(name in printed for name in BASELINES) and "val: 4 pairs" in printed


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("msrs/test", ("msrs", "test")),
        ("sets/msrs/val", ("sets/msrs", "val")),
        ("roadscene@test", ("roadscene", "test")),
        ("msrs/test@val", ("msrs/test", "val")),
        ("street", ("street", "all")),
        ("street/monday", ("street/monday", "all")),
        ("test", ("data", "test")),
        (".", ("data", "all")),
        (".@train", ("data", "train")),
    ],
)
def test_a_part_names_data_and_split(part: str, expected: tuple[str, str], tmp_path: Path) -> None:
    assert split_of(tmp_path / "data", part) == expected


# Files for the card


def test_metric_rows_are_read_for_one_bundle_and_its_tasks(
    data: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "means.json"
    run(*folders.values(), "--data", data, "--part", "val", "--json", path)
    rows = json.loads(path.read_text())["rows"]
    read = read_metric_rows(path, "one", ["second"])
    assert [list(row) for row in read] == [["data", "task", "metric", "value"]] * len(METRICS)
    assert {(row["data"], row["task"]) for row in read} == {(f"{data.name}/val", "second")}
    for bundle, task in (("one", "first"), ("one", "second"), ("other", "first")):
        own = [row["value"] for row in rows if (row["bundle"], row["task"]) == (bundle, task)]
        assert [row["value"] for row in read_metric_rows(path, bundle, [task])] == [round(value, 4) for value in own]


def test_files_that_are_no_metrics_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "means.json"
    with pytest.raises(EvaluationError, match=r"cannot read .*means\.json: No such file"):
        read_metric_rows(path, "one", ["first"])
    old = {"data": "msrs/test", "task": "first", "metric": "vif", "value": 1.0}
    for text in ("nothing", "[]", "{}", '{"rows": 3}', json.dumps({"rows": [old]}), "\udcff"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(EvaluationError, match=r"means\.json is no metrics file"):
            read_metric_rows(path, "one", ["first"])
    path.write_text('{"rows": []}')
    with pytest.raises(EvaluationError, match=r"means\.json has no row of one \(first\)"):
        read_metric_rows(path, "one", ["first"])


# Errors


def refused(kind: type[Exception], message: str, *arguments: str | Path) -> None:
    with pytest.raises(kind, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_evaluated_is_refused_in_one_line(data: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    one = folders["one"]
    refused(BundleError, "no bundle at nowhere", "nowhere", "--data", data, "--part", "val")
    refused(EvaluationError, "two bundles share a name", one, one, "--data", data, "--part", "val")
    refused(PairError, "elsewhere has no folder vi/", one, "--data", data, "--part", "elsewhere")
    refused(PairError, "'tset' is unknown", one, "--data", data, "--part", "val@tset")
    refused(EvaluationError, "val@test holds no pair", one, "--data", data, "--part", "val@test")
    (tmp_path / "file").touch()
    outputs = ["--json", tmp_path / "file" / "means.json"]
    refused(EvaluationError, "cannot write .*file", "--data", data, "--part", "val", *outputs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_picture_is_named_and_nothing_is_written(data: Path, tmp_path: Path, jobs: int) -> None:
    for index, pair in enumerate(find_pairs(data / "train")):
        small = index == 9
        for kind, image in (("vi", read_visible(pair.visible)), ("ir", read_thermal(pair.thermal))):
            write_image(tmp_path / "set" / kind / f"{pair.name}.png", image[:30] if small else image)
    arguments = ["--data", tmp_path, "--part", "set", "--jobs", jobs, "--json", tmp_path / "means.json"]
    refused(EvaluationError, r"cannot evaluate .*vi/009\.png .* at least 41x41 pixels", *arguments)
    (tmp_path / "set" / "ir" / "002.png").write_bytes(b"no image")
    refused(PairError, r"ir/002\.png is not a readable image", *arguments)
    assert not (tmp_path / "means.json").exists()


STOPPED = """
import signal
import sys
import time
from pathlib import Path
from vifa_training.evaluation import evaluate

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def advance(done, total):
        print(done, flush=True)
    evaluate([], Path(sys.argv[1]), ["train"], int(sys.argv[2]), advance)
"""


@pytest.mark.parametrize(
    ("jobs", "told", "wait"),
    [(1, ["0\n", "4\n"], 0), (2, ["0\n"], 0.1), (2, ["0\n", "4\n"], 0)],
    ids=["one", "starting", "working"],
)
def test_ctrl_c_ends_every_process_quietly(data: Path, tmp_path: Path, jobs: int, told: list[str], wait: float) -> None:
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, script, data, str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in told] == told
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, errors = process.communicate(timeout=60)  # returns when the last process that could write is gone
    assert process.returncode not in (0, None)
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")  # the script's own
