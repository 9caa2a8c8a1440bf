"""Graphs that compute the same on a CPU with less work: what exporters write, as ONNX Runtime computes it fastest.

`fuse_slopes` changes no byte. `sum_taps` adds in another order, which may change a pixel by one gray level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vifa_runtime.graph_tools import is_plain_convolution, pads_of

_BLOCK = 16  # channels that a CPU's kernels compute at once


def fuse_slopes(graph: bytes) -> bytes:
    """PRelu of one slope as LeakyRelu, which ONNX Runtime computes inside the convolution before it.

    Args:
        graph: ONNX bytes.
    """
    model = onnx.load_model_from_string(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "PRelu" or node.input[1] not in constants:
            continue
        slope = numpy_helper.to_array(constants[node.input[1]])
        if slope.size == 1 and slope.dtype == np.float32:
            node.CopyFrom(helper.make_node("LeakyRelu", node.input[:1], node.output, alpha=slope.item()))
    return model.SerializeToString()


def sum_taps(graph: bytes) -> bytes:
    """Convolutions of many padded channels to few, as a product a tap (a 1x1 convolution), padded, shifted and summed.

    Kernels compute 16 output channels at once, whether they are there or not: nine taps of one channel fill the block,
    and nine channels are padded in the place of many.

    Args:
        graph: ONNX bytes.
    """
    model = onnx.load_model_from_string(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    uses = Counter([name for node in model.graph.node for name in node.input] + outputs)
    pads = {
        node.output[0]: node
        for node in model.graph.node
        if _pads_sides_alone(node, constants) and uses[node.output[0]] == 1
    }
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.input and node.input[0] in pads and _is_narrow(node, constants):
            kernel = numpy_helper.to_array(constants[node.input[1]])
            replaced, tensors = _as_taps(node, pads[node.input[0]], kernel)
            nodes = [kept for kept in nodes if kept is not pads[node.input[0]]] + replaced
            model.graph.initializer.extend(tensors)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _pads_sides_alone(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a node pads height and width of images in a way that a 1x1 convolution may come before."""
    if node.op_type != "Pad" or len(node.input) != 2 or node.input[1] not in constants:
        return False  # with a value or axes of its own
    amounts = numpy_helper.to_array(constants[node.input[1]])
    return len(amounts) == 8 and not amounts[[0, 1, 4, 5]].any() and bool((amounts >= 0).all())


def _is_narrow(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether it is a plain convolution without padding of its own, from many channels to so few that taps pay."""
    if not is_plain_convolution(node, constants) or any(pads_of(node)):
        return False
    channels, inputs, height, width = constants[node.input[1]].dims
    return 1 < channels * height * width <= _BLOCK < inputs


def _as_taps(node: NodeProto, pad: NodeProto, kernel: NDArray) -> tuple[list[NodeProto], list[TensorProto]]:
    """What computes the same as a padding and a convolution, and the constants that it needs."""
    name = f"{node.output[0]}/taps"
    channels, inputs, height, width = kernel.shape
    taps = channels * height * width
    products = np.ascontiguousarray(kernel.transpose(0, 2, 3, 1)).reshape(taps, inputs, 1, 1)
    places = np.eye(taps, dtype=np.float32).reshape(channels, height, width, taps)
    sums = np.ascontiguousarray(places.transpose(0, 3, 1, 2))  # each tap is read at its own row and column
    replaced = [
        helper.make_node("Conv", [pad.input[0], f"{name}/weight"], [f"{name}/products"], kernel_shape=[1, 1]),
        helper.make_node("Pad", [f"{name}/products", *pad.input[1:]], [f"{name}/padded"]),
        helper.make_node("Conv", [f"{name}/padded", f"{name}/sum", *node.input[2:]], node.output),
    ]
    replaced[1].attribute.extend(pad.attribute)
    tensors = {f"{name}/weight": products, f"{name}/sum": sums}
    return replaced, [numpy_helper.from_array(array, key) for key, array in tensors.items()]
