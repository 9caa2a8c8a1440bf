"""Narrow convolutions as wide ones on a coarser grid: the same bytes for images of any size."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from scipy.signal import correlate2d

from vifa_runtime.backends import Options
from vifa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from vifa_runtime.backends.wide_convolutions import widen, widen_fusion
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.models import find_bundle

SHIPPED = ("nano-fusion", "nano-two-task", "tardal-fusion")


def one_convolution(
    channels: int = 1, side: int = 3, inputs: int = 5, bias: bool = True, takes_visible: bool = True, **options
) -> ModelProto:
    """A graph of one convolution that keeps the size, of random weights, and of `visible`, which it may know."""
    rng = np.random.default_rng(side)
    weights = {"weight": rng.standard_normal((channels, inputs // options.get("group", 1), side, side))}
    if bias:
        weights["bias"] = rng.standard_normal(channels)
    node = helper.make_node("Conv", ["x", *weights], ["y"], **{"pads": 4 * [side // 2], **options})
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, "h", "w"])]
    if takes_visible:
        taken.append(helper.make_tensor_value_info("visible", TensorProto.UINT8, [1, "H", "W", 3]))
    graph = helper.make_graph(
        [node],
        "one",
        taken,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, None, None])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def widened(model: ModelProto, multiple: int = 1, scale: int = 1) -> ModelProto:
    """The graph for images of multiples of `multiple`, of which `x` is a `scale`-th."""
    height, width, inputs = 48 * multiple, 80 * multiple, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    shapes = {"x": (1, inputs, height // scale, width // scale), "visible": (1, height, width, 3)}
    return onnx.load_model_from_string(widen(model.SerializeToString(), shapes, multiple))


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: ModelProto, x: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {"x": x, "visible": np.zeros((1, *size, 3), np.uint8)}
    return session.run(None, {value.name: known[value.name] for value in session.get_inputs()})[0]


@given(
    channels=st.integers(1, 4), side=st.sampled_from([3, 5]), height=st.integers(1, 21), width=st.integers(1, 21),
    bias=st.booleans(),
)  # fmt: skip
def test_it_computes_the_same_for_any_size(channels: int, side: int, height: int, width: int, bias: bool) -> None:
    narrow = one_convolution(channels, side, bias=bias)
    wide = widened(narrow)
    assert operators(wide) == ["Conv", "DepthToSpace", "Shape", "Slice"]
    x = np.random.default_rng(height * 31 + width).standard_normal((1, 5, height, width)).astype(np.float32)
    found = run(wide, x, (height, width))
    assert found.shape == (1, channels, height, width)
    np.testing.assert_allclose(found, run(narrow, x, (height, width)), rtol=0, atol=1e-5)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in narrow.graph.initializer}
    for channel, kernel in enumerate(weights["weight"]):
        by_hand = sum(
            correlate2d(image, own, mode="same") for image, own in zip(x[0].astype(float), kernel, strict=True)
        )
        by_hand += weights["bias"][channel] if bias else 0
        np.testing.assert_allclose(found[0, channel], by_hand, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("multiple", "scale", "channels"), [(4, 1, 1), (8, 2, 1), (8, 2, 4), (8, 4, 3), (2, 1, 4)])
def test_images_of_whole_cells_are_not_cropped(multiple: int, scale: int, channels: int) -> None:
    narrow = one_convolution(channels)
    wide = widened(narrow, multiple, scale)
    assert operators(wide) == ["Conv", "DepthToSpace"]
    size = (3 * multiple, 5 * multiple)
    x = np.random.default_rng(0).random((1, 5, size[0] // scale, size[1] // scale), np.float32)
    np.testing.assert_allclose(run(wide, x, size), run(narrow, x, size), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "multiple", "scale"),
    [
        ({"channels": 5}, 8, 1),  # 2x2 of them are more than a block
        ({"side": 1}, 8, 1),  # as much work either way
        ({"strides": [2, 2]}, 8, 1),
        ({"dilations": [2, 2], "pads": [2, 2, 2, 2]}, 8, 1),
        ({"pads": [0, 0, 0, 0]}, 8, 1),
        ({"pads": [0, 0, 2, 2]}, 8, 1),
        ({"channels": 4, "inputs": 4, "group": 4}, 8, 1),
        ({"takes_visible": False}, 1, 1),  # nothing tells the size to crop to
        ({}, 2, 2),  # nor the visible image's, as the convolution sees a smaller one
    ],
)
def test_what_cannot_be_widened_stays(options: dict, multiple: int, scale: int) -> None:
    narrow = one_convolution(**options)
    assert widened(narrow, multiple, scale).graph.node == narrow.graph.node


def test_a_graph_without_visible_images_is_widened_where_cells_are_whole() -> None:
    assert operators(widened(one_convolution(takes_visible=False), multiple=4)) == ["Conv", "DepthToSpace"]


class Plain(OnnxRuntimeBackend):
    """The back end without wide convolutions."""

    def _tune(self, graphs: dict[str, bytes], bundle: Bundle) -> dict[str, bytes]:
        return graphs


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_fused_images_of_shipped_bundles_stay_the_same_bytes(name: str, merge: bool) -> None:
    bundle = load_bundle(find_bundle(name))
    changed = widen_fusion(bundle.graphs, bundle)
    heads = [task.head for task in bundle.tasks]
    assert [path for path in bundle.graphs if changed[path] != bundle.graphs[path]] == heads
    engines = [kind(bundle, Options(threads=1, merge=merge)) for kind in (Plain, OnnxRuntimeBackend)]
    rng, multiple = np.random.default_rng(0), bundle.size_multiple
    for size in ((6 * multiple, 11 * multiple), (13 * multiple, 8 * multiple)):
        pair = rng.integers(0, 256, (1, *size, 3), np.uint8), rng.random((1, *size), np.float32)
        expected = {task: image.copy() for task, image in engines[0].run(*pair, bundle.task_names).fused.items()}
        found = engines[1].run(*pair, bundle.task_names).fused
        for task in bundle.task_names:
            np.testing.assert_array_equal(found[task], expected[task])
