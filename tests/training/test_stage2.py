"""Stage 2: a head that learns Eq. 3 while nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stage2_cases import last_layer, noise_batches, noise_pairs, random_luma, taught, vivid
from task_toys import lively_network, same, weights_of
from torch import Tensor, nn

from vifa_training import trainer
from vifa_training.checkpoint import TrainingError
from vifa_training.data import Sample, draw_batch, whole_batch
from vifa_training.data.street import StreetData
from vifa_training.distillation.extended import ExtendedData
from vifa_training.distillation.least_squares import solve_last_layer
from vifa_training.distillation.stage2 import HeadModel, ImitationObjective, begin, stage2
from vifa_training.networks import FusionNetwork
from vifa_training.pictures import Fused
from vifa_training.schedule import Schedule

SHORT = Schedule(steps=4, batch=2, crop=32, validate_every=2)

# Eq. 3


def test_a_head_begins_with_the_statistics_of_the_pairs_and_its_exact_last_layer(tmp_path: Path) -> None:
    """The norm's are the plain mean over the pairs, as torch computes them; the backbone's stay."""
    network, pairs = vivid("tardal"), noise_pairs()
    before = weights_of(network)
    extended = ExtendedData(pairs, random_luma, tmp_path)
    begin(HeadModel(network, "b"), extended)
    inputs = []
    with torch.no_grad():
        for index in range(len(pairs)):
            batch = whole_batch(pairs[index])
            inputs.append(network.heads["b"].hidden[0](network.backbone(batch.visible_y, batch.thermal)["funnel2"]))
    norm = network.heads["b"].hidden[1]
    variances = torch.stack([some.transpose(0, 1).flatten(1).var(dim=1) for some in inputs])
    torch.testing.assert_close(
        norm.running_mean, torch.stack([some.mean(dim=(0, 2, 3)) for some in inputs]).mean(dim=0)
    )
    torch.testing.assert_close(norm.running_var, variances.mean(dim=0))
    assert norm.momentum is None, "as it was"
    assert same(before, weights_of(network), "backbone.") and same(before, weights_of(network), "heads.a.")
    exact = copy.deepcopy(network)
    assert solve_last_layer(exact, "b", [whole_batch(extended[index]) for index in range(len(pairs))])
    assert same(weights_of(network), weights_of(exact))


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_the_loss_is_eq_3_by_hand(name: str) -> None:
    network = lively_network(name, ["a", "b"])
    student = HeadModel(network, "b").train()
    batch = draw_batch(noise_pairs(), 3, 32, np.random.default_rng(0))
    batch = replace(batch, fused=torch.rand(3, 1, 32, 32))
    with torch.no_grad():
        loss = ImitationObjective()(student, batch, 0.0)
        fused = network.heads["b"].luma(network.backbone(batch.visible_y, batch.thermal)).double()
    norms = [np.linalg.norm((u - v).numpy().ravel()) for u, v in zip(fused, batch.fused.double(), strict=True)]
    assert float(loss) == pytest.approx(np.mean(norms) / 32, rel=1e-5)


@pytest.mark.parametrize(("bias", "target"), [(1.5, 0.25), (-1.5, 0.75)])
def test_saturated_pixels_keep_their_gradient(bias: float, target: float) -> None:
    network = lively_network("nano", ["a"])
    nn.init.zeros_(network.heads["a"].change.weight)
    nn.init.constant_(network.heads["a"].change.bias, bias)
    student = HeadModel(network, "a").train()
    batch = noise_batches(network, 1)[0]
    batch = replace(batch, fused=torch.full_like(batch.thermal, target))
    loss = ImitationObjective()(student, batch, 0.0)
    loss.backward()
    pulled = network.heads["a"].change.bias.grad
    assert (pulled > 0.1).all() if bias > 0 else (pulled < -0.1).all()
    assert loss.item() > 0.8, "beyond what a clamped image could lack"


def test_it_makes_no_difference_how_far_beyond_black_and_white_a_head_goes() -> None:
    network = lively_network("nano", ["a"], spread=0.2)
    student = HeadModel(network, "a").train()
    batch = taught(network, "a", noise_batches(network, 1))[0]
    with torch.no_grad():
        fused = student(batch)
        assert float(fused.min()) < -0.1 and float(fused.max()) > 1.1
        assert float(ImitationObjective()(student, batch, 0.0)) < 1e-5
        wrong = replace(batch, fused=1 - batch.fused)
        expected = (fused - wrong.fused)[(batch.fused != 0.5)].square().sum().div(fused.numel()).sqrt()
        torch.testing.assert_close(ImitationObjective()(student, wrong, 0.0), expected)


def test_an_exact_image_gives_a_loss_of_nothing_and_a_finite_gradient() -> None:
    network = lively_network("nano", ["a"])
    student = HeadModel(network, "a").train()
    batch = taught(network, "a", noise_batches(network, 1))[0]
    loss = ImitationObjective()(student, batch, 0.0)
    loss.backward()
    assert loss.item() < 1e-5
    assert all(bool(p.grad.isfinite().all()) for p in network.heads["a"].parameters())


def test_only_the_head_is_trained_and_leaves_evaluation_mode() -> None:
    network = lively_network("tardal", ["a", "b"])
    student = HeadModel(network, "b").train()
    trained = {id(p) for p in network.heads["b"].parameters()}
    assert {id(p) for p in network.parameters() if p.requires_grad} == trained
    assert {id(p) for group in student.parameter_groups() for p in group["params"]} == trained
    inside = set(network.heads["b"].modules())
    assert all(module.training == (module in inside) for module in network.modules())
    assert not any(module.training for module in student.eval().modules())


# Stage 2


def teacher_of(network: FusionNetwork, task: str) -> Callable[[Sample], np.ndarray]:
    return Fused(copy.deepcopy(network), task).luma


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_nothing_but_the_head_changes(name: str, tmp_path: Path) -> None:
    """Batch norms too, whatever the schedule asks of those that are trained."""
    network, teacher = lively_network(name, ["old", "new"]), lively_network(name, ["a"], spread=0.08)
    before = weights_of(network)
    schedule = replace(SHORT, norm_batches=2, ema=0.5, learning_rate=0.01)
    stage2(network, "new", Fused(teacher, "a").luma, noise_pairs(), schedule, tmp_path, "teacher")
    after = weights_of(network)
    assert same(before, after, "backbone.") and same(before, after, "heads.old.")
    assert not any(
        torch.equal(before[key], after[key]) for key in before if key.startswith("heads.new.") and "bias" in key
    )
    assert not network.training


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_a_teacher_of_the_same_backbone_is_imitated(name: str, tmp_path: Path) -> None:
    """From a head that differs in its last layer; a fifth of the images by night is black in the teacher's."""
    pairs = StreetData(4, size=(64, 96))
    network = vivid(name, 0.1, [whole_batch(pairs[index], 8) for index in range(len(pairs))])
    network.add_head("new", like="a")
    for parameter in last_layer(network, "new").parameters():
        nn.init.normal_(parameter, std=0.1)
    teacher = teacher_of(network, "a")
    schedule = Schedule(40, batch=2, crop=(64, 96), learning_rate=3e-4, freeze_norms=0.01, validate_every=40)
    stage2(network, "new", teacher, pairs, schedule, tmp_path, "teacher")
    student = Fused(network, "new")
    for index in range(len(pairs)):
        aim = teacher(pairs[index])
        difference, contrast = np.abs(student.luma(pairs[index]) - aim).mean(), aim.std()
        assert 255 * contrast > 15
        # TarDAL's head has a batch norm, whose statistics of two images are not those of all.
        assert 255 * difference < 1 if name == "nano" else difference < 0.15 * contrast


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    taken = trainer._Session._step

    def interrupted(self: trainer._Session) -> float:
        if self.progressed.step == step:
            raise KeyboardInterrupt
        return taken(self)

    monkeypatch.setattr(trainer._Session, "_step", interrupted)


@pytest.mark.parametrize("step", [0, 3])
def test_an_interrupted_stage_2_ends_with_the_same_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def run(folder: Path) -> dict[str, Tensor]:
        network = lively_network("tardal", ["old", "new"])
        stage2(
            network, "new", Fused(lively_network("tardal", ["a"], 0.08), "a").luma, noise_pairs(), SHORT, folder, "t"
        )
        return weights_of(network)

    whole = run(tmp_path / "whole")
    stop_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.undo()
    assert same(whole, run(tmp_path / "broken"))


@pytest.mark.parametrize("change", ["teacher", "backbone", "pairs"])
def test_a_run_that_was_begun_otherwise_is_refused(tmp_path: Path, change: str) -> None:
    stage2(lively_network("nano", ["a"]), "a", random_luma, noise_pairs(), SHORT, tmp_path, "one")
    network, pairs = lively_network("nano", ["a"]), noise_pairs(4 if change == "pairs" else 3)
    if change == "backbone":
        nn.init.ones_(network.backbone.stem.bias)
    with pytest.raises(TrainingError, match=r"last\.safetensors belongs to a training by another recipe"):
        stage2(network, "a", random_luma, pairs, SHORT, tmp_path, "two" if change == "teacher" else "one")


def test_what_is_imitated_is_the_image_of_the_very_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither mirrored nor with another contrast: for such pairs the reference would have fused something else."""
    asked: list[object] = []
    monkeypatch.setattr(trainer, "draw_batch", lambda *given: asked.append(given[-1]) or draw_batch(*given))
    stage2(lively_network("nano", ["a"]), "a", random_luma, noise_pairs(), SHORT, tmp_path, "one")
    assert {(augmentation.mirror, augmentation.stretch, augmentation.scale) for augmentation in asked} == {
        (0, 0, (1, 1))
    }
