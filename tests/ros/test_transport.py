"""Best-effort images between processes with the shipped DDS profile."""

import json
import os
from functools import partial
from pathlib import Path

from processes import run, running
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from robot import CAMERA_QOS, PATIENCE, STREAMS, Spinner, wait_until
from sensor_msgs.msg import Image

from vifa_ros.profiles import find_profile

FRAMES, RATE = 120, 30


def test_the_tests_use_the_shipped_profile():
    assert find_profile() == Path(__file__).parents[2] / "config" / "fastdds.xml"
    assert os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(find_profile())


def test_99_percent_of_vga_images_at_30_hertz_arrive(ros, tmp_path):
    """The listener's queue is deep, so that a busy machine delays images but loses none by itself."""
    node, heard = Node("ear"), {stream: set() for stream in STREAMS}
    for stream in STREAMS:
        node.create_subscription(Image, f"{stream}/image_raw", partial(remember, heard[stream]), CAMERA_QOS)
    spinner = Spinner(SingleThreadedExecutor(), node)
    path = tmp_path / "sent.json"
    with running("vifa_ros.cli", "play", "--rate", RATE, "--frames", FRAMES, "--sent", path) as player:
        assert player.wait(2 * PATIENCE) == 0
    sent = {stream: {stamp for stamp, _ in frames} for stream, frames in json.loads(path.read_text()).items()}
    assert {len(stamps) for stamps in sent.values()} == {FRAMES}
    wait_until(
        lambda: all(len(sent[stream] & heard[stream]) >= 0.99 * FRAMES for stream in STREAMS),
        f"99 % of {FRAMES} images each; heard { ({stream: len(stamps) for stream, stamps in heard.items()}) }",
    )
    spinner.stop()


def test_99_percent_of_vga_images_at_15_hertz_reach_a_node_that_fuses(tmp_path):
    """The demo's node works on every pair for both tasks, and another process listens to the results.

    At 30 hertz `benchmarks/transport.py` measures it: a machine that stands still for a sixth of a second loses some.
    """
    demo = run("vifa_ros.cli", "demo", "--rate", 15, "--seconds", 10, "-o", tmp_path)
    assert demo.returncode == 0, demo.stderr
    row = json.loads((tmp_path / "summary.json").read_text())["rows"][0]
    assert row["frames_sent"] == dict.fromkeys(STREAMS, 150)
    assert all(row["frames_in"][stream] >= 0.99 * 150 for stream in STREAMS), row["frames_in"]
    assert row["processed"] > 0 and all(row["published"].values())


def remember(stamps: set[int], image: Image) -> None:
    stamps.add(image.header.stamp.sec * 10**9 + image.header.stamp.nanosec)
