"""Whether products of 8 bits overflow on this processor, which ONNX Runtime does not say.

x86 processors before VNNI add two products of 8 bits in 16, and what does not fit is lost without a word. ONNX Runtime
has kernels that do not, but they are slower, and it takes them on every x86 processor if asked to. So a
convolution that is known is computed, and they are asked for where its result is wrong.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS, _STEP = 4, 1000
_SIDE = 16  # pixels


def products_overflow() -> bool:
    """Compute 4 x 255 x 127 in 8 bits, 129,540; two of these products are more than 16 bits hold."""
    import onnxruntime as ort  # who calls has seen to it that it is there

    wanted = round(_CHANNELS * 255 * 127 / _STEP)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(probe(), options, providers=["CPUExecutionProvider"])
    (steps,) = session.run(None, {"bytes": np.full((1, _CHANNELS, _SIDE, _SIDE), 255, np.uint8)})
    return bool(np.any(steps != wanted))


def probe() -> bytes:
    """A graph that sums products of `bytes` (1,4,16,16) with weights of 127, in `steps` (1,8,16,16) of 1000."""
    constants = {
        "one": np.float32(1),
        "thousand": np.float32(_STEP),
        "zero": np.uint8(0),
        "signed_zero": np.int8(0),
        "kernel": np.full((8, _CHANNELS, 1, 1), 127, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["kernel", "one", "signed_zero"], ["weights"]),
        helper.make_node("Conv", ["levels", "weights"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "thousand", "zero"], ["steps"]),
    ]
    taken, given = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, count, _SIDE, _SIDE])
        for name, count in (("bytes", _CHANNELS), ("steps", 8))
    )
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "probe", [taken], [given], held)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()
