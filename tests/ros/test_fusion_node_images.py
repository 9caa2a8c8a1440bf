"""Images through a running fusion node over real topics: what goes in, and exactly what comes out."""

from itertools import count

import numpy as np
import pytest
from images import (
    COLOUR_ENCODINGS,
    LAYOUTS,
    VISIBLE_ENCODINGS,
    build_message,
    expected_bright,
    expected_dim,
    random_thermal,
    random_visible,
)
from robot import drops, laws_hold, make_header, wait_until
from sensor_msgs.msg import CameraInfo

PADDINGS = pytest.mark.parametrize("padding", [0, 5])
stamps = count(1)


@pytest.fixture(scope="module")
def listening(start_for_module):
    """A node whose both tasks are heard; thermal values of 0..255 mean themselves in every encoding."""
    robot = start_for_module(**{"thermal.mode": "fixed", "thermal.maximum": 255.0})
    robot.listen("bright", "dim")
    robot.connect_cameras()
    return robot


def fuse(robot, visible, thermal) -> dict[str, np.ndarray]:
    """Show a pair with the next stamp and wait for the images of both tasks."""
    stamp = float(next(stamps))
    robot.show_pair(visible, thermal, stamp)
    return {task: robot.wait_for_image(task, stamp) for task in ("bright", "dim")}


@PADDINGS
@pytest.mark.parametrize("encoding", VISIBLE_ENCODINGS)
def test_every_visible_encoding_is_fused(listening, encoding, padding):
    thermal = random_thermal()
    pixels = random_visible() if encoding in COLOUR_ENCODINGS else random_thermal(seed=9)
    rgb = pixels if encoding in COLOUR_ENCODINGS else np.stack([pixels] * 3, axis=-1)
    fused = fuse(listening, build_message(encoding, pixels, padding), thermal)
    np.testing.assert_array_equal(fused["bright"], expected_bright(rgb, thermal))
    np.testing.assert_array_equal(fused["dim"], expected_dim(rgb, thermal))


@PADDINGS
@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("encoding", LAYOUTS)
def test_every_thermal_encoding_is_fused(listening, encoding, big_endian, padding):
    visible, thermal = random_visible(), random_thermal()
    pixels = np.stack([thermal] * 3, axis=-1) if encoding in COLOUR_ENCODINGS else thermal
    fused = fuse(listening, visible, build_message(encoding, pixels, padding, big_endian))
    np.testing.assert_array_equal(fused["bright"], expected_bright(visible, thermal))
    np.testing.assert_array_equal(fused["dim"], expected_dim(visible, thermal))


@pytest.mark.parametrize("size", [(6, 10), (7, 9), (1, 1), (33, 18), (480, 640)])
def test_every_size_is_fused_also_one_after_the_other(listening, size):
    visible, thermal = random_visible(*size), random_thermal(*size)
    fused = fuse(listening, visible, thermal)
    np.testing.assert_array_equal(fused["bright"], expected_bright(visible, thermal))


@pytest.mark.parametrize("size", [(3, 5), (12, 20), (6, 7)])
def test_a_thermal_image_of_another_size_is_stretched_over_the_visible_one(listening, size):
    visible = random_visible()
    fused = fuse(listening, visible, np.full(size, 40, np.uint8))
    np.testing.assert_array_equal(fused["bright"], expected_bright(visible, np.full((6, 10), 40)))


def test_the_result_carries_the_header_of_the_visible_image(listening):
    stamp = float(next(stamps))
    listening.show("thermal", random_thermal(), stamp + 0.01)
    listening.show("visible", random_visible(), stamp)
    listening.wait_for_image("bright", stamp)
    assert listening.images["bright"][-1].header == make_header(stamp, "visible_camera")


def test_the_laws_held_all_along(listening):
    fuse(listening, random_visible(), random_thermal())
    status = listening.wait_for_status(lambda status: status.in_flight == 0, "the end of work")
    assert status.processed == status.formed == status.visible.received == status.thermal.received
    assert [task.published for task in status.tasks] == [status.processed] * 2
    assert all(laws_hold(status) for status in listening.statuses)


def test_camera_info_follows_with_the_header_of_its_image(robot):
    robot.listen("bright")
    robot.listen_to_info("bright")
    robot.connect_cameras()
    info = CameraInfo(width=10, height=6, k=[500.0, 0, 5, 0, 500, 3, 0, 0, 1])
    robot.info_camera.publish(info)
    wait_until(lambda: "visible" in robot.node.cameras.infos, "the camera_info to arrive")
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    sent = wait_until(lambda: robot.infos, "a camera_info")[0]
    assert sent.header == make_header(1.0, "visible_camera")
    assert (sent.width, sent.height, list(sent.k)) == (10, 6, list(info.k))


def test_without_a_camera_info_none_is_made_up(robot):
    robot.listen("bright")
    robot.listen_to_info("bright")
    robot.connect_cameras()
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    robot.wait_for_image("bright", 1.0)
    robot.wait_for_status(lambda status: status.processed == 1, "the pair")
    assert robot.infos == []


def test_nothing_is_computed_when_nobody_listens(robot):
    robot.connect_cameras()
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    status = robot.wait_for_status(lambda status: status.formed == 1 and not status.in_flight, "a pair")
    assert (status.processed, drops(status.dropped)) == (0, {"nobody_listens": 1})
    assert list(status.stages) == []


def test_only_the_task_somebody_listens_to_is_computed(robot):
    robot.listen("dim")
    robot.connect_cameras()
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    robot.wait_for_image("dim", 1.0)
    status = robot.wait_for_status(lambda status: status.processed == 1, "a pair")
    tasks = [(task.name, task.wanted, task.published) for task in status.tasks]
    assert tasks == [("bright", False, 0), ("dim", True, 1)]
    assert {"backbone", "head.dim"} <= {stage.stage for stage in status.stages}
    assert "head.bright" not in {stage.stage for stage in status.stages}


def test_a_listener_that_comes_later_is_served(robot):
    robot.listen("dim")
    robot.connect_cameras()
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    robot.wait_for_image("dim", 1.0)
    robot.listen("bright")
    visible, thermal = random_visible(seed=5), random_thermal(seed=6)
    robot.show_pair(visible, thermal, 2.0)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 2.0), expected_bright(visible, thermal))


def test_the_quality_of_service_of_one_camera_can_be_overridden_alone(start_robot):
    robot = start_robot("/overridden", **{"qos_overrides./overridden/visible/image_raw.subscription.depth": 2})
    robot.wait_for_state("active")
    depths = {s.topic_name: s.qos_profile.depth for s in robot.node.subscriptions if "image_raw" in s.topic_name}
    assert depths == {"/overridden/visible/image_raw": 2, "/overridden/thermal/image_raw": 5}
