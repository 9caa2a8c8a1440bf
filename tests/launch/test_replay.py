"""replay.launch.py: a bag goes through the node and the launch ends with it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "launch_pytest", reason="launch_pytest is not on PyPI: launch files are launched only where a ROS 2 provides it"
)
rosbags = pytest.importorskip("rosbags", reason="rosbags is not installed: no bag can be written")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402  (after the checks that there is what is tested)
from launched import launch_to_its_end  # noqa: E402  (likewise)
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402  (likewise)
from rclpy.serialization import serialize_message  # noqa: E402  (likewise)
from rclpy.time import Time  # noqa: E402  (likewise)
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402  (likewise)
from rosbags.typesys import Stores, get_typestore  # noqa: E402  (likewise)
from sensor_msgs.msg import Image  # noqa: E402  (likewise)
from std_msgs.msg import Header  # noqa: E402  (likewise)

from vifa.msg import FusionStatus  # noqa: E402  (likewise)
from vifa_ros.conversions import make_image  # noqa: E402  (likewise)

START = 1_600_000_000_000_000_000  # nanoseconds; long ago, so that no other clock shows it
PERIOD, PAIRS = 100_000_000, 30
RECORDED = "recorded"  # frame of what the recorded robot's own node said


@pytest.fixture(params=[StoragePlugin.MCAP, StoragePlugin.SQLITE3], ids=["mcap", "sqlite3"])
def bag(request, tmp_path: Path) -> Path:
    """A bag with two cameras, and with what a node /vifa and the robot's diagnostics said when it was recorded."""
    folder = tmp_path / "drive"
    store = get_typestore(Stores.ROS2_JAZZY)
    rng = np.random.default_rng(0)
    with Writer(folder, version=9, storage_plugin=request.param) as writer:

        def topic(name: str, kind: str):
            return writer.add_connection(name, kind, typestore=store)

        visible, thermal = topic("/front/rgb", "sensor_msgs/msg/Image"), topic("/nose/ir", "sensor_msgs/msg/Image")
        old, health = (
            topic("/vifa/saliency/image", "sensor_msgs/msg/Image"),
            topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray"),
        )
        for index in range(PAIRS):
            stamp = START + index * PERIOD
            header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id="camera")
            rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
            told = Header(stamp=header.stamp, frame_id=RECORDED)
            writer.write(visible, stamp, serialize_message(make_image(rgb, "rgb8", header)))
            writer.write(thermal, stamp, serialize_message(make_image(rgb[..., 0], "mono8", header)))
            writer.write(old, stamp, serialize_message(make_image(rgb, "rgb8", told)))
            writer.write(health, stamp, serialize_message(DiagnosticArray(header=told)))
    return folder


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment in which there is a `ros2 bag play`: that of this machine, or else a stand-in."""
    if shutil.which("ros2") is not None:
        return dict(os.environ)
    program = tmp_path / "bin" / "ros2"
    program.parent.mkdir()
    stand_in = Path(__file__).with_name("stand_in_ros2.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    program.chmod(0o755)
    return dict(os.environ, PATH=f"{program.parent}:{os.environ['PATH']}")


def nanoseconds(image: Image) -> int:
    return Time.from_msg(image.header.stamp).nanoseconds


def test_every_pair_of_the_bag_is_fused_on_the_bags_time(bag: Path, variables: dict[str, str], listener) -> None:
    every = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)  # also from who sends so
    fused = listener.collect(Image, "/vifa/saliency/image", every)
    health = listener.collect(DiagnosticArray, "/diagnostics", every)
    status = listener.collect(FusionStatus, "/vifa/status", 100)
    code, printed = launch_to_its_end(
        "replay.launch.py", variables, bag=str(bag), visible="/front/rgb", thermal="/nose/ir", rate="0.5"
    )
    assert code == 0, printed
    stamps = [nanoseconds(image) for image in fused]
    expected = [START + index * PERIOD for index in range(PAIRS)]
    assert set(stamps) <= set(expected)
    assert stamps == sorted(set(stamps)), "each pair once, in order"
    assert len(stamps) >= PAIRS / 2, "all but what a busy machine loses, before player and node have found each other"
    assert printed.index("configured: ") < printed.index("[bag-"), "the bag begins when the node is ready"
    assert {image.header.frame_id for image in fused} == {"camera"}, "what was recorded of the node is not played"
    assert RECORDED not in {array.header.frame_id for array in health}
    times = {Time.from_msg(message.header.stamp).nanoseconds for message in status}
    assert times - {0}, "the node's clock is the bag's"
    assert all(START <= time <= expected[-1] for time in times - {0})


def test_a_bag_that_cannot_be_played_ends_the_launch(tmp_path: Path, variables: dict[str, str]) -> None:
    code, printed = launch_to_its_end("replay.launch.py", variables, bag=str(tmp_path / "bin"))
    assert "ros2 bag play ended with exit code " in printed
    assert code == 1


def test_a_wrong_bundle_ends_the_launch_before_the_bag_begins(bag: Path, variables: dict[str, str]) -> None:
    code, printed = launch_to_its_end("replay.launch.py", variables, bag=str(bag), bundle="nowhere")
    assert "no bundle at nowhere" in printed
    assert "[bag" not in printed
    assert code == 1
