"""FSIM of all pairs at once, against piq's of each pair."""

from __future__ import annotations

import piq
import pytest
import torch
from channel_cases import Peak, smooth_maps, to_unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vifa_training.channels.fsim import fsim_matrix


def pairwise(maps: Tensor, data_range: float = 1.0) -> Tensor:
    """piq's FSIM of every two different maps, in float64; ones on the diagonal."""
    images, count = maps.double()[:, None, None], len(maps)
    found = torch.eye(count, dtype=torch.float64)
    for i in range(count):
        for j in range(i):
            found[i, j] = found[j, i] = piq.fsim(images[i], images[j], data_range=data_range, chromatic=False)
    return found


@pytest.mark.parametrize(
    "size",
    [(120, 160), (97, 130), (96, 131), (60, 80), (17, 24), (9, 8), (5, 6), (3, 3), (2, 2), (400, 412), (385, 390)],
)
def test_every_pair_has_the_value_of_piq(size: tuple[int, int]) -> None:
    """On even and odd sides, below the filters' wavelengths, and where images are averaged down first."""
    maps = smooth_maps(3, *size)
    torch.testing.assert_close(fsim_matrix(maps, data_range=1.0), pairwise(maps), rtol=0, atol=1e-6)


def test_the_range_of_the_images_is_taken_into_account() -> None:
    maps = 0.2 + 0.3 * smooth_maps(4, 40, 56)
    found = fsim_matrix(maps, data_range=1.0)
    torch.testing.assert_close(fsim_matrix(255 * maps, data_range=255.0), found, rtol=0, atol=1e-6)
    assert (found - fsim_matrix(maps, data_range=0.5)).abs().max() > 1e-3
    torch.testing.assert_close(found, pairwise(maps), rtol=0, atol=1e-6)


def test_feature_maps_of_any_range_are_compared_as_images_that_use_all_gray_levels() -> None:
    maps = smooth_maps(4, 48, 64)
    gains, offsets = torch.tensor([1e-3, 1.0, 30.0, 2.0])[:, None, None], torch.tensor([5.0, -2, 0, 1e2])[:, None, None]
    torch.testing.assert_close(fsim_matrix(maps * gains + gains * offsets), pairwise(maps), rtol=0, atol=1e-5)


def test_sparse_maps_have_the_value_of_piq() -> None:
    """After a ReLU most is exactly zero: what filters answer there is rounding, as far as it is not the noise."""
    maps = to_unit((smooth_maps(5, 60, 80, blur=3) - 0.7).relu())
    assert 0.85 < float((maps == 0).double().mean()) < 0.99
    torch.testing.assert_close(fsim_matrix(maps), pairwise(maps), rtol=0, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 6),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    blur=st.sampled_from([1, 3, 7]),
    seed=st.integers(0, 1000),
)
def test_what_holds_of_every_similarity(count: int, height: int, width: int, blur: int, seed: int) -> None:
    maps = smooth_maps(count, height, width, seed, blur)
    found = fsim_matrix(maps)
    assert found.shape == (count, count) and found.dtype == torch.float64
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 1).all()
    assert ((found >= 0) & (found <= 1)).all()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(fsim_matrix(maps[order]), found[order][:, order], rtol=0, atol=1e-5)


def test_a_copy_is_alike_and_an_inverted_copy_too() -> None:
    """Phase congruency and gradients tell where structure is, not which side is brighter; but at the edge of the image,
    beyond which FSIM takes all for black.
    """
    one = smooth_maps(1, 32, 40)
    copied, inverted = fsim_matrix(torch.cat([one, 3 * one, -one]))[0, 1:].tolist()
    assert copied == pytest.approx(1, abs=1e-6) and 0.98 < inverted < 1


def test_maps_without_structure_are_alike_and_unlike_those_with() -> None:
    live = smooth_maps(2, 40, 48)
    rounding = 1000 + 1e-4 * live[:1]
    flat = torch.cat([torch.zeros_like(rounding), torch.full_like(rounding, -3.5), rounding, live])
    found = fsim_matrix(flat)
    assert (found[:3, :3] == 1).all()
    assert ((found[:3, 3:] > 0) & (found[:3, 3:] < 0.9)).all()
    torch.testing.assert_close(found[0, 3:], found[2, 3:])
    assert (fsim_matrix(torch.ones(3, 8, 8), data_range=1.0) == 1).all()


def test_a_pattern_that_is_averaged_away_is_no_structure() -> None:
    checks = (torch.arange(512)[:, None] + torch.arange(520)[None]) % 2
    found = fsim_matrix(torch.stack([checks.float(), torch.zeros(512, 520)]))
    assert (found == 1).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(wrong: float) -> None:
    maps = smooth_maps(3, 16, 16)
    maps[1, 4, 5] = wrong
    with pytest.raises(ValueError, match="not finite"):
        fsim_matrix(maps)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)])
def test_a_map_without_a_neighbour_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]} pixels are too small"):
        fsim_matrix(torch.rand(2, *size))


@pytest.mark.parametrize("maps_that_fit", [0, 1, 2, 3, 5, 6, 7, 100])
def test_values_do_not_depend_on_the_room(maps_that_fit: int) -> None:
    maps = smooth_maps(7, 24, 32)
    whole = fsim_matrix(maps)
    torch.testing.assert_close(fsim_matrix(maps, room=maps_that_fit * 8 * 24 * 32), whole, rtol=0, atol=1e-6)


def test_memory_is_bounded_however_many_channels_there_are() -> None:
    side, room = 64, 8 * 8 * 64 * 64
    peaks = {}
    for count in (20, 40):
        maps = F.interpolate(torch.rand(1, count, 10, 10), size=side)[0]
        for given_room in (room, 2**30):
            with Peak() as peak:
                fsim_matrix(maps, room=given_room)
            peaks[count, given_room] = peak.bytes - 3 * 8 * count**2  # what is asked for, and its parts
    assert peaks[40, room] <= peaks[20, room]
    assert peaks[40, 2**30] - peaks[20, 2**30] > 0.9 * 8 * side**2 * 20
    assert peaks[40, 2**30] - peaks[40, room] > 0.9 * (40 * 8 * side**2 - room)
