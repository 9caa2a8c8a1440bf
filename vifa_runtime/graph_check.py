"""Static checks of a bundle's ONNX graphs, before any engine sees them.

A graph that passes has the inputs and outputs of its contract, uses plain ONNX operators only (no control flow, no
custom domain, no function, no data outside the file), and its tensors stay in proportion to the image.
"""

from __future__ import annotations

import math

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, shape_inference

_OPERATORS = """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose DepthToSpace
    DequantizeLinear Div Elu Erf Exp Expand Flatten Gather Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid
    HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Log MatMul Max MaxPool Min Mul Neg PRelu
    Pad Pow QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round Shape
    Sigmoid Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze
"""
ALLOWED_OPERATORS = frozenset(_OPERATORS.split())
OPSETS = range(13, 24)
LARGEST_WEIGHTS = 1 << 27  # numbers
PER_PIXEL = 512  # elements of any one tensor per pixel of the image
_PROBE = 128  # side of the image that tensor sizes are inferred for, rounded up to the size multiple

Shape = list[int]


class GraphError(ValueError):
    """A graph that must not be run; the message names the operator, tensor or limit."""


def check_backbone(data: bytes, size_multiple: int) -> dict[str, Shape]:
    """Check `backbone.onnx`: visible uint8 (1,H,W,3), thermal float32 (1,H,W) -> named float32 features.

    Returns:
        The features' names and their shapes for the probe image, to check the heads with.

    Raises:
        GraphError: see the module.
    """
    side = _probe_side(size_multiple)
    visible, thermal = (TensorProto.UINT8, [1, side, side, 3]), (TensorProto.FLOAT, [1, side, side])
    model = _check(data, {"visible": visible, "thermal": thermal}, {"visible", "thermal"}, side)
    features = {}
    for output in model.graph.output:
        if output.type.tensor_type.elem_type != TensorProto.FLOAT or output.name in (
            "visible",
            "thermal",
            "fused",
        ):
            raise GraphError(f"output {output.name!r} is no float32 feature tensor")
        features[output.name] = _shape(output)
    if not features:
        raise GraphError("has no output; a backbone gives at least one feature tensor")
    return features


def check_head(data: bytes, features: dict[str, Shape], size_multiple: int) -> None:
    """Check `heads/<task>.onnx`: visible and any of the backbone's features -> fused uint8 (1,H,W,3).

    Raises:
        GraphError: see the module.
    """
    side = _probe_side(size_multiple)
    inputs = {name: (TensorProto.FLOAT, shape) for name, shape in features.items()}
    image = [1, side, side, 3]
    model = _check(data, {**inputs, "visible": (TensorProto.UINT8, image)}, {"visible"}, side)
    outputs = {output.name: output for output in model.graph.output}
    if set(outputs) != {"fused"}:
        raise GraphError(f"has outputs {sorted(outputs)}; a head gives exactly 'fused'")
    if outputs["fused"].type.tensor_type.elem_type != TensorProto.UINT8 or _shape(outputs["fused"]) != image:
        raise GraphError("output 'fused' is not uint8 of shape (1, H, W, 3)")


def _probe_side(size_multiple: int) -> int:
    return -(-_PROBE // size_multiple) * size_multiple


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise GraphError("is no ONNX file") from None
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise GraphError(f"uses the operator domain {opset.domain!r}; only plain ONNX operators are allowed")
        if opset.version not in OPSETS:
            raise GraphError(f"uses opset {opset.version}; supported are {OPSETS.start} to {OPSETS.stop - 1}")
    if model.functions:
        raise GraphError(f"defines the function {model.functions[0].name!r}; functions are not allowed")
    if not model.graph.node:
        raise GraphError("holds no operator; this is no graph")
    return model


def _check(data: bytes, inputs: dict[str, tuple[int, Shape]], needed: set[str], side: int) -> onnx.ModelProto:
    """Check operators, weights, inputs and tensor sizes; return the model with all shapes for the probe image."""
    model = _parse(data)
    for node in model.graph.node:
        _check_node(node)
    weights = 0
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise GraphError(f"weight {tensor.name!r} lies outside the file; external data is not allowed")
        weights += math.prod(tensor.dims)
    if weights > LARGEST_WEIGHTS or model.graph.sparse_initializer:
        raise GraphError(f"has more than {LARGEST_WEIGHTS} weights, or sparse ones")
    present = {value.name for value in model.graph.input}
    if not needed <= present:
        raise GraphError(f"lacks the input {sorted(needed - present)[0]!r} of its contract")
    for value in model.graph.input:
        if value.name not in inputs:
            raise GraphError(f"asks for the input {value.name!r}; known are {sorted(inputs)}")
        kind, shape = inputs[value.name]
        if value.type.tensor_type.elem_type != kind or len(value.type.tensor_type.shape.dim) != len(shape):
            raise GraphError(f"input {value.name!r} has the wrong element type or number of dimensions")
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
    return _infer_bounded_shapes(model, side)


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise GraphError(f"uses {node.domain}.{node.op_type}; only plain ONNX operators are allowed")
    if node.op_type not in ALLOWED_OPERATORS:
        raise GraphError(f"uses the operator {node.op_type}, which is not on the allowed list")
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise GraphError(f"operator {node.op_type} holds a sub-graph; control flow is not allowed")
        if attribute.t.external_data:
            raise GraphError(f"operator {node.op_type} refers to data outside the file")


def _infer_bounded_shapes(model: onnx.ModelProto, side: int) -> onnx.ModelProto:
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises bare C++ exceptions of several types
        raise GraphError(f"is inconsistent: {str(error).splitlines()[0][:160]}") from None
    known = {value.name: _shape(value) for value in [*inferred.graph.value_info, *inferred.graph.output]}
    for name in (name for node in inferred.graph.node for name in node.output if name):
        if name not in known or not all(known[name]):
            raise GraphError(f"the shape of tensor {name!r} cannot be told before running it")
        if math.prod(known[name]) > PER_PIXEL * side * side:
            raise GraphError(f"tensor {name!r} has more than {PER_PIXEL} elements per image pixel")
    return inferred


def _shape(value: onnx.ValueInfoProto) -> Shape:
    """Sides of a tensor; 0 for one that is not known."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
