"""The demo's recorder: a process that listens to a fusion node and writes down what it heard.

    python -m vifa_ros.recorder --node /vifa --output FOLDER

Prints `ready` once it hears every task, or the reason why the node has none to hear. On SIGINT it writes
`recorder.json` (per output, such as `saliency/image`, the stamps of all messages and their times of arrival, and the
node's last status) and, of some moments, a picture of every task as `<task>_<stamp>.png`: its overlay, or its fused
image where it finds nothing.
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

from vifa.msg import FusionStatus, TaskStatus
from vifa_ros.conversions import view_image
from vifa_ros.executor import until_interrupted
from vifa_ros.outputs import COMPRESSED, IMAGE, OUTPUTS, OVERLAY
from vifa_runtime.files import write_json
from vifa_runtime.pairs import write_image

KEEP_EVERY = 1_500_000_000  # nanoseconds between moments of which pictures are kept


class Recorder(Node):
    """Subscribes to the status of one node and, once that names its tasks, to every output of each, as it is."""

    def __init__(self, node: str) -> None:
        super().__init__("recorder")
        self._node = node
        self._task_inputs: list[Any] = []
        self._has_spoken = False
        self._moments: list[int] = []
        self.results: dict[str, list[tuple[int, int]]] = {}
        self.kept: dict[tuple[str, int], NDArray] = {}
        self.status: FusionStatus | None = None
        self.create_subscription(FusionStatus, f"{node}/status", self._receive_status, 10)

    def _receive_status(self, status: FusionStatus) -> None:
        self.status = status
        for task in status.tasks:
            if f"{task.name}/{IMAGE}" not in self.results:
                self._listen(task)
        is_ready = bool(status.tasks) and all(task.wanted for task in status.tasks)
        has_failed = not status.tasks and status.level == FusionStatus.ERROR
        if not self._has_spoken and (is_ready or has_failed):
            self._has_spoken = True
            print("ready" if is_ready else status.message, flush=True)

    def _listen(self, task: TaskStatus) -> None:
        outputs = {name: kind for name, kind in OUTPUTS[task.kind].items() if not name.endswith(COMPRESSED)}
        picture = OVERLAY if OVERLAY in outputs else IMAGE
        for output, kind in outputs.items():
            name = f"{task.name}/{output}"
            self.results[name] = []
            receive = partial(self._receive, name, task.name if output == picture else None)
            topic = f"{self._node}/{name}"
            self._task_inputs.append(self.create_subscription(kind, topic, receive, QoSProfile(depth=50)))

    def _receive(self, name: str, picture_of: str | None, message: Any) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        self.results[name].append((stamp, self.get_clock().now().nanoseconds))
        if picture_of is None:
            return
        if not self._moments or stamp >= self._moments[-1] + KEEP_EVERY:
            self._moments.append(stamp)
        if stamp in self._moments:
            self.kept[picture_of, stamp] = view_image(message, "visible").to_rgb()

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
