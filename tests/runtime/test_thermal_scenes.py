"""Thermal cameras watched before scenes: no false alarm, every fault and its end.

The scenes are synthetic streets, and real ones where the environment variable VIFA_THERMAL_IMAGES names a folder of
8-bit thermal images (of MSRS, RoadScene or others), of which eight are taken.
"""

import os
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from thermal_sequences import (
    CAMERAS,
    HEIGHT,
    WIDTH,
    celsius,
    coarse_counts,
    counts,
    gray,
    look,
    photographed_scenes,
    street_scene,
)

from vifa_runtime.thermal_health import ThermalWatch

RATE = 32  # frames a second, so that stamps are exact
SETTLED = 250  # frames by which dead pixels are found


@pytest.fixture(
    scope="module", params=["street", "photographed"] if "VIFA_THERMAL_IMAGES" in os.environ else ["street"]
)
def scenes(request):
    if request.param == "street":
        return [street_scene(0), street_scene(4)]
    return photographed_scenes(Path(os.environ["VIFA_THERMAL_IMAGES"]), 8)


def record(scene, camera, frames, moving=True, seed=0):
    rng = np.random.default_rng(seed)
    return [camera(view, rng) for view in look(scene, frames, moving)]


def watch(frames, rate=RATE):
    """States and the messages seen, of a watch that is fed with frames, and the watch."""
    watcher = ThermalWatch()
    healths = [watcher.update(image, index / rate) for index, image in enumerate(frames)]
    return [health.state for health in healths], {health.message for health in healths}, watcher


@pytest.mark.parametrize("moving", [False, True], ids=["static", "moving"])
@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_no_false_alarm(scenes, camera, moving):
    for scene in scenes:
        states, messages, watcher = watch(record(scene, camera, SETTLED, moving))
        assert set(states) == {"ok"}, messages
        assert not any(watcher.counts.values())


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_9_frames_a_second_sent_as_30_are_not_frozen(scenes, camera):
    frames = record(scenes[0], camera, 40, moving=False)
    states, messages, _ = watch([image for image in frames for _ in range(3)], rate=27)
    assert set(states) == {"ok"}, messages


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_a_frozen_camera_is_found_after_a_second_and_recovers_with_the_next_frame(scenes, camera):
    for scene in scenes:
        frames = record(scene, camera, 60)
        frames[30:30] = [frames[29].copy() for _ in range(3 * RATE)]
        states, messages, watcher = watch(frames)
        assert states == ["ok"] * (29 + RATE) + ["frozen"] * (2 * RATE + 1) + ["ok"] * 30
        assert watcher.counts["frozen"] == watcher.counts["ok"] == 1
        assert "thermal image is frozen since 3.0 s; shutter calibration or a hung driver" in messages


@pytest.mark.parametrize("camera", [counts, celsius, gray])
@pytest.mark.parametrize("closed", [0.4, 7.0])
def test_a_closed_shutter_is_found_at_once_and_recovers(scenes, camera, closed):
    """A shutter has one temperature; the camera adds its noise."""
    count = round(closed * RATE)
    for scene in scenes:
        rng = np.random.default_rng(1)
        shutter = [camera(np.full((HEIGHT, WIDTH), 4, np.float32), rng) for _ in range(count)]
        frames = record(scene, camera, 60)
        states, messages, watcher = watch(frames[:30] + shutter + frames[30:])
        assert states == ["ok"] * 30 + ["shutter"] * count + ["ok"] * 30
        assert watcher.counts["shutter"] == 1
        longest = f"thermal image is uniform since {(count - 1) / RATE:.1f} s"
        assert any(message.startswith(longest) for message in messages)
        assert any("the shutter is stuck or the lens covered" in message for message in messages) == (closed > 5)


@pytest.mark.parametrize(
    ("camera", "limit", "heat"),
    [
        (counts, 41_315, 150),  # 140 degrees
        (counts, 32_767, 60),  # 15 of 16 bits
        (counts, 28_315, -60),  # 10 degrees
        (celsius, 140, 150),
        (celsius, 0, -60),
        (gray, 255, 60),
        (gray, 0, -60),
    ],
)
def test_a_saturated_camera_is_found_and_recovers(scenes, camera, limit, heat):
    """Something hot or cold comes into the left of the view, beyond what the camera can say, and goes again."""
    blob = heat * np.clip(np.linspace(4, -4, WIDTH, dtype=np.float32), 0, 1)
    strengths = np.sin(np.linspace(0, np.pi, 100, dtype=np.float32))
    clip, end = (np.minimum, "highest") if heat > 0 else (np.maximum, "lowest")
    for scene in scenes:
        rng = np.random.default_rng(0)
        views = zip(look(scene, len(strengths), True), strengths, strict=True)
        frames = [camera(view + strength * blob, rng) for view, strength in views]
        states, messages, _ = watch([clip(image, image.dtype.type(limit)) for image in frames])
        assert [state for state, _ in groupby(states)] == ["ok", "saturated", "ok"], messages
        assert states[40:60] == ["saturated"] * 20
        assert any(f"of the thermal pixels have the {end} value; choose a wider" in message for message in messages)


def break_row(image, first):
    image[77] = first[77]


def break_columns(image, first):
    image[:, 40:42] = first.max()


def break_pixels(image, first):
    """3 % of the pixels, here and there."""
    broken = np.random.default_rng(2).random(image.shape) < 0.03
    image[broken] = first[broken]


def break_block(image, first):
    """A quarter of the sensor."""
    image[:, : WIDTH // 4] = first[:, : WIDTH // 4]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (break_row, "thermal row 77 never changes; "),
        (break_columns, "thermal column 40 and 1 more never change; "),
        (break_pixels, "% of the thermal pixels never change; "),
        (break_block, "% of the thermal pixels never change; "),
    ],
)
@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_dead_lines_and_pixels_are_found_and_recover(scenes, camera, fault, message):
    for scene in scenes:
        frames = record(scene, camera, SETTLED + 60)
        first = frames[0].copy()
        for image in frames[:SETTLED]:
            fault(image, first)
        states, messages, _ = watch(frames)
        hides_noise = camera is coarse_counts or (fault is break_block and frames[0].dtype == np.uint8)
        if hides_noise and fault in (break_pixels, break_block):
            assert set(states) <= {"ok", "dead"}  # a stated limit: a smooth part of the scene may stay as they do
            continue
        assert set(states[:100]) == {"ok"}
        assert states[SETTLED - 1] == "dead"
        assert states[-1] == "ok"
        assert any(message in found for found in messages)


@pytest.mark.parametrize("value", [0, 65_535])
def test_broken_pixels_at_the_ends_of_the_range_are_found(scenes, value):
    for scene in scenes:
        frames = record(scene, counts, SETTLED, moving=False)
        for image in frames:
            image[np.random.default_rng(2).random(image.shape) < 0.03] = value
        assert watch(frames)[0][-1] == "dead"


@pytest.mark.parametrize("camera", [counts, celsius])
def test_the_black_border_of_a_rectified_image_is_no_fault(scenes, camera):
    for scene in scenes:
        frames = record(scene, camera, SETTLED)
        for image in frames:
            image[:, :10] = image[-8:] = 0 if camera is counts else np.nan
        assert set(watch(frames)[0]) == {"ok"}


def test_a_clipped_cold_sky_is_no_fault():
    """The upper fifth at the lowest value, for ever."""
    frames = [np.maximum(image, 5_000) for image in record(street_scene(), counts, SETTLED, moving=False)]
    for image in frames:
        image[: HEIGHT // 5] = image.min()
    states, messages, _ = watch(frames)
    assert set(states) == {"ok"}, messages
