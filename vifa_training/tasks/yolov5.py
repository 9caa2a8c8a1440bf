"""YOLOv5 in its anchor-free form (YOLOv5u), from ultralytics.

ultralytics is AGPL-3.0 and an extra of its own: nothing else imports it, and this only where a network is made.

Sources: Jocher et al., "YOLOv5 by Ultralytics"; its loss: Feng et al., "TOOD: task-aligned one-stage object detection",
ICCV 2021 (which anchors learn which box), Zheng et al., "Distance-IoU loss", AAAI 2020, and Li et al., "Generalized
focal loss", NeurIPS 2020 (distances as distributions).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vifa_training.data.base import Batch
from vifa_training.tasks.base import TaskNetwork, TaskNetworkError
from vifa_training.tasks.following import cell_centres, repeat_like

STRIDES = (8, 16, 32)  # pixels between neighbouring anchors, one a level
_BINS = 16  # a distance is a distribution over so many multiples of its level's stride
_GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # the library's own weights of the parts of the loss


class YOLOv5(TaskNetwork):
    """The library's own network, run layer by layer: where it doubles a size, this follows what comes to be joined."""

    kind = "detection"
    licence = "AGPL-3.0"
    steps: Tensor

    scale: ClassVar[str]

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        model, _ = _library(self.name)
        self.network = model(f"yolov5{self.scale}.yaml", ch=3, nc=classes, verbose=False)
        self.network.args = _GAINS
        self.register_buffer("steps", torch.arange(float(_BINS)), persistent=False)

    def loss(self, image: Tensor, batch: Batch) -> Tensor:
        """See `TaskNetwork.loss`: overlap, class and distance parts with the library's weights.

        The library divides the sum over all anchors by the summed targets of those that learn a box, at least 1. Here
        it is at least 1 an image, so that batches of any size agree where boxes are few or missing.
        """
        if batch.boxes is None or batch.labels is None:
            raise TaskNetworkError(f"{self.name} learns from boxes, and the batch has none")
        distances, scores = self._levels(image)
        predictions = {"feats": [level[:, :1].float() for level in distances]}  # asked for their sizes
        for name, levels in (("boxes", distances), ("scores", scores)):
            predictions[name] = torch.cat([level.flatten(2) for level in levels], dim=2).float()
        criterion = _library(self.name)[1](self.network)
        assigned: list[Tensor] = []
        criterion.assigner.register_forward_hook(lambda _, __, targets: assigned.append(targets[2].sum()))
        with torch.autocast(image.device.type, enabled=False):
            parts, _ = criterion(predictions, _targets(batch.boxes, batch.labels, distances[0]))
        images, learnt = len(image), assigned[0]
        mean = parts.sum() / images  # the library's sum over parts comes times the number of images
        return mean * learnt.clamp(min=1) / learnt.clamp(min=images)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        distances, scores = self._levels(image)
        boxes = [self._boxes(level.float(), stride) for level, stride in zip(distances, STRIDES, strict=True)]
        logits = [level.float().flatten(2) for level in scores]
        return {"boxes": torch.cat(boxes, dim=1), "scores": torch.cat(logits, dim=2).sigmoid().transpose(1, 2)}

    def _levels(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each stride the distances' logits (B,4*16,h,w) and the classes' (B,K,h,w)."""
        *layers, head = self.network.model
        kept: list[Tensor] = []
        maps: Any = image
        enlarged = False
        for layer in layers:
            if layer.f != -1:  # it joins results of others, by their index; -1 is the one before
                *others, last = [maps if index == -1 else kept[index] for index in layer.f]
                maps = [*(repeat_like(other, last) if enlarged else other for other in others), last]
            enlarged = isinstance(layer, nn.Upsample)
            if not enlarged:  # doubling waits for the size that it has to meet
                maps = layer(maps)
            kept.append(maps)
        levels = [kept[index] for index in head.f]
        return (
            [branch(level) for branch, level in zip(head.cv2, levels, strict=True)],
            [branch(level) for branch, level in zip(head.cv3, levels, strict=True)],
        )

    def _boxes(self, level: Tensor, stride: int) -> Tensor:
        """Logits of the distances (B,4*16,h,w) to left, top, right, bottom -> boxes (B,h*w,4) xyxy in pixels."""
        likely = level.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (4, _BINS)).softmax(dim=3)
        before, after = (likely * self.steps).sum(dim=3).chunk(2, dim=2)
        centres = cell_centres(level).flatten(0, 1)
        return torch.cat([centres - before, centres + after], dim=2) * stride


def _targets(boxes: list[Tensor], labels: list[Tensor], finest: Tensor) -> dict[str, Tensor]:
    """Boxes (N,4) xyxy in pixels as the library's loss takes them: of all images, centre and size, 0..1.

    It multiplies them by the extent of the anchors, which for odd images is not the image's own.
    """
    rows, columns = (STRIDES[0] * side for side in finest.shape[2:])
    everything = torch.cat(boxes).to(finest.device, torch.float32)
    low, high = everything.chunk(2, dim=1)
    extent = everything.new_tensor([columns, rows])
    counts = torch.tensor([len(of_image) for of_image in boxes], device=finest.device)
    return {
        "bboxes": torch.cat([(low + high) / 2, high - low], dim=1) / extent.repeat(2),
        "cls": torch.cat(labels).to(finest.device, torch.float32),
        "batch_idx": torch.arange(len(boxes), device=finest.device).repeat_interleave(counts).float(),
    }


@cache
def _library(name: str) -> tuple[Any, Any]:
    """The library's detection network and its loss.

    Raises:
        TaskNetworkError: the library is not there.
    """
    try:
        with _undisturbed():
            from ultralytics.nn.tasks import DetectionModel
            from ultralytics.utils.loss import v8DetectionLoss
    except ImportError as error:
        raise TaskNetworkError(
            f"{name} needs ultralytics ({error}): pip install 'vifa-perception[detection]' (AGPL-3.0)"
        ) from None
    return DetectionModel, v8DetectionLoss


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep what importing ultralytics changes to itself.

    Left alone it asks the network whether it is there, writes settings into the user's home, replaces `torch.save`,
    sets environment variables, warning filters and print options, and takes OpenCV's threads away.
    """
    environment, save, threads = dict(os.environ), torch.save, cv2.getNumThreads()
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        np.printoptions(),
        torch._tensor_str.printoptions(),
    ):
        quiet = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
        os.environ.update(quiet, YOLO_CONFIG_DIR=folder)
        try:
            yield
        finally:
            torch.save = save
            cv2.setNumThreads(threads)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


class YOLOv5n(YOLOv5):
    """2.5 M parameters."""

    name = "yolov5n"
    scale = "n"


class YOLOv5s(YOLOv5):
    """9.1 M parameters."""

    name = "yolov5s"
    scale = "s"
