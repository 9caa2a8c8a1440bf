"""The smoothed limits between frames: they follow, without flicker, and are forgotten where they must be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.street import AMBIENT, Street
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings

FRAME = 1 / 15  # seconds


def scene(low, high):
    """An image whose measured limits are exactly `low` and `high` in mode min_max."""
    return np.array([[low, 0, 0, 0, high]], np.float32)


def follower(**settings):
    return ThermalNormaliser(ThermalSettings(mode="min_max", **settings))


def span(limits):
    return limits[1] - limits[0]


def test_the_first_frame_is_normalised_by_its_own_limits():
    normaliser = follower()
    result = normaliser(scene(100, 200), stamp=5.0)
    assert normaliser.limits == (100, 200)
    assert (result[0, 0], result[0, 4]) == (0, 1)


def test_frames_are_normalised_by_the_smoothed_limits():
    normaliser = follower()
    normaliser(scene(100, 200), stamp=0.0)
    result = normaliser(scene(100, 220), stamp=0.1)
    low, high = normaliser.limits
    np.testing.assert_allclose(
        result[0, [0, 4]], np.clip([(100 - low) / (high - low), (220 - low) / (high - low)], 0, 1), atol=1e-6
    )
    assert 200 < high < 220


def test_limits_take_over_63_percent_of_a_change_in_one_time_constant():
    normaliser = follower(time_constant=2.0, max_gain_step=1.0)
    normaliser(scene(100, 200), stamp=0.0)
    for frame in range(1, 21):
        normaliser(scene(110, 230), stamp=0.1 * frame)
    rest = math.exp(-1)
    assert normaliser.limits == pytest.approx((110 - 10 * rest, 230 - 30 * rest))


def test_following_does_not_depend_on_the_frame_rate():
    slow, fast = follower(max_gain_step=1.0), follower(max_gain_step=1.0)
    for normaliser, frames in ((slow, 2), (fast, 40)):
        normaliser(scene(100, 200), stamp=0.0)
        for frame in range(1, frames + 1):
            normaliser(scene(120, 240), stamp=frame / frames)
    assert slow.limits == pytest.approx(fast.limits)


def test_limits_converge_to_a_scene_that_stays():
    normaliser = follower()
    normaliser(scene(100, 200), stamp=0.0)
    for frame in range(1, 400):
        normaliser(scene(50, 290), stamp=frame * FRAME)
    assert normaliser.limits == pytest.approx((50, 290), abs=0.01)
    assert normaliser.resets == 0


@given(
    st.lists(st.tuples(st.floats(0, 3e4), st.floats(1, 3e4), st.floats(0, 1)), min_size=2, max_size=30),
    st.floats(0.001, 0.5),
)
def test_gain_changes_by_at_most_the_stated_step_from_frame_to_frame(frames, max_gain_step):
    normaliser = follower(max_gain_step=max_gain_step, min_overlap=0.0)
    stamp, spans = 0.0, []
    for low, height, elapsed in frames:
        stamp += elapsed
        normaliser(scene(low, low + height), stamp)
        spans.append(span(normaliser.limits))
    ratios = np.divide(spans[1:], spans[:-1])
    assert normaliser.resets == 0
    assert ratios.max() <= (1 + max_gain_step) * (1 + 1e-9)
    assert ratios.min() >= 1 / (1 + max_gain_step) * (1 - 1e-9)


@given(gain=st.integers(2, 20), offset=st.integers(-500, 500))
def test_smoothing_commutes_with_gain_and_offset_of_the_counts(gain, offset):
    plain, scaled = follower(), follower()
    for frame, (low, high) in enumerate([(100, 200), (120, 190), (90, 260), (150, 300)]):
        expected = plain(scene(low, high), frame * FRAME)
        image = scene(gain * low + offset, gain * high + offset)
        np.testing.assert_allclose(scaled(image, frame * FRAME)[0, [0, 4]], expected[0, [0, 4]], atol=1e-5)


def test_a_gap_in_the_stamps_forgets_the_limits():
    normaliser = follower(max_gap=1.0)
    normaliser(scene(100, 200), stamp=0.0)
    normaliser(scene(110, 220), stamp=1.0)
    assert normaliser.resets == 0
    normaliser(scene(120, 240), stamp=2.01)
    assert (normaliser.limits, normaliser.resets) == ((120, 240), 1)


def test_a_stamp_that_goes_back_forgets_the_limits():
    normaliser = follower()
    normaliser(scene(100, 200), stamp=10.0)
    normaliser(scene(110, 220), stamp=9.99)
    assert (normaliser.limits, normaliser.resets) == ((110, 220), 1)


def test_following_goes_on_from_the_stamp_that_went_back():
    normaliser = follower()
    for stamp in (10.0, 3.0, 3.1):
        normaliser(scene(100, 200), stamp)
    assert normaliser.resets == 1


def test_a_scene_cut_forgets_the_limits():
    normaliser = follower(min_overlap=0.25)
    normaliser(scene(100, 200), stamp=0.0)
    normaliser(scene(155, 255), stamp=FRAME)  # 45 of 155 counts in common
    assert normaliser.resets == 0
    normaliser.reset()
    normaliser(scene(100, 200), stamp=0.0)
    normaliser(scene(165, 265), stamp=FRAME)  # 35 of 165
    assert (normaliser.limits, normaliser.resets) == ((165, 265), 1)


def test_the_same_stamp_again_changes_nothing():
    normaliser = follower()
    normaliser(scene(100, 200), stamp=1.0)
    normaliser(scene(100, 250), stamp=1.0)
    assert (normaliser.limits, normaliser.resets) == ((100, 200), 0)


def test_an_image_without_a_stamp_neither_uses_nor_changes_the_state():
    with_visitor, alone = follower(), follower()
    for normaliser in (with_visitor, alone):
        normaliser(scene(100, 200), stamp=0.0)
    visitor = with_visitor(scene(3000, 5000))
    assert visitor[0, [0, 4]] == pytest.approx([0, 1], abs=1e-6)
    for normaliser in (with_visitor, alone):
        normaliser(scene(120, 230), stamp=0.5)
    assert with_visitor.limits == alone.limits
    assert with_visitor.resets == 0


def test_a_constant_image_leaves_the_state_alone():
    normaliser, undisturbed = follower(), follower()
    for each in (normaliser, undisturbed):
        each(scene(100, 200), stamp=0.0)
    assert not normaliser(np.full((4, 4), 150, np.float32), stamp=0.3).any()
    for each in (normaliser, undisturbed):
        each(scene(120, 230), stamp=0.5)
    assert normaliser.limits == undisturbed.limits


def test_8_bit_and_fixed_keep_no_state():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for normaliser in (ThermalNormaliser(), ThermalNormaliser(ThermalSettings(mode="fixed"))):
        normaliser(image, stamp=0.0)
        assert normaliser.limits is None


def test_reset_makes_the_next_frame_the_first():
    normaliser = follower()
    normaliser(scene(100, 200), stamp=0.0)
    normaliser.reset()
    normaliser(scene(110, 220), stamp=FRAME)
    assert (normaliser.limits, normaliser.resets) == ((110, 220), 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_synthetic_street_does_not_flicker(seed):
    """The issue's stated bound on frame-to-frame gain, and that the same warmth keeps its gray level."""
    street, normaliser, settings = Street(seed, size=(240, 320), day_frames=30), ThermalNormaliser(), ThermalSettings()
    smoothed, measured = [], []
    for index in range(90):
        thermal = street[index][1]
        normaliser(thermal, index * FRAME)
        smoothed.append(normaliser.limits)
        measured.append(np.percentile(thermal[::4, ::4], [settings.low_percentile, settings.high_percentile]))
    assert normaliser.resets == 0
    assert largest_gain_step(smoothed) <= settings.max_gain_step < largest_gain_step(measured)
    ambient = [(AMBIENT - low) / (high - low) for low, high in smoothed]
    assert np.abs(np.diff(ambient)).max() < 1.5 / 255


def largest_gain_step(limits):
    """Largest relative change of 1 / (high - low) from one frame to the next, up or down."""
    gains = 1 / np.diff(np.asarray(limits), axis=1)[:, 0]
    ratios = gains[1:] / gains[:-1]
    return max(ratios.max(), (1 / ratios).max()) - 1
