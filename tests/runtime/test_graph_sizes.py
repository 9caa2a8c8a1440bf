"""Graphs whose tensors are out of proportion to the image, or of a size that nobody can tell."""

import numpy as np
import pytest
from odd_graphs import edited, from_thermal, integers, node, refusal
from onnx import TensorProto
from tiny_bundle import FLOAT, THERMAL, VISIBLE, graph, value

from vifa_runtime.graph_check import PER_PIXEL, check_backbone


def scales(*numbers):
    return np.array(numbers, np.float32)


def test_sides_that_are_declared_but_not_true_do_not_pass():
    """Shapes are inferred, never believed."""
    nodes = [node("Expand", ["thermal", "shape"], ["large"]), node("ReduceMax", ["large"], ["out"], keepdims=1)]
    data = graph(nodes, [VISIBLE, THERMAL], [value("out", FLOAT, [1, 1, 1])], {"shape": integers(10**6, 1, 1)})
    small = value("large", FLOAT, [1, 4, 4])
    assert "'large' has more than" in refusal(edited(data, lambda model: model.graph.value_info.append(small)))


def image_from_thermal(*nodes):
    """Nodes that first make `x` (1,1,H,W) of thermal; needs the constant `channel`."""
    return (node("Unsqueeze", ["thermal", "channel"], ["x"]), *nodes)


CHANNEL, KERNEL = {"channel": integers(1)}, np.zeros((1, 1, 3, 3), np.float32)


@pytest.mark.parametrize(
    "data",
    [
        from_thermal(node("Expand", ["thermal", "s"], ["out"]), constants={"s": integers(513, 1, 1)}),
        from_thermal(node("Expand", ["thermal", "s"], ["out"]), constants={"s": integers(2**32, 2**32, 1, 1, 1)}),
        from_thermal(node("Pad", ["thermal", "p"], ["out"]), constants={"p": integers(0, 0, 0, 0, 10**9, 0)}),
        from_thermal(
            node("Resize", ["thermal", "", "s"], ["out"]), constants={"s": scales(1, 30, 30)}
        ),
        from_thermal(
            node("Resize", ["thermal", "", "", "s"], ["out"]), constants={"s": integers(1, 10**6, 10**6)}
        ),
        from_thermal(
            *image_from_thermal(node("ConvTranspose", ["x", "w"], ["out"], strides=[10_000, 10_000])),
            constants={**CHANNEL, "w": KERNEL},
        ),
        from_thermal(
            *image_from_thermal(node("ConvTranspose", ["x", "w"], ["out"], output_shape=[2**40, 2**20])),
            constants={**CHANNEL, "w": KERNEL},
        ),
        from_thermal(node("Concat", ["thermal"] * 600, ["out"], axis=0)),
        from_thermal(
            node("Reshape", ["thermal", "column"], ["a"]),
            node("Reshape", ["thermal", "row"], ["b"]),
            node("MatMul", ["a", "b"], ["out"]),
            constants={"column": integers(-1, 1), "row": integers(1, -1)},
        ),
        from_thermal(
            node("Reshape", ["thermal", "column"], ["a"]),
            node("Add", ["a", "thermal"], ["b"]),
            node("ReduceMean", ["b"], ["out"], keepdims=1),
            constants={"column": integers(-1, 1, 1)},
        ),
    ],
    ids=[
        "Expand", "Expand beyond 64 bits", "Pad", "Resize by scale", "Resize to size", "ConvTranspose by stride",
        "ConvTranspose to size", "Concat", "MatMul over all pixels", "broadcasting in the middle",
    ],
)  # fmt: skip
def test_tensors_out_of_proportion_to_the_image(data):
    assert f"has more than {PER_PIXEL} elements per image pixel" in refusal(data)


def test_the_largest_tensor_in_proportion_passes():
    check_backbone(from_thermal(node("Expand", ["thermal", "s"], ["out"]), constants={"s": integers(512, 1, 1)}), 4)


def test_a_tensor_that_is_small_only_for_the_first_probe():
    """Sides computed from the image's own: (H - 127)^4 is 1 where H is 128."""
    nodes = [
        node("Shape", ["thermal"], ["sides"]),
        node("Gather", ["sides", "one"], ["height"]),
        node("Sub", ["height", "offset"], ["d"]),
        node("Mul", ["d", "d"], ["d2"]),
        node("Mul", ["d2", "d2"], ["d4"]),
        node("Concat", ["d4", "one", "one"], ["shape"], axis=0),
        node("Expand", ["thermal", "shape"], ["out"]),
    ]
    assert "'out' has more than" in refusal(
        from_thermal(*nodes, constants={"one": integers(1), "offset": integers(127)})
    )


@pytest.mark.parametrize(
    "data",
    [
        from_thermal(node("Pad", ["thermal", "p"], ["out"]), constants={"p": integers(*[2**62] * 6)}),
        from_thermal(node("Pad", ["thermal", "p"], ["out"]), constants={"p": integers(0, -2000, 0, 0, 0, 0)}),
        from_thermal(node("Resize", ["thermal", "", "s"], ["out"]), constants={"s": scales(1, 1e18, 1)}),
        from_thermal(node("Resize", ["thermal", "", "s"], ["out"]), constants={"s": scales(1, np.nan, 1)}),
        from_thermal(
            *image_from_thermal(node("ConvTranspose", ["x", "w"], ["out"], strides=[2**62, 2**62])),
            constants={**CHANNEL, "w": KERNEL},
        ),
        from_thermal(
            node("Identity", ["thermal"], ["out"]),
            node("Constant", [], ["c"], value=TensorProto(data_type=FLOAT, dims=[-5, 3])),
        ),
    ],
    ids=["Pad beyond 64 bits", "Pad below nothing", "Resize beyond 64 bits", "Resize by NaN", "stride", "Constant"],
)  # fmt: skip
def test_sides_that_overflow_or_fall_below_one(data):
    message = refusal(data)
    assert "is inconsistent" in message or "cannot be told before running it" in message


EXPANDED_BY_THE_HOTTEST_PIXEL = [
    node("ReduceMax", ["thermal"], ["hottest"], keepdims=0),
    node("Cast", ["hottest"], ["count"], to=TensorProto.INT64),
    node("Unsqueeze", ["count", "zero"], ["counts"]),
    node("Concat", ["counts", "one", "one"], ["shape"], axis=0),
    node("Expand", ["thermal", "shape"], ["out"]),
]


@pytest.mark.parametrize("declared", [None, ["N", "H", "W"], [1, "H", "W"], [1, 4, 4]])
def test_a_shape_that_depends_on_pixels_whatever_is_declared(declared):
    constants = {"zero": integers(0), "one": integers(1)}
    outputs = [value("out", FLOAT, declared)]
    data = graph(EXPANDED_BY_THE_HOTTEST_PIXEL, [VISIBLE, THERMAL], outputs, constants)
    assert "the shape of tensor 'out' cannot be told" in refusal(data)


def test_a_tensor_of_which_not_even_the_number_of_sides_is_known():
    nodes = [
        node("ReduceMax", ["thermal"], ["hottest"], keepdims=0),
        node("Cast", ["hottest"], ["count"], to=TensorProto.INT64),
        node("Unsqueeze", ["count", "zero"], ["counts"]),
        node("Expand", ["one", "counts"], ["shape"]),
        node("Reshape", ["thermal", "shape"], ["out"]),
    ]
    constants = {"zero": integers(0), "one": integers(1)}
    assert "cannot be told" in refusal(from_thermal(*nodes, constants=constants))
