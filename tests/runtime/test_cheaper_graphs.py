"""Slopes inside convolutions, and taps that are summed: what they compute, and what must stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from scipy.ndimage import correlate

from vifa_runtime.backends.cheaper_graphs import fuse_slopes, sum_taps

INPUTS = 20


def graph_of(nodes: list[NodeProto], constants: dict[str, NDArray], outputs: tuple[str, ...] = ("y",)) -> ModelProto:
    """x (1,20,h,w) -> `outputs`."""
    shape = [1, None, None, None]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def padded_convolution(
    channels: int = 1, side: int = 3, mode: str = "reflect", bias: bool = True, inputs: int = INPUTS, **options
) -> ModelProto:
    """Pad, then a convolution of random weights that keeps the size."""
    rng, pad = np.random.default_rng(side), side // 2
    constants = {
        "pads": np.array(options.pop("amounts", [0, 0, pad, pad, 0, 0, pad, pad])),
        "weight": rng.standard_normal((channels, inputs // options.get("group", 1), side, side)).astype(np.float32),
    }
    if bias:
        constants["bias"] = rng.standard_normal(channels).astype(np.float32)
    filled = ["pads"]
    if (value := options.pop("value", None)) is not None:
        constants["value"], filled = np.float32(value), ["pads", "value"]
    nodes = [
        helper.make_node("Pad", ["x", *filled], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight", *(["bias"] if bias else [])], ["y"], **options),
    ]
    return graph_of(nodes, constants)


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def summed(model: ModelProto) -> ModelProto:
    return onnx.load_model_from_string(sum_taps(model.SerializeToString()))


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@given(
    mode=st.sampled_from(["reflect", "edge", "constant"]), bias=st.booleans(), height=st.integers(3, 17),
    width=st.integers(3, 17), shape=st.sampled_from([(1, 3), (4, 2)]),
)  # fmt: skip
def test_summed_taps_are_the_convolution(
    mode: str, bias: bool, height: int, width: int, shape: tuple[int, int]
) -> None:
    """Against SciPy: its modes mirror, nearest and constant are ONNX's reflect, edge and constant."""
    channels, side = shape
    pad = side // 2
    amounts = [0, 0, pad, pad, 0, 0, side - 1 - pad, side - 1 - pad]
    model = padded_convolution(channels, side, mode, bias, amounts=amounts)
    x = np.random.default_rng(height).standard_normal((1, INPUTS, height, width)).astype(np.float32)
    changed = summed(model)
    assert operators(changed) == ["Conv", "Pad", "Conv"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scipy_mode = {"reflect": "mirror", "edge": "nearest", "constant": "constant"}[mode]
    expected = np.stack(
        [
            sum(correlate(x[0, i].astype(float), kernel[i].astype(float), mode=scipy_mode) for i in range(INPUTS))
            for kernel in constants["weight"]
        ]
    ) + (constants["bias"][:, None, None] if bias else 0)
    np.testing.assert_allclose(run(changed, x)[0], expected, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 2},  # 18 taps do not fit into a block
        {"inputs": 16, "amounts": [0, -4, 1, 1, 0, 0, 1, 1]},  # cuts channels off
        {"mode": "constant", "value": 0.5},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "amounts": [0, 0, 2, 2, 0, 0, 2, 2]},
        {"pads": [1, 1, 1, 1]},
        {"side": 1},
        {"channels": 1, "inputs": 21, "amounts": [0, 1, 1, 1, 0, 0, 1, 1]},  # adds a channel
    ],
)
def test_what_taps_cannot_compute_stays(options: dict) -> None:
    model = padded_convolution(**options)
    assert summed(model).graph.node == model.graph.node
    run(model, np.zeros((1, INPUTS, 6, 8), np.float32))  # it is a graph that runs


def test_a_padding_that_others_use_too_stays() -> None:
    model = padded_convolution()
    model.graph.output.append(helper.make_tensor_value_info("padded", TensorProto.FLOAT, [1, None, None, None]))
    assert summed(model).graph.node == model.graph.node


def with_slopes(slopes: NDArray) -> ModelProto:
    weight = np.random.default_rng(0).standard_normal((8, INPUTS, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["sums"], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["sums", "slopes"], ["y"]),
    ]
    return graph_of(nodes, {"weight": weight, "slopes": slopes.astype(np.float32)})


@pytest.mark.parametrize("slope", [0.25, 0.0, -0.7, 1.5])
def test_one_slope_is_fused_to_the_same_bytes(slope: float) -> None:
    model = with_slopes(np.full((1, 1, 1), slope))
    changed = onnx.load_model_from_string(fuse_slopes(model.SerializeToString()))
    assert operators(changed) == ["Conv", "LeakyRelu"]
    x = np.random.default_rng(1).standard_normal((1, INPUTS, 9, 11)).astype(np.float32)
    np.testing.assert_array_equal(run(changed, x), run(model, x))
    assert (run(changed, x) < 0).any() == (slope > 0)


def test_slopes_of_channels_stay() -> None:
    model = with_slopes(np.linspace(0, 1, 8)[:, None, None])
    assert onnx.load_model_from_string(fuse_slopes(model.SerializeToString())).graph.node == model.graph.node
