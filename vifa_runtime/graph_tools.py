"""Reading and tidying ONNX graphs, with the shape of every tensor inferred for inputs of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

Shape = tuple[int, ...]
Shapes = Mapping[str, Sequence[int]]  # by name


def image_shapes(size: tuple[int, int]) -> dict[str, Shape]:
    """Shapes of the images that a bundle's graphs take, by name, for padded images of (height, width)."""
    return {"visible": (1, *size, 3), "thermal": (1, *size), "image": (1, *size, 3)}


def fix_sizes(model: ModelProto, shapes: Shapes) -> ModelProto:
    """The graph for inputs of these shapes, with the type and shape of every tensor; no declared shape is believed.

    Args:
        model: changed, too.
        shapes: of every input, and of others.

    Raises:
        Exception: the graph is inconsistent; ONNX raises C++ exceptions of several types.
    """
    for value in model.graph.input:
        del value.type.tensor_type.shape.dim[:]
        for side in shapes[value.name]:
            value.type.tensor_type.shape.dim.add().dim_value = side
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return infer(model)


def infer(model: ModelProto) -> ModelProto:
    """The same graph with the type and shape of every tensor; those of inputs and outputs must be there.

    Raises:
        Exception: as of `fix_sizes`.
    """
    del model.graph.value_info[:]
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


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


def sides(value: onnx.ValueInfoProto) -> Shape:
    """Sides of a tensor; 0 for one that is not known, and (0,) where not even their number is."""
    tensor = value.type.tensor_type
    return tuple(dim.dim_value for dim in tensor.shape.dim) if tensor.HasField("shape") else (0,)


def opset_of(model: ModelProto) -> int:
    """Version of the operators."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def is_plain_convolution(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether it is a 2D float convolution by constants, of one group, without strides or gaps, padded as it says."""
    if node.op_type != "Conv" or any(name not in constants for name in node.input[1:]):
        return False
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    is_plain = options.get("group", 1) == 1 and options.get("auto_pad", b"NOTSET") == b"NOTSET"
    is_plain &= set(options.get("strides", [1])) == set(options.get("dilations", [1])) == {1}
    kernel = constants[node.input[1]]
    return is_plain and kernel.data_type == TensorProto.FLOAT and len(kernel.dims) == 4


def pads_of(node: NodeProto) -> list[int]:
    """What a 2D convolution pads: top, left, bottom, right."""
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "pads"), [0] * 4)


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
