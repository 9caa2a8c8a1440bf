"""Fixtures of the ROS tests: a tiny bundle whose results can be computed by hand, and a running fusion node."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

from vifa_runtime.bundle import write_bundle

settings.register_profile("no_timing", deadline=None)  # the machine may be busy
settings.load_profile("no_timing")

SIZE_MULTIPLE = 4
IMAGE = [1, "H", "W", 3]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """A bundle with the tasks `bright` (visible + thermal) and `dim` (visible - thermal), in gray levels, clipped."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    manifest = {
        "name": "tiny",
        "network": "sum",
        "size_multiple": SIZE_MULTIPLE,
        "aspect": "letterbox",
        "working_size": None,
        "thermal": {"mode": "auto"},
        "tasks": [{"name": name, "kind": "fusion"} for name in ("bright", "dim")],
        "licences": {"code": "Apache-2.0", "weights": "none", "data": "none"},
        "provenance": {"data": "none", "seed": 0, "commit": "none", "date": "2025-01-01"},
    }
    graphs = {"backbone.onnx": _backbone(), "heads/bright.onnx": _head("Add"), "heads/dim.onnx": _head("Sub")}
    write_bundle(folder, manifest, graphs)
    return folder


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """ROS, initialised once for all tests of a module."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@contextmanager
def robots(bundle: Path) -> Iterator[Callable]:
    """Give a function that starts a `Robot` with the given parameters; each must be alive at the end of the block."""
    from robot import Robot

    started = []

    def start(namespace: str | None = None, **parameters) -> Robot:
        started.append(Robot({"bundle": str(bundle), "status_rate": 20.0, "threads": 1, **parameters}, namespace))
        return started[-1]

    try:
        yield start
    finally:
        for robot in started:
            robot.stop()
    for robot in started:
        robot.check_alive()


@pytest.fixture
def start_robot(ros, tiny_bundle) -> Iterator[Callable]:
    """A function that starts a fusion node with the given parameters, and its friend."""
    with robots(tiny_bundle) as start:
        yield start


@pytest.fixture
def robot(start_robot):
    """An active fusion node with nobody listening yet."""
    robot = start_robot()
    robot.wait_for_state("active")
    return robot


@pytest.fixture(scope="module")
def start_for_module(ros, tiny_bundle) -> Iterator[Callable]:
    """As `start_robot`, for a node that all tests of a module use."""
    with robots(tiny_bundle) as start:
        yield start


@pytest.fixture(scope="module")
def shared_robot(start_for_module):
    """An active fusion node for all tests of a module that leave it as it is."""
    robot = start_for_module()
    robot.wait_for_state("active")
    return robot


def _backbone() -> bytes:
    """visible, thermal 0..1 -> heat: the thermal image in gray levels, as (1,H,W,1)."""
    nodes = [
        helper.make_node("Mul", ["thermal", "levels"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Unsqueeze", ["rounded", "last"], ["heat"]),
    ]
    constants = {"levels": np.float32(255), "last": np.array([3], np.int64)}
    thermal = _value("thermal", TensorProto.FLOAT, [1, "H", "W"])
    return _graph(nodes, [_visible(), thermal], [_value("heat", TensorProto.FLOAT, [1, "H", "W", 1])], constants)


def _head(operator: str) -> bytes:
    """visible, heat -> fused: their sum or difference, clipped to 0..255."""
    nodes = [
        helper.make_node("Cast", ["visible"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["levels", "heat"], ["mixed"]),
        helper.make_node("Clip", ["mixed", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["fused"], to=TensorProto.UINT8),
    ]
    heat = _value("heat", TensorProto.FLOAT, [1, "H", "W", 1])
    constants = {"low": np.float32(0), "high": np.float32(255)}
    return _graph(nodes, [_visible(), heat], [_value("fused", TensorProto.UINT8, IMAGE)], constants)


def _visible() -> onnx.ValueInfoProto:
    return _value("visible", TensorProto.UINT8, IMAGE)


def _value(name: str, kind: int, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _graph(nodes: list, inputs: list, outputs: list, constants: dict) -> bytes:
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()
