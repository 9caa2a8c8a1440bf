"""Dead lines and pixels, from how often each changes: by definition, and in images made for it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vifa_runtime.thermal_changes import (
    ALIVE,
    DEAD,
    LARGEST_CLIPPED,
    REACH,
    DeadPixels,
    find_dead_lines,
    find_dead_share,
    is_scene_end,
)

RATES = st.sampled_from([0.0, 0.004, 0.015, 0.03, 0.2, 0.25, 0.6, 1.0])
SIZE = (40, 50)


def noise(frames=200, dtype=np.uint16, seed=0, size=SIZE):
    """Counts with 5 counts of noise, (frames,H,W), on a slope that leaves room at both ends of the range."""
    slope = np.linspace(100, 150, size[1]) if dtype is np.uint8 else np.linspace(28_000, 30_000, size[1])
    values = slope + np.random.default_rng(seed).normal(0, 5, (frames, *size))
    return np.rint(values).astype(dtype)


def follow(images):
    dead = DeadPixels(images.shape[1:], step=1)
    for before, image in pairwise(images):
        dead.add(image != before, image)
    return dead


@given(arrays.arrays(np.float32, st.integers(1, 30), elements=RATES), st.data())
def test_dead_lines_are_those_of_the_definition(rates, data):
    known = data.draw(arrays.arrays(bool, len(rates)))
    expected = []
    for line, rate in enumerate(rates):
        before, after = rates[max(0, line - REACH) : line], rates[line + 1 : line + 1 + REACH]
        beside = min(before.max(initial=0), after.max(initial=0))
        expected.append((beside >= ALIVE and rate < DEAD * beside) or (known[line] and rate < DEAD))
    np.testing.assert_array_equal(find_dead_lines(rates, known), expected)


def test_living_noise_has_nothing_dead():
    dead = follow(noise())
    assert not dead.rows.any() and not dead.columns.any() and dead.share == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("lines", [[7], [20, 21, 22], [7, 30]])
def test_dead_lines_inside_the_image_are_found(dtype, lines):
    images = noise(dtype=dtype)
    images[:, lines] = images[0, lines]
    dead = follow(images)
    assert np.flatnonzero(dead.rows).tolist() == lines and not dead.columns.any()
    turned = follow(np.swapaxes(images, 1, 2))
    assert np.flatnonzero(turned.columns).tolist() == lines and not turned.rows.any()


@pytest.mark.parametrize("lines", [slice(0, 3), slice(-3, None), slice(10, 30)])
def test_borders_and_wide_bands_that_stay_are_no_dead_lines(lines):
    images = noise()
    images[:, lines] = 0
    assert not follow(images).rows.any()


def test_a_line_that_changes_now_and_then_is_alive():
    images = noise(frames=400)
    for frame in range(400):
        images[frame, 7] = frame // 30
    assert not follow(images).rows.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_scattered_dead_pixels_are_counted(dtype):
    images, broken = noise(dtype=dtype), np.random.default_rng(1).random(SIZE) < 0.05
    images[:, broken] = images[0, broken]
    assert follow(images).share == pytest.approx(broken.mean(), abs=0.002)  # some lie at an end of the values


def test_a_dead_block_is_counted_where_noise_can_be_seen_and_not_in_8_bits():
    for dtype, share in ((np.uint16, 0.3), (np.float32, 0.3), (np.uint8, 0)):
        images = noise(dtype=dtype)
        images[:, :, 10:25] = images[0, :, 10:25]
        assert follow(images).share == pytest.approx(share, abs=0.01)


def test_half_a_dead_sensor_is_dead():
    images = noise()
    images[:, :, :25] = 0
    assert follow(images).share == 0.5


@pytest.mark.parametrize("value", [0, 65_535])
def test_a_border_at_one_end_is_no_dead_block_up_to_a_quarter(value):
    images = noise()
    columns = int(LARGEST_CLIPPED * SIZE[1])
    images[:, :, :columns] = value
    assert follow(images).share == 0
    images[:, :, : columns + 2] = value
    assert follow(images).share == pytest.approx((columns + 2) / SIZE[1])


def test_pixels_clipped_here_and_there_are_alive():
    """As with automatic gain that clips 2 %: they stay in a static scene, at the ends of all values."""
    images, hot = noise(), np.random.default_rng(1).random(SIZE) < 0.04
    images[:, hot] = 30_050
    assert follow(np.minimum(images, 30_000)).share == 0


def test_in_a_quiet_scene_nothing_is_told_and_what_was_known_is_kept():
    broken = np.random.default_rng(1).random(SIZE) < 0.05
    broken[12] = True
    noisy, quiet = noise(200), noise(1).repeat(300, axis=0)
    quiet[::2, np.random.default_rng(2).random(SIZE) < 0.1] += 1  # a tenth of the pixels is near a rounding step
    for images in (noisy, quiet):
        images[:, broken] = noisy[0, broken]
    assert follow(quiet).share == 0 and not follow(quiet).rows.any()
    dead = follow(np.concatenate([noisy, quiet]))
    assert dead.share == pytest.approx(broken.mean(), abs=0.01)
    assert np.flatnonzero(dead.rows).tolist() == [12]


def test_a_sensor_that_was_repaired_is_alive_again():
    images, broken = noise(400), np.random.default_rng(1).random(SIZE) < 0.05
    broken[12] = True
    images[:250, broken] = images[0, broken]
    dead = follow(images[:250])
    assert dead.rows.any() and dead.share > 0.04
    dead = follow(images)
    assert not dead.rows.any() and dead.share == 0


@given(arrays.arrays(np.float32, (6, 7), elements=RATES), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_a_share_is_one_of_pixels_that_stay(rates, dtype):
    sample = np.random.default_rng(0).integers(0, 255, (6, 7)).astype(dtype)
    if dtype is np.float32:
        sample[0] = np.nan
    staying = np.count_nonzero(rates < DEAD) / rates.size
    assert 0 <= find_dead_share(rates, sample, known=0.0) <= staying
    assert 0 <= find_dead_share(rates, sample, known=1.0) <= staying


def test_no_finite_value_is_no_error():
    rates = np.ones((6, 7), np.float32)
    rates[2, 3] = 0
    assert find_dead_share(rates, np.full((6, 7), np.nan, np.float32), 0.0) == pytest.approx(1 / 42)


def test_ends_of_a_scene_have_a_value_near():
    values = np.array([0, 100, 110, 130, 140, 255], np.uint8)
    assert is_scene_end(values[1:5], 100) and is_scene_end(values[1:5], 140)
    assert not is_scene_end(values, 0) and not is_scene_end(values, 255)
    assert not is_scene_end(values[:1], 0)
