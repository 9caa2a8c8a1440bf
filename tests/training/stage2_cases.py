"""Pairs, networks and images to imitate, for tests of stage 2."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from task_toys import InMemory, lively_network, noise_sample
from torch import nn

from vifa_training.data import Batch, Sample, whole_batch
from vifa_training.networks import FusionNetwork


def noise_pairs(count: int = 3, height: int = 40, width: int = 48) -> InMemory:
    return InMemory(*(noise_sample(f"pair{seed}", height, width, seed) for seed in range(count)))


def random_luma(sample: Sample) -> np.ndarray:
    return np.random.default_rng(len(sample.name)).random(sample.thermal.shape, np.float32)


def noise_batches(network: FusionNetwork, count: int = 3, size: tuple[int, int] = (48, 64)) -> list[Batch]:
    return [whole_batch(noise_sample("a", *size, seed), network.size_multiple) for seed in range(count)]


def taught(network: FusionNetwork, task: str, batches: list[Batch], noise: float = 0.0) -> list[Batch]:
    """The batches with what the head gives to imitate, and some noise; as bytes are, it ends at black and white."""
    torch.manual_seed(7)
    with torch.no_grad():
        lumas = [network.heads[task].luma(network.backbone(batch.visible_y, batch.thermal)) for batch in batches]
    return [
        replace(batch, fused=(luma + noise * torch.randn_like(luma)).clamp(0, 1))
        for batch, luma in zip(batches, lumas, strict=True)
    ]


def vivid(name: str, contrast: float = 0.2, batches: list[Batch] | None = None) -> FusionNetwork:
    """A network whose features differ from place to place, as after a training, and whose head `a` gives such an image.

    Signals fade in fresh weights: convolutions get those that keep their size, and norms the statistics of the input.
    """
    network = lively_network(name, ["a", "b"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    layer = last_layer(network, "a")
    with torch.no_grad():
        for batch in batches or noise_batches(network):
            network.train()(batch.visible_y, batch.thermal)
        given = layer(network.eval().heads["a"].last_layer(network.backbone(batch.visible_y, batch.thermal)).inputs)
        layer.weight *= contrast / given.std()
        layer.bias.fill_((0.0 if name in ("nano", "piafusion") else 0.5) - contrast * float(given.mean() / given.std()))
    return network


def last_layer(network: FusionNetwork, task: str) -> nn.Conv2d:
    head = network.heads[task]
    return head.change if network.name == "nano" else head.output


def forget(network: FusionNetwork, task: str) -> FusionNetwork:
    """A copy whose last layer in the head is another."""
    other = copy.deepcopy(network)
    for parameter in last_layer(other, task).parameters():
        nn.init.normal_(parameter)
    return other
