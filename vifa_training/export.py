"""From a trained network to a bundle.

A network works on luma. Around it the exported graphs take and give camera images: luma is computed from RGB bytes on
the way in, and on the way out the fused luma replaces the visible one, exactly `clip(rgb + (y_fused - y), 0, 1)`.
`vifa_training.colour.recolour` is the same in torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from vifa_runtime.bundle import Bundle, Task, write_bundle
from vifa_runtime.luma import LUMA_WEIGHTS
from vifa_training.networks import FusionNetwork

OPSET = 18
IR_VERSION = 9  # read by ONNX Runtime 1.15 (JetPack 5) and later
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
    core = _trace(network.backbone, inputs_y, ["visible_y", "thermal_y"], sides)
    before = [*_luma_nodes(), helper.make_node("Unsqueeze", ["thermal", "channel_axis"], ["thermal_y"])]
    inputs = [
        _image_value("visible"),
        helper.make_tensor_value_info("thermal", TensorProto.FLOAT, [1, "H", "W"]),
    ]
    return _stitch(f"{network.name} backbone", inputs, [*before, *core.node], list(core.output), core.initializer)


def head_graph(network: FusionNetwork, task: str) -> bytes:
    """ONNX bytes: visible uint8 (1,H,W,3) and features -> fused uint8 (1,H,W,3).

    Colour is computed in gray levels on the image's own memory layout: nothing is transposed.
    """
    with torch.no_grad():
        features = network.backbone(_gray(), _gray())
    head = network.heads[task]
    core = _trace(head, {"features": features}, list(features), {2: Dim.AUTO, 3: Dim.AUTO})
    visible_y = head.visible_y or "visible_y"
    after = [
        helper.make_node("Sub", ["fused_y", visible_y], ["change"]),
        helper.make_node(
            "ConvTranspose", ["change", "to_levels"], ["change_rows"], kernel_shape=[1, 3], strides=[1, 3]
        ),
        helper.make_node("Squeeze", ["change_rows", "channel_axis"], ["change_flat"]),
        helper.make_node("Reshape", ["change_flat", "as_image"], ["change_rgb"]),
        helper.make_node("Add", ["levels", "change_rgb"], ["fused_levels"]),
        helper.make_node("QuantizeLinear", ["fused_levels", "one", "zero_byte"], ["fused"]),
    ]
    inputs = [_image_value("visible"), *core.input]
    before = _luma_nodes()[:1] if head.visible_y else _luma_nodes()
    nodes = [*before, *core.node, *after]
    return _stitch(f"{network.name} head {task}", inputs, nodes, [_image_value("fused")], core.initializer)


def _gray() -> Tensor:
    return torch.zeros(1, 1, _SIDE, _SIDE)


def _image_value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "H", "W", 3])


def _trace(
    module: nn.Module, inputs: Mapping[str, Any], names: Sequence[str], sides: Mapping[int, Any]
) -> onnx.GraphProto:
    """The module's own ONNX graph: `sides` dynamic, tensors in named by `names`, out as the module's dictionary."""
    with torch.no_grad():
        result = module.eval()(**inputs)
    program = torch.onnx.export(
        module,
        kwargs=dict(inputs),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(names),
        output_names=list(result) if isinstance(result, dict) else ["fused_y"],
        dynamic_shapes={k: dict.fromkeys(v, sides) if isinstance(v, dict) else sides for k, v in inputs.items()},
        verbose=False,
    )
    graph = program.model_proto.graph
    _simplify_reshapes(graph)
    return graph


def _simplify_reshapes(graph: onnx.GraphProto) -> None:
    """Make the shapes of all reshapes constant: 0 for a side that stays, -1 for the one that is computed.

    The tracer computes shapes from the input's by many small operators, which no shape inference can follow.
    """
    known = {value.name: _sides(value) for value in [*graph.value_info, *graph.input]}
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constant and known.get(node.output[0]):
            before, after = known[node.input[0]], known[node.output[0]]
            same = [index < len(before) and side == before[index] for index, side in enumerate(after)]
            shape = [
                side if isinstance(side, int) else 0 if kept else -1 for side, kept in zip(after, same, strict=True)
            ]
            if shape.count(-1) <= 1:
                del node.attribute[:]  # `allowzero`, by which 0 would be a side without pixels
                node.input[1] = f"{node.output[0]}_shape"
                graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), node.input[1]))
    _drop_unused(graph)


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # they are in the order of their use
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def _luma_nodes() -> list[onnx.NodeProto]:
    """visible -> `levels` (1,H,W,3) in 0..255 and `visible_y` (1,1,H,W) in 0..1."""
    return [
        helper.make_node("Cast", ["visible"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["levels", "to_luma"], ["luma_last"]),
        helper.make_node("Squeeze", ["luma_last", "last_axis"], ["luma_flat"]),
        helper.make_node("Unsqueeze", ["luma_flat", "channel_axis"], ["visible_y"]),
    ]


def _constants() -> dict[str, np.ndarray]:
    """Every constant that the nodes around a network may use."""
    return {
        "as_image": np.array([1, 0, -1, 3], np.int64),
        "channel_axis": np.array([1], np.int64),
        "last_axis": np.array([3], np.int64),
        "to_luma": (np.array(LUMA_WEIGHTS) / 255).astype(np.float32).reshape(3, 1),
        "to_levels": np.full((1, 1, 1, 3), 255, np.float32),
        "one": np.array(1, np.float32),
        "zero_byte": np.array(0, np.uint8),
    }


def _stitch(
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto],
) -> bytes:
    """One self-contained model: only used inputs and constants, and none of the tracer's notes (they name paths)."""
    used = {tensor for node in nodes for tensor in node.input}
    constants = [numpy_helper.from_array(value, key) for key, value in _constants().items() if key in used]
    for item in [*nodes, *inputs, *outputs, *weights]:
        item.doc_string = ""
        item.ClearField("metadata_props")
    graph = helper.make_graph(
        nodes, name, [value for value in inputs if value.name in used], outputs, [*weights, *constants]
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="vifa", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
