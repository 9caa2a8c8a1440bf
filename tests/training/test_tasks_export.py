"""Exported task graphs: ONNX Runtime against torch, at sizes that are no multiples of anything."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from task_cases import as_picture, lively, random_image
from torch import Tensor, nn

from vifa_runtime.graph_check import check_task
from vifa_runtime.half_weights import full_weights, half_weights
from vifa_training.tasks import TaskNetwork, task_graph
from vifa_training.tasks.following import cell_centres

SIZES = [(64, 96), (33, 47), (121, 82)]
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=["yolov5n", "deeplabv3plus_mobilenet_v2"])
def network(request: pytest.FixtureRequest) -> TaskNetwork:
    return lively(request.param)


@pytest.fixture(scope="module")
def graph(network: TaskNetwork) -> bytes:
    return task_graph(network)


def runner(graph: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {"image": image}), strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_onnx_runtime_equals_torch(network: TaskNetwork, graph: bytes, size: tuple[int, int]) -> None:
    image = random_image(*size, seed=9)
    with torch.no_grad():
        expected = {name: result.numpy() for name, result in network.predict(as_picture(image)).items()}
    found = runner(graph)(image)
    if network.kind == "detection":
        assert list(found) == ["boxes", "scores"]
        np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
        assert found["scores"].std() > 1e-3
        return
    logits = expected["logits"].astype(np.float64)
    best = np.sort(logits, axis=1)[:, ::-1]
    clear = best[:, 0] - best[:, 1] > 1e-3
    probability = np.exp(best[:, 0]) / np.exp(logits).sum(axis=1)
    assert found["mask"].dtype == found["confidence"].dtype == np.uint8
    assert clear.mean() > 0.9 and len(np.unique(found["mask"])) > 1
    np.testing.assert_array_equal(found["mask"][clear], logits.argmax(axis=1)[clear])
    np.testing.assert_allclose(found["confidence"], 255 * probability, atol=0.6)


def test_graph_passes_the_bundles_checks(network: TaskNetwork, graph: bytes) -> None:
    for multiple in (1, 8):
        check_task(graph, network.kind, 3, multiple)


def test_graph_tells_nothing_about_the_machine(graph: bytes) -> None:
    assert str(Path(__file__).resolve().parents[2]).encode() not in graph
    assert b".py" not in graph


def test_half_weights_halve_the_file_and_hardly_change_results(network: TaskNetwork, graph: bytes) -> None:
    half = half_weights(graph)
    assert len(half) < 0.53 * len(graph)
    check_task(half, network.kind, 3, 1)
    check_they_are_the_same_in_full(half)
    image = random_image(121, 82, seed=9)
    found, full = runner(half)(image), runner(graph)(image)
    if network.kind == "detection":
        np.testing.assert_allclose(found["boxes"], full["boxes"], atol=1)
        np.testing.assert_allclose(found["scores"], full["scores"], atol=0.01)
    else:
        assert (found["mask"] == full["mask"]).mean() > 0.98
        assert np.abs(found["confidence"].astype(int) - full["confidence"]).max() <= 8


def check_they_are_the_same_in_full(half: bytes) -> None:
    full = full_weights(half)
    assert len(full) > 1.8 * len(half) and full_weights(full) == full
    image = random_image(64, 96, seed=3)
    for name, array in runner(half)(image).items():
        np.testing.assert_array_equal(runner(full)(image)[name], array)
    assert len(half_weights(full)) < 1.01 * len(half)


def test_half_weights_are_the_nearest_of_float16_and_spare_what_is_none() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    large = np.full((4, 4), 1e5, np.float32)
    offset = np.full(8, 2049.0, np.float32)  # no number of float16
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"]),
        helper.make_node("MatMul", ["a", "large"], ["b"]),
        helper.make_node("Add", ["x", "offset"], ["y"]),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8]) for name in "xy"}
    values["b"] = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 4])
    tensors = [
        numpy_helper.from_array(array, name)
        for name, array in (("weight", weight), ("large", large), ("offset", offset))
    ]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["b"], values["y"]], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    half = half_weights(model.SerializeToString())
    kinds = {t.name: t.data_type for t in onnx.load_model_from_string(half).graph.initializer}
    assert kinds == {"weight_half": TensorProto.FLOAT16, "large": TensorProto.FLOAT, "offset": TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(half, providers=["CPUExecutionProvider"])
    x = np.eye(8, dtype=np.float32)
    b, y = session.run(["b", "y"], {"x": x})
    np.testing.assert_allclose(b, weight.astype(np.float16).astype(np.float32) @ large, rtol=1e-6)
    np.testing.assert_array_equal(y, x + offset)


class Means(TaskNetwork):
    """Another network in a dozen lines: finds a box of one pixel at each pixel, its colour the score of its class."""

    name, kind, licence = "means", "detection", "Apache-2.0"

    def __init__(self) -> None:
        super().__init__(classes=3)
        self.same = nn.Conv2d(3, 3, 1)
        nn.init.eye_(self.same.weight[:, :, 0, 0])
        nn.init.zeros_(self.same.bias)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        centres = cell_centres(image).flatten(0, 1)[None]
        boxes = torch.cat([centres - 0.5, centres + 0.5], dim=2)
        return {"boxes": boxes, "scores": self.same(image).flatten(2).transpose(1, 2)}


class Brightest(TaskNetwork):
    """Chooses the brightest channel."""

    name, kind, licence, gain = "brightest", "segmentation", "Apache-2.0", 8.0

    def __init__(self) -> None:
        super().__init__(classes=3)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.gain * image}


@pytest.fixture(scope="module")
def shrunk() -> dict[int, Run]:
    return {shrink: runner(task_graph(Means(), shrink)) for shrink in (2, 3)}


@pytest.fixture(scope="module")
def brightest() -> Run:
    return runner(task_graph(Brightest(), 2))


@pytest.mark.parametrize("shrink", [2, 3])
def test_shrinking_is_opencvs_area_average(shrunk: dict[int, Run], shrink: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 36 * shrink, 41 * shrink, 3), np.uint8)
    found = shrunk[shrink](image)
    expected = cv2.resize(image[0].astype(np.float32) / 255, (41, 36), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found["scores"][0], expected.reshape(-1, 3), atol=1e-5)
    rows, columns = np.divmod(np.arange(36 * 41), 41)
    corners = np.stack([columns, rows, columns + 1, rows + 1], axis=1) * shrink
    np.testing.assert_allclose(found["boxes"][0], corners, atol=1e-3)


def test_a_rest_at_the_edge_is_averaged_by_itself(shrunk: dict[int, Run]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 100, 98, 3), np.uint8)
    found = shrunk[3](image)
    padded = np.full((102, 99, 3), np.nan)
    padded[:100, :98] = image[0] / 255
    expected = np.nanmean(padded.reshape(34, 3, 33, 3, 3), axis=(1, 3))
    np.testing.assert_allclose(found["scores"][0], expected.reshape(-1, 3), atol=1e-5)
    assert found["boxes"][0, -1] == pytest.approx([96, 99, 99, 102], abs=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (65, 99)])
def test_masks_are_as_large_as_the_image_where_the_network_sees_less(brightest: Run, size: tuple[int, int]) -> None:
    height, width = size
    image = random_image(*size)
    padded = np.full((height + height % 2, width + width % 2, 3), np.nan)
    padded[:height, :width] = image[0] / 255
    small = np.nanmean(padded.reshape(len(padded) // 2, 2, -1, 2, 3), axis=(1, 3))
    logits = Brightest.gain * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    found = brightest(image)
    assert found["mask"].shape == found["confidence"].shape == (1, height, width)
    best = np.sort(logits)[..., ::-1]
    clear = best[..., 0] - best[..., 1] > 1e-3
    np.testing.assert_array_equal(found["mask"][0][clear], logits.argmax(axis=2)[clear])
    probability = np.exp(best[..., 0]) / np.exp(logits).sum(axis=2)
    np.testing.assert_allclose(found["confidence"][0], 255 * probability, atol=0.6)


def test_exporting_leaves_the_network_as_it_is() -> None:
    network = Means().train()
    before = copy.deepcopy(network.state_dict())
    assert task_graph(network) == task_graph(network)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
