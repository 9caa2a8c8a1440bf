"""The node by a simulation's clock, and two nodes beside each other."""

import time

import numpy as np
import pytest
from images import expected_bright, random_thermal, random_visible
from rclpy.time import Time
from robot import drops, laws_hold, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

VISIBLE, THERMAL = random_visible(), random_thermal()


@pytest.fixture
def simulated(start_robot):
    """A node that goes by /clock, and a function that sets it to so many seconds."""
    robot = start_robot(use_sim_time=True, max_wait=0.3, autostart=False)
    publisher = robot.friend.create_publisher(Clock, "/clock", 10)
    wait_until(publisher.get_subscription_count, "a listener on /clock")

    def tell(seconds: float) -> None:
        publisher.publish(Clock(clock=Time(nanoseconds=round(seconds * 1e9)).to_msg()))
        wait_until(lambda: robot.now() == pytest.approx(seconds, abs=1e-6), f"the node's clock to show {seconds}")

    tell(100.0)
    assert robot.change_state("configure") and robot.change_state("activate")
    robot.connect_cameras()
    return robot, tell


def listen(robot) -> None:
    """As `robot.listen`, but without waiting for a status, which comes by the clock that the test sets."""
    robot.friend.create_subscription(Image, "fusion_node/bright/image", robot.images["bright"].append, 10)
    publisher = robot.publisher_of("bright/image")
    wait_until(publisher.get_subscription_count, "a listener")


def test_pairs_are_fused_and_latency_counted_by_the_simulation(simulated):
    robot, tell = simulated
    listen(robot)
    tell(100.25)
    robot.show_pair(VISIBLE, THERMAL, 100.0)
    wait_until(lambda: robot.images["bright"], "a fused image")
    assert robot.node.make_status().latency.p50_ms == pytest.approx(250, abs=1)


def test_nothing_grows_old_while_the_simulation_stands_still(simulated):
    robot, tell = simulated
    robot.deliver("visible", VISIBLE, 100.0)
    time.sleep(1.0)  # longer than max_wait
    assert robot.node.cameras.counts("visible").waiting == 1
    tell(100.5)
    wait_until(lambda: robot.node.cameras.counts("visible").dropped, "the frame to be let go")
    assert robot.node.cameras.counts("visible").dropped == {"timed_out": 1}


def test_the_status_is_told_while_the_simulation_stands_still(simulated):
    robot, _ = simulated
    robot.deliver("visible", VISIBLE, 100.0)
    assert robot.wait_for_status(lambda status: status.visible.received == 1, "the frame").visible.waiting == 1


def test_a_simulation_that_begins_again_is_followed(simulated):
    robot, tell = simulated
    listen(robot)
    for start in (200.0, 5.0):
        tell(start)
        robot.show_pair(VISIBLE, THERMAL, start)
        np.testing.assert_array_equal(robot.wait_for_image("bright", start), expected_bright(VISIBLE, THERMAL))
    assert laws_hold(robot.node.make_status())


def test_two_nodes_with_cameras_of_their_own_keep_apart(start_robot):
    robots = [start_robot(), start_robot()]
    others = [random_visible(seed=7), random_thermal(seed=8)]
    for robot in robots:
        robot.listen("bright")
        robot.connect_cameras()
    robots[0].show_pair(VISIBLE, THERMAL, 1.0)
    robots[1].show_pair(*others, 1.0)
    np.testing.assert_array_equal(robots[0].wait_for_image("bright", 1.0), expected_bright(VISIBLE, THERMAL))
    np.testing.assert_array_equal(robots[1].wait_for_image("bright", 1.0), expected_bright(*others))
    for robot in robots:
        status = robot.wait_for_status(lambda status: status.processed == 1, "one pair")
        assert (status.visible.received, status.formed, drops(status.dropped)) == (1, 1, {})
