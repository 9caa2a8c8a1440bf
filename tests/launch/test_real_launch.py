"""The launch files, launched for real: processes, topics and the end of the launch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

launch_pytest = pytest.importorskip(
    "launch_pytest", reason="launch_pytest is not on PyPI: launch files are launched only where a ROS 2 provides it"
)

import rclpy  # noqa: E402  (after the check that there is a launch at all)
from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from launch import LaunchDescription, LaunchService  # noqa: E402
from vifa.msg import FusionStatus  # noqa: E402

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
LIMIT = 60.0


@pytest.fixture
def listener() -> Iterator[Node]:
    """A node that spins in a thread of its own."""
    rclpy.init()
    node = Node("listener")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.try_shutdown()


def include(file: str, **arguments: str) -> LaunchDescription:
    source = PythonLaunchDescriptionSource(str(LAUNCH / file))
    return LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments.items())])


def run_beside(description: LaunchDescription, check: Callable[[], bool]) -> int:
    """Launch until `check` holds, then end the launch where it has not ended by itself; return its exit code."""
    service = LaunchService()
    service.include_launch_description(description)
    held = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline and not held.is_set():
            if check():
                held.set()
            time.sleep(0.05)
        service.shutdown()

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = service.run()
    watcher.join()
    assert held.is_set(), "what was waited for never came"
    return code


def collect(node: Node, kind: type, topic: str) -> list[Any]:
    heard: list[Any] = []
    node.create_subscription(kind, topic, heard.append, 10)
    return heard


def test_demo_publishes_both_tasks_and_ends_with_the_player(listener: Node) -> None:
    saliency = collect(listener, Image, "/vifa/saliency/image")
    texture = collect(listener, Image, "/vifa/texture/image")
    service = LaunchService()
    service.include_launch_description(include("demo.launch.py", rate="5.0", frames="30"))
    assert service.run() == 0
    assert saliency and texture
    assert {(image.width, image.height, image.encoding) for image in saliency} == {(640, 480, "rgb8")}


def test_node_takes_name_namespace_topics_and_parameter_file(listener: Node, tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    status_rate: 10.0\n    slop: 0.5\n")
    status = collect(listener, FusionStatus, "/robot/eyes/status")
    description = include(
        "vifa.launch.py", name="eyes", namespace="robot", visible="/front/rgb", thermal="/front/lwir",
        params_file=str(parameters), bundle="nano-fusion",
    )  # fmt: skip
    run_beside(description, lambda: bool(status) and status[-1].bundle == "nano-fusion")
    assert (status[-1].visible.topic, status[-1].thermal.topic) == ("/front/rgb", "/front/lwir")


def test_a_wrong_bundle_is_told_and_the_node_stays(listener: Node) -> None:
    status = collect(listener, FusionStatus, "/vifa/status")
    description = include("vifa.launch.py", bundle="no-such-bundle")
    run_beside(description, lambda: len(status) > 2 and "no-such-bundle" in status[-1].message)
    assert status[-1].level == FusionStatus.ERROR
