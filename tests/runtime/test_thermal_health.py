"""The states of a thermal camera: when each begins and ends, by frames made for it, and by any frames at all."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vifa_runtime.thermal import ThermalError
from vifa_runtime.thermal_health import STATES, Health, HealthSettings, ThermalWatch

DTYPES = [np.uint8, np.uint16, np.float32]


def scene(seed, dtype=np.uint16, size=(64, 80)):
    """A warm and a cold half, and noise that no two seeds share."""
    kelvin = np.random.default_rng(seed).normal(0, 0.05, size)
    kelvin[:, : size[1] // 2] += 8
    scale, offset = {np.uint8: (20, 50), np.uint16: (100, 29_000), np.float32: (1, 20)}[dtype]
    values = scale * kelvin + offset
    return values.astype(dtype) if dtype is np.float32 else np.rint(values).astype(dtype)


def flat(seed, dtype=np.uint16, size=(64, 80)):
    """A closed shutter: noise alone."""
    return scene(seed, dtype, (size[0], 2 * size[1]))[:, size[1] :].copy()


def feed(watch, frames, start=0.0, step=0.125):
    return [watch.update(image, start + step * index) for index, image in enumerate(frames)]


def states(healths):
    return [health.state for health in healths]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.0, 1 / 32, 1 / 8, 0.5, 2.0])), min_size=1, max_size=12),
    st.sampled_from([0.25, 1.0, 3.0]),
    st.sampled_from(DTYPES),
)
def test_frozen_is_what_a_brute_force_look_back_finds(runs, frozen_after, dtype):
    """Runs of equal frames: (how many, seconds from each frame to the next)."""
    watch, stamp, expected, found = ThermalWatch(HealthSettings(frozen_after=frozen_after)), 0.0, [], []
    history = []
    for number, (length, gap) in enumerate(runs):
        for _ in range(length):
            history.append((number, stamp))
            first = next(when for run, when in history if run == number)
            is_frozen = sum(run == number for run, _ in history) > 1 and stamp - first >= frozen_after
            expected.append(("frozen", stamp - first) if is_frozen else ("ok", None))
            health = watch.update(scene(number, dtype), stamp)
            found.append((health.state, health.seconds if health.state == "frozen" else None))
            stamp += gap
    assert found == expected


def test_one_pixel_that_changes_is_life():
    image, frames = scene(0), []
    for index in range(40):
        frames.append(image.copy())
        frames[-1][1, 1] += index  # not among the pixels that are looked at first
    assert set(states(feed(ThermalWatch(), frames))) == {"ok"}


def test_a_frozen_image_with_dead_pixels_is_frozen():
    image = scene(0, np.float32)
    image[::8, ::8] = np.nan
    assert states(feed(ThermalWatch(), [image.copy() for _ in range(9)])) == ["ok"] * 8 + ["frozen"]


def test_frozen_can_be_switched_off():
    watch = ThermalWatch(HealthSettings(frozen_after=0))
    assert set(states(feed(watch, [scene(0)] * 100))) == {"ok"}


def test_a_buffer_that_the_driver_fills_again_is_no_frozen_camera():
    buffer, watch = scene(0), ThermalWatch()
    for index in range(30):
        buffer[:] = scene(index)
        assert watch.update(buffer, 0.1 * index).state == "ok"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_state_in_turn_with_counts_and_times(dtype):
    watch = ThermalWatch()
    hung = scene(9, dtype)
    blank = np.zeros_like(hung)
    frames = [scene(0, dtype), scene(1, dtype), *(flat(seed, dtype) for seed in range(4)), scene(2, dtype)]
    frames += [hung] * 12 + [scene(3, dtype)] + [blank] * 2 + [scene(4, dtype)]
    healths = feed(watch, frames)
    assert states(healths) == [
        *["ok"] * 2,
        *["shutter"] * 4,
        *["ok"] * 9,  # a hung frame is new, and for a second then it may be the camera's rhythm
        *["frozen"] * 4,
        "ok",
        *["blank"] * 2,
        "ok",
    ]
    assert watch.counts == {"ok": 3, "blank": 1, "shutter": 1, "frozen": 1, "saturated": 0, "dead": 0}
    assert watch.frames == len(frames)
    assert [health.seconds for health in healths[2:6]] == [0, 0.125, 0.25, 0.375]
    assert [health.seconds for health in healths[15:19]] == [1, 1.125, 1.25, 1.375]
    assert [health.seconds for health in healths[6:8]] == [0, 0.125]
    assert [health.shows_scene for health in healths[14:18]] == [True, False, False, False]
    assert healths[-1] == watch.health == Health()


def test_messages_say_what_and_the_mend():
    watch = ThermalWatch()
    watch.update(scene(0), 0.0)
    assert watch.update(scene(0), 3.2).message == (
        "thermal image is frozen since 3.2 s; shutter calibration or a hung driver"
    )
    assert watch.update(scene(0), 60.0).message == "thermal image is frozen since 60.0 s; the driver hangs: restart it"
    assert watch.update(np.full((64, 80), np.nan, np.float32), 61.0).message == (
        "thermal image has no finite pixel; check the camera, its cable and the driver's pixel format"
    )
    assert watch.update(np.full((64, 80), 7, np.uint8), 61.0).message.startswith("thermal image has the value 7 every")


def test_a_shutter_without_noise_is_a_shutter_and_a_zero_image_never():
    watch = ThermalWatch()
    healths = feed(watch, [scene(0), np.full((64, 80), 29_400, np.uint16), np.zeros((64, 80), np.uint16), scene(1)])
    assert states(healths) == ["ok", "shutter", "blank", "ok"]


def test_a_uniform_image_from_the_start_is_not_called_a_shutter():
    assert set(states(feed(ThermalWatch(), [flat(seed) for seed in range(20)]))) == {"ok"}


def test_a_scene_that_gets_plain_by_and_by_is_no_shutter():
    """As a robot turns to a wall: half the contrast each quarter of a second, at the end none."""
    shares = [0.5 ** (index / 2) for index in range(40)]
    frames = [
        (share * scene(seed) + (1 - share) * flat(seed).astype(float)).astype(np.uint16)
        for seed, share in enumerate(shares)
    ]
    assert set(states(feed(ThermalWatch(), frames))) == {"ok"}


def test_a_shutter_is_found_through_much_noise():
    """4 levels of it, before a scene of 30: in the means of blocks there is less."""
    rng = np.random.default_rng(0)
    step = np.repeat([[100.0, 130.0]], 40, axis=1).repeat(64, axis=0)
    frames = [step + rng.normal(0, 2, step.shape) for _ in range(4)]
    frames[2:] = [100 + rng.normal(0, 2, step.shape) for _ in range(2)]
    healths = feed(ThermalWatch(), [np.rint(image).astype(np.uint8) for image in frames])
    assert states(healths) == ["ok", "ok", "shutter", "shutter"]


def test_a_smoothed_shutter_that_is_a_level_brighter_on_one_side_is_a_shutter():
    shutter = np.full((64, 80), 132, np.uint8)
    shutter[:, 50:] = 133
    assert states(feed(ThermalWatch(), [scene(0, np.uint8), shutter]))[-1] == "shutter"


def test_a_scene_of_few_levels_cannot_tell_a_shutter():
    """A wall in 0.4 K counts: 5 levels, and none as the robot turns a little."""
    wall = np.full((64, 80), 733, np.uint16)
    wall[0, 0] += 1
    steps = wall.copy()
    steps[:, 40:] += 5
    assert states(feed(ThermalWatch(), [steps, wall, steps, wall])) == ["ok"] * 4
    steps[:, 40:] += 5
    assert states(feed(ThermalWatch(), [steps, wall, steps, wall])) == ["ok", "shutter"] * 2


def test_a_hot_thing_that_leaves_at_once_is_no_shutter():
    """What is left has a twentieth of the contrast, and yet is more than noise."""
    hot = [scene(seed) for seed in range(4)]
    for image in hot:
        image[:, :20] += 16_000
    assert set(states(feed(ThermalWatch(), hot + [scene(seed) for seed in range(10, 20)]))) == {"ok"}


def test_at_one_frame_a_second_a_shutter_is_found_too():
    healths = feed(ThermalWatch(), [scene(0), scene(1), flat(2), flat(3), scene(4)], step=1.0)
    assert states(healths) == ["ok", "ok", "shutter", "shutter", "ok"]


def test_a_stamp_that_goes_back_begins_the_times_anew():
    watch = ThermalWatch()
    assert states(feed(watch, [scene(0)] * 9, start=100.0))[-1] == "frozen"
    healths = feed(watch, [scene(0)] * 9, start=5.0)
    assert states(healths) == ["ok"] * 8 + ["frozen"]
    assert healths[-1].seconds == 1.0
    feed(watch, [scene(1), flat(2), flat(3)], start=10.0)
    assert watch.update(flat(4), 0.0) == Health(
        "shutter", 0.0, "thermal image is uniform since 0.0 s; shutter calibration"
    )
    assert watch.update(scene(5), 0.1).state == "ok"
    assert [health.seconds for health in feed(watch, [scene(6)] * 2, start=-7.0)] == [0, 0.125]


@pytest.mark.parametrize("other", [scene(0, size=(64, 96)), scene(0, np.float32), scene(0, np.uint8)])
def test_another_size_or_dtype_is_another_camera(other):
    watch = ThermalWatch()
    assert states(feed(watch, [scene(0)] * 9 + [other] * 9)) == ["ok"] * 8 + ["frozen"] + ["ok"] * 8 + ["frozen"]


@pytest.mark.parametrize("stamp", [None, math.nan, math.inf])
def test_without_a_stamp_an_image_is_judged_by_itself_and_nothing_changes(stamp):
    watch = ThermalWatch()
    feed(watch, [scene(0)] * 9)
    before = watch.health, dict(watch.counts), watch.frames
    assert watch.update(scene(0), stamp) == Health()
    assert watch.update(np.zeros((4, 4), np.uint8), stamp).state == "blank"
    slope = scene(0) + np.arange(0, 8000, 100, np.uint16)
    assert watch.update(np.minimum(slope, 32_000), stamp).message.startswith("72% of the thermal pixels have the high")
    half = scene(0, np.float32)
    half[:, :40] = np.nan
    assert watch.update(half, stamp).message.startswith("50% of the thermal pixels are NaN or infinite; run")
    assert (watch.health, watch.counts, watch.frames) == before
    assert watch.update(scene(0), 2.0).seconds == 2.0


def test_too_many_invalid_pixels_are_dead_until_half_of_them_are_back():
    frames = [scene(seed, np.float32) for seed in range(5)]
    for image, columns in zip(frames, (0, 18, 24, 12, 8), strict=True):
        image[:, :columns] = np.inf
    healths = feed(ThermalWatch(), frames)
    assert states(healths) == ["ok", "ok", "dead", "dead", "ok"]
    assert healths[2].message.startswith("30% of the thermal pixels are NaN or infinite; run the camera's shutter")


def test_saturation_ends_at_half_of_where_it_begins():
    frames = []
    for seed, columns in enumerate((0, 18, 24, 12, 8)):
        slope = scene(seed) + np.arange(8000, 0, -100, np.uint16)
        frames.append(np.minimum(slope, slope[:, columns].min()) if columns else slope)
    assert states(feed(ThermalWatch(), frames)) == ["ok", "ok", "saturated", "saturated", "ok"]


def test_a_border_of_zeros_is_not_saturated():
    image = scene(0)
    image[:, :30] = 0
    assert ThermalWatch().update(image, None) == Health()


def test_what_is_alive_between_the_sampled_pixels_counts():
    image = np.full((512, 640), np.nan, np.float32)
    image[1::4] = np.random.default_rng(0).normal(20, 1, image[1::4].shape)
    assert ThermalWatch().update(image, None).message.startswith("75% of the thermal pixels are NaN")
    dark = np.zeros((512, 640), np.uint16)
    dark[1, 1] = 1
    assert ThermalWatch().update(dark, None) == Health()


def test_a_plain_wall_in_coarse_numbers_is_not_saturated():
    """Three quarters at the lowest of 0.4 K counts, something warm before it."""
    wall = np.full((64, 80), 733, np.uint16)
    wall[:, 60:] = np.linspace(734, 770, 20).astype(np.uint16)
    assert ThermalWatch().update(wall, None) == Health()
    assert ThermalWatch().update((wall * 0.4 - 273.15).astype(np.float32), None) == Health()


@given(
    st.sampled_from(DTYPES),
    st.integers(16, 70),
    st.integers(16, 70),
    st.floats(0, 40),
    st.lists(st.floats(0.001, 3), min_size=2, max_size=40),
)
def test_noise_is_life_whatever_the_scene(dtype, height, width, contrast, gaps):
    """No camera with noise of a level or more is ever called faulty, before any scene and at any rate."""
    rng, watch, stamp = np.random.default_rng(height), ThermalWatch(), 0.0
    slope = np.linspace(0, contrast, width)
    for gap in gaps:
        kelvin = 20 + slope + rng.normal(0, 0.3, (height, width))
        scale = {np.uint8: 4, np.uint16: 100, np.float32: 1}[dtype]
        stamp += gap
        assert watch.update(np.clip(scale * kelvin, 0, 65_535).astype(dtype), stamp) == Health(
            seconds=watch.health.seconds
        )


ANY_IMAGE = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))
)


@given(
    st.lists(
        st.tuples(ANY_IMAGE, st.none() | st.floats(), st.integers(1, 3), st.sampled_from([1, -1])),
        min_size=1,
        max_size=12,
    )
)
def test_any_frames_and_stamps_give_a_state(frames):
    watch = ThermalWatch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image, stamp, repeats, stride in frames:
            for _ in range(repeats):
                before = watch.health
                health = watch.update(image[::stride, ::stride], stamp)
                assert health.state in STATES
                assert health.seconds >= 0
                assert (health.message == "") == (health.state == "ok")
                assert "\n" not in health.message and len(health.message) < 200
                timed = stamp is not None and math.isfinite(stamp)
                assert watch.health is (health if timed else before)
    assert watch.counts["ok"] <= sum(count for state, count in watch.counts.items() if state != "ok")


def test_views_with_any_strides_are_read():
    image, watch = scene(0, size=(128, 160)), ThermalWatch()
    healths = [watch.update(image[::-2, ::2], index / 8) for index in range(9)]
    assert states(healths) == ["ok"] * 8 + ["frozen"]


def test_memory_stays_as_it_is():
    watch, images = ThermalWatch(), [scene(seed, np.float32) for seed in range(20)]
    tracemalloc.start()
    try:
        sizes = []
        for index in range(1200):
            watch.update(images[index % 20], 0.03 * index)
            if index in (200, 1199):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 4096


def test_the_frame_is_left_as_it_was():
    image = scene(0, np.float32)
    image[3, 3] = np.nan
    before = image.copy()
    feed(ThermalWatch(), [image] * 3)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 1), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4))])
def test_what_is_no_thermal_image_is_refused(image):
    with pytest.raises(ThermalError, match="expected"):
        ThermalWatch().update(image, 0.0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"frozen_after": -1}, "frozen_after must be seconds"),
        ({"frozen_after": math.nan}, "frozen_after must be seconds"),
        ({"frozen_after": math.inf}, "frozen_after must be seconds"),
        ({"uniform_contrast": 0}, "uniform_contrast must be a share"),
        ({"saturated_share": 1}, "saturated_share must be a share"),
        ({"dead_share": math.nan}, "dead_share must be a share"),
        ({"invalid_share": -0.1}, "invalid_share must be a share"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, reason):
    with pytest.raises(ThermalError, match=reason):
        HealthSettings(**settings)
