"""Backbone and heads as one graph: the same numbers, whatever the graphs call their tensors."""

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_bundle import FUSED, HEAT, VISIBLE, backbone, expected, graph, head, manifest, write_tiny

from vifa_runtime.backends import Options, prepare
from vifa_runtime.backends.merge import _batch_convolutions, merge_fusion
from vifa_runtime.backends.onnxruntime import make_session
from vifa_runtime.bundle import load_bundle, write_bundle
from vifa_runtime.models import find_bundle

node = helper.make_node


def pair_of(make_pair, *size):
    visible, thermal = make_pair(*size)
    return visible[None], thermal[None].astype(np.float32) / np.float32(255)


def run_all(bundle, pair, **options):
    results = prepare("onnxruntime", bundle, Options(threads=1, **options)).run(*pair, bundle.task_names)
    return results.fused, set(results.milliseconds)


def test_the_graph_holds_each_operator_once_and_gives_an_image_a_task(bundle):
    merged = onnx.load_model_from_string(merge_fusion(bundle, bundle.tasks))
    onnx.checker.check_model(merged, full_check=True)
    counts = [len(onnx.load_model_from_string(data).graph.node) for data in bundle.graphs.values()]
    assert len(merged.graph.node) == sum(counts)
    assert [value.name for value in merged.graph.input] == ["visible", "thermal"]
    assert [value.name for value in merged.graph.output] == ["bright/fused", "blend/fused"]


@pytest.mark.parametrize("name", ["nano-fusion", "nano-two-task", "tardal-fusion"])
def test_bundles_that_ship_give_the_same_bytes(name):
    bundle = load_bundle(find_bundle(name))
    rng = np.random.default_rng(1)
    pair = rng.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8), rng.random((1, 64, 96), dtype=np.float32)
    merged, apart = run_all(bundle, pair), run_all(bundle, pair, merge=False)
    assert "fusion" in merged[1] and "backbone" in apart[1]
    for task in bundle.task_names:
        np.testing.assert_array_equal(merged[0][task], apart[0][task])


def test_tensors_of_one_name_in_several_graphs_stay_apart(tmp_path, make_pair):
    """The first head computes a tensor called as a feature it does not take; the second takes that feature."""
    nodes = [
        node("Cast", ["visible"], ["luma"], to=onnx.TensorProto.FLOAT),
        node("Add", ["luma", "heat"], ["sum"]),
        node("Clip", ["sum", "black", "white"], ["clipped"]),
        node("Cast", ["clipped"], ["fused"], to=onnx.TensorProto.UINT8),
    ]
    constants = {"black": np.float32(0), "white": np.float32(255)}
    bright = graph(nodes, [VISIBLE, HEAT], [FUSED], constants)
    bundle = write_tiny(tmp_path / "a", graphs={"bright": bright})
    visible, thermal = pair_of(make_pair, 8, 8)
    fused, stages = run_all(bundle, (visible, thermal))
    assert stages == {"fusion"}
    for task, image in fused.items():
        np.testing.assert_array_equal(image[0], expected(task, visible[0], thermal[0]))


def test_a_task_may_be_called_backbone(tmp_path, make_pair):
    tasks = [{"name": "backbone", "kind": "fusion", "description": "odd"}]
    files = {"README.md": b"# odd\n", "backbone.onnx": backbone(), "heads/backbone.onnx": head("blend")}
    bundle = write_bundle(tmp_path / "a", manifest(tasks=tasks, metrics=[]), files)
    visible, thermal = pair_of(make_pair, 8, 8)
    fused, stages = run_all(bundle, (visible, thermal))
    assert stages == {"fusion"}
    np.testing.assert_array_equal(fused["backbone"][0], expected("blend", visible[0], thermal[0]))


def test_graphs_of_different_versions_run_one_after_the_other(tmp_path, make_pair):
    older = onnx.load_model_from_string(head("blend"))
    older.opset_import[0].version = 16
    bundle = write_tiny(tmp_path / "a", graphs={"blend": older.SerializeToString()})
    assert merge_fusion(bundle, bundle.tasks) is None
    visible, thermal = pair_of(make_pair, 8, 8)
    fused, stages = run_all(bundle, (visible, thermal))
    assert stages == {"backbone", "head.bright", "head.blend"}
    np.testing.assert_array_equal(fused["blend"][0], expected("blend", visible[0], thermal[0]))


def test_heads_computed_as_one_convolution_give_the_same_images():
    """Of two thin heads and of heads of several layers; by a gray level at most, as sums may be ordered otherwise."""
    rng = np.random.default_rng(2)
    pair = rng.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8), rng.random((1, 64, 96), dtype=np.float32)
    for name in ("nano-fusion", "nano-two-task", "tardal-fusion"):
        bundle = load_bundle(find_bundle(name))
        plain = onnx.load_model_from_string(merge_fusion(bundle, bundle.tasks))
        batched = onnx.load_model_from_string(merge_fusion(bundle, bundle.tasks, batch_heads=True))
        onnx.checker.check_model(batched, full_check=True)
        convolutions = [sum(n.op_type == "Conv" for n in model.graph.node) for model in (plain, batched)]
        assert convolutions[1] == convolutions[0] - 1
        apart, together = run_all(bundle, pair)[0], run_all(bundle, pair, batch_heads=True)[0]
        for task in bundle.task_names:
            assert np.abs(apart[task].astype(int) - together[task]).max() <= 1


def test_heads_that_look_at_the_feature_in_another_way_stay_apart():
    """A kernel of another size, and a convolution by groups."""
    feature = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, "H", "W"])
    sizes = {"a": (2, 4, 3, 3), "b": (3, 4, 3, 3), "c": (2, 4, 1, 1), "d": (4, 2, 3, 3), "e": (4, 2, 3, 3)}
    rng = np.random.default_rng(0)
    weights = []
    nodes = []
    for name, size in sizes.items():
        for what, shape in (("w", size), ("b", size[:1])):
            array = rng.normal(size=shape).astype(np.float32)
            weights.append(onnx.numpy_helper.from_array(array, f"{name}{what}"))
        options = {"pads": [1] * 4} if size[2] == 3 else {}
        options |= {"group": 2} if size[1] == 2 else {}
        nodes.append(node("Conv", ["x", f"{name}w", f"{name}b"], [name], **options))
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in sizes]

    def run(some_nodes, some_weights):
        made = onnx.helper.make_graph(some_nodes, "g", [feature], outputs, some_weights)
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        session = make_session(model.SerializeToString(), 1)
        return session.run(list(sizes), {"x": np.ones((1, 4, 8, 8), np.float32)})

    joined = _batch_convolutions(nodes, weights)
    assert [n.op_type for n in joined[0]] == ["Conv", "Split", "Conv", "Conv", "Conv"]
    for before, after in zip(run(nodes, weights), run(*joined), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
