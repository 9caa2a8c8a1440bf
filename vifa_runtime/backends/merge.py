"""Backbone and heads as one graph: what several of them compute alike is computed once, and one call runs all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from vifa_runtime.bundle import BACKBONE, IMAGES, Bundle, Task

_BACKBONE = "/backbone/"  # which no task is called


def merge_fusion(bundle: Bundle, tasks: Sequence[Task], batch_heads: bool = False) -> bytes | None:
    """ONNX bytes of a bundle's backbone with the heads of these tasks.

    Inputs are the backbone's; outputs are `<task>/fused`, uint8 (1,H,W,3), in the order of the tasks. The operators are
    those of the separate graphs, so engines compute the same numbers.

    Args:
        batch_heads: compute the convolutions by which heads look at one feature as one, of all their channels: engines
            work on blocks of 8 or 16 channels, and thin heads leave most of a block empty. An engine may then order its
            sums in another way.

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
    if batch_heads:
        nodes, weights = _batch_convolutions(nodes, weights)
    graph = helper.make_graph(nodes, f"{bundle.name} fusion", list(backbone.graph.input), outputs, weights)
    merged = helper.make_model(graph, opset_imports=backbone.opset_import, ir_version=backbone.ir_version)
    return merged.SerializeToString()


def _rename(graph: GraphProto, prefix: str) -> None:
    """Put a prefix before every name but those of images; what a head takes and does not compute is the backbone's."""
    inside = {weight.name for weight in graph.initializer} | {name for node in graph.node for name in node.output}
    renamed = {name: prefix + name for name in inside if name}
    renamed |= {taken.name: _BACKBONE + taken.name for taken in graph.input if taken.name not in IMAGES}
    for weight in graph.initializer:
        weight.name = renamed[weight.name]
    for node in graph.node:
        node.name = prefix + node.name if node.name else ""
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _batch_convolutions(
    nodes: Sequence[NodeProto], weights: Sequence[TensorProto]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Join convolutions of one feature that differ in their weights alone; a split gives each its own channels."""
    arrays = {weight.name: weight for weight in weights}
    groups: dict[tuple[str, ...], list[NodeProto]] = {}
    for node in nodes:
        if node.op_type == "Conv" and len(node.input) > 2 and all(name in arrays for name in node.input[1:]):
            attributes = sorted(attribute.SerializeToString().hex() for attribute in node.attribute)
            kernel = "x".join(map(str, arrays[node.input[1]].dims[1:]))
            groups.setdefault((node.input[0], kernel, *attributes), []).append(node)
    joined: dict[str, list[NodeProto]] = {}  # output of a convolution -> what stands in its place
    for number, (key, alike) in enumerate(groups.items()):
        if len(alike) < 2 or _is_grouped(alike[0]):
            continue
        name = f"/heads/{number}"
        kernel, bias = (
            numpy_helper.from_array(
                np.concatenate([numpy_helper.to_array(arrays[node.input[place]]) for node in alike]), f"{name}/{what}"
            )
            for place, what in ((1, "weight"), (2, "bias"))
        )
        sizes = [arrays[node.input[1]].dims[0] for node in alike]
        split = numpy_helper.from_array(np.array(sizes, np.int64), f"{name}/sizes")
        whole = NodeProto(op_type="Conv", input=[key[0], kernel.name, bias.name], output=[name])
        whole.attribute.extend(alike[0].attribute)
        parts = helper.make_node("Split", [name, split.name], [node.output[0] for node in alike], axis=1)
        arrays |= {tensor.name: tensor for tensor in (kernel, bias, split)}
        joined |= {alike[0].output[0]: [whole, parts], **{node.output[0]: [] for node in alike[1:]}}
    kept = [other for node in nodes for other in joined.get(node.output[0], [node])]
    used = {name for node in kept for name in node.input}
    return kept, [weight for name, weight in arrays.items() if name in used]


def _is_grouped(node: NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


def _version(model: ModelProto) -> tuple[int, tuple[int, ...]]:
    return model.ir_version, tuple(opset.version for opset in model.opset_import)
