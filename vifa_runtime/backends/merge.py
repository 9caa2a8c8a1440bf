"""Backbone and heads as one graph: what several of them compute alike is computed once, and one call runs all."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from vifa_runtime.bundle import BACKBONE, Bundle, Task

INPUTS = ("visible", "thermal")
_BACKBONE = "/backbone/"  # which no task is called


def merge_fusion(bundle: Bundle, tasks: Sequence[Task]) -> bytes | None:
    """ONNX bytes of a bundle's backbone with the heads of these tasks.

    Inputs are the backbone's; outputs are `<task>/fused`, uint8 (1,H,W,3), in the order of the tasks. The operators are
    those of the separate graphs, so engines compute the same numbers.

    Returns:
        None where the graphs were written for different versions of ONNX, which one graph cannot hold.
    """
    backbone = onnx.load_model_from_string(bundle.graphs[BACKBONE])
    _rename(backbone.graph, _BACKBONE)
    nodes, weights, outputs = list(backbone.graph.node), list(backbone.graph.initializer), []
    for task in tasks:
        head = onnx.load_model_from_string(bundle.graphs[task.head])
        if _version(head) != _version(backbone):
            return None
        _rename(head.graph, f"{task.name}/")
        nodes += head.graph.node
        weights += head.graph.initializer
        outputs.append(helper.make_tensor_value_info(f"{task.name}/fused", TensorProto.UINT8, [1, "H", "W", 3]))
    graph = helper.make_graph(nodes, f"{bundle.name} fusion", list(backbone.graph.input), outputs, weights)
    merged = helper.make_model(graph, opset_imports=backbone.opset_import, ir_version=backbone.ir_version)
    return merged.SerializeToString()


def _rename(graph: GraphProto, prefix: str) -> None:
    """Put a prefix before every name but those of images; what a head takes and does not compute is the backbone's."""
    inside = {weight.name for weight in graph.initializer} | {name for node in graph.node for name in node.output}
    renamed = {name: prefix + name for name in inside if name}
    renamed |= {taken.name: _BACKBONE + taken.name for taken in graph.input if taken.name not in INPUTS}
    for weight in graph.initializer:
        weight.name = renamed[weight.name]
    for node in graph.node:
        node.name = prefix + node.name if node.name else ""
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _version(model: ModelProto) -> tuple[int, tuple[int, ...]]:
    return model.ir_version, tuple(opset.version for opset in model.opset_import)
