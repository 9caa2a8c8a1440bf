"""A thermal camera that is frozen, blank or back again, and settings of the thermal image, on a running node."""

import itertools
import threading

import cv2
import numpy as np
import pytest
from images import expected_bright, random_thermal, random_visible
from robot import laws_hold, pixels_of, wait_until

from vifa.msg import FusionStatus
from vifa_ros.health import thermal_level
from vifa_runtime.thermal_health import Health

VISIBLE = random_visible(48, 64)
ALONE = expected_bright(VISIBLE, cv2.cvtColor(VISIBLE, cv2.COLOR_RGB2GRAY))


def make_camera(is_frozen: threading.Event):
    """A function that gives the images of a thermal camera with noise, which stand still while an event is set."""
    seeds = itertools.count()
    last = [random_thermal(48, 64, next(seeds))]

    def take() -> np.ndarray:
        if not is_frozen.is_set():
            last[0] = random_thermal(48, 64, next(seeds))
        return last[0]

    return take


@pytest.mark.parametrize("policy", ["hold", "visible_only"])
def test_a_frozen_camera_is_told_done_without_where_allowed_and_recovers(start_robot, policy):
    robot, is_frozen = start_robot(on_modality_loss=policy, **{"thermal.frozen_after": 0.5}), threading.Event()
    robot.listen("bright")
    robot.connect_cameras()
    with robot.filming("visible", 0.05, VISIBLE), robot.filming("thermal", 0.05, make_camera(is_frozen)):
        robot.wait_for_status(lambda status: status.processed > 5 and status.level == FusionStatus.OK, "pairs")
        is_frozen.set()
        status = robot.wait_for_status(lambda status: "frozen" in status.thermal.problem, "a frozen camera")
        assert status.level == FusionStatus.WARN and "/thermal/image_raw: " in status.message
        does_without = policy == "visible_only"
        assert robot.wait_for_status(lambda status: status.processed, "pairs").showing == (
            "visible_only" if does_without else "both"
        )
        seen = len(robot.images["bright"])
        wait_until(lambda: len(robot.images["bright"]) > seen + 3, "images")
        error = np.abs(pixels_of(robot.images["bright"][-1]).astype(int) - ALONE).max()
        assert (error <= 1) == does_without
        is_frozen.clear()
        status = robot.wait_for_status(lambda status: not status.thermal.problem, "a good camera")
        assert (status.level, status.showing) == (FusionStatus.OK, "both")
    assert all(laws_hold(status) for status in robot.statuses)


def test_the_camera_is_watched_when_nobody_listens(start_robot):
    robot, is_frozen = start_robot(**{"thermal.frozen_after": 0.3}), threading.Event()
    robot.connect_cameras()
    is_frozen.set()
    with robot.filming("visible", 0.05, VISIBLE), robot.filming("thermal", 0.05, make_camera(is_frozen)):
        status = robot.wait_for_status(lambda status: "frozen" in status.thermal.problem, "a frozen camera")
    assert status.processed == 0


def test_a_blank_camera_is_an_error(start_robot):
    robot = start_robot()
    robot.connect_cameras()
    with robot.filming("visible", 0.05, VISIBLE), robot.filming("thermal", 0.05, np.full((48, 64), 7, np.uint8)):
        status = robot.wait_for_status(lambda status: status.thermal.problem, "a blank camera")
    assert status.level == FusionStatus.ERROR and status.thermal.problem in status.message


@pytest.mark.parametrize(
    ("state", "seconds", "level"),
    [
        ("ok", 100.0, FusionStatus.OK),
        ("shutter", 1.0, FusionStatus.WARN),
        ("frozen", 1.5, FusionStatus.WARN),
        ("frozen", 6.0, FusionStatus.ERROR),
        ("blank", 0.0, FusionStatus.ERROR),
        ("saturated", 9.0, FusionStatus.WARN),
        ("dead", 9.0, FusionStatus.WARN),
    ],
)
def test_what_no_shutter_explains_is_an_error(state, seconds, level):
    assert thermal_level(Health(state, seconds, state)) == level
