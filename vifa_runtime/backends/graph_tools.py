"""Reading and tidying ONNX graphs whose shapes are all known."""

from __future__ import annotations

import onnx
from onnx import ModelProto, helper, shape_inference


def infer(model: ModelProto) -> ModelProto:
    """The same graph with the type and shape of every tensor."""
    del model.graph.value_info[:]
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def drop_unused(model: ModelProto) -> None:
    """Drop nodes and constants that no output needs."""
    needed = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(weights)


def infos(model: ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape of every tensor, by name."""
    graph = model.graph
    found = {value.name: value for value in [*graph.input, *graph.value_info, *graph.output]}
    for tensor in graph.initializer:
        found.setdefault(tensor.name, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return found


def element_type(value: onnx.ValueInfoProto) -> int:
    """Element type, one of TensorProto's."""
    return value.type.tensor_type.elem_type


def sides(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sides; 0 for one that is not known."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def opset_of(model: ModelProto) -> int:
    """Version of the operators."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
