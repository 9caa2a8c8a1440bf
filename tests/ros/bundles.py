"""Tiny bundles whose results can be computed by hand: see images.py and task_graphs.py."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from task_graphs import CELLS, GLARE, detector, segmenter

from vifa_runtime.bundle import write_bundle

SIZE_MULTIPLE = 4
IMAGE = [1, "H", "W", 3]


def write_tiny_bundle(folder: Path) -> Path:
    """Write a bundle with the tasks `bright` (visible + thermal) and `dim` (visible - thermal), in gray levels."""
    tasks = [{"name": name, "kind": "fusion"} for name in ("bright", "dim")]
    graphs = {"backbone.onnx": _backbone(), "heads/bright.onnx": _head("Add"), "heads/dim.onnx": _head("Sub")}
    write_bundle(folder, _manifest(name="tiny", tasks=tasks), graphs)
    return folder


def write_finding_bundle(folder: Path, **changes: Any) -> Path:
    """Write a bundle with `bright`, and with `cells` and `glare` of task_graphs on the same fused image.

    Args:
        changes: of its manifest.
    """
    tasks = [{"name": "bright", "kind": "fusion"}, CELLS, GLARE]
    heads = {f"heads/{task['name']}.onnx": _head("Add") for task in tasks}
    graphs = {"backbone.onnx": _backbone(), "tasks/cells.onnx": detector(), "tasks/glare.onnx": segmenter()}
    write_bundle(folder, _manifest(name="finding", tasks=tasks, **changes), {**graphs, **heads})
    return folder


def _manifest(**changes: Any) -> dict[str, Any]:
    return {
        "network": "sum",
        "size_multiple": SIZE_MULTIPLE,
        "aspect": "letterbox",
        "working_size": None,
        "thermal": {"mode": "auto"},
        "licences": {"code": "Apache-2.0", "weights": "none", "data": "none"},
        "provenance": {"data": "none", "seed": 0, "commit": "none", "date": "2025-01-01"},
        **changes,
    }


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
