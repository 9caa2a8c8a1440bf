"""Convolutions in float16, for engines that take the type of every tensor from the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from vifa_runtime.graph_tools import element_type, infer, infos

_HEAVY = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_CHEAP = """
    Add AveragePool Clip Concat DepthToSpace Div Elu Flatten HardSigmoid HardSwish Identity LeakyRelu Max MaxPool Min
    Mul Neg PRelu Pad Relu Reshape Resize Sigmoid Slice SpaceToDepth Split Squeeze Sub Tanh Transpose Unsqueeze
"""
_LIGHT = frozenset(_CHEAP.split())
_SMALL_MATRIX = 256  # numbers; a product with one is arithmetic of colours, which stays in float32


def to_half(model: ModelProto) -> None:
    """Write convolutions, and the cheap operators that lead to one, in float16, with casts where the types meet.

    What comes after the last convolution stays float32: colours, boxes, scores, masks.
    """
    kinds = {name: element_type(value) for name, value in infos(model).items()}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    chosen = _choose_half(model, kinds, arrays)
    nodes: list[NodeProto] = []
    halves: dict[str, str] = {}  # tensor -> its float16 form
    fulls = set(arrays) | {value.name for value in model.graph.input}  # tensors that are there in their own form

    def half(name: str) -> str:
        if kinds.get(name) != TensorProto.FLOAT:
            return name
        if name not in halves:
            halves[name] = f"{name}/half"
            if name in arrays:
                largest = float(np.finfo(np.float16).max)
                narrow = np.clip(arrays[name], -largest, largest).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(narrow, halves[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [halves[name]], to=TensorProto.FLOAT16))
        return halves[name]

    def full(name: str) -> str:
        if name in halves and name not in fulls:
            nodes.append(helper.make_node("Cast", [halves[name]], [name], to=TensorProto.FLOAT))
            fulls.add(name)
        return name

    for number, node in enumerate(model.graph.node):
        if number in chosen:
            sizes = 1 if node.op_type == "Resize" else len(node.input)  # Resize takes its scales in float32
            inputs = [half(name) if place < sizes else name for place, name in enumerate(node.input)]
            halves.update({name: f"{name}/half" for name in node.output})
            outputs = [halves[name] for name in node.output]
        else:
            inputs, outputs = [full(name) for name in node.input], list(node.output)
            fulls.update(node.output)
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:], changed.output[:] = inputs, outputs
        nodes.append(changed)
    for value in model.graph.output:
        full(value.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(infer(model))


def _choose_half(model: ModelProto, kinds: Mapping[str, int], arrays: Mapping[str, NDArray]) -> set[int]:
    """Numbers of the nodes that work in float16."""
    chosen: set[int] = set()
    leads_to_one: set[str] = set()
    for number, node in reversed(list(enumerate(model.graph.node))):
        is_colour = node.op_type == "MatMul" and any(
            arrays[name].size <= _SMALL_MATRIX for name in node.input if name in arrays
        )
        is_heavy = node.op_type in _HEAVY and not is_colour
        is_light = node.op_type in _LIGHT and not leads_to_one.isdisjoint(node.output)
        if (is_heavy or is_light) and all(kinds.get(name) == TensorProto.FLOAT for name in node.output):
            chosen.add(number)
            leads_to_one.update(node.input)
    return chosen
