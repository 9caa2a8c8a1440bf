"""Graphs with scales of their own (INT8), as TensorRT takes them: signed and symmetric, weights scaled there and back.

`vifa bundle quantize` writes what processors like best: unsigned activations with a zero point, a Relu only as a range
that begins at 0, weights and biases as integers. TensorRT has neither zero points nor uint8 there, nor 32-bit biases
(github:onnx/onnx-tensorrt, `QuantDequantLinearHelper`). Weights and biases keep their values; an activation keeps its
range, in steps that are up to twice as large, as the range of signed numbers has it, behind a Relu if it began at 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from vifa_runtime.graph_tools import infer

_LARGEST = 127


def make_symmetric(model: ModelProto) -> None:
    """Write all scales as signed and symmetric ones; see the module. Others than constant ones are left as they are."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    signed: dict[str, list[str]] = {}  # quantised tensor -> names of its new scale and zero point
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        is_scaled = node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) == 3
        source, scale, zero = (arrays.get(name) for name in node.input) if is_scaled else (None, None, None)
        if scale is None or zero is None:
            nodes.append(node)
        elif node.op_type == "QuantizeLinear" or node.input[0] in signed:
            quantised = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            if quantised not in signed and (zero.dtype == np.uint8 or zero.any()):
                signed[quantised] = _add_signed(model, quantised, scale, zero)
            node.input[1:] = signed.get(quantised, node.input[1:])
            if node.op_type == "QuantizeLinear" and zero.dtype == np.uint8 and not zero.any():
                positive = f"{quantised}/positive"
                nodes.append(helper.make_node("Relu", [node.input[0]], [positive]))
                node.input[0] = positive
            nodes.append(node)
        elif source is not None:
            nodes += _widen(model, node, source, scale, zero)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(infer(model))


def _add_signed(model: ModelProto, name: str, scale: NDArray, zero: NDArray) -> list[str]:
    """Add a scale, and a zero point of 0, by which signed numbers reach as far; returns their names."""
    least, most = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    reach = np.maximum(zero.astype(np.float32) - least, most - zero.astype(np.float32))
    names = [f"{name}/scale", f"{name}/zero"]
    for added, array in zip(names, (scale * reach / _LARGEST, np.zeros_like(zero, np.int8)), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), added))
    return names


def _widen(model: ModelProto, node: NodeProto, source: NDArray, scale: NDArray, zero: NDArray) -> list[NodeProto]:
    """A dequantised constant in float32; signed symmetric weights are scaled there and back, to the same values."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    sides = [-1 if place == axis % max(source.ndim, 1) else 1 for place in range(source.ndim)]
    along = (lambda array: array.reshape(sides)) if scale.size > 1 else np.ravel
    wide = ((source.astype(np.float64) - along(zero)) * along(scale)).astype(np.float32).reshape(source.shape)
    model.graph.initializer.append(numpy_helper.from_array(wide, f"{node.output[0]}/wide"))
    if source.dtype != np.int8 or zero.any():
        return [helper.make_node("Identity", [f"{node.output[0]}/wide"], [node.output[0]])]
    narrow = f"{node.output[0]}/narrow"
    there = helper.make_node("QuantizeLinear", [f"{node.output[0]}/wide", *node.input[1:]], [narrow])
    there.attribute.extend(node.attribute)
    node.input[0] = narrow
    return [there, node]
