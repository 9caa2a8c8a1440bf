"""The programs as processes: `vifa play`, the fusion node and the recorder, and how they end."""

import json
import signal

import cv2
import pytest
from images import random_thermal, random_visible
from processes import interrupt, run, running
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from robot import CAMERA_QOS, Spinner, wait_until
from sensor_msgs.msg import Image

from vifa.msg import FusionStatus, TaskStatus

SIGNALS = pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])


@pytest.fixture
def witness(ros):
    """A node that spins, to listen to the processes with."""
    node = Node("witness")
    spinner = Spinner(SingleThreadedExecutor(), node)
    yield node
    spinner.stop()


@pytest.fixture
def folder(tmp_path):
    """Three pairs."""
    for part, image in (("vi", random_visible(48, 64)), ("ir", random_thermal(48, 64))):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        for name in "abc":
            cv2.imwrite(str(tmp_path / "pairs" / part / f"{name}.png"), image)
    return tmp_path / "pairs"


def test_play_ends_after_the_asked_frames_and_writes_what_it_sent(folder, tmp_path):
    ended = run("vifa_ros.cli", "play", folder, "--frames", 5, "--rate", 50, "--wait", 0, "--sent", tmp_path / "s.json")
    assert ended.returncode == 0, ended.stderr
    assert "sent 5 visible, 5 thermal frames" in ended.stdout
    assert "nobody listens to both cameras after 0 s" in ended.stderr
    sent = json.loads((tmp_path / "s.json").read_text())
    assert {stream: [index for _, index in frames] for stream, frames in sent.items()} == {
        "visible": [0, 1, 2, 3, 4],
        "thermal": [0, 1, 2, 3, 4],
    }


def test_play_without_a_loop_ends_with_the_folder(folder, tmp_path):
    ended = run("vifa_ros.cli", "play", folder, "--no-loop", "--rate", 50, "--wait", 0, "--sent", tmp_path / "s.json")
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads((tmp_path / "s.json").read_text())["visible"]) == 3


@SIGNALS
def test_an_interrupted_play_leaves_a_whole_list_of_what_it_sent(witness, folder, tmp_path, sign):
    heard: list[Image] = []
    witness.create_subscription(Image, "visible/image_raw", heard.append, CAMERA_QOS)
    with running("vifa_ros.cli", "play", folder, "--wait", 0, "--sent", tmp_path / "s.json") as player:
        wait_until(lambda: len(heard) >= 5, "five images")
        code, output = interrupt(player, sign)
    assert code == 0 and "Traceback" not in output, output
    sent = {stamp for stamp, _ in json.loads((tmp_path / "s.json").read_text())["visible"]}
    assert {image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in heard} <= sent


def test_play_names_files_without_a_partner(folder):
    (folder / "ir" / "b.png").unlink()
    ended = run("vifa_ros.cli", "play", folder)
    assert ended.returncode == 1
    assert ended.stderr.startswith("vifa: no partner of the same name for ") and "vi/b.png" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--rate", "0"), ("--drop", "1.5"), ("--jitter", "-1")])
def test_play_refuses_options_out_of_range_by_name(option, value):
    ended = run("vifa_ros.cli", "play", option, value)
    assert ended.returncode == 2
    assert option in ended.stderr


@SIGNALS
def test_the_fusion_node_ends_cleanly(witness, tiny_bundle, sign):
    statuses: list[FusionStatus] = []
    witness.create_subscription(FusionStatus, "/ending/status", statuses.append, 10)
    arguments = ["-r", "__node:=ending", "-p", f"bundle:={tiny_bundle}", "-p", "status_rate:=20.0"]
    with running("vifa_ros.fusion_node", "--ros-args", *arguments) as node:
        wait_until(lambda: any(status.tasks for status in statuses), "the node to be configured")
        code, output = interrupt(node, sign)
    assert code == 0 and "Traceback" not in output, output


def test_the_fusion_node_names_a_wrong_parameter_on_one_line():
    ended = run("vifa_ros.fusion_node", "--ros-args", "-p", "slop:=-1.0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("fusion_node: ") and "slop" in ended.stderr
    assert "Traceback" not in ended.stderr


@SIGNALS
def test_an_interrupted_recorder_writes_what_it_heard(witness, tmp_path, sign):
    publisher = witness.create_publisher(FusionStatus, "/recorded/status", 10)
    status = FusionStatus(bundle="tiny", tasks=[TaskStatus(name="bright", kind="fusion", wanted=True)])
    witness.create_timer(0.1, lambda: publisher.publish(status))
    with running("vifa_ros.recorder", "--node", "/recorded", "--output", tmp_path) as recorder:
        assert recorder.stdout.readline() == "ready\n"
        code, output = interrupt(recorder, sign)
    assert code == 0 and "Traceback" not in output, output
    heard = json.loads((tmp_path / "recorder.json").read_text())
    assert heard["results"] == {"bright/image": []}
    assert (heard["status"]["bundle"], heard["status"]["tasks"][0]["name"]) == ("tiny", "bright")


def test_the_recorder_says_why_a_node_has_no_tasks(witness, tmp_path):
    publisher = witness.create_publisher(FusionStatus, "/recorded/status", 10)
    status = FusionStatus(level=FusionStatus.ERROR, message="no bundle")
    witness.create_timer(0.1, lambda: publisher.publish(status))
    with running("vifa_ros.recorder", "--node", "/recorded", "--output", tmp_path) as recorder:
        assert recorder.stdout.readline() == "no bundle\n"


@SIGNALS
def test_an_interrupted_demo_takes_its_processes_with_it_and_writes_nothing(witness, tiny_bundle, tmp_path, sign):
    with running("vifa_ros.cli", "demo", "--seconds", 60, "-b", tiny_bundle, "-o", tmp_path / "out") as demo:
        wait_until(lambda: witness.count_publishers("/visible/image_raw"), "the player")
        code, output = interrupt(demo, sign)
    assert code == 128 + sign and "Traceback" not in output, output
    for topic in ("/visible/image_raw", "/vifa/status"):
        wait_until(lambda topic=topic: not witness.count_publishers(topic), f"the process that sends {topic} to end")
    assert not (tmp_path / "out").exists()
