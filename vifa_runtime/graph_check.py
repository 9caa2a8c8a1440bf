"""Static checks of a bundle's ONNX graphs, before any engine sees them.

A graph that passes has the inputs and outputs of its contract, uses plain ONNX operators only (no control flow, no
custom domain, no function, no data outside the file), and its tensors stay in proportion to the image. Sizes are
inferred for two images of different size and aspect, so that fixed or swapped sides do not pass. Operators whose
result's size depends on values, as of Range or NonZero, are not on the list: nothing tells that size before.
"""

from __future__ import annotations

import math

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from vifa_runtime.graph_tools import Shape, element_type, fix_sizes, sides
from vifa_runtime.messages import first_line

_OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace DequantizeLinear Div Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or PRelu Pad Pow
    QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round Shape Sigmoid Slice
    Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where
"""
ALLOWED_OPERATORS = frozenset(_OPERATORS.split())
OPSETS = range(13, 24)
LARGEST_WEIGHTS = 1 << 27  # numbers
PER_PIXEL = 512  # elements of any one tensor per pixel of the image
_PROBES = ((128, 192), (1280, 1024))  # (height, width), each rounded up to the size multiple

Features = dict[str, Shape]  # of a backbone, by name


class GraphError(ValueError):
    """A graph that must not be run; the message names the operator, tensor or limit."""


def check_backbone(data: bytes, size_multiple: int) -> list[Features]:
    """Check `backbone.onnx`: visible uint8 (1,H,W,3), thermal float32 (1,H,W) -> named float32 features.

    Returns:
        For each probe image the features' names and shapes, to check the heads with.

    Raises:
        GraphError: see the module.
    """
    return [_check_backbone_at(size, data) for size in _probe_sizes(size_multiple)]


def check_head(data: bytes, features: list[Features], size_multiple: int) -> None:
    """Check `heads/<task>.onnx`: visible and any of the backbone's features -> fused uint8 (1,H,W,3).

    Args:
        features: what `check_backbone` returned.

    Raises:
        GraphError: see the module.
    """
    for size, shapes in zip(_probe_sizes(size_multiple), features, strict=True):
        _check_head_at(size, data, shapes)


def check_task(data: bytes, kind: str, classes: int, size_multiple: int) -> None:
    """Check `tasks/<task>.onnx`: image uint8 (1,H,W,3) -> what tasks of its kind find in it.

    `detection` gives boxes float32 (1,A,4) and scores float32 (1,A,K), K one a class; `segmentation` gives mask uint8
    (1,H,W) and may give confidence uint8 (1,H,W).

    Args:
        kind: `detection` or `segmentation`.
        classes: how many the task has.

    Raises:
        GraphError: see the module.
    """
    for size in _probe_sizes(size_multiple):
        model = _check(data, {"image": (TensorProto.UINT8, (1, *size, 3))}, {"image"}, size)
        if kind == "detection":
            _check_detection_outputs(model, classes)
        else:
            _check_segmentation_outputs(model, size)


def _probe_sizes(multiple: int) -> list[tuple[int, int]]:
    return [(-(-height // multiple) * multiple, -(-width // multiple) * multiple) for height, width in _PROBES]


def _check_backbone_at(size: tuple[int, int], data: bytes) -> Features:
    inputs = {"visible": (TensorProto.UINT8, (1, *size, 3)), "thermal": (TensorProto.FLOAT, (1, *size))}
    model = _check(data, inputs, set(inputs), size)
    features = {}
    for output in model.graph.output:
        if element_type(output) != TensorProto.FLOAT or output.name in (*inputs, "fused"):
            raise GraphError(f"output {output.name!r} is no float32 feature tensor")
        features[output.name] = sides(output)
    if not features:
        raise GraphError("has no output; a backbone gives at least one feature tensor")
    return features


def _check_head_at(size: tuple[int, int], data: bytes, features: Features) -> None:
    image = (1, *size, 3)
    inputs = {name: (TensorProto.FLOAT, shape) for name, shape in features.items()}
    model = _check(data, {**inputs, "visible": (TensorProto.UINT8, image)}, {"visible"}, size)
    outputs = _outputs(model)
    if set(outputs) != {"fused"}:
        raise GraphError(f"has the outputs {', '.join(map(repr, outputs))}; a head gives exactly 'fused'")
    if outputs["fused"] != (TensorProto.UINT8, image):
        raise GraphError("output 'fused' is not uint8 of shape (1, H, W, 3)")


def _check_detection_outputs(model: onnx.ModelProto, classes: int) -> None:
    outputs = _outputs(model)
    if set(outputs) != {"boxes", "scores"}:
        raise GraphError(
            f"has the outputs {', '.join(map(repr, outputs))}; a detection graph gives exactly 'boxes' and 'scores'"
        )
    kind, shape = outputs["boxes"]
    if kind != TensorProto.FLOAT or len(shape) != 3 or shape[0] != 1 or shape[2] != 4:
        raise GraphError("output 'boxes' is not float32 of shape (1, A, 4)")
    if outputs["scores"] != (TensorProto.FLOAT, (1, shape[1], classes)):
        raise GraphError(f"output 'scores' is not float32 of shape (1, A, {classes}): for each box one score a class")


def _check_segmentation_outputs(model: onnx.ModelProto, size: tuple[int, int]) -> None:
    outputs = _outputs(model)
    if "mask" not in outputs or not set(outputs) <= {"mask", "confidence"}:
        raise GraphError(
            f"has the outputs {', '.join(map(repr, outputs))}; a segmentation graph gives 'mask' and, where it can, "
            "'confidence'"
        )
    for name, output in outputs.items():
        if output != (TensorProto.UINT8, (1, *size)):
            raise GraphError(f"output {name!r} is not uint8 of shape (1, H, W), the size of the image")


def _outputs(model: onnx.ModelProto) -> dict[str, tuple[int, Shape]]:
    """Element type and shape of every output, by name."""
    return {output.name: (element_type(output), sides(output)) for output in model.graph.output}


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


def _check(
    data: bytes, inputs: dict[str, tuple[int, Shape]], needed: set[str], size: tuple[int, int]
) -> onnx.ModelProto:
    """Check operators, weights, inputs and tensor sizes; return the model with all shapes for the probe image."""
    model = _parse(data)
    for node in model.graph.node:
        _check_node(node)
    weights = 0
    for tensor in model.graph.initializer:
        if _lies_outside(tensor):
            raise GraphError(f"weight {tensor.name!r} lies outside the file; external data is not allowed")
        if tensor.name in inputs:
            raise GraphError(f"gives the input {tensor.name!r} a value of its own; inputs come from outside")
        weights += math.prod(tensor.dims)
    if weights > LARGEST_WEIGHTS or model.graph.sparse_initializer:
        raise GraphError(f"has more than {LARGEST_WEIGHTS} weights, or sparse ones")
    present = {value.name for value in model.graph.input}
    if not needed <= present:
        raise GraphError(f"lacks the input {sorted(needed - present)[0]!r} of its contract")
    for value in model.graph.input:
        if value.name not in inputs:
            raise GraphError(f"asks for the input {value.name!r}; known are {', '.join(map(repr, inputs))}")
        kind, shape = inputs[value.name]
        if element_type(value) != kind or len(value.type.tensor_type.shape.dim) != len(shape):
            raise GraphError(f"input {value.name!r} has the wrong element type or number of dimensions")
        for dim, side in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if dim.dim_value not in (0, side):
                raise GraphError(f"input {value.name!r} has a fixed side of {dim.dim_value}; height and width vary")
    computed = {name for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        if output.name not in computed:
            raise GraphError(f"output {output.name!r} is not computed by any operator")
    shapes = {name: shape for name, (_, shape) in inputs.items()}
    return _infer_bounded_shapes(model, shapes, PER_PIXEL * math.prod(size))


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise GraphError(
            f"uses the operator {node.op_type!r} of {node.domain!r}; only plain ONNX operators are allowed"
        )
    if node.op_type not in ALLOWED_OPERATORS:
        raise GraphError(f"uses the operator {node.op_type!r}, which is not on the allowed list")
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise GraphError(f"operator {node.op_type} holds a sub-graph; control flow is not allowed")
        tensors = [attribute.t, attribute.sparse_tensor.values, attribute.sparse_tensor.indices, *attribute.tensors]
        if any(_lies_outside(tensor) for tensor in tensors):
            raise GraphError(f"operator {node.op_type} refers to data outside the file")


def _lies_outside(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _infer_bounded_shapes(model: onnx.ModelProto, shapes: dict[str, Shape], largest: int) -> onnx.ModelProto:
    try:
        inferred = fix_sizes(model, shapes)
    except Exception as error:  # onnx raises bare C++ exceptions of several types
        raise GraphError(f"is inconsistent: {first_line(error, 160)}") from None
    known = {value.name: sides(value) for value in [*inferred.graph.value_info, *inferred.graph.output]}
    for name in (name for node in inferred.graph.node for name in node.output if name):
        if name not in known or min(known[name], default=1) < 1:
            raise GraphError(f"the shape of tensor {name!r} cannot be told before running it")
        if math.prod(known[name]) > largest:
            raise GraphError(f"tensor {name!r} has more than {PER_PIXEL} elements per image pixel")
    known |= {value.name: sides(value) for value in inferred.graph.input}
    known |= {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for node in inferred.graph.node:
        if node.op_type == "Reshape":
            _check_reshape(node, known)
    return inferred


def _check_reshape(node: onnx.NodeProto, known: dict[str, Shape]) -> None:
    """Inference believes a size that was written down, such as one that fits the image of a single size."""
    source = known.get(node.input[0]) if node.input else None
    if source is None or math.prod(source) != math.prod(known[node.output[0]]):
        raise GraphError(f"reshapes to {node.output[0]!r}, whose size does not follow the image's; export it anew")
