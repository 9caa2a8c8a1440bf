"""A tiny hand-made bundle, and the same arithmetic in NumPy: every result of it can be computed exactly.

    luma = R/4 + G/2 + B/4, heat = round(255 thermal)                   the backbone's two features, in gray levels
    bright = visible + heat, blend = visible + (heat - luma) / 2        the two heads, rounded and clipped

All values are multiples of 1/8 below 1024, so float32 holds them exactly whatever the order of operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from task_graphs import CELLS, GLARE, detector, segmenter

from vifa_runtime.bundle import MANIFEST, Bundle, write_bundle

BYTE, FLOAT = TensorProto.UINT8, TensorProto.FLOAT
WEIGHTS = (0.25, 0.5, 0.25)
TASKS = ("bright", "blend")


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> ValueInfoProto:
    """An input or output of a graph; sides given as text are dynamic."""
    return helper.make_tensor_value_info(name, kind, shape)


VISIBLE = value("visible", BYTE, [1, "H", "W", 3])
THERMAL = value("thermal", FLOAT, [1, "H", "W"])
LUMA = value("luma", FLOAT, [1, "H", "W", 1])
HEAT = value("heat", FLOAT, [1, "H", "W", 1])
FUSED = value("fused", BYTE, [1, "H", "W", 3])


def graph(
    nodes: Iterable[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    **model: Any,
) -> bytes:
    """ONNX bytes of a graph; constants become initializers."""
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    made = helper.make_graph(list(nodes), "graph", inputs, outputs, weights)
    model.setdefault("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(made, ir_version=8, **model).SerializeToString()


def backbone() -> bytes:
    nodes = [
        helper.make_node("Cast", ["visible"], ["levels"], to=FLOAT),
        helper.make_node("MatMul", ["levels", "weights"], ["luma"]),
        helper.make_node("Mul", ["thermal", "white"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Unsqueeze", ["rounded", "last"], ["heat"]),
    ]
    constants = {
        "weights": np.array(WEIGHTS, np.float32)[:, None],
        "white": np.float32(255),
        "last": np.array([3], np.int64),
    }
    return graph(nodes, [VISIBLE, THERMAL], [LUMA, HEAT], constants)


def head(task: str) -> bytes:
    """The graph of one of TASKS; `bright` does not look at the luma."""
    change = {
        "bright": [helper.make_node("Identity", ["heat"], ["change"])],
        "blend": [
            helper.make_node("Sub", ["heat", "luma"], ["difference"]),
            helper.make_node("Mul", ["difference", "half"], ["change"]),
        ],
    }[task]
    nodes = [
        *change,
        helper.make_node("Cast", ["visible"], ["levels"], to=FLOAT),
        helper.make_node("Add", ["levels", "change"], ["sum"]),
        helper.make_node("Round", ["sum"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["fused"], to=BYTE),
    ]
    constants = {"black": np.float32(0), "white": np.float32(255), "half": np.float32(0.5)}
    inputs = [VISIBLE, HEAT] if task == "bright" else [VISIBLE, LUMA, HEAT]
    return graph(nodes, inputs, [FUSED], constants)


def expected(task: str, visible: NDArray[np.uint8], thermal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What a head gives for visible (H,W,3) and normalised thermal (H,W), 0..1."""
    heat = np.rint(255 * thermal.astype(np.float64))
    change = heat if task == "bright" else (heat - visible @ np.array(WEIGHTS)) / 2
    return np.clip(np.rint(visible + change[:, :, None]), 0, 255).astype(np.uint8)


def manifest(**changes: Any) -> dict[str, Any]:
    """bundle.yaml of the tiny bundle, without the format and the sums that `write_bundle` adds."""
    return {
        "name": "tiny",
        "network": "arithmetic",
        "size_multiple": 4,
        "aspect": "letterbox",
        "working_size": None,
        "thermal": {"mode": "auto"},
        "tasks": [{"name": task, "kind": "fusion", "description": f"for {task} pictures"} for task in TASKS],
        "metrics": [{"data": "none", "task": "bright", "metric": "vif", "value": 0.5}],
        "licences": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"},
        "provenance": {"data": "none", "seed": 0, "commit": "unknown", "date": "2026-01-31"},
        **changes,
    }


def contents(**changes: bytes) -> dict[str, bytes]:
    """Every other file of the tiny bundle; `changes` go by stem: backbone, bright, blend, README."""
    stems = {"README": "README.md", "backbone": "backbone.onnx", **{task: f"heads/{task}.onnx" for task in TASKS}}
    made = {"README": b"# tiny\n", "backbone": backbone(), **{task: head(task) for task in TASKS}, **changes}
    return {stems[stem]: data for stem, data in made.items()}


def write_tiny(folder: Path, graphs: Mapping[str, bytes] | None = None, **changes: Any) -> Bundle:
    """Write the tiny bundle; `graphs` go by stem, `changes` are of the manifest."""
    return write_bundle(folder, manifest(**changes), contents(**(graphs or {})))


def manifest_with_tasks(**changes: Any) -> dict[str, Any]:
    """bundle.yaml of the tiny bundle with the toy detector and the toy segmenter after its other tasks."""
    whole = manifest(**changes)
    return {**whole, "tasks": [*whole["tasks"], CELLS, GLARE]}


def contents_with_tasks(graphs: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Every other file of it; `graphs` go by path. `cells` looks at the fused image of `bright`, `glare` of `blend`."""
    return {
        **contents(),
        "heads/cells.onnx": head("bright"),
        "heads/glare.onnx": head("blend"),
        "tasks/cells.onnx": detector(),
        "tasks/glare.onnx": segmenter(),
        **(graphs or {}),
    }


def write_with_tasks(folder: Path, graphs: Mapping[str, bytes] | None = None, **changes: Any) -> Bundle:
    """Write the tiny bundle with the toy tasks; `graphs` go by path, `changes` are of the manifest."""
    return write_bundle(folder, manifest_with_tasks(**changes), contents_with_tasks(graphs))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Write other bytes to a file of a bundle and their right sum to its manifest, as an attacker would."""
    (folder / name).write_bytes(data)
    text = yaml.safe_load((folder / MANIFEST).read_text())
    text["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).write_text(yaml.safe_dump(text, sort_keys=False))
