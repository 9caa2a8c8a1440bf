"""Shapes of all tensors of a graph at one size, and what is taken out of it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_bundle import BYTE, FLOAT, THERMAL, VISIBLE, graph, value, write_with_tasks

from vifa_runtime.backends.onnxruntime import make_session
from vifa_runtime.graph_tools import (
    drop_unused,
    element_type,
    fix_sizes,
    image_shapes,
    infos,
    opset_of,
    sides,
)

node = helper.make_node


def load(data):
    return onnx.load_model_from_string(data)


@pytest.mark.parametrize("path", ["backbone.onnx", "heads/bright.onnx", "heads/blend.onnx", "tasks/cells.onnx"])
def test_shapes_are_those_that_the_engine_gives(tmp_path, path):
    """ONNX Runtime as the reference: every tensor that it computes has the type and shape that were inferred."""
    made = write_with_tasks(tmp_path / "tasks")
    shapes = image_shapes((8, 12)) | {"luma": (1, 8, 12, 1), "heat": (1, 8, 12, 1)}
    known = infos(fix_sizes(load(made.graphs[path]), shapes))
    model = load(made.graphs[path])
    computed = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    session = make_session(model.SerializeToString(), 1)
    numpy_types = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    given = {value.name: np.zeros(shapes[value.name], numpy_types[value.type]) for value in session.get_inputs()}
    assert computed
    for name, array in zip(computed, session.run(computed, given), strict=True):
        assert sides(known[name]) == array.shape, name
        assert element_type(known[name]) == helper.np_dtype_to_tensor_dtype(array.dtype), name


def test_no_declared_shape_is_believed():
    """Neither those of outputs nor those of tensors inside."""
    nodes = [node("Identity", ["thermal"], ["inside"]), node("Identity", ["inside"], ["out"])]
    model = load(graph(nodes, [VISIBLE, THERMAL], [value("out", FLOAT, [7, 7, 7])]))
    model.graph.value_info.append(value("inside", FLOAT, [5]))
    fixed = fix_sizes(model, image_shapes((4, 8)))
    assert {name: sides(info) for name, info in infos(fixed).items()} == {
        "visible": (1, 4, 8, 3),
        "thermal": (1, 4, 8),
        "inside": (1, 4, 8),
        "out": (1, 4, 8),
    }


def test_a_graph_that_contradicts_itself_is_an_error():
    nodes = [node("Add", ["thermal", "thermal"], ["out"]), node("Concat", ["visible", "out"], ["both"], axis=0)]
    model = load(graph(nodes, [VISIBLE, THERMAL], [value("both", FLOAT, None)]))
    with pytest.raises(Exception, match="Concat"):
        fix_sizes(model, image_shapes((4, 8)))


def test_sides_that_are_not_known():
    assert sides(value("x", FLOAT, [1, None, "W"])) == (1, 0, 0)
    assert sides(value("x", FLOAT, [])) == ()
    assert sides(value("x", FLOAT, None)) == (0,)
    assert element_type(value("x", BYTE, [])) == TensorProto.UINT8


def test_what_no_output_needs_is_dropped():
    nodes = [
        node("Mul", ["thermal", "gain"], ["out"]),
        node("Add", ["thermal", "unused"], ["nowhere"]),
        node("Identity", ["nowhere"], ["nowhere_else"]),
    ]
    constants = {"gain": np.float32(2), "unused": np.float32(3)}
    model = load(graph(nodes, [VISIBLE, THERMAL], [value("out", FLOAT, None)], constants))
    drop_unused(model)
    assert [found.op_type for found in model.graph.node] == ["Mul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["gain"]
    assert opset_of(model) == 17
