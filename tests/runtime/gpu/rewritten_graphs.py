"""Graphs written for TensorRT, compared with what they were; for the tests of that."""

from __future__ import annotations

import numpy as np
import onnx
from tensorrt_rules import open_session, parser_problems
from tiny_bundle import BYTE, FLOAT, graph, value

from vifa_runtime.backends.tensorrt_graphs import rewrite

SIZE = (96, 128)


def compute(data, inputs):
    """All results of a graph, by name."""
    session = open_session(onnx.load_model_from_string(data))
    names = [output.name for output in session.get_outputs()]
    fed = {wanted.name: inputs[wanted.name] for wanted in session.get_inputs()}
    return dict(zip(names, session.run(names, fed), strict=True))


def shapes_of(inputs):
    """Shapes by name."""
    return {name: array.shape for name, array in inputs.items()}


def operators(data):
    """Operators of a graph in their order."""
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def smooth_pair(size=SIZE, seed=0):
    """A pair that changes slowly, as images do."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((size[0] // 8, size[1] // 8, 4), np.float32)
    fine = np.kron(coarse, np.ones((8, 8, 1), np.float32))
    return {"visible": (255 * fine[None, ..., :3]).astype(np.uint8), "thermal": fine[None, ..., 3]}


def pixels(nodes, constants=None, opset=17, kind=FLOAT, shape=None):
    """A graph from `image` uint8 to `out`."""
    inputs = [value("image", BYTE, [1, "H", "W", 3])]
    return graph(nodes, inputs, [value("out", kind, shape)], constants, opset)


IMAGE = {"image": np.arange(4 * 8 * 3, dtype=np.uint8).reshape(1, 4, 8, 3) * 2}


def check(data, inputs=IMAGE, **options):
    """Rewrite, compare with the graph as it was, and show it to the stand-in's parser; returns what was written."""
    written = rewrite(data, shapes_of(inputs), **options)
    was, now = compute(data, inputs), compute(written.data, inputs)
    assert now.keys() == was.keys()
    for name, array in was.items():
        np.testing.assert_array_equal(now[name], array)
        assert written.outputs[name] == array.shape
        assert now[name].dtype == array.dtype
    assert not parser_problems(onnx.load_model_from_string(written.data), options.get("old", False))
    return written.data
