"""Task graphs: what they must give, and what they must not hold."""

import numpy as np
import pytest
from odd_graphs import MULTIPLE, edited, integers, node
from onnx import TensorProto, helper, numpy_helper
from task_graphs import BYTE, FLOAT, MASK, detector, segmenter, task_graph, value

from vifa_runtime.graph_check import PER_PIXEL, GraphError, check_task

KINDS = {"detection": (detector(), 3), "segmentation": (segmenter(), 2)}


def refusal(data, kind="detection", classes=3):
    """Why a task graph is refused."""
    with pytest.raises(GraphError) as caught:
        check_task(data, kind, classes, MULTIPLE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def from_levels(*nodes, outputs=(MASK,), constants=None):
    """A task graph that computes its outputs from `levels`, the image in float32."""
    return task_graph([node("Cast", ["image"], ["levels"], to=FLOAT), *nodes], outputs, constants)


@pytest.mark.parametrize("multiple", [4, 12, 32, 256])
def test_good_graphs_pass(multiple):
    check_task(detector(), "detection", 3, multiple)
    check_task(segmenter(), "segmentation", 2, multiple)
    check_task(segmenter(confidence=False), "segmentation", 7, multiple)


@pytest.mark.parametrize("size", [(128, 192), (1280, 1024)])
def test_a_number_of_boxes_that_is_written_into_the_graph(size):
    """As exporters do that trace a model at one size; right for one of the two probes."""

    def fix(model):
        for weight in model.graph.initializer:
            if weight.name in ("rows_of_three", "rows_of_four"):
                channels = numpy_helper.to_array(weight)[1]
                weight.CopyFrom(numpy_helper.from_array(integers(1, channels, size[0] * size[1] // 16), weight.name))

    assert "whose size does not follow the image's; export it anew" in refusal(edited(detector(), fix))


def test_a_reshape_of_nothing():
    constants = {"shape": integers(1, 128, 192)}
    lost = from_levels(
        node("Reshape", ["nowhere", "shape"], ["floats"]),
        node("Cast", ["floats"], ["mask"], to=BYTE),
        constants=constants,
    )
    assert "is inconsistent" in refusal(lost, "segmentation")


@pytest.mark.parametrize("classes", [1, 2, 4, 254])
def test_scores_of_another_number_of_classes(classes):
    message = refusal(detector(), classes=classes)
    assert message == f"output 'scores' is not float32 of shape (1, A, {classes}): for each box one score a class"


def test_scores_of_another_number_of_boxes():
    def drop_one(model):
        model.graph.node[5].output[0] = "all_scores"
        model.graph.node.append(node("Slice", ["all_scores", "from", "to", "axis"], ["scores"]))
        for name, number in {"from": 1, "to": 10**6, "axis": 1}.items():
            model.graph.initializer.append(numpy_helper.from_array(integers(number), name))

    assert "output 'scores' is not float32 of shape (1, A, 3)" in refusal(edited(detector(), drop_one))


@pytest.mark.parametrize(
    "last",
    [
        node("Identity", ["by_corner"], ["boxes"]),
        node("Transpose", ["by_corner"], ["boxes"], perm=[2, 0, 1]),
        node("Flatten", ["by_corner"], ["boxes"]),
    ],
    ids=["channels first", "no batch", "flat"],
)
def test_boxes_of_another_shape(last):
    def change(model):
        model.graph.node.pop()
        model.graph.node.append(last)
        model.graph.output[0].CopyFrom(value("boxes", FLOAT, None))

    assert refusal(edited(detector(), change)) == "output 'boxes' is not float32 of shape (1, A, 4)"


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_boxes_of_another_type(kind):
    def change(model):
        model.graph.node[-1].output[0] = "floats"
        model.graph.node.append(node("Cast", ["floats"], ["boxes"], to=kind))
        model.graph.output[0].CopyFrom(value("boxes", kind, None))

    assert refusal(edited(detector(), change)) == "output 'boxes' is not float32 of shape (1, A, 4)"


def test_scores_of_another_type():
    def change(model):
        model.graph.node[5].output[0] = "floats"
        model.graph.node.append(node("Cast", ["floats"], ["scores"], to=TensorProto.DOUBLE))
        model.graph.output[1].CopyFrom(value("scores", TensorProto.DOUBLE, None))

    assert "output 'scores' is not float32" in refusal(edited(detector(), change))


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_output_of_a_detector(missing):
    data = edited(detector(), lambda model: model.graph.output.pop(missing))
    left = "scores" if missing == 0 else "boxes"
    assert refusal(data) == f"has the outputs '{left}'; a detection graph gives exactly 'boxes' and 'scores'"


def test_one_output_more():
    more = edited(detector(), lambda model: model.graph.output.append(value("means", FLOAT, None)))
    assert "has the outputs 'boxes', 'scores', 'means'; a detection graph gives exactly" in refusal(more)
    more = edited(segmenter(), lambda model: model.graph.output.append(value("sums", FLOAT, None)))
    assert "has the outputs 'mask', 'confidence', 'sums'; a segmentation" in refusal(more, "segmentation")


def test_a_segmenter_without_a_mask():
    data = edited(segmenter(), lambda model: model.graph.output.pop(0))
    assert refusal(data, "segmentation") == (
        "has the outputs 'confidence'; a segmentation graph gives 'mask' and, where it can, 'confidence'"
    )


def test_graphs_of_the_other_kind():
    assert "has the outputs 'mask', 'confidence'; a detection graph" in refusal(segmenter())
    assert "has the outputs 'boxes', 'scores'; a segmentation graph" in refusal(detector(), "segmentation")


@pytest.mark.parametrize("name", ["mask", "confidence"])
@pytest.mark.parametrize(
    "last",
    [
        [node("MaxPool", ["planes"], ["half"], kernel_shape=[2], strides=[2]), node("Cast", ["half"], ["X"], to=BYTE)],
        [node("Transpose", ["planes"], ["turned"], perm=[0, 2, 1]), node("Cast", ["turned"], ["X"], to=BYTE)],
        [node("Cast", ["levels"], ["X"], to=BYTE)],
        [node("Cast", ["planes"], ["X"], to=TensorProto.INT32)],
        [node("Cast", ["planes"], ["X"], to=TensorProto.BOOL)],
        [node("Cast", ["planes"], ["bytes"], to=BYTE), node("Slice", ["bytes", "from", "to", "axes"], ["X"])],
    ],
    ids=["half the width", "swapped sides", "three channels", "integers", "bools", "one fixed size"],
)  # fmt: skip
def test_a_mask_of_another_size_or_type(last, name):
    last[-1].output[0] = name
    kind = next((a.i for a in last[-1].attribute if a.name == "to"), BYTE)
    outputs = [value(name, kind, None)]
    nodes = [node("ReduceSum", ["levels", "channels"], ["planes"], keepdims=0), *last]
    if name == "confidence":
        nodes += [node("Cast", ["planes"], ["mask"], to=BYTE)]
        outputs += [MASK]
    constants = {"channels": integers(3), "from": integers(0, 0), "to": integers(128, 192), "axes": integers(1, 2)}
    data = from_levels(*nodes, outputs=outputs, constants=constants)
    assert refusal(data, "segmentation") == (f"output {name!r} is not uint8 of shape (1, H, W), the size of the image")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [[1, 480, 640, 3], [1, 128, "W", 3], [1, "H", 192, 3], [1, 3, "H", "W"]])
def test_an_image_of_a_fixed_size(kind, shape):
    data, classes = KINDS[kind]
    fixed = edited(data, lambda model: model.graph.input[0].CopyFrom(value("image", BYTE, shape)))
    assert "input 'image' has a fixed side of" in refusal(fixed, kind, classes)


@pytest.mark.parametrize("kind", KINDS)
def test_another_input(kind):
    data, classes = KINDS[kind]
    floats = edited(data, lambda model: model.graph.input[0].CopyFrom(value("image", FLOAT, [1, "H", "W", 3])))
    assert "input 'image' has the wrong element type" in refusal(floats, kind, classes)
    more = edited(data, lambda model: model.graph.input.append(value("threshold", FLOAT, [1])))
    assert "asks for the input 'threshold'; known are 'image'" in refusal(more, kind, classes)
    none = task_graph([node("Identity", ["mask_of_one"], ["mask"])], [MASK], {"mask_of_one": np.uint8(1)}, inputs=[])
    assert "lacks the input 'image'" in refusal(none, kind, classes)


@pytest.mark.parametrize("operator", ["NonZero", "NonMaxSuppression", "Range", "Loop", "TopK", "Unique", "Compress"])
def test_operators_whose_results_have_a_size_that_nobody_can_tell(operator):
    assert f"uses the operator {operator!r}" in refusal(from_levels(node(operator, ["levels"], ["mask"])))


def test_a_graph_inside_an_operator():
    inner = helper.make_graph([node("Identity", ["levels"], ["y"])], "inner", [], [value("y", FLOAT, None)])
    assert "holds a sub-graph" in refusal(from_levels(node("Identity", ["levels"], ["mask"], body=inner)))


def test_a_weight_outside_the_file():
    def move_out(model):
        model.graph.initializer[0].data_location = TensorProto.EXTERNAL

    assert "lies outside the file" in refusal(edited(detector(), move_out))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Tile", ["levels", "n"], ["big"])], {"n": integers(1, 1, 1, PER_PIXEL)}),
        ([node("ConstantOfShape", ["n"], ["big"])], {"n": integers(2**20, 2**20)}),
        ([node("Where", ["is_any", "levels", "n"], ["big"])], {"n": np.zeros((999, 1, 1, 1), np.float32)}),
        ([node("Equal", ["levels", "n"], ["big"])], {"n": np.zeros((999, 1, 1, 1), np.float32)}),
    ],
    ids=["Tile", "ConstantOfShape", "Where", "Equal"],
)
def test_tensors_out_of_proportion_to_the_image(nodes, constants):
    before, after = node("Cast", ["levels"], ["is_any"], to=TensorProto.BOOL), node("Cast", ["big"], ["mask"], to=BYTE)
    data = from_levels(before, *nodes, after, constants=constants)
    assert f"tensor 'big' has more than {PER_PIXEL} elements per image pixel" in refusal(data)


def test_a_size_that_depends_on_pixels():
    """The counting operators give no shape to others: CumSum over pixels, then Tile by the last sum."""
    nodes = [
        node("ReduceMax", ["levels"], ["rows"], axes=[0, 2, 3], keepdims=0),
        node("CumSum", ["rows", "first"], ["counts"]),
        node("Gather", ["counts", "last"], ["count"]),
        node("Floor", ["count"], ["whole"]),
        node("Cast", ["whole"], ["n"], to=TensorProto.INT64),
        node("Tile", ["rows", "n"], ["tiled"]),
        node("Cast", ["tiled"], ["mask"], to=BYTE),
    ]
    data = from_levels(*nodes, constants={"first": np.int64(0), "last": integers(-1)})
    assert "the shape of tensor 'tiled' cannot be told" in refusal(data)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_stored_as_float16(kind):
    """As bundles that ship store them: FP16 initializers, each cast to FP32 before it is used."""
    data, classes = KINDS[kind]

    def halve(model):
        casts = []
        for weight in model.graph.initializer:
            if weight.data_type == FLOAT:
                halved = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name + "_16")
                casts.append(node("Cast", [halved.name], [weight.name], to=FLOAT))
                weight.CopyFrom(halved)
        assert casts
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    check_task(edited(data, halve), kind, classes, MULTIPLE)


def test_the_operators_that_detectors_and_segmenters_need():
    """One chain through every operator that is there for their sake, as exporters write them."""
    nodes = [
        node("ReduceSum", ["levels", "channels"], ["sums"], keepdims=1),
        node("Concat", ["sums", "levels"], ["logits"], axis=3),
        node("LogSoftmax", ["logits"], ["logs"], axis=3),
        node("ArgMax", ["logs"], ["best"], axis=3, keepdims=0),
        node("ArgMin", ["logs"], ["worst"], axis=3, keepdims=0),
        node("Equal", ["best", "worst"], ["same"]),
        node("Not", ["same"], ["differ"]),
        node("Cast", ["best"], ["ids"], to=FLOAT),
        node("GreaterOrEqual", ["ids", "two"], ["high"]),
        node("LessOrEqual", ["ids", "two"], ["low"]),
        node("Less", ["ids", "two"], ["lower"]),
        node("And", ["high", "low"], ["both"]),
        node("Or", ["both", "lower"], ["any"]),
        node("And", ["any", "differ"], ["chosen"]),
        node("Ceil", ["ids"], ["up"]),
        node("Shape", ["up"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Tile", ["zeros", "once"], ["tiled"]),
        node("Where", ["chosen", "up", "tiled"], ["result"]),
        node("Cast", ["result"], ["mask"], to=BYTE),
    ]
    constants = {"channels": integers(3), "two": np.float32(2), "once": integers(1, 1, 1)}
    check_task(from_levels(*nodes, constants=constants), "segmentation", 4, MULTIPLE)


def test_outputs_in_any_order():
    turned = edited(segmenter(), lambda model: model.graph.output.sort(key=lambda output: output.name))
    check_task(turned, "segmentation", 2, MULTIPLE)
