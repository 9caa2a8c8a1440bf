"""The exact last layer: against a known one, against NumPy, and where there is none to solve."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from stage2_cases import forget, last_layer, noise_batches, taught, vivid
from task_toys import lively_network, noise_sample, same, weights_of
from torch import nn
from torch.nn import functional as F

from vifa_training.distillation.least_squares import solve_last_layer
from vifa_training.networks import deepen
from vifa_training.pictures import Fused

LINEAR = ["nano", "tardal", "piafusion", "swinfusion"]


@pytest.mark.parametrize("name", LINEAR)
def test_a_known_last_layer_is_recovered(name: str) -> None:
    network = vivid(name)
    batches = taught(network, "a", noise_batches(network))
    assert all(float(batch.fused.std()) > 0.08 for batch in batches)
    student = forget(network, "a")
    before = weights_of(student)
    assert solve_last_layer(student, "a", batches) is True
    unseen = noise_batches(network, 5)[-1]
    with torch.no_grad():
        features = network.backbone(unseen.visible_y, unseen.thermal)
        difference = student.heads["a"].luma(features) - network.heads["a"].luma(features)  # not clamped
    assert 255 * float(difference.abs().max()) < 0.5
    solved = {f"heads.a.{'change' if name == 'nano' else 'output'}.{key}" for key in ("weight", "bias")}
    assert {key for key, tensor in weights_of(student).items() if not torch.equal(tensor, before[key])} == solved


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_noisy_targets_give_the_least_squares_solution(name: str) -> None:
    """Against torch.linalg.lstsq on the 3x3 neighbourhoods, taken apart by shifting the padded features.

    The one without damping is as good as any; with a row of 1e-3 of the typical feature's norm for each weight, which
    is a ridge of 1e-6, it is what ours has to be.
    """
    network = vivid(name)
    batches = taught(network, "a", noise_batches(network), noise=0.05)
    ended = torch.cat([(batch.fused == 0) | (batch.fused == 1) for batch in batches]).float().mean()
    assert 0.005 < float(ended) < 0.3
    student = forget(network, "a")
    assert solve_last_layer(student, "a", batches)
    rows, wanted = [], []
    for batch in batches:
        with torch.no_grad():
            features = network.backbone(batch.visible_y, batch.thermal)
        if name == "nano":
            seen, change = features["features"], batch.fused - batch.visible_y
            cells = torch.stack([change[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
        else:
            with torch.no_grad():
                seen, cells = (
                    network.heads["a"].hidden(features["funnel2"]),
                    torch.atanh(batch.fused.clamp(-0.998, 0.998)),
                )
        padded = F.pad(seen, (1, 1, 1, 1))
        height, width = seen.shape[2:]
        shifted = [padded[0, :, i : i + height, j : j + width].flatten(1) for i in range(3) for j in range(3)]
        inside = (batch.fused > 0) & (batch.fused < 1)
        side = 2 if name == "nano" else 1
        counts = inside[0, 0].unflatten(0, (-1, side)).unflatten(2, (-1, side)).all(dim=3).all(dim=1).flatten()
        neighbours = torch.cat([torch.stack(shifted, dim=1).flatten(0, 1), torch.ones(1, height * width)])
        rows.append(neighbours.T.double()[counts])
        wanted.append(cells[0].flatten(1).T.double()[counts])
    everything, aim = torch.cat(rows), torch.cat(wanted)
    layer = last_layer(student, "a")
    ours = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], dim=1).T.double().detach()
    exact = torch.linalg.lstsq(everything, aim, driver="gelsd").solution
    least, found = (float((everything @ weights - aim).square().mean()) for weights in (exact, ours))
    assert 1e-3 < least <= found < 1.01 * least
    ridge = 1e-3 * everything.square().sum(dim=0).mean().sqrt() * torch.eye(everything.shape[1])
    damped = torch.linalg.lstsq(torch.cat([everything, ridge]), torch.cat([aim, torch.zeros(len(ridge), aim.shape[1])]))
    torch.testing.assert_close(everything @ ours, everything @ damped.solution, rtol=0, atol=1e-5)


def test_a_head_whose_last_layer_is_followed_by_a_norm_is_left_as_it_is() -> None:
    network = lively_network("didfuse", ["a"])
    before = weights_of(network)
    batches = [replace(batch, fused=torch.rand_like(batch.thermal)) for batch in noise_batches(network)]
    assert solve_last_layer(network, "a", batches) is False
    assert same(before, weights_of(network))


def test_the_last_layer_of_a_deeper_head_is_solved_behind_its_other_layers() -> None:
    network = vivid("nano")
    deepen(network, "a", 2)
    batches = taught(network, "a", noise_batches(network))
    student = copy.deepcopy(network)
    nn.init.normal_(student.heads["a"].inner.change.weight)
    before = weights_of(student)
    assert solve_last_layer(student, "a", batches)
    with torch.no_grad():
        lumas = [Fused(some, "a").luma(noise_sample("u", 40, 56, 9)) for some in (network, student)]
    assert 255 * np.abs(lumas[0] - lumas[1]).max() < 0.2
    changed = {key for key, tensor in weights_of(student).items() if not torch.equal(tensor, before[key])}
    assert changed == {"heads.a.inner.change.weight", "heads.a.inner.change.bias"}


def test_an_image_without_a_gray_pixel_leaves_the_last_layer_as_it_is() -> None:
    network = lively_network("nano", ["a"])
    before = weights_of(network)
    batch = noise_batches(network, 1)[0]
    assert not solve_last_layer(network, "a", [replace(batch, fused=torch.ones_like(batch.thermal))])
    assert same(before, weights_of(network))


@pytest.mark.parametrize("name", LINEAR)
def test_every_second_row_and_column_of_a_large_image_is_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = vivid(name)
    batches = taught(network, "a", noise_batches(network, 5))
    student, all_pixels = forget(network, "a"), forget(network, "a")
    solve_last_layer(all_pixels, "a", batches)
    counted = batches[0].fused.shape[2] * batches[0].fused.shape[3] // (4 if name == "nano" else 1)
    monkeypatch.setattr("vifa_training.distillation.least_squares._CELLS", counted // 2)
    solve_last_layer(student, "a", batches)
    layers = [last_layer(net, "a") for net in (student, all_pixels, network)]
    assert not torch.equal(layers[0].weight, layers[1].weight), "fewer pixels, rounded another way"
    unseen = noise_batches(network, 6)[-1]
    with torch.no_grad():
        features = network.backbone(unseen.visible_y, unseen.thermal)
        difference = student.heads["a"].luma(features) - network.heads["a"].luma(features)
    assert 255 * float(difference.square().mean().sqrt()) < 0.1  # of a contrast of 50
