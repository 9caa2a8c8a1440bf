"""Remedies against forgetting: by hand, and what each holds on to in a training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from task_toys import SEGMENTATION, InMemory, ToyDetector, ToySegmenter, lively_network, make_recipe, same, weights_of
from torch import nn

from vifa_training.baselines import AllChannels, ElasticWeights, Remedy, Replay, Several
from vifa_training.data import Augmentation, Batch, DataSet, draw_batch
from vifa_training.data.street import StreetData
from vifa_training.distillation.reference import train_reference
from vifa_training.networks import FusionNetwork
from vifa_training.task_model import JointModel, TaskObjective
from vifa_training.tasks import TASK_NETWORKS

PAIRS = StreetData(4, size=(64, 96))
PLAIN = Augmentation(mirror=0, stretch=0)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (ToySegmenter, ToyDetector):
        monkeypatch.setitem(TASK_NETWORKS, network.name, network)


def joint(name: str = "nano") -> JointModel:
    torch.manual_seed(1)
    return JointModel(lively_network(name, ["first"]), "first", ToySegmenter(3))


def moved(model: JointModel, by: float = 0.01) -> JointModel:
    """A copy whose fusion network has other weights."""
    model = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter += by * torch.randn_like(parameter)
    return model


def some_batch(seed: int = 0) -> Batch:
    return draw_batch(PAIRS, 2, 32, np.random.default_rng(seed), PLAIN)


def remedies(old: JointModel) -> dict[str, Remedy]:
    return {
        "ewc": ElasticWeights(old, PAIRS, 10.0, 3, 32),
        "lwf": AllChannels(old, 10.0),
        "replay": Replay(old, PAIRS, 10.0, 2, 32, PLAIN),
    }


# Elastic weights


def test_springs_are_as_stiff_as_the_mean_squared_gradient_of_single_images() -> None:
    old = joint()
    remedy = ElasticWeights(old, PAIRS, 4.0, 3, 32)
    stiffness = [torch.zeros_like(parameter) for parameter in old.fusion.parameters()]
    old.eval()
    for index in range(3):
        batch = draw_batch(PAIRS, 1, 32, np.random.default_rng([0, index]))
        old.zero_grad()
        old.loss(batch).backward()
        for total, parameter in zip(stiffness, old.fusion.parameters(), strict=True):
            total += parameter.grad.square() / 3
    new = moved(old)
    pairs = zip(new.fusion.parameters(), old.fusion.parameters(), stiffness, strict=True)
    expected = sum(float((total * (now - before).square()).sum()) for now, before, total in pairs)
    assert expected > 0
    assert float(remedy(new, some_batch())) == pytest.approx(4 / 2 * expected, rel=1e-4)


def test_what_was_not_asked_of_by_the_old_task_is_free() -> None:
    old = joint()
    old.fusion.add_head("other")
    remedy = ElasticWeights(old, PAIRS, 4.0, 2, 32)
    new = copy.deepcopy(old)
    with torch.no_grad():
        for parameter in new.fusion.heads["other"].parameters():
            parameter += 1
    assert float(remedy(new, some_batch())) == 0


# All channels


def test_all_channels_by_hand() -> None:
    old = joint().eval()
    new, batch = moved(old), some_batch()
    with torch.no_grad():
        found = float(AllChannels(old, 3.0)(new, batch))
        layers = [model.fusion.backbone.layers(batch.visible_y, batch.thermal) for model in (old, new)]
        lumas = [model.fusion.heads["first"].luma(own) for model, own in zip((old, new), layers, strict=True)]
    changes = [
        (before.numpy(), after.numpy())
        for before, after in [(layers[0][name], layers[1][name]) for name in old.fusion.distilled_layers] + [lumas]
    ]
    shares = [np.mean((after - before) ** 2) / np.mean(before**2) for before, after in changes]
    assert len(shares) == len(old.fusion.distilled_layers) + 1
    assert found == pytest.approx(3 * np.mean(shares), rel=1e-4)


# Replay


def test_replay_is_the_old_tasks_loss_on_crops_of_the_stored_pairs() -> None:
    old = joint()
    new = moved(old).train()
    remedy = Replay(old, PAIRS, 0.5, 2, 32, PLAIN)
    torch.manual_seed(5)
    found = remedy(new, some_batch())
    torch.manual_seed(5)
    stored = draw_batch(PAIRS, 2, 32, np.random.default_rng(int(torch.randint(2**31, ()).item())), PLAIN)
    torch.testing.assert_close(found, 0.5 * copy.deepcopy(old).eval().loss_of(new.fuse(stored), stored))
    found.backward()
    assert all(float(p.grad.abs().max()) > 0 for p in new.fusion.parameters() if p.ndim > 1)
    assert all(parameter.grad is None for parameter in new.task.parameters())


def test_other_steps_replay_other_crops() -> None:
    old = joint()
    remedy, new = Replay(old, PAIRS, 1.0, 2, 32), moved(old)
    losses = set()
    for seed in range(3):
        torch.manual_seed(seed)
        losses.add(float(remedy(new, some_batch())))
    assert len(losses) == 3


# All of them


@pytest.mark.parametrize("name", ["ewc", "lwf"])
def test_nothing_is_asked_of_a_network_that_has_not_changed(name: str) -> None:
    old = joint().eval()
    assert float(remedies(old)[name](old, some_batch())) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("name", ["ewc", "lwf", "replay"])
def test_the_old_networks_stay_as_they_are(name: str) -> None:
    old = joint("tardal")
    before, mode = weights_of(old), old.training
    remedy = remedies(old)[name].train()
    remedy(moved(old).train(), some_batch()).backward()
    assert same(before, weights_of(old)) and old.training == mode
    assert not any(parameter.requires_grad for parameter in remedy.parameters())
    assert not any(module.training for module in remedy.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(parameter.requires_grad for parameter in old.parameters())


def test_several_add_up() -> None:
    old = joint()
    own = remedies(old)
    both, new, batch = Several([own["ewc"], own["lwf"]]), moved(old), some_batch()
    torch.testing.assert_close(both(new, batch), own["ewc"](new, batch) + own["lwf"](new, batch))
    assert both.identity == f"{own['ewc'].identity} and {own['lwf'].identity}"


def test_a_remedy_is_added_to_the_loss_of_the_task() -> None:
    old = joint()
    new, batch = moved(old).eval(), some_batch()
    remedy = AllChannels(old, 2.0)
    with torch.no_grad():
        plain, held = TaskObjective()(new, batch, 0.0), TaskObjective(remedy=remedy)(new, batch, 0.0)
        torch.testing.assert_close(held, plain + remedy(new, batch))


class OldTask:
    """A reference of one task, and how it is gone on with for another one: to make the thermal image useless."""

    def __init__(self, folder: Path) -> None:
        schedule = {"steps": 30, "batch": 2, "crop": 32, "validate_every": 30, "learning_rate": 0.01}
        presets = {"smoke": {"task": schedule, "head": schedule}}
        self.recipe = make_recipe(
            folder, SEGMENTATION, fusion_share=0.2, fusion_weight=0.1, head_share=0.2, presets=presets
        )
        self.folder, self.task = folder, ToySegmenter(3)
        self.model = self._train(joint().fusion, self.task, PAIRS, "old", None)

    def go_on(self, name: str, remedy: Remedy | None) -> JointModel:
        inverted = InMemory(
            *(replace(sample, thermal=255 - sample.thermal) for sample in map(PAIRS.__getitem__, range(4)))
        )
        torch.manual_seed(3)
        return self._train(copy.deepcopy(self.model.fusion), ToySegmenter(3), inverted, name, remedy)

    def loss(self, fusion: FusionNetwork) -> float:
        """Of the old task, when its network is shown what a fusion network fuses now."""
        shown = JointModel(fusion, "first", self.model.task).eval()
        with torch.no_grad():
            return sum(float(shown.loss(some_batch(seed))) for seed in range(8)) / 8

    def _train(
        self, fusion: FusionNetwork, task: ToySegmenter, pairs: DataSet, name: str, remedy: Remedy | None
    ) -> JointModel:
        preset = self.recipe.preset("smoke")
        return train_reference(fusion, "first", task, pairs, self.recipe, preset, self.folder / name, remedy)


def test_each_remedy_keeps_some_of_what_is_forgotten_without(tmp_path: Path) -> None:
    old = OldTask(tmp_path)
    learned, forgotten = old.loss(old.model.fusion), old.loss(old.go_on("plain", None).fusion)
    assert forgotten > 1.01 * learned
    held = {"ewc": ElasticWeights(old.model, PAIRS, 1e4, 8, 32), "lwf": AllChannels(old.model, 100.0)}
    held["replay"] = Replay(old.model, PAIRS, 3.0, 2, 32)
    for name, remedy in held.items():
        kept = old.loss(old.go_on(name, remedy).fusion)
        assert kept < forgotten - 0.3 * (forgotten - learned), name
