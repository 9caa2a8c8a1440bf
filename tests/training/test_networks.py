"""nano: its shapes, its size, and what it gives before it has learnt anything."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vifa_training.networks import NETWORKS, build_network
from vifa_training.networks.nano import to_cells, to_pixels


@pytest.mark.parametrize("height,width", [(8, 8), (64, 96), (100, 36)])
def test_shapes(height: int, width: int) -> None:
    network = build_network("nano", ["a", "b"])
    visible, thermal = torch.rand(2, 1, height, width), torch.rand(2, 1, height, width)
    features = network.backbone(visible, thermal)
    assert {name: tuple(tensor.shape) for name, tensor in features.items()} == {
        "features": (2, 16, height // 2, width // 2),
        "luma": (2, 4, height // 2, width // 2),
    }
    assert {task: tuple(fused.shape) for task, fused in network(visible, thermal).items()} == {
        "a": (2, 1, height, width),
        "b": (2, 1, height, width),
    }


def test_cells_are_pixel_unshuffle_and_back() -> None:
    image = torch.rand(3, 1, 12, 20)
    assert torch.equal(to_cells(image), F.pixel_unshuffle(image, 2))
    assert torch.equal(to_pixels(F.pixel_unshuffle(image, 2)), image)


def test_parameter_count_by_hand() -> None:
    network = build_network("nano", ["a"])

    def conv(inputs: int, outputs: int, side: int = 3) -> int:
        return inputs * outputs * side * side + outputs

    backbone = conv(8, 16) + 3 * conv(16, 16) + conv(16, 32) + 4 * conv(32, 32) + conv(32, 16, 2)
    assert sum(p.numel() for p in network.backbone.parameters()) == backbone
    assert sum(p.numel() for p in network.heads["a"].parameters()) == conv(16, 4)


def test_an_untrained_network_gives_the_visible_luma() -> None:
    visible, thermal = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    fused = build_network("nano", ["a"])(visible, thermal)["a"]
    assert torch.equal(fused, visible)


def test_a_head_added_later_changes_no_other() -> None:
    network = build_network("nano", ["a"])
    torch.nn.init.normal_(network.heads["a"].change.weight)
    visible, thermal = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    before = network(visible, thermal)["a"]
    network.heads["b"] = build_network("nano", ["b"]).heads["b"]
    assert torch.equal(network(visible, thermal)["a"], before)


@pytest.mark.parametrize("tasks", [[], ["a", "a"]])
def test_tasks_must_be_distinct(tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="distinct task names"):
        build_network("nano", tasks)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match=f"'giant'; choose one of {', '.join(NETWORKS)}"):
        build_network("giant", ["a"])
