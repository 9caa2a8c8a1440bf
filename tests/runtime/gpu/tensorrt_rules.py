"""What TensorRT's parsers and builders take, refuse and read wrong; for the stand-in, which names the sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from cuda_standin import Machine
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

from vifa_runtime.backends.onnxruntime import make_session


class BuildError(Exception):
    """The builder gives no engine."""


def infos(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]


def parser_problems(model: onnx.ModelProto, old: bool) -> list[tuple[int, str]]:
    """Nodes, by number, that a parser refuses; those that it reads wrong fail the test."""
    checker.check_model(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kinds = {value.name: value.type.tensor_type.elem_type for value in infos(model)}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    scaled = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    if old:
        assert model.opset_import[0].version <= 17, "operators up to opset 17 are documented"
    problems = []
    for number, node in enumerate(model.graph.node):
        names = [name for name in (*node.input, *node.output) if name]
        if node.op_type == "Shape" and node.attribute:
            assert not old, "Shape is read without its start and end"
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) > 1:
            assert not old, f"{node.op_type} is read without its axes"
        for name in names:
            if kinds[name] != TensorProto.UINT8:
                continue
            if node.op_type != "Cast" or name not in ends:
                problems.append((number, "UINT8 is supported as network input or output only"))
            elif not {kinds[end] for end in names} & {TensorProto.FLOAT, TensorProto.FLOAT16}:
                problems.append((number, "UINT8 is converted from and to floating point only"))
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] not in {*constants, *scaled}:
            problems.append((number, "the weights are no initializer\nand more"))
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and constants[node.input[2]].any():
            problems.append((number, "TRT only supports symmetric quantization - zeroPt must be all zeros"))
    return problems


def check_build(model: onnx.ModelProto, strong: bool, flags: set[str], calibrated: bool) -> None:
    """What the builder documents that it wants."""
    for value in model.graph.input:
        if not all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim):
            raise BuildError("Network has dynamic or shape inputs, but no optimization profile has been defined.")
    scaled = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    if strong and flags & {"FP16", "INT8", "BF16", "FP8"}:
        raise BuildError("Flags of precision cannot be set on a strongly typed network")
    if not strong and scaled and "INT8" not in flags:
        raise BuildError("Q/DQ nodes need the flag INT8")
    if "INT8" in flags and not scaled and not calibrated:
        raise BuildError("Calibration failure occurred with no scaling factors detected")


def calibrate(machine: Machine, calibrator: Any, model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    """Ask a calibrator for all its batches, as the builder does; what it raises is swallowed."""
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    assert calibrator.get_batch_size() == 1
    assert calibrator.read_calibration_cache() is None
    batches = []
    while pointers := calibrator.get_batch(list(inputs)):
        assert len(pointers) == len(inputs) and all(type(pointer) is int for pointer in pointers)
        batch = {}
        for (name, tensor), pointer in zip(inputs.items(), pointers, strict=True):
            shape = [dim.dim_value for dim in tensor.shape.dim]
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            assert machine.blocks[pointer].size == int(np.prod(shape)) * dtype.itemsize, name
            batch[name] = machine.view(pointer, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape).copy()
        batches.append(batch)
    if not batches:
        raise BuildError("Calibration failure occurred with no scaling factors detected")
    calibrator.write_calibration_cache(memoryview(b"scales"))
    return batches


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    return make_session(model.SerializeToString(), 1)
