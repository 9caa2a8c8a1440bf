"""`vifa bundle quantize`: what goes into 8 bits, what is measured, and where it ends."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from task_graphs import MASK
from tiny_bundle import BYTE, FLOAT, FUSED, THERMAL, VISIBLE, contents, graph, manifest, value
from typer.testing import CliRunner

from vifa_runtime import quantize as module
from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BundleError, load_bundle, write_bundle
from vifa_runtime.cli import app
from vifa_runtime.labels import Labels
from vifa_runtime.metrics import Detections
from vifa_runtime.pairs import write_image
from vifa_runtime.pipeline import FusionPipeline, Results
from vifa_runtime.quantize import LabelledPair, QuantizeError, quantize
from vifa_runtime.scoring import Scores, for_evaluation, gray_thermal
from vifa_runtime.street import Street

node = helper.make_node
FEATURE = value("feature", FLOAT, [1, 4, "H", "W"])


@pytest.fixture(autouse=True)
def narrow_convolutions_too(monkeypatch):
    """The graphs here have few channels."""
    monkeypatch.setattr(module, "FEWEST", 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A backbone of two convolutions, the second of which reads numbers that 8 bits cannot tell apart."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Unsqueeze", ["thermal", "one"], ["warm"]),
        node("Conv", ["warm", "smooth", "nothing"], ["smoothed"], pads=[1] * 4),
        node("Mul", ["smoothed", "scale"], ["scaled"]),
        node("Conv", ["scaled", "mix", "nothing"], ["feature"]),
    ]
    constants = {
        "one": np.array([1], np.int64),
        "smooth": rng.uniform(0.05, 0.15, (4, 1, 3, 3)).astype(np.float32),
        "nothing": np.zeros(4, np.float32),
        # One channel is 10,000 times the others, and leaves them no step of their own in 8 bits.
        "scale": np.array([1, 1, 1, 1e4], np.float32).reshape(1, 4, 1, 1),
        "mix": np.concatenate([np.eye(4, dtype=np.float32)[:, :3], np.zeros((4, 1), np.float32)], axis=1)[
            ..., None, None
        ],
    }
    backbone = graph(nodes, [VISIBLE, THERMAL], [FEATURE], constants)
    after = [
        node("ReduceMean", ["feature"], ["mean"], axes=[1], keepdims=0),
        node("Unsqueeze", ["mean", "last"], ["mean_last"]),
        node("Cast", ["visible"], ["levels"], to=FLOAT),
        node("Mul", ["mean_last", "white"], ["heat"]),
        node("Add", ["levels", "heat"], ["sum"]),
        node("Mul", ["sum", "half"], ["mixed"]),
        node("Clip", ["mixed", "black", "white"], ["clipped"]),
        node("Cast", ["clipped"], ["fused"], to=onnx.TensorProto.UINT8),
    ]
    levels = {
        "black": np.float32(0),
        "white": np.float32(255),
        "half": np.float32(0.5),
        "last": np.array([3], np.int64),
    }
    files = contents() | {"backbone.onnx": backbone}
    files["heads/bright.onnx"] = graph(after, [VISIBLE, FEATURE], [FUSED], levels)
    del files["heads/blend.onnx"]
    tasks = [{"name": "bright", "kind": "fusion", "description": "for pictures"}]
    return write_bundle(tmp_path_factory.mktemp("small") / "small", manifest(tasks=tasks), files)


def pairs(count, first=0):
    street = Street(seed=3, size=(96, 128))
    frames = [street[index] for index in range(first, first + 7 * count, 7)]
    return [
        LabelledPair(visible, gray_thermal(thermal, (96, 128)).astype(np.uint8), {}, {}) for visible, thermal in frames
    ]


def operators(graph_bytes):
    return [node.op_type for node in onnx.load_model_from_string(graph_bytes).graph.node]


def test_what_8_bits_cannot_hold_stays_in_float(small):
    result = quantize(small, pairs(3), pairs(3, 100), limit=0.02)
    assert result.convolutions == {"backbone.onnx": (1, 2), "heads/bright.onnx": (0, 0)}
    model = onnx.load_model_from_string(result.graphs["backbone.onnx"])
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    in_8_bits = [array for array in held.values() if array.dtype == np.int8 and array.ndim == 4]
    assert [array.shape for array in in_8_bits] == [(4, 1, 3, 3)], "the kernel of the first convolution"
    assert result.graphs["heads/bright.onnx"] == small.graphs["heads/bright.onnx"]
    for row in result.rows:
        assert abs(row["change"]) <= 0.02 or row["metric"] not in module.STEADY
        assert row["after"] == pytest.approx(row["before"] * (1 + row["change"]), abs=2e-4)


def test_an_image_that_turns_into_a_copy_of_one_source_is_not_taken_for_a_better_one(small):
    """With both convolutions in 8 bits, nothing of the thermal image is left, and VIF and SSIM rise."""
    rows = quantize(small, pairs(3), pairs(3, 100), limit=5.0).rows
    change = {row["metric"]: row["change"] for row in rows}
    assert change["vif"] > 0.02 and change["ssim"] > 0.02 and change["en"] < -0.02


def test_a_limit_that_allows_all_takes_all(small):
    result = quantize(small, pairs(3), pairs(3, 100), limit=5.0)
    assert result.convolutions["backbone.onnx"] == (2, 2)
    assert operators(result.graphs["backbone.onnx"]).count("DequantizeLinear") >= 4


def test_a_limit_that_allows_nothing_is_a_refusal(small, monkeypatch):
    monkeypatch.setattr(module, "_compare", lambda before, after: [{"metric": "vif", "change": -0.5}])
    with pytest.raises(QuantizeError, match=r"no convolution of tiny can be in 8 bits within 1\.0% of en, vif"):
        quantize(small, pairs(2), pairs(2, 100))
    with pytest.raises(QuantizeError, match="needs pairs to calibrate on and others to measure on"):
        quantize(small, pairs(2), [])


@pytest.fixture(scope="module")
def segmenting(small, tmp_path_factory):
    """The same with a task that calls a pixel bright by a convolution."""
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weights", "bias"], ["scores"]),
        node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
        node("Cast", ["ids"], ["mask"], to=BYTE),
    ]
    weights = np.array([[1, 1, 1], [2, 2, 2]], np.float32).reshape(2, 3, 1, 1)
    constants = {"weights": weights, "bias": np.array([0, -300], np.float32)}  # bright above a sum of 300
    names = ("backbone.onnx", "heads/bright.onnx")
    files = {"README.md": b"# small", **{name: small.graphs[name] for name in names}}
    files["tasks/bright.onnx"] = graph(nodes, [value("image", BYTE, [1, "H", "W", 3])], [MASK], constants)
    classes = [{"name": "dark"}, {"name": "bright"}]
    tasks = [{"name": "bright", "kind": "segmentation", "classes": classes}]
    return write_bundle(tmp_path_factory.mktemp("segmenting") / "small", manifest(tasks=tasks), files)


@pytest.mark.parametrize(("labelled", "quantized"), [(True, 1), (False, 0)])
def test_a_task_is_quantized_only_where_labels_tell_what_it_costs(segmenting, labelled, quantized):
    evaluation = pairs(3, 100)
    if labelled:
        pipeline = FusionPipeline(segmenting, prepare("onnxruntime", segmenting, Options(threads=1)))
        masks = [pipeline.process(pair.visible, pair.thermal).masks["bright"].copy() for pair in evaluation]
        evaluation = [replace(pair, masks={"bright": mask}) for pair, mask in zip(evaluation, masks, strict=True)]
    said = []
    result = quantize(segmenting, pairs(3), evaluation, limit=0.1, say=said.append)
    assert result.convolutions["tasks/bright.onnx"] == (quantized, 1)
    assert (result.graphs["tasks/bright.onnx"] == segmenting.graphs["tasks/bright.onnx"]) is not labelled
    assert ("tasks/bright.onnx: stays as it is, no labels tell what 8 bits would cost it" in said) is not labelled
    assert ({row["metric"] for row in result.rows} >= {"miou"}) is labelled


def test_narrow_convolutions_stay_in_floats_but_depthwise_ones(monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 4)
    weights = {"narrow": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "wide": (8, 8, 1, 1)}
    nodes = [
        node("Conv", ["image", "narrow"], ["a"], name="of 3"),
        node("Conv", ["a", "depthwise"], ["b"], name="of each", group=8),
        node("Conv", ["b", "wide"], ["out"], name="of 8"),
    ]
    constants = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    data = graph(nodes, [value("image", FLOAT, [1, 3, 8, 8])], [value("out", FLOAT, [1, 8, 4, 4])], constants)
    assert module._gaining(data) == ["of each", "of 8"]


@pytest.mark.parametrize(
    ("most", "counts"), [(0, []), (1, [1]), (3, [3, 2, 1]), (75, [75, 66, 57, 47, 38, 29, 19, 10])]
)
def test_counts_that_are_tried(most, counts):
    assert module._counts(most) == counts


def test_what_is_between_convolutions_in_8_bits_is_too():
    """An activation, a sum and a product; not what floats enter, nor what leads out of the graph."""
    weights = {f"w{n}": np.ones((2, 2, 1, 1), np.float32) for n in range(4)} | {"twice": np.float32(2)}
    nodes = [
        node("Conv", ["image", "w0"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="activation"),
        node("Conv", ["b", "w1"], ["c"], name="second"),
        node("Add", ["b", "c"], ["d"], name="sum"),
        node("Mul", ["d", "twice"], ["e"], name="scaled"),
        node("Conv", ["e", "w2"], ["f"], name="third"),
        node("Add", ["f", "image"], ["g"], name="with floats"),
        node("Conv", ["g", "w3"], ["h"], name="fourth"),
        node("Sigmoid", ["h"], ["out"], name="end"),
    ]
    data = graph(nodes, [value("image", FLOAT, [1, 2, 8, 8])], [value("out", FLOAT, [1, 2, 8, 8])], weights)
    every = ["first", "second", "third", "fourth"]
    assert module._with_between(data, every) == [*every, "scaled", "sum", "activation"]
    assert module._with_between(data, ["second", "third"]) == ["second", "third"], "b is in floats, and so is the sum"
    assert module._with_between(data, ["first", "second"]) == ["first", "second", "activation"]


def test_labels_may_lie_in_several_folders(tmp_path, segmenting):
    """As for tasks that were learned from different data: a folder without masks does not keep the task in floats."""
    frames = pairs(4, 100)
    pipeline = FusionPipeline(segmenting, prepare("onnxruntime", segmenting, Options(threads=1)))
    for index, pair in enumerate(frames):
        folder = tmp_path / ("plain" if index % 2 else "masked")
        write_image(folder / "vi" / f"{index}.png", pair.visible)
        write_image(folder / "ir" / f"{index}.png", np.repeat(pair.thermal[..., None], 3, axis=2))
        if not index % 2:
            mask = pipeline.process(pair.visible, pair.thermal).masks["bright"]
            write_image(folder / "masks" / f"{index}.png", mask)
    source = tmp_path / "source"
    manifest_of = {k: v for k, v in segmenting.manifest.items() if k not in ("format", "files")}
    write_bundle(source, manifest_of, {**segmenting.graphs, "README.md": b"# small\n"})
    command = ["bundle", "quantize", str(source), "-o", str(tmp_path / "int8"), "--limit", "0.1", "--json"]
    command += [word for name in ("plain", "masked") for word in ("--pairs", str(tmp_path / name))]
    command += [word for name in ("plain", "masked") for word in ("--evaluation", str(tmp_path / name))]
    rows = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)["rows"]
    counts = {row["metric"]: row["pairs"] for row in rows}
    assert (counts["vif"], counts["miou"]) == (4, 2)
    assert "tasks/bright.onnx 1 of 1" in load_bundle(tmp_path / "int8").manifest["provenance"]["recipe"]


def test_the_command_writes_a_bundle_that_loads_and_runs(tmp_path, small):
    for part, first in (("calibration", 0), ("evaluation", 100)):
        for index, pair in enumerate(pairs(3, first)):
            write_image(tmp_path / part / "vi" / f"{index}.png", pair.visible)
            write_image(tmp_path / part / "ir" / f"{index}.png", np.repeat(pair.thermal[..., None], 3, axis=2))
    write_bundle(
        tmp_path / "small",
        {k: v for k, v in small.manifest.items() if k not in ("format", "files")},
        {
            **small.graphs,
            "README.md": b"# small\n",
        },
    )
    command = ["bundle", "quantize", str(tmp_path / "small"), "--pairs", str(tmp_path / "calibration")]
    command += ["--evaluation", str(tmp_path / "evaluation"), "-o", str(tmp_path / "int8"), "--limit", "0.02"]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)["rows"]
    assert {row["metric"] for row in rows} == {"en", "sf", "vif", "ssim"}
    made = load_bundle(tmp_path / "int8")
    assert (
        made.manifest["metrics"] == []
        and "INT8 convolutions: backbone.onnx 1 of 2" in made.manifest["provenance"]["recipe"]
    )
    check_card((tmp_path / "int8" / "README.md").read_text(), rows, made, tmp_path.name)
    pair = pairs(1)[0]
    visible, thermal = pair.visible[None], pair.thermal[None].astype(np.float32) / 255
    images = [
        prepare("onnxruntime", b, Options(threads=1)).run(visible, thermal, ["bright"]).fused["bright"]
        for b in (small, made)
    ]
    difference = np.abs(images[0].astype(int) - images[1])
    assert difference.max() > 0 and difference.mean() < 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("kept")
    for name, problem in (("mine", "mine exists and is no bundle"), ("Mine+", r"digits and _\.-, and Mine\+ is not")):
        with pytest.raises(BundleError, match=problem):
            CliRunner().invoke(app, [*command[:-4], "-o", str(tmp_path / name)], catch_exceptions=False)


def check_card(card, rows, made, folder):
    """The card tells what was done, on what, what became of every metric, and all licences."""
    assert "Made from the bundle `tiny` by `vifa bundle quantize`" in card
    assert f"on pairs of `{folder}/calibration`" in card and f"of `{folder}/evaluation`." in card
    assert "en, vif, ssim move by 2.00%" in card
    assert "| backbone.onnx | 2 | 1 |" in card and "| heads/bright.onnx | 0 | 0 |" in card
    for row in rows:
        assert row["pairs"] == 3
        assert f"| bright | {row['metric']} | {row['before']} | {row['after']} | {row['change']:+.2%} | 3 |" in card
    for of in ("code", "weights", "data"):
        assert f"- {of}: {made.manifest['licences'][of]}" in card


def test_scores_by_hand(tmp_path):
    """One image with a box that is found and one that is missed, and a mask with one wrong pixel in four."""
    from tiny_bundle import write_with_tasks

    bundle = for_evaluation(write_with_tasks(tmp_path / "tasks"))
    assert all(task.score == 0.001 for task in bundle.tasks)
    scores = Scores(bundle)
    rng = np.random.default_rng(0)
    visible, thermal = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8), rng.integers(0, 256, (48, 48)).astype(float)
    box, other = [4, 4, 12, 12], [20, 20, 40, 40]
    found = Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([0]))
    truth = Labels(np.array([box, other], np.float32), np.array([0, 0]))
    mask, wrong = np.zeros((48, 48), np.uint8), np.zeros((48, 48), np.uint8)
    mask[:, :24] = 1
    wrong[:, :12] = 1
    results = Results({"cells": visible, "glare": visible}, {}, {"cells": found}, {"glare": wrong})
    scores.add(visible, thermal, results, {"cells": truth}, {"glare": mask})
    values = {(row["task"], row["metric"]): row["value"] for row in scores.rows()}
    assert values["cells", "map50_all"] == pytest.approx(51 / 101), "all recalls to a half at precision 1"
    assert values["glare", "miou"] == pytest.approx((0.5 + 24 / 36) / 2)
    luma_sf = values["cells", "sf"]
    assert luma_sf == values["glare", "sf"] > 10
    assert ("glare", "map50_all") not in values and ("cells", "miou") not in values
