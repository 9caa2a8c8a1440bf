"""From torch modules to self-contained ONNX graphs, which a bundle's checks can follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 18
IR_VERSION = 9  # read by ONNX Runtime 1.15 (JetPack 5) and later


def image_value(name: str) -> onnx.ValueInfoProto:
    """The declaration of a camera image, uint8 (1,H,W,3)."""
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "H", "W", 3])


def trace(
    module: nn.Module,
    inputs: Mapping[str, Any],
    names: Sequence[str],
    sides: Mapping[int, Any],
    output: str = "output",
) -> onnx.GraphProto:
    """The module's own ONNX graph.

    Args:
        module: brought into evaluation mode.
        inputs: keyword -> example tensor, or dictionary of them.
        names: of the graph's inputs, in order.
        sides: dimension -> `torch.export.Dim` of it, for every input alike.
        output: name of what comes out, where that is no dictionary of tensors.
    """
    with torch.no_grad():
        result = module.eval()(**inputs)
    program = torch.onnx.export(
        module,
        kwargs=dict(inputs),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(names),
        output_names=list(result) if isinstance(result, dict) else [output],
        dynamic_shapes={k: dict.fromkeys(v, sides) if isinstance(v, dict) else sides for k, v in inputs.items()},
        verbose=False,
    )
    graph = program.model_proto.graph
    _simplify_reshapes(graph)
    return graph


def stitch(
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto],
    constants: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """One self-contained model: only used inputs and constants, and none of the tracer's notes (they name paths)."""
    used = {tensor for node in nodes for tensor in node.input}
    tensors = [numpy_helper.from_array(value, key) for key, value in (constants or {}).items() if key in used]
    for item in [*nodes, *inputs, *outputs, *weights]:
        item.doc_string = ""
        item.ClearField("metadata_props")
    graph = helper.make_graph(
        nodes, name, [value for value in inputs if value.name in used], outputs, [*weights, *tensors]
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="vifa", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _simplify_reshapes(graph: onnx.GraphProto) -> None:
    """Make the shapes of all reshapes constant: 0 for a side that stays, -1 for the one that is computed.

    The tracer computes shapes from the input's by many small operators, which no shape inference can follow.
    """
    known = {value.name: _sides(value) for value in [*graph.value_info, *graph.input]}
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constant and known.get(node.output[0]):
            before, after = known[node.input[0]], known[node.output[0]]
            same = [index < len(before) and side == before[index] for index, side in enumerate(after)]
            shape = [
                side if isinstance(side, int) else 0 if kept else -1 for side, kept in zip(after, same, strict=True)
            ]
            if shape.count(-1) <= 1:
                del node.attribute[:]  # `allowzero`, by which 0 would be a side without pixels
                node.input[1] = f"{node.output[0]}_shape"
                graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), node.input[1]))
    _drop_unused(graph)


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # they are in the order of their use
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
