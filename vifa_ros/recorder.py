"""The demo's recorder: a process that listens to a fusion node and writes down what it heard.

    python -m vifa_ros.recorder --node /vifa --output FOLDER

Prints `ready` once it hears every task, or the reason why the node has none to hear. On SIGINT it writes
`recorder.json` (per task the stamps of all results and their times of arrival, and the node's last status) and every
kept fused image as `<task>_<stamp>.png`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import Image

from vifa.msg import FusionStatus
from vifa_ros.conversions import view_image
from vifa_ros.executor import until_interrupted
from vifa_runtime.files import write_json
from vifa_runtime.pairs import write_image

KEEP_EVERY = 1_500_000_000  # nanoseconds between kept images


class Recorder(Node):
    """Subscribes to the status of one node and, once that names its tasks, to the image of each."""

    def __init__(self, node: str) -> None:
        super().__init__("recorder")
        self._node = node
        self._task_inputs: list[Any] = []
        self._has_spoken = False
        self._keep_from = 0
        self.results: dict[str, list[tuple[int, int]]] = {}
        self.kept: dict[tuple[str, int], NDArray] = {}
        self.status: FusionStatus | None = None
        self.create_subscription(FusionStatus, f"{node}/status", self._receive_status, 10)

    def _receive_status(self, status: FusionStatus) -> None:
        self.status = status
        for task in status.tasks:
            if task.name not in self.results:
                self.results[task.name] = []
                topic = f"{self._node}/{task.name}/image"
                receive = partial(self._receive_image, task.name)
                self._task_inputs.append(self.create_subscription(Image, topic, receive, QoSProfile(depth=50)))
        is_ready = bool(status.tasks) and all(task.wanted for task in status.tasks)
        has_failed = not status.tasks and status.level == FusionStatus.ERROR
        if not self._has_spoken and (is_ready or has_failed):
            self._has_spoken = True
            print("ready" if is_ready else status.message, flush=True)

    def _receive_image(self, task: str, message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        self.results[task].append((stamp, self.get_clock().now().nanoseconds))
        if stamp >= self._keep_from + KEEP_EVERY and task == next(iter(self.results)):
            self._keep_from = stamp
        if stamp == self._keep_from:
            self.kept[task, stamp] = view_image(message, "visible").to_rgb()

    def write(self, folder: Path) -> None:
        """Write everything heard so far into `folder`."""
        for (task, stamp), image in self.kept.items():
            write_image(folder / f"{task}_{stamp}.png", image)
        status = None if self.status is None else to_dictionary(self.status)
        write_json(folder / "recorder.json", {"results": self.results, "status": status})


def to_dictionary(message: Any) -> Any:
    """A ROS message as plain dictionaries, lists and values."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: to_dictionary(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if isinstance(message, (list, tuple)):
        return [to_dictionary(item) for item in message]
    return message


def main() -> None:
    """Record until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    rclpy.init()
    recorder = Recorder(options.node)
    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    with until_interrupted():
        executor.spin()
    recorder.write(options.output)
    recorder.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
