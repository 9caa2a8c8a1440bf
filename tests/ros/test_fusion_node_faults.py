"""Faults of a whole node: its state, what it tells, and that it recovers."""

import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from images import expected_bright, random_thermal, random_visible
from processes import running
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from robot import CAMERA_QOS, Spinner, drops, laws_hold, pixels_of, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vifa.msg import FusionStatus
from vifa_ros.conversions import make_image
from vifa_runtime.pipeline import FusionPipeline

VISIBLE, THERMAL = random_visible(), random_thermal()
BRIGHT = expected_bright(VISIBLE, THERMAL)


@pytest.fixture
def filmed(robot):
    """An active node that fuses what two cameras send all the time."""
    robot.listen("bright")
    robot.connect_cameras()
    with robot.filming("visible", 0.03, VISIBLE), robot.filming("thermal", 0.03, THERMAL):
        robot.wait_for_status(lambda status: status.processed > 2, "pairs")
        yield robot
    assert all(laws_hold(status) for status in robot.statuses)


def wait_for_more_pairs(robot) -> FusionStatus:
    processed = robot.statuses[-1].processed
    return robot.wait_for_status(
        lambda status: status.processed > processed + 2 and status.level == FusionStatus.OK, "more pairs"
    )


def test_an_engine_that_fails_for_a_while(filmed, monkeypatch):
    def fail(*arguments) -> None:
        raise RuntimeError("CUDA error 700: an illegal memory access was encountered")

    monkeypatch.setattr(filmed.node._pipeline.backend, "run", fail)
    status = filmed.wait_for_status(lambda status: drops(status.dropped).get("failed", 0) > 3, "failed pairs")
    assert (status.level, filmed.state()) == (FusionStatus.ERROR, "active")
    assert status.message.startswith("the engine failed on a pair: CUDA error 700")
    monkeypatch.undo()
    assert wait_for_more_pairs(filmed).message == ""


def test_a_bundle_that_is_removed_before_configure(start_robot, tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    robot = start_robot(bundle=str(folder), autostart=False)
    shutil.rmtree(folder)
    assert not robot.change_state("configure")
    status = robot.wait_for_status(lambda status: status.level == FusionStatus.ERROR, "an error")
    assert str(folder) in status.message
    assert robot.state() == "unconfigured"
    shutil.copytree(tiny_bundle, folder)
    assert robot.change_state("configure") and robot.change_state("activate")
    robot.wait_for_status(lambda status: status.level != FusionStatus.ERROR, "no error")


def test_configure_and_cleanup_fifty_times_leaks_nothing(start_robot):
    robot = start_robot(autostart=False)

    def cycle() -> tuple[int, int]:
        assert robot.change_state("configure") and robot.change_state("cleanup")
        return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())

    for _ in range(3):
        before = cycle()
    for _ in range(50):
        after = cycle()
    assert after == before
    assert robot.change_state("configure") and robot.change_state("activate")


def test_transitions_that_overlap(start_robot, monkeypatch):
    """Four managers at once: one transition is made, the others are refused, and the state is what it says."""
    robot = start_robot(autostart=False)
    build = type(robot.node)._build
    monkeypatch.setattr(type(robot.node), "_build", lambda self: time.sleep(0.5) or build(self))
    futures = [robot.change_state_async("configure") for _ in range(4)]
    answers = [robot.wait_for_answer(future, "configure").success for future in futures]
    assert sorted(answers) == [False, False, False, True]
    assert robot.state() == "inactive"


def test_parameters_that_change_while_a_pair_is_worked_on(filmed, monkeypatch):
    process = FusionPipeline.process
    monkeypatch.setattr(FusionPipeline, "process", lambda *a, **k: time.sleep(0.05) or process(*a, **k))
    changes = [("slop", 0.02), ("thermal.polarity", "black_hot"), ("tasks", ["dim"]), ("pairing", "reuse_thermal")]
    restored = [("slop", 0.04), ("thermal.polarity", "white_hot"), ("tasks", [""]), ("pairing", "nearest")]
    for _ in range(3):
        for name, value in changes + restored:
            assert filmed.set_parameter(name, value).successful, name
    monkeypatch.undo()
    wait_for_more_pairs(filmed)
    seen = len(filmed.images["bright"])
    wait_until(lambda: len(filmed.images["bright"]) > seen + 3, "images")
    np.testing.assert_array_equal(pixels_of(filmed.images["bright"][-1]), BRIGHT)


def test_polarity_applies_at_once_and_a_contradiction_is_refused_as_a_whole(filmed):
    assert filmed.set_parameter("thermal.polarity", "black_hot").successful
    wanted = expected_bright(VISIBLE, 255 - THERMAL)
    wait_until(lambda: np.array_equal(pixels_of(filmed.images["bright"][-1]), wanted), "the other polarity")
    answer = filmed.set_parameter("thermal.scale", 0.01)
    assert not answer.successful and "black_hot has no degrees" in answer.reason
    assert filmed.get_parameter("thermal.scale").double_value == 0.0
    wait_for_more_pairs(filmed)


class Eyes(Node):
    """Cameras that run all the time, and a listener, in a process that is not the node's."""

    def __init__(self) -> None:
        super().__init__("eyes")
        self.images: list[Image] = []
        self.states: list[FusionStatus] = []
        self._cameras = {s: self.create_publisher(Image, f"{s}/image_raw", CAMERA_QOS) for s in ("visible", "thermal")}
        self.create_subscription(Image, "fusion_node/bright/image", self.images.append, 10)
        self.create_subscription(FusionStatus, "fusion_node/status", self.states.append, 10)
        self.create_timer(0.05, self._film)

    def _film(self) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id="eyes")
        self._cameras["visible"].publish(make_image(VISIBLE, "rgb8", header))
        self._cameras["thermal"].publish(make_image(THERMAL, "mono8", header))


@pytest.fixture
def eyes(ros):
    eyes = Eyes()
    spinner = Spinner(SingleThreadedExecutor(), eyes)
    yield eyes
    spinner.stop()


def test_a_node_that_is_killed_and_started_again_while_cameras_run(eyes, tiny_bundle):
    arguments = ("--ros-args", "-p", f"bundle:={tiny_bundle}", "-p", "threads:=1", "-p", "status_rate:=10.0")
    for _ in range(2):
        with running("vifa_ros.fusion_node", *arguments) as process:
            seen = len(eyes.images)
            wait_until(lambda seen=seen: len(eyes.images) > seen + 5, "fused images")
            np.testing.assert_array_equal(pixels_of(eyes.images[-1]), BRIGHT)
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert eyes.states[-1].level != FusionStatus.ERROR


def test_two_nodes_with_one_name_say_so_until_one_is_gone(robot):
    second = Node("fusion_node", namespace=robot.friend.get_namespace())
    try:
        status = robot.wait_for_status(lambda status: status.level == FusionStatus.ERROR, "an error")
        name = f"{robot.friend.get_namespace()}/fusion_node"
        assert status.message == f"2 nodes are named {name}; services reach any of them: rename all but one"
    finally:
        second.destroy_node()
    robot.wait_for_status(lambda status: status.level != FusionStatus.ERROR, "no error")
