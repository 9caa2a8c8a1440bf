"""Time offsets: two cameras that shake together, with stamps of two clocks, give the clocks' difference back."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registration_scenes import draw_scene

from vifa_runtime.time_offset import Motion, TimeOffsetError, find_offset

SIZE = (60, 80)
EPOCH = 1_700_000_000_000_000_000  # nanoseconds


def shaking(rng, reach=6.0):
    """Where a shaken camera looks, pixels (N, 2), as a function of times (N,), seconds: waves of 0.2 to 3 Hz."""
    rates, phases = rng.uniform(0.2, 3, (2, 8)), rng.uniform(0, 2 * np.pi, (2, 8))
    sizes = rng.normal(0, 1, (2, 8)) / rates**0.7

    def place(times):
        waves = np.sin(2 * np.pi * rates[:, :, None] * times + phases[:, :, None])
        return reach / 3 * np.einsum("ak,akn->na", sizes, waves)

    return place


def film(scene, place, times, rng, noise=2.0):
    """Frames (N, H, W) uint8 of a scene, 4 times as fine, from where the camera looks at each time."""
    for right, down in place(np.asarray(times)):
        shift = np.float32([[1, 0, 4 * right], [0, 1, 4 * down]])
        seen = cv2.warpAffine(scene, shift, scene.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        seen = cv2.resize(seen[40:-40, 40:-40], SIZE[::-1], interpolation=cv2.INTER_AREA)
        yield np.clip(seen + rng.normal(0, noise, SIZE), 0, 255).astype(np.uint8)


def record(scene, place, times, rng, late=0.0):
    """The motion of a camera whose clock is late: its stamps are so many seconds above the true times."""
    motion = Motion()
    for time, image in zip(times, film(scene, place, times, rng), strict=True):
        motion.add(image, EPOCH + round((time + late) * 1e9))
    return motion


def times_of(rng, rate, seconds, jitter=0.0, drop=0.0):
    times = rng.uniform(0, 1 / rate) + np.arange(int(seconds * rate)) / rate
    times += np.clip(rng.normal(0, jitter, len(times)), -0.4 / rate, 0.4 / rate)
    return times[rng.random(len(times)) >= drop]


def offset_of(seed, late, rates=(30, 30), seconds=10, **irregular):
    rng = np.random.default_rng(seed)
    visible, thermal = draw_scene(rng, (80, 100))
    place = shaking(rng)
    first = record(visible, place, times_of(rng, rates[0], seconds, **irregular), rng)
    second = record(thermal, place, times_of(rng, rates[1], seconds, **irregular), rng, late)
    return find_offset(first, second)


@given(st.floats(-0.4, 0.4), st.integers(0, 99))
@settings(max_examples=6)
def test_offsets_at_30_hz_are_found_to_5_ms(late, seed):
    found = offset_of(seed, late)
    assert found.seconds == pytest.approx(-late, abs=0.005)
    assert found.correlation > 0.8
    assert found.spread < 0.005


def test_other_rates_jitter_and_drops():
    assert offset_of(1, 0.137, (30, 25), 15, jitter=0.004, drop=0.1).seconds == pytest.approx(-0.137, abs=0.005)
    assert offset_of(2, -0.08, (30, 9), 20).seconds == pytest.approx(0.08, abs=0.01)


def test_what_the_parameter_is_added_to():
    """A thermal clock that is late has stamps that are too large; the offset makes them smaller."""
    assert offset_of(3, 0.2).seconds < 0


def test_gain_and_brightness_do_not_count():
    rng = np.random.default_rng(4)
    scene, _ = draw_scene(rng, (80, 100))
    times = times_of(rng, 30, 5)
    images = list(film(scene, shaking(rng), times, rng, noise=0))
    plain, flickering = Motion(), Motion()
    for number, (time, image) in enumerate(zip(times, images, strict=True)):
        plain.add(image, round(time * 1e9))
        flickering.add(image.astype(np.float32) * (1 + 0.5 * (number % 2)) + 300 * (number % 3), round(time * 1e9))
    np.testing.assert_allclose(flickering.changes, plain.changes, atol=1e-4)


def test_frames_that_go_back_in_time_are_left_out():
    motion, rng = Motion(), np.random.default_rng(0)
    for stamp in (10, 20, 20, 15, 30):
        motion.add(rng.integers(0, 255, SIZE, np.uint8), stamp)
    assert motion.frames == 3
    assert motion.stamps.tolist() == [10, 20, 30]
    assert motion.changes[0] == 0
    assert (motion.changes[1:] > 0).all()


def test_pixels_that_are_no_numbers_are_no_motion():
    motion = Motion()
    image = np.random.default_rng(0).normal(0, 1, SIZE).astype(np.float32)
    image[3, 4], image[5, 6] = np.nan, np.inf
    for stamp in (1, 2, 3):
        motion.add(image, stamp)
    assert motion.changes.tolist() == [0, 0, 0]


def refusal(visible, thermal, **options):
    with pytest.raises(TimeOffsetError) as refused:
        find_offset(visible, thermal, **options)
    return str(refused.value)


def noise_film(seed, count=150, rate=30.0, amount=2.0):
    """A still scene with sensor noise."""
    rng, motion = np.random.default_rng(seed), Motion()
    scene = rng.uniform(50, 200, SIZE)
    for number in range(count):
        motion.add(scene + rng.normal(0, amount, SIZE), EPOCH + round(number / rate * 1e9))
    return motion


def shaken(seed, late=0.0, seconds=6.0, start=0.0):
    rng = np.random.default_rng(seed)
    scene, _ = draw_scene(rng, (80, 100))
    return record(scene, shaking(rng), start + times_of(rng, 30, seconds), rng, late)


def test_static_scenes_are_refused():
    assert "the visible images change evenly, of a static scene" in refusal(noise_film(0), shaken(1))
    assert "the visible and thermal images change evenly" in refusal(noise_film(0), noise_film(1))
    assert "the thermal camera sees a static scene, which tells" in refusal(shaken(1), noise_film(0, amount=0))


def test_unrelated_motion_is_refused():
    assert "no time offset within 1 s" in refusal(shaken(1), shaken(2))


def test_short_recordings_are_refused():
    assert "too few thermal frames for a time offset: 15" in refusal(shaken(1), shaken(1, seconds=0.5))
    assert "have 2.0 s in common, but 3.0 s are needed" in refusal(shaken(1, seconds=2.0), shaken(1, seconds=6.0))


def test_clocks_without_common_times_are_refused():
    assert "have 0.0 s in common" in refusal(shaken(1), shaken(1, start=100.0))


def test_an_offset_beyond_the_range_is_not_taken_for_one_within_it():
    first, second = shaken(5, seconds=12), shaken(5, late=1.5, seconds=12)
    refusal(first, second, largest=0.5)
    assert find_offset(first, second, largest=2.0).seconds == pytest.approx(-1.5, abs=0.005)
