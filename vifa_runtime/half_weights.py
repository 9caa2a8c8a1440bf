"""Weights stored in 16 bits, as files hold them, and in 32, as whoever rewrites graphs wants them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WEIGHT_INPUTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}  # operator -> which input its weights are


def half_weights(model_bytes: bytes) -> bytes:
    """The same model with the weights of its convolutions and matrix products stored as float16: half the file.

    Each becomes a float16 initializer and a Cast, which ONNX Runtime folds when it loads the model, so it computes in
    float32 as before. Weights change by at most 2^-11 of their value (2^-25 where they are tiny). Biases and
    coordinates stay as they are, and so do weights beyond what float16 holds, 65504.
    """
    model = onnx.load_model_from_string(model_bytes)
    graph = model.graph
    weights = {node.input[_WEIGHT_INPUTS[node.op_type]] for node in graph.node if node.op_type in _WEIGHT_INPUTS}
    casts = []
    for tensor in graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            if np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
                full, half = tensor.name, f"{tensor.name}_half"
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
                casts.append(helper.make_node("Cast", [half], [full], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def full_weights(model_bytes: bytes) -> bytes:
    """The same model with all weights in float32: the reverse of `half_weights`, exactly."""
    model = onnx.load_model_from_string(model_bytes)
    graph = model.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    if not halves:
        return model_bytes
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in halves and node.attribute[0].i == TensorProto.FLOAT:
            values = numpy_helper.to_array(halves[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    for tensor in [tensor for name, tensor in halves.items() if name not in read]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
