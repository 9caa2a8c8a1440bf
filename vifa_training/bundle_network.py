"""A bundle's networks back in torch: a task is added to what a robot already runs, without the run it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_training.checkpoint import TrainingError
from vifa_training.networks import FusionNetwork, build_network, deepen

READABLE = ("nano", "tardal", "piafusion")  # of the others, graphs keep some weights under no name of their own
_TOLERANCE = 1e-3  # of a feature, relative to the largest one
_AGAIN = "it was not exported by this version: train it again"


def network_of(bundle: Bundle) -> FusionNetwork:
    """The fusion network of a bundle with the weights of its graphs, in evaluation mode.

    Batch norms were folded into the convolutions before them when the bundle was exported; they come back as norms
    that change nothing.

    Raises:
        TrainingError: the bundle's network is none of `READABLE`, or its graphs are written in another way.
    """
    if bundle.network not in READABLE:
        raise TrainingError(
            f"bundle {bundle.name} holds the network {bundle.network!r}, whose weights cannot be read back from its "
            f"graphs; use a bundle of {', '.join(READABLE)}"
        )
    network = build_network(bundle.network, bundle.task_names)
    _fill(network.backbone, read_weights(bundle.graphs[BACKBONE]), f"{bundle.name}/{BACKBONE}")
    for task in bundle.tasks:
        weights = read_weights(bundle.graphs[task.head])
        deepen(network, task.name, sum(bool(re.fullmatch(r"more\.\d+\.weight", name)) for name in weights))
        _fill(network.heads[task.name], weights, f"{bundle.name}/{task.head}")
    network.eval()
    _compare(network, bundle)
    return network


def read_weights(graph: bytes) -> dict[str, Tensor]:
    """The float weights of an ONNX graph by name, as float32; those that are stored as float16 too."""
    model = onnx.load_model_from_string(graph).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    casts = {
        node.output[0]: node.input[0] for node in model.node if node.op_type == "Cast" and node.input[0] in tensors
    }
    tensors |= {name: tensors[source] for name, source in casts.items()}
    for node in model.node:  # biases that are equal are stored once, under one of their names, and those of zero never
        weight, stored = (*node.input[1:3], "", "")[:2]
        if node.op_type in ("Conv", "ConvTranspose") and weight.endswith(".weight") and weight in tensors:
            channels, bias = tensors[weight].shape[0 if node.op_type == "Conv" else 1], f"{weight[:-6]}bias"
            if stored in tensors or not stored:
                tensors[bias] = tensors[stored] if stored else np.zeros(channels, np.float32)
    floats = (np.float16, np.float32)
    return {
        name: torch.from_numpy(array.astype(np.float32)) for name, array in tensors.items() if array.dtype in floats
    }


def _fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Set every parameter of a module, norms to what changes nothing."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    norms = {f"{name}." for name, norm in module.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in weights and weights[name].shape == parameter.shape:
                parameter.copy_(weights[name])
            elif not any(name.startswith(norm) for norm in norms):
                raise TrainingError(f"{source} has no weight {name} of our shape; {_AGAIN}")


def _compare(network: FusionNetwork, bundle: Bundle) -> None:
    """Make sure that the network gives what the bundle's backbone gives."""
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    side = 8 * network.size_multiple
    gray = rng.integers(0, 256, (side, side)).astype(np.uint8)
    thermal = rng.random((1, side, side), np.float32)
    session = ort.InferenceSession(bundle.graphs[BACKBONE], providers=["CPUExecutionProvider"])
    visible = np.repeat(gray[None, :, :, None], 3, axis=3)
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(None, {"visible": visible, "thermal": thermal}), strict=True))
    with torch.no_grad():
        luma = torch.from_numpy(np.float32(gray) / 255)[None, None]
        features = network.backbone(luma, torch.from_numpy(thermal)[None])
    for name, feature in features.items():
        if name not in expected or expected[name].shape != tuple(feature.shape):
            raise TrainingError(f"{bundle.name}/{BACKBONE} gives no feature {name} of our {bundle.network}; {_AGAIN}")
        difference = np.abs(feature.numpy() - expected[name]).max()
        if not difference <= _TOLERANCE * max(1.0, np.abs(expected[name]).max()):
            raise TrainingError(
                f"bundle {bundle.name}: feature {name} differs by {difference:.3g} from its graph's; {_AGAIN}"
            )
