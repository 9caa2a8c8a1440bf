"""Toy task graphs whose results can be computed by hand, and the same arithmetic in NumPy; for every folder of tests.

The detector `cells` cuts the image into cells of 4x4 pixels. Around each lies a box of 8x8, which scores as red, green
and blue as the cell's mean is: 0 for black, 1 for full. Boxes of neighbours overlap with an IoU of 1/3, those at the
edge reach beyond the image. Boxes come row by row.

The segmenter `glare` calls a pixel bright (1) where R + G + B is above 384, else dark (0); its confidence is
|R + G + B - 384| / 2 in whole steps, at most 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

CELL = 4
BYTE, FLOAT = TensorProto.UINT8, TensorProto.FLOAT
node = helper.make_node

# What they are called in bundle.yaml. A score above 0.5 and an IoU up to 0.25: of bright neighbours one is kept.
CELLS: dict[str, Any] = {
    "name": "cells",
    "kind": "detection",
    "description": "finds colourful cells",
    "classes": [
        {"name": "red", "colour": [255, 0, 0]},
        {"name": "green", "colour": [0, 255, 0]},
        {"name": "blue", "colour": [0, 0, 255]},
    ],
    "score": 0.5,
    "iou": 0.25,
    "max_detections": 20,
}
GLARE: dict[str, Any] = {
    "name": "glare",
    "kind": "segmentation",
    "description": "tells bright from dark",
    "classes": [{"name": "dark", "colour": [0, 0, 255]}, {"name": "bright", "colour": [255, 255, 0]}],
}


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> ValueInfoProto:
    """An input or output of a graph; sides given as text are dynamic."""
    return helper.make_tensor_value_info(name, kind, shape)


IMAGE = value("image", BYTE, [1, "H", "W", 3])
BOXES, SCORES = value("boxes", FLOAT, [1, "A", 4]), value("scores", FLOAT, [1, "A", 3])
MASK, CONFIDENCE = value("mask", BYTE, [1, "H", "W"]), value("confidence", BYTE, [1, "H", "W"])


def task_graph(
    nodes: Sequence[NodeProto],
    outputs: Sequence[ValueInfoProto],
    constants: Mapping[str, Any] | None = None,
    inputs: Sequence[ValueInfoProto] = (IMAGE,),
) -> bytes:
    """ONNX bytes of a graph; constants become initializers."""
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "task", list(inputs), list(outputs), weights)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()


def detector() -> bytes:
    """The graph of `cells`; its boxes are made as detectors make them, by counting the cells of a feature map."""
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["means"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        node("Div", ["means", "white"], ["shares"]),
        node("Reshape", ["shares", "rows_of_three"], ["by_class"]),
        node("Transpose", ["by_class"], ["scores"], perm=[0, 2, 1]),
        node("ReduceMax", ["means"], ["any"], axes=[1], keepdims=1),
        node("Mul", ["any", "nothing"], ["zeros"]),
        node("Add", ["zeros", "cell"], ["sides"]),
        node("CumSum", ["sides", "across"], ["right"]),
        node("CumSum", ["sides", "down"], ["bottom"]),
        node("Concat", ["right", "bottom", "right", "bottom"], ["ends"], axis=1),
        node("Add", ["ends", "margins"], ["corners"]),
        node("Reshape", ["corners", "rows_of_four"], ["by_corner"]),
        node("Transpose", ["by_corner"], ["boxes"], perm=[0, 2, 1]),
    ]
    margin = CELL / 2
    constants = {
        "white": np.float32(255),
        "nothing": np.float32(0),
        "cell": np.float32(CELL),
        "across": np.int64(3),
        "down": np.int64(2),
        "margins": np.array([-CELL - margin, -CELL - margin, margin, margin], np.float32).reshape(1, 4, 1, 1),
        "rows_of_three": np.array([1, 3, -1], np.int64),
        "rows_of_four": np.array([1, 4, -1], np.int64),
    }
    return task_graph(nodes, [BOXES, SCORES], constants)


def segmenter(confidence: bool = True) -> bytes:
    """The graph of `glare`."""
    nodes = [
        node("Cast", ["image"], ["levels"], to=FLOAT),
        node("ReduceSum", ["levels", "channels"], ["sums"], keepdims=0),
        node("Greater", ["sums", "middle"], ["is_bright"]),
        node("Cast", ["is_bright"], ["mask"], to=BYTE),
    ]
    if confidence:
        nodes += [
            node("Sub", ["sums", "middle"], ["signed"]),
            node("Abs", ["signed"], ["distance"]),
            node("Mul", ["distance", "half"], ["halves"]),
            node("Floor", ["halves"], ["steps"]),
            node("Min", ["steps", "white"], ["clipped"]),
            node("Cast", ["clipped"], ["confidence"], to=BYTE),
        ]
    constants = {
        "channels": np.array([3], np.int64),
        "middle": np.float32(384),
        "half": np.float32(0.5),
        "white": np.float32(255),
    }
    return task_graph(nodes, [MASK, CONFIDENCE] if confidence else [MASK], constants)


def expected_boxes(height: int, width: int) -> NDArray[np.float32]:
    """All boxes (A,4) of `cells` on an image whose sides are multiples of 4, x1 y1 x2 y2."""
    y, x = (CELL * np.indices((height // CELL, width // CELL)) + CELL / 2).reshape(2, -1)
    return np.stack([x - CELL, y - CELL, x + CELL, y + CELL], axis=1).astype(np.float32)


def expected_scores(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The scores (A,3) of `cells` on an image (H,W,3) whose sides are multiples of 4."""
    height, width = image.shape[:2]
    cells = image.reshape(height // CELL, CELL, width // CELL, CELL, 3)
    return cells.mean(axis=(1, 3)).reshape(-1, 3) / 255


def expected_mask(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask (H,W) of `glare` on an image (H,W,3)."""
    return (image.sum(axis=2, dtype=int) > 384).astype(np.uint8)


def expected_confidence(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The confidence (H,W) of `glare` on an image (H,W,3)."""
    return np.minimum(np.abs(image.sum(axis=2, dtype=int) - 384) // 2, 255).astype(np.uint8)
