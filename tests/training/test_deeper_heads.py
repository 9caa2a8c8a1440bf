"""Heads of more layers: how many, by hand, and as graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from task_toys import lively_network, noise_sample
from torch import nn
from torch.nn import functional as F

from vifa_training.experiments.head_depth import with_fresh_head
from vifa_training.export import head_graph
from vifa_training.networks import NETWORKS, add_task_head, build_network, count_layers, count_parameters, deepen
from vifa_training.pictures import Fused, replace_luma
from vifa_training.task_recipe import load_task_recipe

# Convolutions of a network's own head, and the feature that further ones refine: its name and channels.
OWN = {
    "nano": (1, "features", 16),
    "tardal": (2, "funnel2", 64),
    "piafusion": (2, "decoder3", 64),
    "didfuse": (2, "decoder1", 64),
    "swinfusion": (2, "narrowed", 30),
}


@pytest.mark.parametrize("name", list(OWN))
@pytest.mark.parametrize("more", [0, 1, 3])
def test_a_deeper_head_has_so_many_layers_and_parameters_more(name: str, more: int) -> None:
    own, _, channels = OWN[name]
    shared, recipe = build_network(name, ["shared"]), load_task_recipe("msrs-detection")
    network = with_fresh_head(shared, recipe, own + more, seed=0)
    assert list(shared.heads) == ["shared"] and list(network.heads) == ["shared", "road_users"]
    assert count_layers(shared.heads["shared"]) == own
    head = network.heads["road_users"]
    assert count_layers(head) == own + more
    one = channels * channels * 9 + channels
    assert count_parameters(head) == count_parameters(shared.heads["shared"]) + more * one
    assert not network.training and not head.training
    size = 2 * network.size_multiple
    with torch.no_grad():
        fused = network(torch.rand(1, 1, size, size), torch.rand(1, 1, size, size))["road_users"]
    assert fused.shape == (1, 1, size, size) and bool(fused.isfinite().all())


@pytest.mark.parametrize(("name", "layers"), [("nano", 1), ("nano", 2), ("nano", 4), ("tardal", 1), ("tardal", 3)])
def test_a_task_s_head_has_at_least_as_many_layers_as_asked_for(name: str, layers: int) -> None:
    network = build_network(name, ["shared"])
    head = add_task_head(network, "new", layers)
    assert network.heads["new"] is head
    assert count_layers(head) == max(layers, OWN[name][0])
    with pytest.raises(ValueError, match="'new' already"):
        add_task_head(network, "new", layers)


def test_every_network_is_covered() -> None:
    assert set(OWN) == set(NETWORKS)


def test_fresh_heads_differ_by_their_seed_alone() -> None:
    shared, recipe = build_network("nano", ["shared"]), load_task_recipe("msrs-detection")
    heads = [with_fresh_head(shared, recipe, 2, seed).heads["road_users"].more[0].weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_each_layer_adds_its_own_and_nothing_is_changed_in_place() -> None:
    network = lively_network("tardal", ["a"]).train()
    inner = network.heads["a"]
    deepen(network, "a", 2)
    head = network.heads["a"]
    assert head.training
    torch.manual_seed(0)
    features = {"funnel2": torch.randn(2, 64, 9, 11)}
    before = features["funnel2"].clone()
    inner.eval()
    with torch.no_grad():
        refined = before
        for layer in head.more:
            refined = refined + F.conv2d(refined, layer.weight, layer.bias, padding=1).clamp(min=0)
        torch.testing.assert_close(head.luma(features), inner.luma({"funnel2": refined}))
        torch.testing.assert_close(head.last_layer(features).inputs, inner.last_layer({"funnel2": refined}).inputs)
    assert torch.equal(features["funnel2"], before) and list(features) == ["funnel2"]
    assert not torch.allclose(refined, before, atol=0.1)


def test_a_deeper_head_of_nano_still_starts_from_the_visible_luma() -> None:
    network = lively_network("nano", ["a"])
    inner = network.heads["a"]
    for parameter in inner.parameters():
        nn.init.zeros_(parameter)
    deepen(network.eval(), "a", 2)
    head = network.heads["a"]
    assert not head.training
    features = {"features": torch.randn(1, 16, 8, 8), "luma": torch.rand(1, 1, 16, 16)}
    with torch.no_grad():
        assert torch.equal(head(features), features["luma"])
    assert head.visible_y == "luma"


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_the_graph_of_a_deeper_head_equals_torch(name: str) -> None:
    import onnxruntime

    network = lively_network(name, ["a"])
    inner = network.heads["a"]
    deepen(network, "a", 2)
    for layer in network.heads["a"].more:
        nn.init.normal_(layer.weight, std=0.05)
    network.eval()
    sample = noise_sample("p", 48, 72)
    luma = sample.visible.astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) / 255
    with torch.no_grad():
        features = network.backbone(
            torch.from_numpy(luma)[None, None], torch.from_numpy(sample.thermal / np.float32(255))[None, None]
        )
    session = onnxruntime.InferenceSession(head_graph(network, "a"), providers=["CPUExecutionProvider"])
    inputs = {key: tensor.numpy() for key, tensor in features.items()} | {"visible": sample.visible[None]}
    found = session.run(["fused"], {given.name: inputs[given.name] for given in session.get_inputs()})[0][0]
    expected = replace_luma(sample.visible, Fused(network, "a").luma(sample))
    assert np.abs(found.astype(int) - expected).max() <= 1
    network.swap_head("a", inner)
    plain = replace_luma(sample.visible, Fused(network, "a").luma(sample))
    assert np.abs(plain.astype(int) - expected).mean() > 0.2, "the further layers change the image"
