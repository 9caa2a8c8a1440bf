"""Bad input on the topics: each a counted drop with its reason in the status, or a result; then the node goes on."""

from importlib.util import find_spec

import numpy as np
import pytest
from images import build_message, expected_bright, random_thermal, random_visible
from robot import drops, laws_hold, pixels_of
from sensor_msgs.msg import Image

VISIBLE_TOPIC, THERMAL_TOPIC = "visible/image_raw", "thermal/image_raw"


@pytest.fixture
def listening(robot):
    robot.listen("bright")
    robot.connect_cameras()
    return robot


def check_it_goes_on(robot, stamp: float) -> None:
    """Good frames after bad ones are fused, the status is well again, and no law was ever broken."""
    visible, thermal = random_visible(seed=11), random_thermal(seed=12)
    robot.show_pair(visible, thermal, stamp)
    np.testing.assert_array_equal(robot.wait_for_image("bright", stamp), expected_bright(visible, thermal))
    robot.wait_for_status(lambda status: (status.level, status.message) == (status.OK, ""), "all to be well")
    assert all(laws_hold(status) for status in robot.statuses)
    robot.check_alive()


def broken(message: Image, **fields) -> Image:
    """A message with some fields changed."""
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def good(stream: str) -> Image:
    return build_message("rgb8", random_visible()) if stream == "visible" else build_message("mono8", random_thermal())


BAD_FRAMES = {
    "unknown encoding": ({"encoding": "nonsense"}, "nonsense"),
    "wrong step": ({"step": 1}, "step 1 is too small"),
    "zero width": ({"width": 0}, "the image is empty (0x6)"),
    "zero height": ({"height": 0}, "the image is empty (10x0)"),
    "short data": ({"data": b"abc"}, "data has 3 bytes"),
    "no data": ({"data": b""}, "data has 0 bytes"),
}


@pytest.mark.parametrize("stream", ["visible", "thermal"])
@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_bad_frame_is_a_counted_drop(listening, stream, kind):
    fields, message = BAD_FRAMES[kind]
    listening.show(stream, broken(good(stream), **fields), 1.0)
    status = listening.wait_for_status(lambda status: getattr(status, stream).received == 1, "the bad frame")
    assert drops(getattr(status, stream).dropped) == {"bad_image": 1}
    assert status.level == status.ERROR
    assert message in status.message and f"{stream}/image_raw" in status.message
    check_it_goes_on(listening, 2.0)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1"])
def test_a_visible_image_of_more_than_eight_bits_is_a_counted_drop(listening, encoding):
    listening.show("visible", build_message(encoding, random_thermal()), 1.0)
    status = listening.wait_for_status(lambda status: status.visible.received == 1, "the bad frame")
    assert drops(status.visible.dropped) == {"bad_image": 1}
    assert f"encoding {encoding} is no visible image" in status.message
    check_it_goes_on(listening, 2.0)


@pytest.mark.parametrize("stream", ["visible", "thermal"])
def test_a_negative_stamp_is_a_counted_drop(listening, stream):
    listening.show(stream, good(stream), -5.0)
    status = listening.wait_for_status(lambda status: getattr(status, stream).received == 1, "the bad frame")
    assert drops(getattr(status, stream).dropped) == {"bad_image": 1}
    assert "the stamp is negative (-5 s)" in status.message
    check_it_goes_on(listening, 2.0)


def test_sizes_may_change_in_mid_stream(listening):
    for stamp, visible_size, thermal_size in ((1.0, (6, 10), (6, 10)), (2.0, (9, 4), (9, 4)), (3.0, (20, 30), (5, 8))):
        visible, thermal = random_visible(*visible_size), np.full(thermal_size, 33, np.uint8)
        listening.show_pair(visible, thermal, stamp)
        fused = listening.wait_for_image("bright", stamp)
        np.testing.assert_array_equal(fused, expected_bright(visible, np.full(visible_size, 33)))
    check_it_goes_on(listening, 4.0)


def test_a_visible_image_too_large_to_work_on_is_a_counted_drop(listening):
    listening.show_pair(random_visible(1, 17000), random_thermal(), 1.0)
    status = listening.wait_for_status(lambda status: status.formed == 1 and not status.in_flight, "the pair")
    assert drops(status.dropped) == {"bad_image": 1}
    assert status.message == "pair dropped: image size 17000x1 is outside 1..16384 pixels a side"
    check_it_goes_on(listening, 2.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_thermal_image_without_a_finite_pixel_is_a_counted_drop(listening, value):
    listening.show_pair(random_visible(), build_message("32FC1", np.full((6, 10), value)), 1.0)
    status = listening.wait_for_status(lambda status: status.formed == 1 and not status.in_flight, "the pair")
    assert drops(status.dropped) == {"bad_image": 1}
    assert (status.level, status.message) == (status.ERROR, "pair dropped: the thermal image has no finite pixel")
    check_it_goes_on(listening, 2.0)


def test_the_status_tells_of_bad_thermal_images_as_long_as_they_come(listening):
    for i in range(1, 20):
        listening.show_pair(random_visible(), build_message("32FC1", np.full((6, 10), np.nan)), 0.1 * i)
        status = listening.wait_for_status(
            lambda status, i=i: status.formed == i and not status.in_flight, "the pair to be dropped"
        )
        listening.show("visible", random_visible(), 0.1 * i + 0.05)
        status = listening.wait_for_status(
            lambda status, i=i: status.visible.received == 2 * i, "a good frame that is not yet fused"
        )
        assert status.message == "pair dropped: the thermal image has no finite pixel"
    check_it_goes_on(listening, 5.0)


def test_single_pixels_that_are_not_finite_count_as_the_coldest(start_robot):
    robot = start_robot(**{"thermal.mode": "fixed", "thermal.maximum": 255.0})
    robot.listen("bright")
    robot.connect_cameras()
    visible, thermal = random_visible(), random_thermal().astype(np.float32)
    thermal[0, 0], thermal[2, 3], thermal[5, 9] = np.nan, np.inf, -np.inf
    robot.show_pair(visible, build_message("32FC1", thermal), 1.0)
    cold = np.where(np.isfinite(thermal), thermal, 0)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 1.0), expected_bright(visible, cold))


@pytest.mark.parametrize(("encoding", "value"), [("mono16", 30_000), ("32FC1", 21.5), ("mono16", 0)])
def test_a_constant_thermal_image_is_cold_everywhere(listening, encoding, value):
    visible = random_visible()
    listening.show_pair(visible, build_message(encoding, np.full((6, 10), value)), 1.0)
    np.testing.assert_array_equal(listening.wait_for_image("bright", 1.0), visible)
    check_it_goes_on(listening, 2.0)


def test_a_stamp_that_goes_back_a_little_is_out_of_order(listening):
    listening.show_pair(random_visible(), random_thermal(), 5.0)
    listening.wait_for_image("bright", 5.0)
    listening.show_pair(random_visible(), random_thermal(), 4.9)
    status = listening.wait_for_status(lambda status: status.thermal.received == 2, "the old frames")
    assert drops(status.visible.dropped) == drops(status.thermal.dropped) == {"out_of_order": 1}
    check_it_goes_on(listening, 6.0)


def test_a_repeated_stamp_is_a_counted_drop(listening):
    for _ in range(2):
        listening.show_pair(random_visible(), random_thermal(), 5.0)
    status = listening.wait_for_status(lambda status: status.thermal.received == 2, "the repeated frames")
    assert drops(status.visible.dropped) == drops(status.thermal.dropped) == {"repeated_stamp": 1}
    check_it_goes_on(listening, 6.0)


def test_stamps_that_start_again_are_followed(listening):
    listening.show_pair(random_visible(), random_thermal(), 1000.0)
    listening.wait_for_image("bright", 1000.0)
    listening.show("visible", random_visible(), 1001.0)
    check_it_goes_on(listening, 3.0)
    status = listening.wait_for_status(lambda status: status.thermal.received == 2, "all frames")
    assert drops(status.visible.dropped) == {"clock_jump": 1}


@pytest.mark.parametrize(
    ("stream", "silent_topic"), [("visible", THERMAL_TOPIC), ("thermal", VISIBLE_TOPIC)], ids=["visible", "thermal"]
)
def test_a_lone_camera_fills_the_buffer_and_the_silent_one_is_named(listening, stream, silent_topic):
    for i in range(15):
        listening.deliver(stream, good(stream), 1.0 + 0.1 * i)
    status = listening.wait_for_status(lambda status: silent_topic in status.message, "the silent camera to be named")
    assert status.level == status.WARN and "is the camera running?" in status.message
    counts = getattr(status, stream)
    assert (counts.waiting, drops(counts.dropped)) == (10, {"buffer_full": 5})
    check_it_goes_on(listening, 10.0)


def test_cameras_whose_stamps_never_match_are_told(listening):
    for i in range(12):
        listening.deliver("visible", random_visible(), 100.0 + i)
        listening.deliver("thermal", random_thermal(), 500.0 + i)
    status = listening.wait_for_status(lambda status: "no stamps match" in status.message, "a warning")
    assert status.level == status.WARN
    assert status.formed == 0
    check_it_goes_on(listening, 1000.0)


def test_an_engine_that_fails_once_is_a_counted_drop_and_forgotten_after_a_good_pair(listening, monkeypatch):
    pipeline = listening.node._pipeline
    process = pipeline.process
    monkeypatch.setattr(pipeline, "process", lambda *_: 1 / 0)
    listening.show_pair(random_visible(), random_thermal(), 1.0)
    status = listening.wait_for_status(lambda status: status.formed == 1 and not status.in_flight, "the pair")
    assert drops(status.dropped) == {"failed": 1}
    assert (status.level, status.message) == (status.ERROR, "the engine failed on a pair: division by zero")
    monkeypatch.setattr(pipeline, "process", process)
    check_it_goes_on(listening, 2.0)


def test_a_storm_of_good_and_bad_frames_is_accounted_for(listening):
    rng = np.random.default_rng(0)
    bad = list(BAD_FRAMES.values())
    for i in range(150):
        stream = ("visible", "thermal")[int(rng.integers(2))]
        image = good(stream)
        if rng.random() < 0.3:
            image = broken(image, **bad[int(rng.integers(len(bad)))][0])
        listening.deliver(stream, image, 5.0 + 0.02 * i + rng.normal(0, 0.05))
    status = listening.wait_for_status(
        lambda status: status.visible.received + status.thermal.received == 150 and not status.in_flight, "the storm"
    )
    assert status.visible.paired == status.thermal.paired == status.formed > 0
    assert status.processed == len(listening.images["bright"])
    assert all(pixels_of(image).shape == (6, 10, 3) for image in listening.images["bright"])
    check_it_goes_on(listening, 20.0)


@pytest.mark.skipif(not find_spec("cv_bridge"), reason="cv_bridge is not installed here (there is none on PyPI)")
@pytest.mark.parametrize("stream", ["visible", "thermal"])
def test_bytes_in_the_other_order_do_not_stop_the_node(listening, stream):
    """With NumPy 2, cv_bridge fails on them by an error of its own; with NumPy 1 it converts them."""
    frame = Image(height=6, width=10, encoding="bayer_rggb16", step=20, data=bytes(120), is_bigendian=1)
    listening.show(stream, frame, 1.0)
    listening.wait_for_status(lambda status: getattr(status, stream).received == 1, "the frame")
    check_it_goes_on(listening, 2.0)
