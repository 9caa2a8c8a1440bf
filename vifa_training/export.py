"""From a trained network to a bundle.

A network works on luma. Around it the exported graphs take and give camera images: luma is computed from RGB bytes on
the way in, and on the way out the fused luma replaces the visible one, exactly `clip(rgb + (y_fused - y), 0, 1)`.
`vifa_training.colour.recolour` is the same in torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.export import Dim

from vifa_runtime.bundle import Bundle, Task, write_bundle
from vifa_runtime.luma import LUMA_WEIGHTS
from vifa_training.networks import FusionNetwork
from vifa_training.onnx_graphs import image_value, stitch, trace

_SIDE = 64  # of the images that the network is traced with


def export_bundle(
    network: FusionNetwork, tasks: Sequence[Task], folder: Path, manifest: Mapping[str, Any], card: str
) -> Bundle:
    """Write a network as a bundle.

    Args:
        network: with a head for every task.
        tasks: in the order the bundle lists them.
        folder: of the bundle; an older bundle there is replaced.
        manifest: name, licences, provenance and whatever else differs from the defaults here.
        card: text of the model card, README.md.

    Raises:
        BundleError: the result does not pass the runtime's checks.
    """
    network.eval()
    defaults = {"network": network.name, "size_multiple": network.size_multiple, "aspect": "letterbox"}
    defaults |= {"working_size": None, "thermal": {"mode": "auto"}}
    entries = [{"name": task.name, "kind": task.kind, "description": task.description} for task in tasks]
    contents = {"README.md": card.encode(), "backbone.onnx": backbone_graph(network)}
    contents |= {task.head: head_graph(network, task.name) for task in tasks}
    return write_bundle(folder, {"name": manifest["name"], **defaults, **manifest, "tasks": entries}, contents)


def backbone_graph(network: FusionNetwork) -> bytes:
    """ONNX bytes: visible uint8 (1,H,W,3), thermal float32 (1,H,W) -> the backbone's features."""
    multiple = network.size_multiple
    sides = {2: multiple * Dim("rows", min=2), 3: multiple * Dim("columns", min=2)}
    inputs_y = {"visible_y": _gray(), "thermal": _gray()}
    core = trace(network.backbone, inputs_y, ["visible_y", "thermal_y"], sides)
    before = [*_luma_nodes(), helper.make_node("Unsqueeze", ["thermal", "channel_axis"], ["thermal_y"])]
    inputs = [
        image_value("visible"),
        helper.make_tensor_value_info("thermal", TensorProto.FLOAT, [1, "H", "W"]),
    ]
    nodes = [*before, *core.node]
    return stitch(f"{network.name} backbone", inputs, nodes, list(core.output), core.initializer, _constants())


def head_graph(network: FusionNetwork, task: str) -> bytes:
    """ONNX bytes: visible uint8 (1,H,W,3) and features -> fused uint8 (1,H,W,3).

    Colour is computed in gray levels on the image's own memory layout: nothing is transposed. The change of luma is put
    into all three channels by a matrix product of a few pixels at a time, which engines do several times faster than
    any operator that repeats numbers.
    """
    with torch.no_grad():
        features = network.backbone(_gray(), _gray())
    head = network.heads[task]
    core = trace(head, {"features": features}, list(features), {2: Dim.AUTO, 3: Dim.AUTO}, "fused_y")
    visible_y = head.visible_y or "visible_y"
    after = [
        helper.make_node("Sub", ["fused_y", visible_y], ["change"]),
        helper.make_node("Squeeze", ["change", "channel_axis"], ["change_flat"]),
        helper.make_node("Reshape", ["change_flat", "as_groups"], ["change_groups"]),
        helper.make_node("MatMul", ["change_groups", "to_levels"], ["change_levels"]),
        helper.make_node("Reshape", ["change_levels", "as_image"], ["change_rgb"]),
        helper.make_node("Add", ["levels", "change_rgb"], ["fused_levels"]),
        helper.make_node("QuantizeLinear", ["fused_levels", "one", "zero_byte"], ["fused"]),
    ]
    inputs = [image_value("visible"), *core.input]
    before = _luma_nodes()[:1] if head.visible_y else _luma_nodes()
    nodes = [*before, *core.node, *after]
    outputs = [image_value("fused")]
    constants = _constants() | _repeating(math.gcd(network.size_multiple, 8))
    return stitch(f"{network.name} head {task}", inputs, nodes, outputs, core.initializer, constants)


def _gray() -> Tensor:
    return torch.zeros(1, 1, _SIDE, _SIDE)


def _luma_nodes() -> list[onnx.NodeProto]:
    """visible -> `levels` (1,H,W,3) in 0..255 and `visible_y` (1,1,H,W) in 0..1."""
    return [
        helper.make_node("Cast", ["visible"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["levels", "to_luma"], ["luma_last"]),
        helper.make_node("Squeeze", ["luma_last", "last_axis"], ["luma_flat"]),
        helper.make_node("Unsqueeze", ["luma_flat", "channel_axis"], ["visible_y"]),
    ]


def _repeating(pixels: int) -> dict[str, np.ndarray]:
    """What takes so many pixels of a row, each in 0..1, to their three channels in gray levels."""
    return {
        "as_groups": np.array([1, 0, -1, pixels], np.int64),
        "to_levels": np.kron(np.eye(pixels), np.full((1, 3), 255)).astype(np.float32),
    }


def _constants() -> dict[str, np.ndarray]:
    """Every constant that the nodes around a network may use."""
    return {
        "as_image": np.array([1, 0, -1, 3], np.int64),
        "channel_axis": np.array([1], np.int64),
        "last_axis": np.array([3], np.int64),
        "to_luma": (np.array(LUMA_WEIGHTS) / 255).astype(np.float32).reshape(3, 1),
        "one": np.array(1, np.float32),
        "zero_byte": np.array(0, np.uint8),
    }
