"""The networks: published sizes, named layers, heads by task, and each one's own operations by other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vifa_training.networks import NETWORKS, FusionNetwork, build_network, count_parameters
from vifa_training.networks.nano import to_pixels
from vifa_training.networks.piafusion import exchange
from vifa_training.networks.swinfusion import WindowAttention, roll, shift_mask, to_image, to_windows

# Whole network with one head, and that head: Tables 5 and 6 of the VIFA paper, SwinFusion less what nothing uses.
SIZES = {
    "piafusion": (1_176_097, 18_497),
    "tardal": (296_577, 18_817),
    "didfuse": (260_935, 75_076),
    "swinfusion": (965_251, 4_201),
}
each_network = pytest.mark.parametrize("name", list(NETWORKS))


def pair(height: int = 24, width: int = 40, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 1, height, width), torch.rand(batch, 1, height, width)


@pytest.mark.parametrize("name", list(SIZES))
def test_the_published_sizes(name: str) -> None:
    network = build_network(name, ["a"])
    assert (count_parameters(network), count_parameters(network.heads["a"])) == SIZES[name]


def test_nanos_size_by_hand() -> None:
    network = build_network("nano", ["a"])

    def conv(inputs: int, outputs: int, side: int = 3) -> int:
        return inputs * outputs * side * side + outputs

    half = conv(2, 16, 6) + conv(16, 16) + conv(32, 16, 1)
    quarter = conv(16, 32) + 2 * conv(32, 32) + conv(32, 32, 1)
    eighth = 3 * conv(32, 32)
    backbone = half + quarter + eighth
    assert count_parameters(network.backbone) == backbone
    assert count_parameters(network.heads["a"]) == conv(16, 4)


@each_network
def test_distilled_layers_have_the_channels_they_name(name: str) -> None:
    network = build_network(name, ["a"])
    layers = network.backbone.layers(*pair())
    assert {key: layers[key].shape[1] for key in network.distilled_layers} == dict(network.distilled_layers)
    assert all(len(layers[key]) == 2 and layers[key].dim() == 4 for key in network.distilled_layers)
    features = network.backbone(*pair())
    assert list(features) == list(network.backbone.handed_on)


@each_network
def test_nothing_changes_a_layer_after_it_was_handed_out(name: str) -> None:
    """Each layer is what it was when the module that made it returned."""
    network = build_network(name, ["a"]).eval()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def remember(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(output, torch.Tensor):
            seen.append((output, output.clone()))

    for module in network.modules():
        module.register_forward_hook(remember)
    layers = network.backbone.layers(*pair())
    kept = {key: tensor.clone() for key, tensor in layers.items()}
    network.heads["a"](layers)
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in layers.items())


@each_network
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build_network(name, ["a"])
    nn.init.normal_(next(network.heads["a"].parameters()), std=0.1)
    network(*pair())["a"].square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@each_network
def test_the_fused_luma_is_in_range_in_evaluation(name: str) -> None:
    network = build_network(name, ["a", "b"]).eval()
    for head in network.heads.values():
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=3.0)
    for task, fused in network(*pair()).items():
        assert fused.shape == (2, 1, 24, 40), task
        assert float(fused.detach().min()) >= 0 and float(fused.detach().max()) <= 1


@each_network
def test_both_images_matter(name: str) -> None:
    network = build_network(name, ["a"]).eval()
    for parameter in network.heads["a"].parameters():
        nn.init.normal_(parameter, std=0.1)
    visible, thermal = pair()
    with torch.no_grad():
        fused = network(visible, thermal)["a"]
        assert not torch.allclose(network(visible.flip(3), thermal)["a"], fused, atol=1e-6, rtol=0)
        assert not torch.allclose(network(visible, thermal.flip(3))["a"], fused, atol=1e-6, rtol=0)


# Heads by task.


def noisy(network: FusionNetwork) -> FusionNetwork:
    for parameter in network.heads.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@each_network
def test_a_head_added_later_changes_no_other_and_a_copy_gives_the_same(name: str) -> None:
    network = noisy(build_network(name, ["a"]))
    before = network(*pair())["a"]
    network.add_head("fresh")
    network.add_head("copy", like="a")
    after = network(*pair())
    assert list(after) == ["a", "fresh", "copy"]
    assert torch.equal(after["a"], before) and torch.equal(after["copy"], before)
    assert not torch.equal(after["fresh"], before)
    with torch.no_grad():
        for parameter in network.heads["copy"].parameters():
            parameter.zero_()
    assert torch.equal(network(*pair())["a"], before), "a copy shares nothing"


def test_heads_are_swapped_by_task() -> None:
    network = noisy(build_network("tardal", ["a", "b"]))
    a, b = network(*pair()).values()
    old = network.swap_head("a", network.heads["b"])
    assert torch.equal(network(*pair())["a"], b)
    network.swap_head("a", old)
    assert torch.equal(network(*pair())["a"], a)


def test_heads_that_are_there_or_not_are_named() -> None:
    network = build_network("nano", ["a"])
    with pytest.raises(ValueError, match="a head for 'a' already"):
        network.add_head("a")
    with pytest.raises(ValueError, match="no head for 'b'; the tasks are a"):
        network.add_head("c", like="b")
    with pytest.raises(ValueError, match="no head for 'b'"):
        network.swap_head("b", network.heads["a"])


@pytest.mark.parametrize("tasks", [[], ["a", "a"]])
def test_tasks_must_be_distinct(tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="distinct task names"):
        build_network("nano", tasks)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match=f"'giant'; choose one of {', '.join(sorted(NETWORKS))}"):
        build_network("giant", ["a"])


# nano.


@pytest.mark.parametrize("height,width", [(8, 8), (64, 96), (104, 40)])
def test_nanos_shapes(height: int, width: int) -> None:
    features = build_network("nano", ["a", "b"]).backbone(*pair(height, width))
    assert {name: tuple(tensor.shape) for name, tensor in features.items()} == {
        "features": (2, 16, height // 2, width // 2),
        "luma": (2, 1, height, width),
    }


def test_cells_become_pixels_as_in_pixel_shuffle() -> None:
    cells = torch.rand(3, 4, 6, 10)
    assert torch.equal(to_pixels(cells), F.pixel_shuffle(cells, 2))


def test_an_untrained_nano_gives_the_visible_luma() -> None:
    visible, thermal = pair()
    assert torch.equal(build_network("nano", ["a"])(visible, thermal)["a"], visible)


# PIAFusion.


def test_the_exchange_is_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    visible, thermal = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))

    def gate(difference: np.ndarray) -> np.ndarray:
        return difference / (1 + np.exp(-difference.mean(axis=(2, 3), keepdims=True)))

    ours = exchange(torch.tensor(visible), torch.tensor(thermal))
    np.testing.assert_allclose(ours[0], visible + gate(thermal - visible), atol=1e-12)
    np.testing.assert_allclose(ours[1], thermal + gate(visible - thermal), atol=1e-12)


# DIDFuse.


def test_didfuse_sums_what_it_encodes_of_each_image() -> None:
    network = build_network("didfuse", ["a"]).eval()
    visible, thermal = pair()
    layers = network.backbone.layers(visible, thermal)
    for name in ("first", "second", "base", "detail"):
        expected = network.backbone.encode(visible)[name] + network.backbone.encode(thermal)[name]
        assert torch.equal(layers[name], expected)


# SwinFusion.


def tokens(height: int = 24, width: int = 32, channels: int = 60) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, channels, height, width)


def test_windows_hold_their_pixels_and_go_back() -> None:
    image = tokens()
    windows = to_windows(image)
    assert windows.shape == (2, 3, 4, 8, 8, 60)
    assert torch.equal(windows[1, 2, 3], image[1, :, 16:24, 24:32].permute(1, 2, 0))
    assert torch.equal(to_image(windows), image)


@pytest.mark.parametrize("shift", [1, 4, 7])
def test_roll_is_torchs(shift: int) -> None:
    image = tokens()
    rolled = roll(to_windows(image), shift)
    assert torch.equal(to_image(rolled), torch.roll(image, (-shift, -shift), (2, 3)))
    assert torch.equal(roll(rolled, 8 - shift, back=True), to_windows(image))


def test_pixels_meet_only_their_neighbours_after_the_roll() -> None:
    """By brute force: two pixels of a rolled window may meet if neither jumped to the other side, or both did."""
    height, width, shift = 16, 24, 4
    mask = shift_mask(to_windows(torch.zeros(1, 1, height, width)), shift)
    assert mask.shape == (2, 3, 1, 64, 64)
    for row in range(2):
        for column in range(3):
            place = [(8 * row + i, 8 * column + j) for i in range(8) for j in range(8)]
            jumped = np.array([(y + shift >= height, x + shift >= width) for y, x in place])
            apart = (jumped[:, None] != jumped[None]).any(axis=2)
            np.testing.assert_array_equal(mask[row, column, 0].numpy(), np.where(apart, -100.0, 0.0))


@pytest.mark.parametrize("shift", [0, 4])
def test_attention_is_torchs_multi_head_attention_window_by_window(shift: int) -> None:
    """Against `F.multi_head_attention_forward` on each window with bias and mask, of another image's keys."""
    torch.manual_seed(3)
    layer = WindowAttention(shift)
    nn.init.normal_(layer.position_bias)
    asking, asked = tokens(16, 16)[:1], tokens(16, 16)[1:]
    with torch.no_grad():
        ours = to_image(layer(to_windows(asking), to_windows(asked)))
    rolled = [to_windows(torch.roll(image, (-shift, -shift), (2, 3))) for image in (asking, asked)]
    weight = torch.cat([layer.query.weight, layer.key_value.weight])
    bias = torch.cat([layer.query.bias, layer.key_value.bias])
    mask = shift_mask(rolled[0], shift) if shift else torch.zeros(2, 2, 1, 64, 64)
    position = torch.empty(6, 64, 64)
    for i in range(64):
        for j in range(64):
            dy, dx = i // 8 - j // 8, i % 8 - j % 8
            position[:, i, j] = layer.position_bias[(dy + 7) * 15 + dx + 7].detach()
    expected = torch.empty(1, 2, 2, 8, 8, 60)
    for row in range(2):
        for column in range(2):
            q, kv = (windows[0, row, column].reshape(64, 1, 60) for windows in rolled)
            out, _ = F.multi_head_attention_forward(
                q, kv, kv, 60, 6, weight, bias, None, None, False, 0.0, layer.project.weight, layer.project.bias,
                attn_mask=position + mask[row, column],
            )  # fmt: skip
            expected[0, row, column] = out.detach().reshape(8, 8, 60)
    torch.testing.assert_close(ours, torch.roll(to_image(expected), (shift, shift), (2, 3)), atol=1e-5, rtol=1e-5)
