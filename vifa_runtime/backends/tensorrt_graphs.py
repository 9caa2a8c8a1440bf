"""A bundle's graphs as TensorRT takes them: the same numbers, in the operators that its ONNX parser reads right.

Pure ONNX, so all of it is tested against ONNX Runtime. What is rewritten, and why (parsers: github:onnx/onnx-tensorrt,
tags release/8.5-GA to release/10.1-GA; types: `DataType` in the docstrings of TensorRT's Python bindings):

- All sides become numbers, and what follows from them alone becomes constants. The parsers of 8.5 and 8.6 read `Shape`
  as if it had no `start` and `end`; and weights stored in half precision, which a `Cast` widens, would be no weights.
- `QuantizeLinear` to uint8 at the end of a graph becomes round, clip and cast: the parsers of 8.6 to 10.1 refuse uint8
  there, the one of 8.5 takes it for int8.
- Bytes become float32 before they are moved about, and a cast between uint8 and another type than a float goes by way
  of float32: TensorRT has uint8 at the ends of a network only, and converts it to and from floats only.
- Scales of graphs in 8 bits become signed and symmetric; see `scaled_graphs`.
- For 8.5 and 8.6, which know operators up to opset 17, graphs of later opsets are written in 17. Those parsers would
  read them all the same, but ignore the axes of `ReduceMean`, which opset 18 moved, and average over everything.
- For FP16 where a network is strongly typed (10 and newer), convolutions and what leads to them work in float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from vifa_runtime.backends.half_graphs import to_half
from vifa_runtime.backends.scaled_graphs import make_symmetric
from vifa_runtime.graph_tools import (
    Shape,
    Shapes,
    drop_unused,
    element_type,
    fix_sizes,
    infer,
    infos,
    opset_of,
    sides,
)

OLD_OPSET = 17
LARGEST_CONSTANT = 1 << 24  # numbers of what is computed before a graph is built

_COMPUTED = """
    Add Cast Concat Constant ConstantOfShape Div Equal Expand Floor Gather Identity Mul Reshape Shape Slice Squeeze Sub
    Transpose Unsqueeze Where
"""
_MOVED = """
    Concat DepthToSpace Expand Flatten Gather Identity Reshape Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze
"""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_FOLDED = frozenset(_COMPUTED.split())
_MOVING = frozenset(_MOVED.split())
_NEW_DEFAULTS: dict[str, int | bytes] = {
    "antialias": 0,
    "keep_aspect_ratio_policy": b"stretch",
    "noop_with_empty_axes": 0,
    "saturate": 1,
}


class GraphRewriteError(ValueError):
    """A graph that cannot be written for TensorRT; the message names the operator and the mend."""


@dataclass(frozen=True)
class Rewritten:
    """A graph for TensorRT: its bytes, and the shape of every input and output."""

    data: bytes
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def rewrite(data: bytes, shapes: Shapes, old: bool = False, half: bool = False) -> Rewritten:
    """Write a graph of a bundle for TensorRT; see the module. Results are equal but where `half` rounds.

    Args:
        data: ONNX bytes that passed `graph_check`.
        shapes: of every input.
        old: for TensorRT below 10.
        half: convolutions in float16; inputs and outputs stay what they are.

    Raises:
        GraphRewriteError: an operator that TensorRT would refuse or read wrong.
    """
    model = _fold(fix_sizes(onnx.load_model_from_string(data), shapes))
    _replace_quantised_outputs(model)
    if is_quantised(model):
        make_symmetric(model)
        model = _fold(model)
    _carry_bytes_as_floats(model)
    _check_types(model)
    if old and opset_of(model) > OLD_OPSET:
        _lower(model)
    if half and not is_quantised(model):
        to_half(model)
    drop_unused(model)
    return Rewritten(
        model.SerializeToString(),
        {value.name: sides(value) for value in model.graph.input},
        {value.name: sides(value) for value in model.graph.output},
    )


def is_quantised(model: ModelProto | bytes) -> bool:
    """Whether a graph says itself how it is quantised, by more than the colours at its end."""
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def _fold(model: ModelProto) -> ModelProto:
    """Compute what does not depend on the inputs' values; scales and weights of quantised graphs stay nodes."""
    known = infos(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    ends = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        inputs = [constants[name] for name in node.input if name in constants]
        is_constant = node.op_type == "Shape" or len(inputs) == sum(map(bool, node.input))
        is_small = all(np.prod(sides(known[name])) <= LARGEST_CONSTANT for name in node.output)
        if node.op_type in _FOLDED and is_constant and is_small and not ends & set(node.output):
            constants.update((tensor.name, tensor) for tensor in _evaluate(node, inputs, known, opset_of(model)))
        else:
            kept.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(constants.values())
    drop_unused(model)
    return infer(model)


def _evaluate(
    node: NodeProto, inputs: Sequence[TensorProto], known: Mapping[str, onnx.ValueInfoProto], opset: int
) -> list[TensorProto]:
    """What a node computes from constants, or from the shape of its input alone."""
    fed = [] if inputs or node.op_type != "Shape" else [known[node.input[0]]]
    graph = helper.make_graph([node], "folded", fed, [known[name] for name in node.output], inputs)
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
    arrays = evaluator.run(None, {value.name: np.broadcast_to(np.float32(0), sides(value)) for value in fed})
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in zip(node.output, arrays, strict=True)]


def _replace_quantised_outputs(model: ModelProto) -> None:
    """QuantizeLinear to uint8 at the end of a graph, by one scale -> divide, round, add the zero point, clip, cast."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output if element_type(value) == TensorProto.UINT8}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        parameters = [constants.get(name) for name in node.input[1:]]
        if node.op_type != "QuantizeLinear" or node.output[0] not in outputs or not _are_scalars(parameters):
            nodes.append(node)
            continue
        scale, zero = (*parameters, np.uint8(0))[:2]
        nodes += _round_to_bytes(model, node.input[0], node.output[0], np.ravel(scale)[0], np.ravel(zero)[0])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(infer(model))


def _are_scalars(parameters: Sequence[NDArray | None]) -> bool:
    return all(value is not None and value.size == 1 for value in parameters)


def _round_to_bytes(model: ModelProto, source: str, target: str, scale: Any, zero: Any) -> list[NodeProto]:
    """Nodes that quantise a tensor as QuantizeLinear does, which rounds halves to even too."""
    nodes, name = [], source

    def apply(operator: str, *numbers: float) -> None:
        nonlocal name
        inputs = [name, *(_number(model, f"{target}/{operator}/{number:g}", number) for number in numbers)]
        name = f"{target}/{operator}"
        nodes.append(helper.make_node(operator, inputs, [name]))

    if scale != 1:
        apply("Div", scale)
    apply("Round")
    if zero:
        apply("Add", zero)
    apply("Clip", 0, 255)
    nodes.append(helper.make_node("Cast", [name], [target], to=TensorProto.UINT8))
    return nodes


def _number(model: ModelProto, name: str, value: float) -> str:
    """Add a float32 constant; returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(value).reshape(()), name))
    return name


def _carry_bytes_as_floats(model: ModelProto) -> None:
    """Keep uint8 at the ends.

    What moves bytes about moves float32, which holds them exactly, and casts between uint8 and booleans or integers go
    by way of float32.
    """
    kinds = {name: element_type(value) for name, value in infos(model).items()}
    outputs = {value.name for value in model.graph.output}
    nodes: list[NodeProto] = []
    floats: dict[str, str] = {}  # tensor of bytes -> the same numbers in float32

    def as_float(name: str) -> str:
        if kinds.get(name) != TensorProto.UINT8:
            return name
        if name not in floats:
            floats[name] = f"{name}/float"
            nodes.append(helper.make_node("Cast", [name], [floats[name]], to=TensorProto.FLOAT))
        return floats[name]

    for node in model.graph.node:
        touched = [name for name in (*node.input, *node.output) if kinds.get(name) == TensorProto.UINT8]
        if node.op_type == "Cast" and touched:
            if node.input[0] in floats or (touched == node.input and kinds[node.output[0]] not in _FLOATS):
                node.input[0] = as_float(node.input[0])
            elif touched == node.output and kinds[node.input[0]] not in _FLOATS:
                nodes.append(helper.make_node("Cast", node.input, [f"{node.output[0]}/float"], to=TensorProto.FLOAT))
                node.input[0] = f"{node.output[0]}/float"
        elif touched and node.op_type in _MOVING:
            node.input[:] = [as_float(name) for name in node.input]
            floats.update({name: f"{name}/float" for name in node.output})
            ends = [name for name in node.output if name in outputs]
            node.output[:] = [floats[name] for name in node.output]
            nodes += [node, *(helper.make_node("Cast", [floats[name]], [name], to=TensorProto.UINT8) for name in ends)]
            continue
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.CopyFrom(infer(model))


def _check_types(model: ModelProto) -> None:
    """Refuse arithmetic of uint8, uint8 between the ends of a graph, and zero points other than 0."""
    kinds = {name: element_type(value) for name, value in infos(model).items()}
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if kinds.get(name) == TensorProto.UINT8 and (node.op_type != "Cast" or name not in ends):
                raise GraphRewriteError(
                    f"operator {node.op_type} ({node.output[0]}) works on uint8, which TensorRT takes at the ends of a "
                    "graph only; export the bundle with float32 there, or int8 where it is quantised"
                )
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        is_scaled = node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
        if is_scaled and np.any(arrays.get(node.input[2], 1)):
            raise GraphRewriteError(
                f"operator {node.op_type} ({node.output[0]}) has a zero point other than 0, which TensorRT does not "
                "take; quantise the bundle symmetrically"
            )


def _lower(model: ModelProto) -> None:
    """Write a graph of a later opset in opset 17; what has no equal there is refused by name."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known = infos(model)
    for node in model.graph.node:
        if node.op_type in ("ReduceMax", "ReduceMean", "ReduceMin") and node.input[1:2] and node.input[1] in arrays:
            node.attribute.append(helper.make_attribute("axes", arrays[node.input[1]].tolist()))
            del node.input[1:]
        if node.op_type == "Split" and len(node.input) == 1:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            parts = np.array([sides(known[name])[axis] for name in node.output], np.int64)
            node.input.append(f"{node.output[0]}/split")
            model.graph.initializer.append(numpy_helper.from_array(parts, node.input[1]))
            _drop_defaults(node, {"num_outputs": len(node.output)})
        _drop_defaults(node, _NEW_DEFAULTS)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OLD_OPSET))
    model.ir_version = min(model.ir_version, 8)
    try:
        checker.check_model(model)
        model.CopyFrom(infer(model))
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:160]
        raise GraphRewriteError(
            f"cannot be written in opset {OLD_OPSET}, the last that TensorRT below 10 reads: {reason}"
        ) from None


def _drop_defaults(node: NodeProto, defaults: Mapping[str, int | bytes]) -> None:
    """Drop attributes that say what older opsets do anyway; others stay, for the checker to refuse."""
    kept = [a for a in node.attribute if a.name not in defaults or helper.get_attribute_value(a) != defaults[a.name]]
    del node.attribute[:]
    node.attribute.extend(kept)
