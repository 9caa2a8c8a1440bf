"""Graphs rewritten for TensorRT: the same numbers by ONNX Runtime, in operators that TensorRT's parsers read right."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from rewritten_graphs import IMAGE, check, compute, operators, pixels, shapes_of, smooth_pair
from task_graphs import detector, segmenter
from tensorrt_rules import parser_problems
from tiny_bundle import BYTE, FLOAT, backbone, graph, head, value

from vifa_runtime.backends.tensorrt_graphs import GraphRewriteError, rewrite

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = sorted(MODELS.rglob("*.onnx"))
node = helper.make_node


def inputs_of(path):
    """What a shipped graph sees of a pair."""
    images = smooth_pair()
    images["image"] = images["visible"]
    folder = next(parent for parent in path.parents if (parent / "bundle.yaml").exists())
    if path.parent.name == "heads":
        images |= compute((folder / "backbone.onnx").read_bytes(), images)
    return {value.name: images[value.name] for value in onnx.load(path).graph.input}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(MODELS)))
def test_shipped_graphs_compute_the_same(path, old):
    data, inputs = path.read_bytes(), inputs_of(path)
    written = rewrite(data, shapes_of(inputs), old=old)
    was, now = compute(data, inputs), compute(written.data, inputs)
    for name, array in was.items():
        if array.dtype == np.uint8:
            np.testing.assert_array_equal(now[name], array)
        else:  # ONNX Runtime orders sums by what it knows of the size
            np.testing.assert_allclose(now[name], array, rtol=1e-5, atol=1e-5)
    assert not parser_problems(onnx.load_model_from_string(written.data), old)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(MODELS)))
def test_shipped_graphs_in_half_precision(path, old):
    """Within 2 gray levels, as the design wants it of FP16; boxes within a tenth of a pixel."""
    data, inputs = path.read_bytes(), inputs_of(path)
    written = rewrite(data, shapes_of(inputs), old=old, half=True)
    was, now = compute(data, inputs), compute(written.data, inputs)
    model = onnx.load_model_from_string(written.data)
    convolutions = [found for found in model.graph.node if found.op_type == "Conv"]
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert all(found.input[1] in halves for found in convolutions)
    limits = {"fused": 2, "confidence": 4, "boxes": 0.1, "scores": 0.01}
    for name, array in was.items():
        if name == "mask":
            assert (now[name] != array).mean() < 0.01
        else:
            largest = limits.get(name, 0.01 * np.abs(array).max())
            assert np.abs(now[name].astype(np.float64) - array).max() <= largest, name
        assert now[name].dtype == array.dtype


@pytest.mark.parametrize("options", [{}, {"old": True}, {"half": True}], ids=str)
def test_toy_graphs_compute_the_same(options, make_pair):
    visible, thermal = make_pair(16, 24)
    pair = {"visible": visible[None], "thermal": thermal[None].astype(np.float32) / 255}
    check(backbone(), pair, **options)
    features = compute(backbone(), pair)
    for task in ("bright", "blend"):
        wanted = {wanted.name for wanted in onnx.load_model_from_string(head(task)).graph.input}
        inputs = {name: array for name, array in {**pair, **features}.items() if name in wanted}
        check(head(task), inputs, **options)
    for data in (detector(), segmenter(), segmenter(confidence=False)):
        check(data, {"image": visible[None]}, **options)


def test_all_sides_are_numbers_and_sizes_are_computed_beforehand():
    """As exports write the size of a feature map: from Shape with start and end, which old parsers do not read."""
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["planes"], ["size"], start=2, end=4),
        node("Shape", ["small"], ["front"], start=0, end=2),
        node("Concat", ["front", "size"], ["sizes"], axis=0),
        node("Resize", ["small", "", "", "sizes"], ["out"], mode="nearest", nearest_mode="floor"),
    ]
    written = check(pixels(nodes), old=True)
    assert operators(written) == ["Cast", "Transpose", "AveragePool", "Resize"]
    model = onnx.load_model_from_string(written)
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 4, 8, 3]


def test_weights_in_half_precision_become_weights():
    weights = np.linspace(-1, 1, 12).reshape(4, 3, 1, 1).astype(np.float16)
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["halves"], ["kernel"], to=FLOAT),
        node("Conv", ["planes", "kernel"], ["out"]),
    ]
    written = check(pixels(nodes, {"halves": weights}))
    assert operators(written) == ["Cast", "Transpose", "Conv"]


def test_constants_that_are_results_and_unused_nodes():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Neg", ["levels"], ["nobody_wants_it"]),
        node("Constant", [], ["two"], value_float=2.0),
        node("Mul", ["two", "two"], ["four"]),
        node("Mul", ["levels", "four"], ["out"]),
    ]
    assert operators(check(pixels(nodes))) == ["Cast", "Mul"]


@given(
    scale=st.sampled_from([1.0, 0.5, 2.0, 0.0078125, 1 / 3, 0.1]),
    zero=st.integers(0, 255),
    seed=st.integers(0, 2**16),
)
def test_quantised_colours_equal_quantize_linear(scale, zero, seed):
    """At halves, beyond both ends, and anywhere between."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-200, 1000, (1, 4, 8, 3)) / 2
    levels = np.where(rng.random(steps.shape) < 0.5, steps * scale, rng.normal(100, 200, steps.shape)).astype(
        np.float32
    )
    data = graph(
        [node("QuantizeLinear", ["heat", "scale", "zero"], ["out"])],
        [value("heat", FLOAT, [1, "H", "W", 3])],
        [value("out", BYTE, None)],
        {"scale": np.float32(scale), "zero": np.uint8(zero)},
    )
    check(data, {"heat": levels})


def test_quantised_colours_without_a_zero_point():
    data = graph(
        [node("QuantizeLinear", ["heat", "scale"], ["out"])],
        [value("heat", FLOAT, [1, "H", "W", 3])],
        [value("out", BYTE, None)],
        {"scale": np.array([1], np.float32)},
    )
    levels = np.array([-3, 0.5, 1.5, 254.5, 255.5, 999], np.float32).reshape(1, 1, 2, 3)
    assert "QuantizeLinear" not in operators(check(data, {"heat": levels}))


def test_casts_between_bytes_and_booleans_or_integers():
    nodes = [
        node("Cast", ["image"], ["whole"], to=TensorProto.INT64),
        node("Greater", ["whole", "middle"], ["bright"]),
        node("Cast", ["bright"], ["out"], to=BYTE),
    ]
    check(pixels(nodes, {"middle": np.int64(90)}, kind=BYTE))
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("ArgMax", ["levels"], ["best"], axis=3, keepdims=0),
        node("Cast", ["best"], ["out"], to=BYTE),
    ]
    check(pixels(nodes, kind=BYTE))


def test_bytes_that_are_moved_about():
    nodes = [
        node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        node("Split", ["planes", "parts"], ["red", "others"], axis=1),
        node("Concat", ["others", "red"], ["turned"], axis=1),
        node("Cast", ["turned"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["out"], perm=[0, 2, 3, 1]),
    ]
    check(pixels(nodes, {"parts": np.array([1, 2], np.int64)}))
    nodes = [node("Transpose", ["image"], ["out"], perm=[0, 2, 1, 3])]
    check(pixels(nodes, kind=BYTE))
    nodes = [node("Squeeze", ["image", "first"], ["flat"]), node("Cast", ["flat"], ["out"], to=TensorProto.INT32)]
    check(pixels(nodes, {"first": np.array([0], np.int64)}, kind=TensorProto.INT32))


def test_arithmetic_of_bytes_is_refused_by_name():
    data = pixels([node("Max", ["image", "floor"], ["out"])], {"floor": np.uint8(3)}, kind=BYTE)
    with pytest.raises(GraphRewriteError, match=r"operator Max \(out\) works on uint8, .*export the bundle"):
        rewrite(data, shapes_of(IMAGE))


def test_bytes_between_the_ends_are_refused_by_name():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Mul", ["levels", "half"], ["halves"]),
        node("Cast", ["halves"], ["narrow"], to=BYTE),
        node("Cast", ["narrow"], ["out"], to=FLOAT),
    ]
    with pytest.raises(GraphRewriteError, match=r"operator Cast \(narrow\) works on uint8"):
        rewrite(pixels(nodes, {"half": np.float32(0.5)}), shapes_of(IMAGE))


# Opsets that TensorRT 8 does not know.


def reduced(operator, **attributes):
    nodes = [node("Cast", ["image"], ["levels"], to=FLOAT), node(operator, ["levels", "axes"], ["out"], **attributes)]
    return pixels(nodes, {"axes": np.array([1, -1], np.int64)}, opset=18)


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"])
@pytest.mark.parametrize("attributes", [{}, {"keepdims": 0, "noop_with_empty_axes": 0}], ids=str)
def test_reductions_keep_their_axes(operator, attributes):
    written = check(reduced(operator, **attributes), old=True)
    assert onnx.load_model_from_string(written).opset_import[0].version == 17
    assert onnx.load_model_from_string(check(reduced(operator, **attributes))).opset_import[0].version == 18


@pytest.mark.parametrize("outputs", [["a", "b"], ["a", "b", "c"]])
def test_splits_keep_their_parts(outputs):
    """In 18 the last part may be the smaller one."""
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Split", ["levels"], outputs, axis=2, num_outputs=len(outputs)),
        node("Concat", outputs[::-1], ["out"], axis=2),
    ]
    check(pixels(nodes, opset=18), old=True)


def test_resizing_with_the_defaults_of_later_opsets():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node(
            "Resize", ["levels", "", "scales"], ["out"], mode="nearest", antialias=0, keep_aspect_ratio_policy="stretch"
        ),
    ]
    check(pixels(nodes, {"scales": np.array([1, 2, 2, 1], np.float32)}, opset=18), old=True)


@pytest.mark.parametrize(
    ("nodes", "opset", "operator"),
    [
        ([node("Resize", ["levels", "", "scales"], ["out"], mode="linear", antialias=1)], 18, "antialias"),
        ([node("Gelu", ["levels"], ["out"])], 20, "Gelu"),
        ([node("Pad", ["levels", "pads", "", "axes"], ["out"])], 18, "Pad"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_opset_17_cannot_say_is_refused_by_name(nodes, opset, operator):
    constants = {
        "scales": np.array([1, 0.5, 0.5, 1], np.float32),
        "pads": np.array([1, 1], np.int64),
        "axes": np.array([1], np.int64),
    }
    data = pixels([node("Cast", ["image"], ["levels"], to=FLOAT), *nodes], constants, opset=opset)
    with pytest.raises(GraphRewriteError, match=f"cannot be written in opset 17, .*{operator}"):
        rewrite(data, shapes_of(IMAGE), old=True)
    check(data)  # newer ones read it as it is
