"""What an ONNX graph costs at one size of image, in operations."""

from __future__ import annotations

import math

import onnx
from onnx import helper

from vifa_runtime.graph_tools import Shapes, fix_sizes, infos, sides


def count_flops(data: bytes, inputs: Shapes) -> int:
    """Floating-point operations of a graph, a multiply and an add being two.

    Convolutions, transposed convolutions and matrix products are counted; every other operator as one for each number
    that it gives, but for those that only move or rename.

    Args:
        data: ONNX bytes that have passed `graph_check`.
        inputs: name -> shape, without any open side.
    """
    model = fix_sizes(onnx.load_model_from_string(data), inputs)
    shapes = {name: sides(value) for name, value in infos(model).items()}
    return sum(_flops(node, shapes) for node in model.graph.node)


_MOVING = """
    Cast Concat Constant ConstantOfShape DepthToSpace Expand Flatten Gather Identity Pad Reshape Shape Slice
    SpaceToDepth Split Squeeze Tile Transpose Unsqueeze
"""
_MOVES = frozenset(_MOVING.split())


def _flops(node: onnx.NodeProto, shapes: Shapes) -> int:
    given = math.prod(shapes[node.output[0]])
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
