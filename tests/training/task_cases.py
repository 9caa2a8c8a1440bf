"""Samples with one object, networks whose results vary, and measures, for the tests of task networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vifa_training.data import Batch
from vifa_training.tasks import TaskNetwork, build_task_network

NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def lively(name: str, classes: int = 3) -> TaskNetwork:
    """A network with fresh weights, in evaluation mode, whose results differ from place to place."""
    torch.manual_seed(0)
    network = build_task_network(name, classes)
    for parameter in network.parameters():
        if parameter.ndim == 1 and len(parameter) == classes:
            nn.init.zeros_(parameter)  # the classes' biases: a new detector believes in nothing
    estimate_statistics(network, torch.cat([as_picture(random_image(96, 128, seed)) for seed in range(4)]))
    return network


def estimate_statistics(network: TaskNetwork, images: Tensor) -> None:
    """Take the batch norms' statistics from these images alone; evaluation mode follows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over what follows
    with torch.no_grad():
        network.train().predict(images)
    network.eval()


def random_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random colour, (1,height,width,3): not so fine that networks see gray."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.ascontiguousarray(small.repeat(8, axis=0).repeat(8, axis=1)[None, :height, :width])


def as_picture(image: NDArray[np.uint8]) -> Tensor:
    """What a network sees of camera bytes (B,H,W,3): (B,3,H,W), 0..1."""
    return torch.from_numpy(image).permute(0, 3, 1, 2) / 255


def picture(height: int, width: int, box: tuple[int, int, int, int]) -> Tensor:
    """Dark noise with one bright rectangle, x1 y1 x2 y2: (1,3,height,width)."""
    image = 0.2 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    x1, y1, x2, y2 = box
    image[:, :, y1:y2, x1:x2] += 0.7
    return image


def batch_of(image: Tensor, boxes: list[Tensor] | None = None, labels: list[Tensor] | None = None, mask=None) -> Batch:
    return Batch(image, image[:, :1], boxes=boxes, labels=labels, mask=mask)


def train(network: TaskNetwork, batch: Batch, steps: int, rate: float) -> list[float]:
    """Fit one batch, then take the batch norms' statistics from it; the losses of all steps."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = network.loss(batch.visible, batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    estimate_statistics(network, batch.visible)
    return losses


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    areas = [(box[2:] - box[:2]).prod() for box in (a, b)]
    return float(sides.prod() / (areas[0] + areas[1] - sides.prod()))
