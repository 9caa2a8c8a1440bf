"""Graphs rewritten for TensorRT in fewer bits: scales of INT8, and convolutions in half precision."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization
from rewritten_graphs import IMAGE, compute, operators, pixels, shapes_of, smooth_pair
from tensorrt_rules import parser_problems
from tiny_bundle import BYTE, FLOAT, graph, value

from vifa_runtime import quantize
from vifa_runtime.backends.tensorrt_graphs import GraphRewriteError, is_quantised, rewrite

node = helper.make_node


# Scales of INT8.


class Reader:
    """Gives a few batches to ONNX Runtime's quantizer."""

    def __init__(self, batches):
        self.left = iter(batches)

    def get_next(self):
        return next(self.left, None)


def quantised(tmp_path, **options):
    """A backbone of two convolutions as ONNX Runtime quantizes it, and what it is given."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Transpose", ["visible"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["levels"], to=FLOAT),
        node("Div", ["levels", "white"], ["shares"]),
        node("Conv", ["shares", "first", "bias"], ["wide"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["wide"], ["soft"], alpha=0.1),
        node("Conv", ["soft", "second"], ["out"], kernel_shape=[1, 1]),
    ]
    constants = {
        "white": np.float32(255),
        "first": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(0, 0.5, 8).astype(np.float32),
        "second": rng.normal(0, 0.5, (2, 8, 1, 1)).astype(np.float32),
    }
    plain = graph(nodes, [value("visible", BYTE, [1, "H", "W", 3])], [value("out", FLOAT, None)], constants)
    (tmp_path / "plain.onnx").write_bytes(plain)
    batches = [{"visible": smooth_pair(seed=seed)["visible"]} for seed in range(4)]
    quantization.quantize_static(
        str(tmp_path / "plain.onnx"),
        str(tmp_path / "int8.onnx"),
        Reader(batches),
        quant_format=quantization.QuantFormat.QDQ,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        **options,
    )
    return plain, (tmp_path / "int8.onnx").read_bytes(), batches[0]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("old", [False, True])
def test_scales_become_signed_and_symmetric(tmp_path, per_channel, activations, old):
    """What the quantizer writes for processors, TensorRT refuses. Rewritten, its steps are at most twice as large."""
    kind = getattr(quantization.QuantType, activations)
    plain, data, inputs = quantised(tmp_path, per_channel=per_channel, activation_type=kind)
    assert is_quantised(data) and not is_quantised(plain)
    assert parser_problems(onnx.load_model_from_string(data), False)
    written = rewrite(data, shapes_of(inputs), old=old, half=True)  # scales decide, not half precision
    model = onnx.load_model_from_string(written.data)
    assert not parser_problems(model, old)
    assert all(tensor.data_type not in (TensorProto.FLOAT16, TensorProto.INT32) for tensor in model.graph.initializer)
    exact, was, now = (compute(graph, inputs)["out"] for graph in (plain, data, written.data))
    spread = np.abs(exact).max()
    assert 0 < np.abs(now - exact).max() < max(2.5 * np.abs(was - exact).max(), 0.02 * spread)
    assert np.abs(now - was).max() < 0.05 * spread


@pytest.mark.parametrize("old", [False, True])
def test_what_is_between_convolutions_survives_new_scales(old):
    """The quantizer leaves Relu and Clip to the ends of unsigned ranges, which signed ones do not have."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Transpose", ["visible"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["levels"], to=FLOAT),
        node("Div", ["levels", "white"], ["shares"]),
        node("Conv", ["shares", "first", "low"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, name="first"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("Conv", ["b", "second", "low"], ["c"], kernel_shape=[3, 3], pads=[1] * 4, name="second"),
        node("Clip", ["c", "none", "six"], ["d"], name="clip"),
        node("Add", ["b", "d"], ["e"], name="sum"),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        node("Resize", ["f", "", "scales"], ["g"], mode="nearest", name="grow"),
        node("Concat", ["b", "g"], ["h"], axis=1, name="join"),
        node("Conv", ["h", "third"], ["out"], name="third"),
    ]
    constants = {
        "white": np.float32(255),
        "first": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
        "second": rng.normal(0, 0.5, (8, 8, 3, 3)).astype(np.float32),
        "third": rng.normal(0, 0.5, (4, 16, 1, 1)).astype(np.float32),
        "low": np.full(8, -0.2, np.float32),
        "none": np.float32(0),
        "six": np.float32(6),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    plain = graph(nodes, [value("visible", BYTE, [1, "H", "W", 3])], [value("out", FLOAT, None)], constants)
    batches = [{"visible": smooth_pair(seed=seed)["visible"]} for seed in range(4)]
    data = quantize._in_8_bits(plain, ["first", "second", "third"], batches)
    kinds = operators(data)
    assert "Relu" not in kinds and "Clip" not in kinds and kinds.count("DequantizeLinear") >= 8
    written = rewrite(data, shapes_of(batches[0]), old=old, half=True)
    assert not parser_problems(onnx.load_model_from_string(written.data), old)
    exact, was, now = (compute(one, batches[0])["out"] for one in (plain, data, written.data))
    assert np.abs(was - exact).mean() < 0.02 * np.abs(exact).max()
    assert np.abs(now - exact).mean() < 2.5 * np.abs(was - exact).mean()


def test_weights_keep_their_values_when_their_scale_is_written_anew(tmp_path):
    _, data, inputs = quantised(tmp_path, per_channel=True, activation_type=quantization.QuantType.QInt8)
    model = onnx.load_model_from_string(rewrite(data, shapes_of(inputs)).data)
    quantisers = {found.output[0]: found for found in model.graph.node if found.op_type == "QuantizeLinear"}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    was = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(data).graph.initializer
    }
    (weights,) = [array for array in was.values() if array.shape == (8, 3, 3, 3)]
    (wide,) = [
        q.input for q in quantisers.values() if q.input[0] in constants and constants[q.input[0]].shape == (8, 3, 3, 3)
    ]
    scale = constants[wide[1]].reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(np.rint(constants[wide[0]] / scale), weights)


def test_a_zero_point_that_is_computed_is_refused():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("QuantizeLinear", ["levels", "scale", "zero"], ["narrow"]),
        node("DequantizeLinear", ["narrow", "scale", "zero"], ["out"]),
    ]
    given_zero = helper.make_tensor_value_info("zero", TensorProto.INT8, [])
    data = graph(
        nodes,
        [value("image", BYTE, [1, "H", "W", 3]), given_zero],
        [value("out", FLOAT, None)],
        {"scale": np.float32(2)},
    )
    with pytest.raises(GraphRewriteError, match=r"QuantizeLinear .*quantise the bundle symmetrically"):
        rewrite(data, {**shapes_of(IMAGE), "zero": ()})


# Half precision.


def test_only_what_leads_to_a_convolution_is_in_half_precision():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Mul", ["planes", "scale"], ["shares"]),
        node("Exp", ["shares"], ["exponents"]),  # half precision could overflow
        node("Conv", ["exponents", "kernel"], ["wide"]),
        node("Relu", ["wide"], ["positive"]),
        node("Conv", ["positive", "narrow"], ["last"]),
        node("Clip", ["last", "", "most"], ["out"]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.01),
        "kernel": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "narrow": rng.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "most": np.float32(3.0e38),
    }
    data = pixels(nodes, constants)
    written = rewrite(data, shapes_of(IMAGE), half=True)
    model = onnx.load_model_from_string(written.data)
    kinds = {
        tensor.name: tensor.type.tensor_type.elem_type
        for tensor in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    in_half = [found.op_type for found in model.graph.node if kinds.get(found.output[0]) == TensorProto.FLOAT16]
    assert in_half == ["Cast", "Conv", "Relu", "Conv"]
    was, now = compute(data, IMAGE)["out"], compute(written.data, IMAGE)["out"]
    np.testing.assert_allclose(now, was, rtol=0.01, atol=0.05)


def test_weights_beyond_half_precision_stay_finite():
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Clip", ["planes", "", "most"], ["clipped"]),
        node("Conv", ["clipped", "kernel"], ["out"]),
    ]
    constants = {"most": np.float32(3.0e38), "kernel": np.full((1, 3, 1, 1), 0.25, np.float32)}
    written = rewrite(pixels(nodes, constants), shapes_of(IMAGE), half=True)
    for tensor in onnx.load_model_from_string(written.data).graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor).astype(np.float64)).all()
