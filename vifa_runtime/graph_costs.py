"""What an ONNX graph costs at one size of image: operations and the bytes that cannot be avoided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper, shape_inference


def count_flops(data: bytes, inputs: Mapping[str, Sequence[int]]) -> int:
    """Floating-point operations of a graph, a multiply and an add being two.

    Convolutions, transposed convolutions and matrix products are counted; every other operator as one for each number
    that it gives, but for those that only move or rename.

    Args:
        data: ONNX bytes that have passed `graph_check`.
        inputs: name -> shape, without any open side.
    """
    model = onnx.load_model_from_string(data)
    del model.graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.ClearField("shape")
    for value in model.graph.input:
        for side in inputs[value.name]:
            value.type.tensor_type.shape.dim.add().dim_value = side
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    return sum(_flops(node, shapes) for node in inferred.graph.node)


_MOVING = """
    Cast Concat Constant ConstantOfShape DepthToSpace Expand Flatten Gather Identity Pad Reshape Shape Slice
    SpaceToDepth Split Squeeze Tile Transpose Unsqueeze
"""
_MOVES = frozenset(_MOVING.split())


def _flops(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    given = math.prod(shapes.get(node.output[0], [0]))
    if node.op_type in _MOVES:
        return 0
    if node.op_type == "Conv":  # for each number: one product for each weight of its output channel
        return 2 * given * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # for each number that goes in: one product for each weight of its channel
        return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return 2 * given * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "transA"), 0)
        return 2 * given * shapes[node.input[0]][0 if turned else -1]
    return given
