"""From a task network to the graph that a bundle holds: camera bytes in, boxes or a mask out."""

from __future__ import annotations

import copy

import torch
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from vifa_training.onnx_graphs import image_value, stitch, trace
from vifa_training.tasks.base import TaskNetwork
from vifa_training.tasks.following import resize_like

_MULTIPLE = 32  # of the sizes at which networks are traced


def task_graph(network: TaskNetwork, shrink: int = 1) -> bytes:
    """ONNX bytes: image uint8 (1,H,W,3) -> what the network finds, for any H and W of 32 * shrink or more.

    Detection: `boxes` float32 (1,A,4) xyxy in pixels of the image, `scores` float32 (1,A,K).
    Segmentation: `mask` uint8 (1,H,W) and `confidence` uint8 (1,H,W), the probability of the class, 255 = 1.

    Args:
        network: stays as it is, on its device and in its mode.
        shrink: the network sees the image averaged over so many pixels squared (as OpenCV's INTER_AREA). Where H or W
            is no multiple of it, the last row or column averages what is left. Boxes and masks are the image's again:
            logits are enlarged (bilinear) before a class is chosen.
    """
    deployed = DeployedTask(copy.deepcopy(network).cpu(), shrink)
    multiple = _MULTIPLE * shrink
    sides = {1: multiple * Dim("rows", min=2), 2: multiple * Dim("columns", min=2)}
    image = torch.zeros(1, 2 * multiple, 2 * multiple, 3, dtype=torch.uint8)
    core = trace(deployed, {"image": image}, ["image"], sides)
    outputs = _detection_values(network.classes) if network.kind == "detection" else _segmentation_values()
    return stitch(f"{network.name} task", [image_value("image")], core.node, outputs, core.initializer)


class DeployedTask(nn.Module):
    """A task network between camera bytes and results, as `task_graph` exports it; (1,H,W,3) uint8 in."""

    def __init__(self, network: TaskNetwork, shrink: int) -> None:
        super().__init__()
        self.network, self.shrink = network, shrink

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        picture = image.permute(0, 3, 1, 2).float() / 255
        small = picture
        if self.shrink > 1:
            small = F.avg_pool2d(picture, self.shrink, ceil_mode=True, count_include_pad=False)
        found = self.network.predict(small)
        if self.network.kind == "detection":
            return {"boxes": found["boxes"] * self.shrink, "scores": found["scores"]}
        logits = found["logits"]
        if self.shrink > 1:
            logits = resize_like(logits, picture, align_corners=False)
        return choose_classes(logits)


def choose_classes(logits: Tensor) -> dict[str, Tensor]:
    """Logits (B,K,H,W) -> `mask` (B,H,W), the likeliest class, and `confidence` (B,H,W), its probability; uint8."""
    best = logits.amax(dim=1, keepdim=True)
    probability = 1 / (logits - best).exp().sum(dim=1)  # softmax of the best, without a tensor for all classes' more
    return {"mask": logits.argmax(dim=1).byte(), "confidence": (255 * probability).round().byte()}


def _detection_values(classes: int) -> list[ValueInfoProto]:
    sides = {"boxes": 4, "scores": classes}
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "A", side]) for name, side in sides.items()]


def _segmentation_values() -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "H", "W"]) for name in ("mask", "confidence")]
