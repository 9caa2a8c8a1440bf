"""Listens to a running fusion node for `vifa evaluate --live`."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from vifa.msg import FusionStatus, StageTime
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.live import DETECTIONS, IMAGE, MASK, NodeCounts, ResultQueue
from vifa_ros.conversions import read_stamp, view_image
from vifa_ros.parameters import BY_NAME
from vifa_ros.profiles import dds_environment
from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.metrics import Detections
from vifa_runtime.pipeline import Results

KINDS = {IMAGE: Image, DETECTIONS: Detection2DArray, MASK: Image}
RESULT_QOS = QoSProfile(depth=50)
LAST_STATUS = 5.0  # seconds that the node has to say what became of its last pairs


class Listener:
    """Hears the results and the status of one node; a `LiveNode`.

    Attributes:
        name: of the node.
        bundle: name of the one that it runs, once `find` returned.
    """

    def __init__(self, node: Node, name: str, quiet: float) -> None:
        """Subscribe to the status; the node must be spun by another thread.

        Args:
            quiet: seconds without a frame or a result after which the bag has ended.
        """
        self.name, self.bundle = name, ""
        self._node, self._quiet = node, quiet
        self._status: FusionStatus | None = None
        self._statuses = 0
        self._first: FusionStatus | None = None  # what was counted before results were listened to
        self._queue: ResultQueue | None = None
        self._seen = 0
        self._moved: float | None = None  # when something came last, of the monotonic clock
        self._counts: NodeCounts | None = None
        node.create_subscription(FusionStatus, f"{name}/status", self._hear_status, 10)

    def find(self, wait: float) -> dict[str, Any]:
        """Wait for the node, and give its parameters, by name.

        Raises:
            BagError: there is no such node, it has loaded no bundle, or it gives no parameters.
        """
        self._wait_for(lambda: self._status is not None, wait, "says nothing; start it, and check its name")
        self._wait_for(lambda: self._status is not None and self._status.bundle, wait, "has no bundle; activate it")
        assert self._status is not None
        self.bundle = self._status.bundle
        client = self._node.create_client(GetParameters, f"{self.name}/get_parameters")
        self._wait_for(client.service_is_ready, wait, "gives no parameters")
        names = list(BY_NAME)
        answer = client.call_async(GetParameters.Request(names=names))
        self._wait_for(answer.done, wait, "gives no parameters")
        values = map(parameter_value_to_python, answer.result().values)
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    def listen(self, tasks: Sequence[Task], folder: Path, wait: float) -> None:
        """Subscribe to all outputs of some tasks that metrics need, and wait until the node knows.

        Args:
            folder: an empty one for results that wait.

        Raises:
            BagError: it does not come to that.
        """
        queue = self._queue = ResultQueue(tasks, folder)
        classes = {task.name: task.classes for task in tasks}
        for task, output in queue.outputs:
            hear = partial(self._hear, task, output, classes[task])
            self._node.create_subscription(KINDS[output], f"{self.name}/{task}/{output}", hear, RESULT_QOS)

        def is_wanted() -> bool:
            return self._status is not None and {*classes} <= {task.name for task in self._status.tasks if task.wanted}

        self._wait_for(is_wanted, wait, f"does not run {', '.join(classes)}; activate it, and check its `tasks`")
        self._first, self._seen = self._status, _moves(self._status)
        self._node.create_timer(0.1, partial(self._watch, time.monotonic() + wait, wait))

    def take(self, stamp: int) -> Results | None:
        """See `ResultQueue.take`."""
        assert self._queue is not None
        return self._queue.take(stamp)

    def counts(self) -> NodeCounts:
        """See `LiveNode.counts`."""
        if self._counts is None:
            assert self._queue is not None
            before, deadline = self._statuses, time.monotonic() + LAST_STATUS
            while (self._statuses == before or self._in_flight()) and time.monotonic() < deadline:
                time.sleep(0.02)
            self._counts = count(self._first, self._status, self._queue.heard)
        return self._counts

    def end(self) -> None:
        """Let nobody wait for results any more."""
        if self._queue is not None:
            self._queue.end()

    def _in_flight(self) -> bool:
        return self._status is not None and self._status.in_flight > 0

    def _wait_for(self, condition: Callable[[], Any], seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or not rclpy.ok():
                raise BagError(f"--live: {self.name} {problem} (waited {seconds:g} s)")
            time.sleep(0.02)

    def _hear_status(self, status: FusionStatus) -> None:
        if (moves := _moves(status)) != self._seen and self._first is not None:
            self._seen, self._moved = moves, time.monotonic()
        self._status = status
        self._statuses += 1

    def _hear(self, task: str, output: str, classes: Sequence[TaskClass], message: Any) -> None:
        assert self._queue is not None
        self._moved = time.monotonic()
        try:
            self._queue.add(task, output, read_stamp(message.header), _read(message, output, classes))
        except BagError as error:
            self._queue.end(error)

    def _watch(self, deadline: float, wait: float) -> None:
        """End when nothing comes any more."""
        assert self._queue is not None
        if self._moved is not None and time.monotonic() > self._moved + self._quiet:
            self._queue.end()
        elif self._moved is None and time.monotonic() > deadline:
            self._queue.end(BagError(f"--live: {self.name} got no image in {wait:g} s; play the bag, or raise --wait"))


@contextmanager
def listening(name: str, quiet: float) -> Iterator[Listener]:
    """A listener to a node while the block runs, in a context of ROS that is made unless there is one."""
    if is_mine := not rclpy.ok():
        os.environ.update(dds_environment())
        rclpy.init()
    node = Node("vifa_evaluate")
    listener, executor = Listener(node, "/" + name.strip("/"), quiet), SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass  # Ctrl-C
        finally:
            listener.end()

    thread = threading.Thread(target=spin, name="listener", daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join(5.0)
        node.destroy_node()
        if is_mine:
            rclpy.try_shutdown()


def read_detections(message: Any, classes: Sequence[TaskClass]) -> Detections:
    """The boxes of a Detection2DArray that a node published, as the pipeline gave them: of what `make_detections` does.

    Raises:
        BagError: a class that the bundle does not have.
    """
    numbers = {known.name: number for number, known in enumerate(classes)}
    boxes, scores, labels = [], [], []
    for detection in message.detections:
        box, (result,) = detection.bbox, detection.results
        x, y, width, height = box.center.position.x, box.center.position.y, box.size_x / 2, box.size_y / 2
        if result.hypothesis.class_id not in numbers:
            raise BagError(f"--live: the node finds {result.hypothesis.class_id!r}, as no --bundle does; give its own")
        boxes.append((x - width, y - height, x + width, y + height))
        scores.append(result.hypothesis.score)
        labels.append(numbers[result.hypothesis.class_id])
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def count(first: FusionStatus | None, last: FusionStatus | None, heard: int) -> NodeCounts:
    """What became of frames and pairs between two statuses; since its activation where the node was activated anew."""
    assert last is not None
    if first is not None and any(now < then for now, then in zip(_totals(last), _totals(first), strict=True)):
        first = None
    lost: Counter[tuple[str, str]] = Counter()
    rows = []
    for stream in ("visible", "thermal"):
        now, then = getattr(last, stream), getattr(first, stream, None)
        _add(lost, stream, now.dropped, then and then.dropped)
        rows.append(
            {
                "stream": stream,
                "topic": now.topic,
                "received": now.received - (then.received if then else 0),
                "paired": now.paired - (then.paired if then else 0),
                "rate_hz": now.rate_hz,
            }
        )
    _add(lost, "pair", last.dropped, first and first.dropped)
    processed = last.processed - (first.processed if first is not None else 0)
    stages = [_stage(time) for time in (*last.stages, last.latency) if time.count]
    return NodeCounts(rows, dict(lost), processed, heard, stages, last.backend)


def _add(lost: Counter[tuple[str, str]], what: str, now: Any, then: Any) -> None:
    lost.update({(what, entry.reason): entry.count for entry in now})
    lost.subtract({(what, entry.reason): entry.count for entry in then or ()})


def _stage(time: StageTime) -> Mapping[str, Any]:
    return {"stage": time.stage, "p50_ms": time.p50_ms, "p95_ms": time.p95_ms, "p99_ms": time.p99_ms}


def _totals(status: FusionStatus) -> tuple[int, ...]:
    return status.visible.received, status.thermal.received, status.formed, status.processed


def _moves(status: FusionStatus | None) -> int:
    """A number that grows with whatever comes to the node or leaves it."""
    return 0 if status is None else sum(_totals(status))


def _read(message: Any, output: str, classes: Sequence[TaskClass]) -> NDArray[np.uint8] | Detections:
    """What a message holds: boxes, an RGB image (H,W,3), or class ids (H,W)."""
    if output == DETECTIONS:
        return read_detections(message, classes)
    if output == IMAGE:
        return view_image(message, "visible").to_rgb()
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width]
