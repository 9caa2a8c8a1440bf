"""A camera that goes silent, in both directions: what is published meanwhile, what is told, and that it recovers."""

import numpy as np
import pytest
from images import expected_bright, random_thermal, random_visible
from robot import drops, laws_hold, pixels_of, wait_until

from vifa.msg import FusionStatus
from vifa_ros.losses import EITHER, HOLD, POLICIES, STOP, find_alone, find_lost

VISIBLE, THERMAL = random_visible(), random_thermal()
OTHER = {"visible": "thermal", "thermal": "visible"}
ALONE = {  # what `bright`, the sum of both images, is made of
    "visible": expected_bright(VISIBLE, np.rint(VISIBLE @ [0.299, 0.587, 0.114])),
    "thermal": expected_bright(np.repeat(THERMAL[:, :, None], 3, axis=2), THERMAL),
}
BOTH = expected_bright(VISIBLE, THERMAL)


@pytest.fixture
def start(start_robot):
    """A function that starts a node with a policy and waits until it hears both cameras."""

    def start(policy: str):
        robot = start_robot(on_modality_loss=policy, modality_timeout=0.4)
        robot.listen("bright")
        robot.connect_cameras()
        return robot

    return start


def wait_for_picture(robot, picture) -> None:
    """Wait until a newly published image is this picture, to a gray level."""
    seen = len(robot.images["bright"])

    def found():
        return any(np.abs(pixels_of(image).astype(int) - picture).max() <= 1 for image in robot.images["bright"][seen:])

    wait_until(found, f"an image like\n{picture[:2]}; status: {robot.statuses[-1:]}")


def showing(robot, what: str) -> FusionStatus:
    return robot.wait_for_status(lambda status: status.showing == what, f"showing {what}")


@pytest.mark.parametrize("left", ["visible", "thermal"])
@pytest.mark.parametrize("policy", ["{left}_only", EITHER])
def test_results_are_made_of_the_camera_that_is_left_and_of_both_again(start, left, policy):
    robot, lost = start(policy.format(left=left)), OTHER[left]
    with robot.filming(left):
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)
            assert showing(robot, "both").level == FusionStatus.OK
        status = showing(robot, f"{left}_only")
        assert status.level == FusionStatus.WARN
        assert f"/{lost}/image_raw" in status.message and f"made of the {left} image alone" in status.message
        wait_for_picture(robot, ALONE[left])
        status = robot.wait_for_status(lambda status: getattr(status, left).alone > 2, "frames that went alone")
        assert getattr(status, lost).alone == 0
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)
            assert showing(robot, "both").level == FusionStatus.OK
    assert all(laws_hold(status) for status in robot.statuses)


@pytest.mark.parametrize(("policy", "lost"), [(HOLD, "visible"), (HOLD, "thermal"), ("visible_only", "visible")])
def test_nothing_is_published_where_the_policy_wants_both_or_the_other_one(start, policy, lost):
    robot = start(policy)
    with robot.filming(OTHER[lost]):
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)
        status = showing(robot, "nothing")
        assert status.level == FusionStatus.WARN and "there are no results" in status.message
        processed = robot.wait_for_status(lambda status: status.in_flight == 0, "nothing in flight").processed
        assert robot.wait_for_status(lambda later: getattr(later, OTHER[lost]).received > 20, "frames").processed == (
            pytest.approx(processed, abs=1)
        )
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)


def test_results_of_the_thermal_image_lie_in_the_visible_camera_s_frame(start):
    robot = start("thermal_only")
    with robot.filming("thermal"):
        with robot.filming("visible"):
            wait_for_picture(robot, BOTH)
        showing(robot, "thermal_only")
        wait_for_picture(robot, ALONE["thermal"])
    assert {image.header.frame_id for image in robot.images["bright"]} == {"visible_camera"}
    stamps = [(image.header.stamp.sec, image.header.stamp.nanosec) for image in robot.images["bright"]]
    assert stamps == sorted(stamps)


def test_a_camera_that_never_came_is_done_without(start):
    robot = start("visible_only")
    with robot.filming("visible"):
        wait_for_picture(robot, ALONE["visible"])
    status = robot.statuses[-1]
    assert drops(status.thermal.dropped) == {} and status.thermal.received == 0


@pytest.mark.parametrize("lost", ["visible", "thermal"])
def test_stop_deactivates_the_node_which_says_why_and_can_be_activated_again(start, lost):
    robot = start(STOP)
    with robot.filming(OTHER[lost]):
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)
        robot.wait_for_state("inactive")
        status = robot.wait_for_status(lambda status: status.level == FusionStatus.ERROR, "an error")
        assert f"/{lost}/image_raw went silent (on_modality_loss: stop); activate" in status.message
        assert robot.change_state("activate")
        with robot.filming(lost):
            wait_for_picture(robot, BOTH)


def test_the_policy_may_change_while_a_camera_is_lost(start):
    robot = start(HOLD)
    with robot.filming("visible"):
        with robot.filming("thermal"):
            wait_for_picture(robot, BOTH)
        showing(robot, "nothing")
        assert robot.set_parameter("on_modality_loss", EITHER).successful
        wait_for_picture(robot, ALONE["visible"])


@pytest.mark.parametrize(
    ("silence", "lost"),
    [((0.1, 0.1), None), ((0.6, 0.1), "visible"), ((0.1, 0.6), "thermal"), ((0.6, 0.6), None), ((0.5, 0.1), None)],
)
def test_a_camera_is_lost_while_it_alone_is_silent_for_longer_than_the_timeout(silence, lost):
    assert find_lost(dict(zip(("visible", "thermal"), silence, strict=True)), 0.5) == lost


def test_who_goes_alone_by_policy_and_loss():
    table = {policy: [find_alone(policy, lost) for lost in ("visible", "thermal", None)] for policy in POLICIES}
    assert table == {
        "hold": [None, None, None],
        "visible_only": [None, "visible", None],
        "thermal_only": ["thermal", None, None],
        "either": ["thermal", "visible", None],
        "stop": [None, None, None],
    }
