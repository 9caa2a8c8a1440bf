"""Task networks that learn and export in a moment, their recipes, pairs in memory: for tests of what goes on around."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_runtime.bundle import Bundle, Task, write_bundle
from vifa_training.data import Batch, Sample
from vifa_training.export import export_bundle
from vifa_training.networks import FusionNetwork, build_network
from vifa_training.task_recipe import TaskRecipe, load_task_recipe
from vifa_training.tasks import TaskNetwork, TaskNetworkError
from vifa_training.tasks.following import cell_centres
from vifa_training.tasks.segmentation_loss import segmentation_loss

CELL = 8


class ToySegmenter(TaskNetwork):
    """Two convolutions with a batch norm between."""

    name, kind, licence = "toy_segmenter", "segmentation", "Apache-2.0"

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 1)
        )

    def loss(self, image: Tensor, batch: Batch) -> Tensor:
        if batch.mask is None:
            raise TaskNetworkError("toy_segmenter learns from masks, and the batch has none")
        return segmentation_loss(self.layers(image), batch.mask)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(image)}


class ToyDetector(TaskNetwork):
    """One box of 16x16 around each cell of 8x8; its scores say whether the cell holds the middle of an object."""

    name, kind, licence = "toy_detector", "detection", "Apache-2.0"

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, CELL, stride=CELL), nn.ReLU(), nn.Conv2d(8, classes, 1))

    def loss(self, image: Tensor, batch: Batch) -> Tensor:
        if batch.boxes is None:
            raise TaskNetworkError("toy_detector learns from boxes, and the batch has none")
        logits = self.layers(image)
        wanted = torch.zeros_like(logits)
        for index, (boxes, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
            x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / CELL).long().unbind(dim=1)
            wanted[index, labels, y.clamp(max=logits.shape[2] - 1), x.clamp(max=logits.shape[3] - 1)] = 1
        return F.binary_cross_entropy_with_logits(logits, wanted)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        logits = self.layers(image)
        centres = CELL * cell_centres(logits).flatten(0, 1)[None]
        return {
            "boxes": torch.cat([centres - CELL, centres + CELL], dim=2),
            "scores": logits.flatten(2).sigmoid().transpose(1, 2),
        }


TOYS = {network.name: network for network in (ToySegmenter, ToyDetector)}

SCHEDULE = {"steps": 2, "batch": 2, "crop": 64, "validate_every": 2}
DETECTION: dict[str, Any] = {
    "name": "tiny-detection",
    "task": "road_users",
    "description": "people and cars",
    "kind": "detection",
    "network": "toy_detector",
    "classes": {"person": [230, 60, 60], "car": [70, 130, 240]},
    "data": "street:12",
    "training": "street:4",
    "validation": "street:2/1",
    "thresholds": {"score": 0.3, "iou": 0.6, "max_detections": 20},
    "fusion_loss": {"maximum": 20, "gradient": 5},
    "presets": {"smoke": {"task": SCHEDULE, "head": SCHEDULE}},
    "licences": {"weights": "Apache-2.0", "data": "synthetic streets"},
}
SEGMENTATION: dict[str, Any] = {
    **{key: value for key, value in DETECTION.items() if key != "thresholds"},
    "name": "tiny-segmentation",
    "task": "street_parts",
    "description": "what is where",
    "kind": "segmentation",
    "network": "toy_segmenter",
    "classes": {"background": [0, 0, 0], "person": [230, 60, 60], "car": [70, 130, 240]},
}


def write_recipe(folder: Path, content: dict[str, Any], **changes: Any) -> Path:
    """A recipe file with some keys changed, or left out where they are None."""
    path = folder / f"{changes.get('name', content['name'])}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in (content | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False))
    return path


def make_recipe(folder: Path, content: dict[str, Any], **changes: Any) -> TaskRecipe:
    return load_task_recipe(str(write_recipe(folder, content, **changes)))


class InMemory:
    """Samples as a data set; `read` says how often each was asked for."""

    classes = mask_classes = ()

    def __init__(self, *samples: Sample) -> None:
        self.samples, self.names = samples, [sample.name for sample in samples]
        self.read = [0] * len(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.read[index] += 1
        return self.samples[index]


def noise_sample(name: str, height: int, width: int, seed: int = 0, **labels: Any) -> Sample:
    """Blocks of random gray levels, not so fine that a network sees gray."""
    rng = np.random.default_rng([seed, height, width])
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 4), np.uint8)
    image = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return Sample(name, np.ascontiguousarray(image[:, :, :3]), np.ascontiguousarray(image[:, :, 3]), **labels)


def lively_network(name: str, tasks: list[str], spread: float = 0.05) -> FusionNetwork:
    """A fusion network whose heads change the image and whose batch norms have statistics; in evaluation mode."""
    torch.manual_seed(0)
    network = build_network(name, tasks)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    for head in network.heads.values():
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=spread)
    return network.eval()


@cache
def exported(name: str) -> tuple[FusionNetwork, Bundle]:
    """A lively network with the heads `first` and `second`, and its bundle; not to be changed."""
    network = lively_network(name, ["first", "second"])
    manifest = {
        "name": "tiny",
        "licences": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"},
        "provenance": {"data": "none", "recipe": "by-hand", "seed": 0, "commit": "none", "date": "2026-01-01"},
        "metrics": [{"data": "none", "task": "first", "metric": "vif", "value": 1.0}],
    }
    with tempfile.TemporaryDirectory() as folder:
        tasks = [Task(task, "fusion", f"the {task}") for task in network.heads]
        return network, export_bundle(network, tasks, Path(folder) / "tiny", manifest, "card")


def place(bundle: Bundle, folder: Path, **changes: Any) -> Path:
    """Write a bundle that is in memory, with some keys of its manifest changed."""
    manifest = {key: value for key, value in bundle.manifest.items() if key not in ("format", "files")}
    write_bundle(folder, {**manifest, **changes}, bundle.graphs)
    return folder


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that a module remembers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str = "") -> bool:
    """Whether all tensors under a prefix are equal to the bit."""
    names = [name for name in before if name.startswith(prefix)]
    return bool(names) and all(torch.equal(before[name], after[name]) for name in names)
