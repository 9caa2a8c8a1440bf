"""What a graph must not hold: other operators, data from outside, inputs and outputs off its contract."""

import numpy as np
import onnx
import pytest
from odd_graphs import MULTIPLE, edited, from_thermal, integers, node, refusal
from onnx import TensorProto, helper
from tiny_bundle import BYTE, FLOAT, FUSED, HEAT, THERMAL, VISIBLE, backbone, graph, head, value

from vifa_runtime.graph_check import ALLOWED_OPERATORS, GraphError, check_backbone, check_head

OUT = value("out", FLOAT, None)


def head_refusal(data):
    """Why a head on the tiny backbone is refused."""
    with pytest.raises(GraphError) as caught:
        check_head(data, check_backbone(backbone(), MULTIPLE), MULTIPLE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_backbone_gives_its_features_and_their_shapes_for_two_different_images():
    small, large = check_backbone(backbone(), MULTIPLE)
    assert set(small) == set(large) == {"luma", "heat"}
    assert small["luma"] != large["luma"]
    for shape in (*small.values(), *large.values()):
        assert (shape[0], shape[3]) == (1, 1)
        assert shape[1] % MULTIPLE == shape[2] % MULTIPLE == 0
        assert shape[1] != shape[2]  # else swapped sides would pass


@pytest.mark.parametrize("task", ["bright", "blend"])
def test_good_heads_pass(task):
    check_head(head(task), check_backbone(backbone(), MULTIPLE), MULTIPLE)


@pytest.mark.parametrize("multiple", [1, 7, 256])
def test_any_size_multiple_can_be_checked(multiple):
    for shapes in check_backbone(backbone(), multiple):
        assert shapes["luma"][1] % multiple == 0


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "NonZero", "RandomNormal", "SequenceEmpty", "Nonsense"])
def test_operators_off_the_list(operator):
    assert operator not in ALLOWED_OPERATORS
    assert f"uses the operator {operator!r}" in refusal(from_thermal(node(operator, ["thermal"], ["out"])))


def test_operators_that_read_files_or_run_code_are_not_on_the_list():
    assert not ALLOWED_OPERATORS & {"If", "Loop", "Scan", "SequenceMap", "StringNormalizer", "TfIdfVectorizer", "PyOp"}


def test_a_graph_inside_an_operator():
    inner = helper.make_graph([node("Identity", ["thermal"], ["y"])], "inner", [], [value("y", FLOAT, None)])
    assert "holds a sub-graph" in refusal(from_thermal(node("Identity", ["thermal"], ["out"], body=inner)))


def test_an_operator_of_another_domain():
    other = node("FusedConv", ["thermal"], ["out"], domain="com.microsoft")
    assert "uses the operator 'FusedConv' of 'com.microsoft'" in refusal(from_thermal(other))


def test_a_graph_that_declares_another_domain():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.evil", 1)]
    data = graph([node("Identity", ["thermal"], ["out"])], [VISIBLE, THERMAL], [OUT], opset_imports=opsets)
    assert "operator domain 'com.evil'" in refusal(data)


@pytest.mark.parametrize("opset", [1, 12, 24, 1000])
def test_an_opset_that_was_not_tried(opset):
    assert f"uses opset {opset}" in refusal(from_thermal(node("Identity", ["thermal"], ["out"]), opset=opset))


def test_a_function():
    identity = [node("Identity", ["x"], ["y"])]
    function = helper.make_function("", "Twice", ["x"], ["y"], identity, [helper.make_opsetid("", 17)])
    data = graph([node("Identity", ["thermal"], ["out"])], [VISIBLE, THERMAL], [OUT], functions=[function])
    assert "defines the function 'Twice'" in refusal(data)


def test_a_weight_outside_the_file():
    def move_out(model):
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="/etc/passwd")

    assert "lies outside the file" in refusal(edited(backbone(), move_out))


@pytest.mark.parametrize("marked", [True, False])
def test_a_constant_outside_the_file(marked):
    outside = TensorProto(data_type=FLOAT, dims=[3])
    outside.external_data.add(key="location", value="../secret")
    if marked:
        outside.data_location = TensorProto.EXTERNAL
    data = from_thermal(node("Identity", ["thermal"], ["out"]), node("Constant", [], ["c"], value=outside))
    assert "Constant refers to data outside the file" in refusal(data)


def test_a_sparse_constant_outside_the_file():
    outside = TensorProto(data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    sparse = onnx.SparseTensorProto(values=outside, dims=[3])
    data = from_thermal(node("Identity", ["thermal"], ["out"]), node("Constant", [], ["c"], sparse_value=sparse))
    assert "outside the file" in refusal(data)


def test_sparse_weights():
    sparse = onnx.SparseTensorProto(values=TensorProto(name="s", data_type=FLOAT, dims=[1]), dims=[10**9, 10**9])
    assert "sparse" in refusal(edited(backbone(), lambda model: model.graph.sparse_initializer.append(sparse)))


def test_more_weights_than_any_bundle_needs():
    huge = TensorProto(name="w", data_type=FLOAT, dims=[1 << 20, 1 << 20])
    assert "weights" in refusal(edited(backbone(), lambda model: model.graph.initializer.append(huge)))


def test_weights_that_are_inputs():
    data = graph([node("Add", ["thermal", "w"], ["out"])], [VISIBLE, THERMAL, value("w", FLOAT, [1])], [OUT])
    assert "asks for the input 'w'; known are 'visible', 'thermal'" in refusal(data)


def test_an_input_with_a_value_of_its_own():
    constants = {"thermal": np.zeros((1, 4, 4), np.float32)}
    assert "gives the input 'thermal' a value" in refusal(
        from_thermal(node("Identity", ["thermal"], ["out"]), constants=constants)
    )


@pytest.mark.parametrize("missing", ["visible", "thermal"])
def test_a_missing_input(missing):
    left, kept = ("thermal", THERMAL) if missing == "visible" else ("visible", VISIBLE)
    data = graph([node("Cast", [left], ["out"], to=FLOAT)], [kept], [OUT])
    assert f"lacks the input {missing!r}" in refusal(data)


@pytest.mark.parametrize(
    "wrong",
    [
        value("visible", FLOAT, [1, "H", "W", 3]),
        value("visible", BYTE, [1, 3, "H", "W", 1]),
        value("visible", BYTE, ["H", "W", 3]),
        helper.make_tensor_sequence_value_info("visible", BYTE, [1, "H", "W", 3]),
        onnx.ValueInfoProto(name="visible"),
    ],
    ids=["dtype", "rank", "no batch", "a sequence", "no type"],
)
def test_an_input_of_another_type(wrong):
    data = graph([node("Identity", ["thermal"], ["out"])], [wrong, THERMAL], [OUT])
    assert "input 'visible' has the wrong element type or number of dimensions" in refusal(data)


@pytest.mark.parametrize("shape", [[1, 480, 640], [1, 128, "W"], [1, 128, 192], [2, "H", "W"]])
def test_an_input_whose_sides_are_fixed(shape):
    data = graph([node("Identity", ["thermal"], ["out"])], [VISIBLE, value("thermal", FLOAT, shape)], [OUT])
    assert "input 'thermal' has a fixed side" in refusal(data)


def test_channels_in_front_are_not_the_contract():
    wrong = value("visible", BYTE, [1, 3, "H", "W"])
    data = graph([node("Identity", ["thermal"], ["out"])], [wrong, THERMAL], [OUT])
    assert "input 'visible' has a fixed side of 3" in refusal(data)


def test_no_output():
    assert "has no output" in refusal(graph([node("Identity", ["thermal"], ["out"])], [VISIBLE, THERMAL], []))


@pytest.mark.parametrize("name", ["fused", "thermal"])
def test_a_feature_with_a_name_that_means_something_else(name):
    data = graph([node("Identity", ["thermal"], [name])], [VISIBLE, THERMAL], [value(name, FLOAT, None)])
    assert repr(name) in refusal(data)


def test_a_feature_that_is_not_float32():
    data = graph([node("Identity", ["visible"], ["out"])], [VISIBLE, THERMAL], [value("out", BYTE, None)])
    assert "'out' is no float32 feature tensor" in refusal(data)


def test_an_output_that_lies_about_its_type():
    assert "is inconsistent" in refusal(graph([node("Identity", ["visible"], ["out"])], [VISIBLE, THERMAL], [OUT]))


@pytest.mark.parametrize("constants", [{}, {"out": np.zeros(7, np.float32)}])
def test_an_output_that_nothing_computes(constants):
    data = from_thermal(node("Identity", ["thermal"], ["other"]), constants=constants)
    assert "output 'out' is not computed by any operator" in refusal(data)


def test_an_input_that_nothing_gives():
    assert "'out' cannot be told" in refusal(from_thermal(node("Add", ["thermal", "nowhere"], ["out"])))


@pytest.mark.parametrize("data", [b"", b"\x00", b"hello", b"\x80\x02}q\x00.", b"\x89PNG\r\n\x1a\n" * 10])
def test_no_onnx_at_all(data):
    assert refusal(data) in ("is no ONNX file", "holds no operator; this is no graph")


def test_a_head_with_an_unknown_feature():
    data = graph([node("Identity", ["visible"], ["fused"])], [VISIBLE, value("depth", FLOAT, [1, "H", "W"])], [FUSED])
    assert "asks for the input 'depth'; known are 'luma', 'heat', 'visible'" in head_refusal(data)


def test_a_head_that_takes_a_feature_in_another_shape():
    data = graph([node("Identity", ["visible"], ["fused"])], [VISIBLE, value("heat", FLOAT, [1, "H", "W", 8])], [FUSED])
    assert "input 'heat' has a fixed side of 8" in head_refusal(data)


def test_a_head_without_the_visible_image():
    data = graph([node("Cast", ["heat"], ["fused"], to=BYTE)], [HEAT], [FUSED])
    assert "lacks the input 'visible'" in head_refusal(data)


def test_a_head_with_more_outputs():
    nodes = [node("Identity", ["visible"], ["fused"]), node("Cast", ["visible"], ["out"], to=FLOAT)]
    assert "has the outputs 'fused', 'out'; a head gives exactly 'fused'" in head_refusal(
        graph(nodes, [VISIBLE], [FUSED, OUT])
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "kind"),
    [
        ([node("Cast", ["visible"], ["fused"], to=FLOAT)], {}, FLOAT),
        ([node("Transpose", ["visible"], ["fused"], perm=[0, 2, 1, 3])], {}, BYTE),
        ([node("Transpose", ["visible"], ["fused"], perm=[0, 3, 1, 2])], {}, BYTE),
        (
            [node("Slice", ["visible", "from", "to"], ["fused"])],
            {"from": integers(0, 0, 0, 0), "to": integers(1, 128, 192, 3)},
            BYTE,
        ),
        ([node("Concat", ["visible", "visible"], ["fused"], axis=3)], {}, BYTE),
    ],
    ids=["float", "swapped sides", "channels first", "one fixed size", "six channels"],
)
def test_a_head_whose_result_is_no_image_of_the_same_size(nodes, constants, kind):
    data = graph(nodes, [VISIBLE], [value("fused", kind, None)], constants)
    assert "output 'fused' is not uint8 of shape (1, H, W, 3)" in head_refusal(data)


@pytest.mark.parametrize("name", [b"thermal", b"heat", b"Identity"])
def test_names_that_are_no_text(name):
    data = graph([node("Identity", ["thermal"], ["heat"])], [VISIBLE, THERMAL], [value("heat", FLOAT, None)])
    broken = data.replace(name, b"\xff\xfe" + name[2:])
    if name == b"heat":
        assert check_backbone(broken, MULTIPLE)  # odd, but nothing asks for it
    else:
        refusal(broken)
