"""Stage 1: the fusion loss on new pairs and Eq. 1 by hand, and a backbone that keeps its key channels."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from task_toys import lively_network, same, weights_of

from vifa_training.channels import Choice, KeyChannels, LayerChannels, analyse, choose
from vifa_training.checkpoint import TrainingError
from vifa_training.data import Augmentation, Batch, draw_batch
from vifa_training.data.street import StreetData
from vifa_training.distillation.stage1 import KeyChannelObjective, stage1
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.fusion_loss import FusionWeights, fusion_loss
from vifa_training.schedule import Schedule

OLD, NEW = StreetData(3, size=(64, 96), seed=1), StreetData(3, size=(64, 96), seed=2)
WEIGHTS = FusionWeights(maximum=20, gradient=5, ssim=5)
SCHEDULE = Schedule(steps=12, batch=2, crop=32, learning_rate=3e-3, validate_every=12)


def memory_of(network: FusionNetwork, seed: int) -> KeyChannels:
    """Key channels at random, so that not all are: a third, with entropies of their own."""
    rng = np.random.default_rng(seed)
    layers = {}
    for name, channels in network.distilled_layers.items():
        told = torch.from_numpy(rng.uniform(1, 5, channels).astype(np.float32))
        key = torch.from_numpy(rng.random(channels) < 1 / 3)
        layers[name] = LayerChannels(torch.eye(channels), told, torch.arange(channels), key)
    found = analyse(network, OLD, "by hand", Choice(images=1))
    return KeyChannels(**{**vars(found), "layers": layers})


def some_batch() -> Batch:
    return draw_batch(NEW, 2, 32, np.random.default_rng(0), Augmentation(mirror=0, stretch=0))


def moved(network: FusionNetwork) -> FusionNetwork:
    other = copy.deepcopy(network)
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in other.backbone.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return other


def layers_of(network: FusionNetwork, batch: Batch) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return network.backbone.layers(batch.visible_y, batch.thermal)


def test_the_loss_is_that_of_fusion_and_eq_1_of_every_earlier_data_set() -> None:
    network, batch = lively_network("nano", ["a"]), some_batch()
    memories = [memory_of(network, 1), memory_of(network, 2)]
    student = moved(network)
    objective = KeyChannelObjective(network.backbone, "a", memories, WEIGHTS, 0.5)
    with torch.no_grad():
        found = float(objective(student, batch, 0.0))
        fusion = float(
            fusion_loss(student.heads["a"](student.backbone(batch.visible_y, batch.thermal)), batch.visible_y,
                        batch.thermal, WEIGHTS)
        )  # fmt: skip
    before, now, held = layers_of(network, batch), layers_of(student, batch), 0.0
    for memory in memories:
        for name, layer in memory.layers.items():
            for channel in np.flatnonzero(layer.key.numpy()):
                for one, other in zip(now[name][:, channel].numpy(), before[name][:, channel].numpy(), strict=True):
                    norm = np.linalg.norm(one - other) / np.sqrt(one.size)
                    held += float(layer.entropy[channel]) * norm / len(now[name])
    assert held > 0.1
    assert found == pytest.approx(fusion + 0.5 * held, rel=1e-4)


def test_other_channels_are_free() -> None:
    network, batch = lively_network("nano", ["a"]), some_batch()
    memory = memory_of(network, 1)
    student = moved(network)
    objective = KeyChannelObjective(network.backbone, "a", [memory], FusionWeights(maximum=0, gradient=0, ssim=0), 1.0)
    objective(student, batch, 0.0).backward()
    gradient = student.backbone.merge.bias.grad  # of `features`, on which nothing else in the loss depends
    key = memory.layers["features"].key
    assert key.any() and not key.all()
    assert not gradient[~key].any() and gradient[key].abs().max() > 0


def drift(before: FusionNetwork, after: FusionNetwork, memory: KeyChannels) -> float:
    batch = some_batch()
    old, new = layers_of(before, batch), layers_of(after, batch)
    changes = [(new[n] - old[n])[:, layer.key].square().mean() for n, layer in memory.layers.items()]
    return float(torch.stack(changes).mean())


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_key_channels_stay_nearer_the_heavier_they_count(name: str, tmp_path: Path) -> None:
    start = lively_network(name, ["a"])
    memory = memory_of(start, 1)
    drifts = []
    for weight in (0.0, 1.0, 100.0):
        network = copy.deepcopy(start)
        stage1(network, "a", NEW, [memory], WEIGHTS, SCHEDULE, tmp_path / str(weight), weight)
        assert not network.training
        drifts.append(drift(start, network, memory))
    assert drifts[0] > drifts[1] > drifts[2] > 0


def test_the_loss_of_fusion_falls_on_the_new_pairs(tmp_path: Path) -> None:
    network = lively_network("nano", ["a"])
    batch = some_batch()

    def loss() -> float:
        with torch.no_grad():
            fused = network.heads["a"](network.backbone(batch.visible_y, batch.thermal))
            return float(fusion_loss(fused, batch.visible_y, batch.thermal, WEIGHTS))

    before = loss()
    stage1(network, "a", NEW, [memory_of(network, 1)], WEIGHTS, SCHEDULE, tmp_path, 0.01)
    assert loss() < 0.9 * before


def test_the_previous_backbone_teaches_as_it_was(tmp_path: Path) -> None:
    network = lively_network("tardal", ["a"])
    objective = KeyChannelObjective(network.backbone, "a", [memory_of(network, 1)], WEIGHTS, 1.0)
    before = weights_of(objective.teacher)
    objective.train()(moved(network).train(), some_batch(), 0.0).backward()
    assert same(before, weights_of(objective.teacher)) and not objective.teacher.training


def test_other_key_channels_make_another_training(tmp_path: Path) -> None:
    start = lively_network("nano", ["a"])
    stage1(copy.deepcopy(start), "a", NEW, [memory_of(start, 1)], WEIGHTS, SCHEDULE, tmp_path)
    again = copy.deepcopy(start)
    stage1(again, "a", NEW, [memory_of(start, 1)], WEIGHTS, SCHEDULE, tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        stage1(copy.deepcopy(start), "a", NEW, [memory_of(start, 2)], WEIGHTS, SCHEDULE, tmp_path)


def test_real_key_channels_fit() -> None:
    network = lively_network("nano", ["a"])
    found = analyse(network, OLD, "streets", Choice(images=2))
    for name, layer in found.layers.items():
        assert torch.equal(layer.key, choose(layer.similarity, layer.entropy, found.choice).key), name
    with torch.no_grad():
        assert float(KeyChannelObjective(network.backbone, "a", [found], WEIGHTS, 1.0)(network, some_batch(), 0.0)) > 0
