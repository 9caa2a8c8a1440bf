"""Crops with the features of the whole images they are cut from, computed once, and stage 2 on them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from task_toys import InMemory, lively_network, noise_sample, same, weights_of
from torch import Tensor

from vifa_training import trainer
from vifa_training.data import Augmentation, Batch, Sample, draw_batch
from vifa_training.distillation.features import FeatureCrops
from vifa_training.distillation.stage2 import CROPS, CROPS_OF_A_PAIR, HeadModel, count_crops, stage2
from vifa_training.networks import FusionNetwork
from vifa_training.pictures import Fused
from vifa_training.schedule import Schedule

AS_IT_IS = Augmentation(mirror=0, stretch=0)
NAMES = ["nano", "tardal"]


def luma_of(sample: Sample) -> np.ndarray:
    return np.float32(255 - sample.thermal) / np.float32(255)


def noise_pairs(count: int = 3, height: int = 72, width: int = 96) -> InMemory:
    """Pairs with an image to imitate."""
    samples = (noise_sample(f"pair{seed}", height, width, seed) for seed in range(count))
    return InMemory(*(Sample(s.name, s.visible, s.thermal, fused=luma_of(s)) for s in samples))


def crops_of(name: str, pairs: InMemory, count: int, size: int | tuple[int, int] = 32, seed: int = 0) -> FeatureCrops:
    return FeatureCrops(lively_network(name, ["a"]), pairs, size, count, seed)


def place_of(cut: Sample, whole: Sample) -> tuple[int, int]:
    """Top and left of where a crop stands in an image."""
    windows = np.lib.stride_tricks.sliding_window_view(whole.thermal, cut.thermal.shape)
    [[top, left]] = np.argwhere((windows == cut.thermal).all(axis=(2, 3)))
    return int(top), int(left)


def watch(network: FusionNetwork, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of the images that a backbone is given from now on."""
    given, forward = [], type(network.backbone).forward

    def watched(backbone: torch.nn.Module, visible_y: Tensor, thermal: Tensor) -> dict[str, Tensor]:
        given.append(tuple(visible_y.shape[2:]))
        return forward(backbone, visible_y, thermal)

    monkeypatch.setattr(type(network.backbone), "forward", watched)
    return given


# Crops


@pytest.mark.parametrize(("size", "sides"), [(16, (16, 16)), ((24, 32), (24, 32))])
def test_each_pair_has_its_turn_and_gives_a_rectangle_of_itself(
    size: int | tuple[int, int], sides: tuple[int, int]
) -> None:
    pairs = noise_pairs(3)
    crops = crops_of("nano", pairs, 10, size)
    assert len(crops) == len(crops.names) == len(set(crops.names)) == 10
    places = set()
    for index in range(10):
        cut, whole = crops[index], pairs.samples[index % 3]
        assert cut.thermal.shape == sides and cut.name == crops.names[index]
        top, left = place_of(cut, whole)
        rectangle = slice(top, top + sides[0]), slice(left, left + sides[1])
        np.testing.assert_array_equal(cut.visible, whole.visible[rectangle])
        np.testing.assert_array_equal(cut.fused, whole.fused[rectangle])
        places.add((top, left))
    assert len(places) > 5, "at places of their own"


def test_crops_reach_every_edge() -> None:
    pairs = noise_pairs(1, 48, 64)
    crops = crops_of("nano", pairs, 60)
    places = [place_of(crops[index], pairs.samples[0]) for index in range(60)]
    assert {top for top, _ in places} == {0, 8, 16} and {left for _, left in places} == {0, 8, 16, 24, 32}


def test_the_seed_alone_decides_where_crops_are_cut() -> None:
    first, again, other = (crops_of("nano", noise_pairs(), 6, seed=seed) for seed in (4, 4, 5))
    for index in (5, 0, 3):
        np.testing.assert_array_equal(first[index].thermal, again[index].thermal)
    assert any(not np.array_equal(first[index].thermal, other[index].thermal) for index in range(6))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(20, 28), (45, 61)])
def test_images_that_do_not_fit_are_enlarged_by_their_edges(name: str, size: tuple[int, int]) -> None:
    [sample] = noise_pairs(1, *size).samples
    crops = crops_of(name, InMemory(sample), 12)
    padded = Sample("p", sample.visible, np.pad(sample.thermal, ((0, 40), (0, 40)), mode="edge"))
    for index in range(12):
        top, left = place_of(crops[index], padded)
        assert top < max(1, size[0] - 24) and left < max(1, size[1] - 24), "no more than is needed"
        assert crops.features(batch_of(crops, index))


def test_there_is_no_crop_beyond_the_last() -> None:
    for index in (-1, 4):
        with pytest.raises(IndexError):
            crops_of("nano", noise_pairs(), 4)[index]


@pytest.mark.parametrize(
    ("steps", "batch", "pairs", "crops"),
    [(4, 2, 3, 8), (10_000, 8, 3, CROPS), (10_000, 8, 1000, 1000 * CROPS_OF_A_PAIR), (500, 4, 1000, 2000)],
)
def test_there_are_no_more_crops_than_are_shown_and_some_of_every_pair(
    steps: int, batch: int, pairs: int, crops: int
) -> None:
    assert count_crops(Schedule(steps, batch), pairs) == crops


# Features


def batch_of(crops: FeatureCrops, *indices: int) -> Batch:
    """These crops as a batch."""
    samples = InMemory(*(crops[index] for index in indices))
    for seed in range(10_000):
        if np.random.default_rng(seed).integers(len(samples), size=len(indices)).tolist() == [*range(len(indices))]:
            return draw_batch(samples, len(indices), crops[0].thermal.shape, np.random.default_rng(seed), AS_IT_IS)
    raise AssertionError("no seed draws them in this order")


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_part_of_the_whole_images_features(name: str) -> None:
    """Cut by hand, on the grid of each; whichever crops share a batch."""
    network, pairs = lively_network(name, ["a"]), noise_pairs(2)
    crops = FeatureCrops(network, pairs, (24, 32), 6, 0)
    wholes = []
    for sample in pairs.samples:
        red, green, blue = (torch.from_numpy(sample.visible[:, :, i] / np.float32(255)) for i in range(3))
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        with torch.no_grad():
            wholes.append(
                network.backbone(luma[None, None], torch.from_numpy(sample.thermal / np.float32(255))[None, None])
            )
    for indices in ((0, 1, 2), (4, 5), (2,), (3, 0)):
        found = crops.features(batch_of(crops, *indices))
        for row, index in enumerate(indices):
            top, left = place_of(crops[index], pairs.samples[index % 2])
            for key, whole in wholes[index % 2].items():
                side = 72 // whole.shape[2]
                rows, columns = slice(top // side, (top + 24) // side), slice(left // side, (left + 32) // side)
                torch.testing.assert_close(found[key][row], whole[0, :, rows, columns], rtol=1e-5, atol=1e-5)
    alone, together = crops.features(batch_of(crops, 2)), crops.features(batch_of(crops, 0, 1, 2))
    assert all(torch.equal(alone[key][0], together[key][2]) for key in alone)
    assert not any(tensor.requires_grad for tensor in together.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_head_gives_of_a_crop_what_it_gives_there_of_the_whole_image(name: str) -> None:
    """But for the head's own few pixels at the crop's edge: that is what the image to imitate was made of."""
    network, pairs = lively_network(name, ["a"]), noise_pairs(1)
    crops = FeatureCrops(network, pairs, 32, 4, 0)
    student = HeadModel(network, "a").eval()
    whole = Fused(network, "a").luma(pairs.samples[0])
    inner, differences = slice(4, -4), []
    for index in range(4):
        top, left = place_of(crops[index], pairs.samples[0])
        with torch.no_grad():
            student.features = crops.features
            kept = student(batch_of(crops, index))[0, 0].numpy()
            student.features = student.compute_features
            cut = student(batch_of(crops, index))[0, 0].numpy()
        expected = whole[top : top + 32, left : left + 32]
        np.testing.assert_allclose(kept[inner, inner], expected[inner, inner], rtol=0, atol=1e-5)
        differences.append(np.abs(cut - expected)[inner, inner].max())
    assert max(differences) > 1e-4, "by itself a crop has other features"


def test_the_backbone_sees_each_whole_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = lively_network("nano", ["a"])
    given, pairs = watch(network, monkeypatch), noise_pairs(3)
    crops = FeatureCrops(network, pairs, 16, 20, 0)
    for index in range(20):
        crops.features(batch_of(crops, index))
    assert given == [(72, 96)] * 3 and pairs.read == [1, 1, 1]
    assert len(FeatureCrops(network, noise_pairs(3), 16, 2, 0)) == 2 and len(given) == 5, "none that has no crop"


@pytest.mark.parametrize(("fits", "crops"), [(0, 1), (1, 1), (4, 4), (30, 10)])
def test_there_are_only_as_many_crops_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, fits: int, crops: int
) -> None:
    network = lively_network("nano", ["a"])
    one = FeatureCrops(network, noise_pairs(1), 16, 1, 0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in one.features(batch_of(one, 0)).values())
    given = watch(network, monkeypatch)
    some = FeatureCrops(network, noise_pairs(3), 16, 10, 0, room=fits * size + size // 2)
    assert len(given) == min(3, crops), "nothing is computed for crops that are not kept"
    assert len(some) == len(some.names) == len(some._features) == crops
    for index in range(crops):
        assert some.features(batch_of(some, index))["features"].shape == (1, 16, 8, 8)


def test_averaged_weights_do_not_copy_the_features() -> None:
    network = lively_network("nano", ["a"])
    crops = FeatureCrops(network, noise_pairs(), 16, 4, seed=0)
    student = HeadModel(network, "a")
    student.features = crops.features
    assert copy.deepcopy(student).features.__self__ is crops


# Stage 2


def test_stage_2_asks_the_backbone_no_more_often_for_more_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = watch(lively_network("nano", ["a"]), monkeypatch)
    asked = []
    for steps in (3, 30):
        schedule = Schedule(steps=steps, batch=2, crop=16, validate_every=steps)
        stage2(lively_network("nano", ["a"]), "a", luma_of, noise_pairs(2), schedule, tmp_path / str(steps), "t")
        asked.append(len(given))
        given.clear()
    assert asked[0] == asked[1] <= 3 * 2


@pytest.mark.parametrize("stop", [0, 3])
def test_a_network_in_training_mode_is_taught_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Its batch norms do not see the crops, neither at the beginning nor when it is gone on with."""
    schedule, step = Schedule(steps=6, batch=2, crop=32, validate_every=2, learning_rate=0.01), trainer._Session._step

    def taught(mode: bool, folder: Path) -> dict[str, Tensor]:
        network = lively_network("tardal", ["old", "new"]).train(mode)
        stage2(network, "new", luma_of, noise_pairs(), schedule, folder, "teacher")
        return weights_of(network)

    def interrupted(session: trainer._Session) -> float:
        if session.progressed.step == stop:
            raise KeyboardInterrupt
        return step(session)

    expected = taught(False, tmp_path / "whole")
    monkeypatch.setattr(trainer._Session, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        taught(True, tmp_path / "broken")
    monkeypatch.undo()
    assert same(expected, taught(True, tmp_path / "broken"))
    assert same(weights_of(lively_network("tardal", ["old", "new"])), expected, "backbone.")
