"""A fusion node that spins as its program lets it, and a friend beside it: cameras, listeners and service clients."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from images import random_thermal, random_visible
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from vifa.msg import FusionStatus
from vifa_ros.conversions import make_image
from vifa_ros.executor import LifecycleExecutor
from vifa_ros.fusion_node import FusionNode

PATIENCE = 60.0  # seconds: generous, as the machine may be busy; only a failing test waits so long
CAMERA_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LATE_QOS = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
KINDS = {
    "image": Image,
    "compressed": CompressedImage,
    "camera_info": CameraInfo,
    "detections": Detection2DArray,
    "mask": Image,
    "overlay": Image,
    "label_info": LabelInfo,
}
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "shutdown_unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "shutdown_inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "shutdown_active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}
_numbers = itertools.count()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until `condition()` is true and return it; fail with `what` was waited for after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.005)
    return value


class Spinner:
    """An executor that spins in a thread of its own; remembers what ended it."""

    def __init__(self, executor: Any, node: Node) -> None:
        self.executor, self.node = executor, node
        self.crash: BaseException | None = None
        executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except BaseException as error:
            self.crash = error

    def stop(self) -> None:
        """Stop spinning and destroy the node."""
        self.executor.shutdown(timeout_sec=5.0)
        self._thread.join(5.0)
        self.node.destroy_node()


class Robot:
    """A fusion node under test in a namespace of its own."""

    def __init__(self, parameters: dict[str, Any], namespace: str | None = None) -> None:
        namespace = namespace or f"/robot{next(_numbers)}"
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.friend = Node("friend", namespace=namespace)
        self.statuses: list[FusionStatus] = []
        self.images: dict[str, list[Image]] = defaultdict(list)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.infos: list[CameraInfo] = []
        self.cameras = {s: self.friend.create_publisher(Image, f"{s}/image_raw", CAMERA_QOS) for s in STREAMS}
        self.info_camera = self.friend.create_publisher(CameraInfo, "visible/camera_info", CAMERA_QOS)
        self.friend.create_subscription(FusionStatus, "fusion_node/status", self.statuses.append, 100)
        self._clients: dict[str, Any] = {}
        self._friend_spinner = Spinner(SingleThreadedExecutor(), self.friend)
        self.node = FusionNode(namespace=namespace, parameter_overrides=overrides)
        self._node_spinner = Spinner(LifecycleExecutor(), self.node)

    def stop(self) -> None:
        """End both nodes, as the program does on Ctrl-C."""
        self.node.close()
        self._node_spinner.stop()
        self._friend_spinner.stop()

    def check_alive(self) -> None:
        """Fail if an exception ended the spinning of the node or of its friend."""
        for spinner in (self._node_spinner, self._friend_spinner):
            if spinner.crash is not None:
                raise AssertionError("an exception ended spin()") from spinner.crash

    # Services.

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node and wait for the answer."""
        return self.wait_for_answer(self.call_async(kind, name, request), name)

    def call_async(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node; returns the future."""
        if name not in self._clients:
            self._clients[name] = self.friend.create_client(kind, f"fusion_node/{name}")
        client = self._clients[name]
        wait_until(client.service_is_ready, f"the service {name}")
        return client.call_async(request)

    def wait_for_answer(self, future: Any, name: str) -> Any:
        """Wait for a future of `call_async`."""
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def change_state(self, transition: str) -> bool:
        """Ask for a transition; returns whether it was made."""
        return self.wait_for_answer(self.change_state_async(transition), transition).success

    def change_state_async(self, transition: str) -> Any:
        """Ask for a transition; returns the future."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        return self.call_async(ChangeState, "change_state", request)

    def state(self) -> str:
        """The node's lifecycle state."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def wait_for_state(self, label: str) -> None:
        """Wait until the node is in a lifecycle state."""
        wait_until(lambda: self.state() == label, f"the state {label}")

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        """Set one parameter by the service."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def get_parameter(self, name: str) -> Any:
        """The message that holds one parameter's value."""
        return self.call(GetParameters, "get_parameters", GetParameters.Request(names=[name])).values[0]

    # Topics.

    def listen(self, *tasks: str) -> None:
        """Subscribe to the images of tasks, and wait until the node knows."""
        for task in tasks:
            topic = f"fusion_node/{task}/image"
            self.friend.create_subscription(Image, topic, self.images[task].append, 100)
            wait_for_publisher(self.friend, topic)
        self.wait_for_status(
            lambda status: set(tasks) <= {task.name for task in status.tasks if task.wanted}, f"{tasks} to be wanted"
        )

    def listen_to_info(self, task: str) -> None:
        """Subscribe to the camera_info of a task."""
        topic = f"fusion_node/{task}/camera_info"
        self.friend.create_subscription(CameraInfo, topic, self.infos.append, 100)
        wait_for_publisher(self.friend, topic)

    def listen_to(self, *outputs: str) -> None:
        """Subscribe to outputs such as `cells/overlay`, and wait until the node, which has them, knows."""
        for output in outputs:
            self.subscribe(output)
            wait_until(self.publisher_of(output).get_subscription_count, f"the node to know the listener of {output}")

    def subscribe(self, output: str) -> Any:
        """Subscribe to an output, which the node may have or not; what comes is appended to `heard[output]`."""
        kind = output.rpartition("/")[2]
        qos = LATE_QOS if kind == "label_info" else 100
        return self.friend.create_subscription(KINDS[kind], f"fusion_node/{output}", self.heard[output].append, qos)

    def publisher_of(self, output: str) -> Any:
        """The node's publisher of an output; None where it has none."""
        name = self.friend.resolve_topic_name(f"fusion_node/{output}")
        return next((publisher for publisher in self.node.publishers if publisher.topic_name == name), None)

    def wait_for(self, output: str, stamp: float) -> Any:
        """The message of an output for a stamp."""
        wanted = make_header(stamp, "visible_camera")
        return wait_until(
            lambda: next((message for message in self.heard[output] if message.header == wanted), None),
            f"{output} of stamp {stamp}; status: {self.statuses[-1:]}",
        )

    def connect_cameras(self) -> None:
        """Wait until the node is active and hears both cameras."""
        self.wait_for_state("active")
        for topic in ("visible/image_raw", "thermal/image_raw", "visible/camera_info"):
            wait_for_publisher(self.node, topic)
        for camera in (*self.cameras.values(), self.info_camera):
            wait_until(camera.get_subscription_count, f"a listener on {camera.topic_name}")

    def show(self, stream: str, image: Image | np.ndarray, stamp: float, encoding: str | None = None) -> Image:
        """Publish a camera's image with a stamp in seconds; arrays are rgb8 or mono8 unless said otherwise."""
        if isinstance(image, np.ndarray):
            image = make_image(image, encoding or ("rgb8" if image.ndim == 3 else "mono8"), Header())
        image.header = make_header(stamp, f"{stream}_camera")
        self.cameras[stream].publish(image)
        return image

    def show_pair(self, visible: Image | np.ndarray, thermal: Image | np.ndarray, stamp: float) -> None:
        """Publish both cameras' images with one stamp."""
        self.show("visible", visible, stamp)
        self.show("thermal", thermal, stamp)

    @contextmanager
    def filming(
        self,
        stream: str,
        period: float = 0.05,
        image: np.ndarray | Callable[[], np.ndarray] | None = None,
        encoding: str | None = None,
    ) -> Iterator[None]:
        """Publish an image of a camera, or what a function gives, again and again while the block runs.

        Frames are stamped by the node's clock.
        """
        if image is None:
            image = random_visible() if stream == "visible" else random_thermal()
        find = image if callable(image) else lambda: image
        is_over = threading.Event()

        def film() -> None:
            while not is_over.wait(period):
                self.show(stream, find(), self.now(), encoding)

        thread = threading.Thread(target=film)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def now(self) -> float:
        """The node's clock, seconds."""
        return self.node.get_clock().now().nanoseconds * 1e-9

    def deliver(self, stream: str, image: Image | np.ndarray, stamp: float) -> None:
        """Publish a camera's image and wait until the node has it, so that a burst does not overrun its queue."""
        received = self.node.cameras.counts(stream).received
        self.show(stream, image, stamp)
        wait_until(lambda: self.node.cameras.counts(stream).received > received, f"the {stream} frame to arrive")

    def wait_for_image(self, task: str, stamp: float) -> np.ndarray:
        """The pixels that a task published for a stamp."""
        wanted = make_header(stamp, "visible_camera")
        message = wait_until(
            lambda: next((image for image in self.images[task] if image.header == wanted), None),
            f"{task} of stamp {stamp}; status: {self.statuses[-1]}",
        )
        return pixels_of(message)

    def wait_for_status(self, condition: Callable[[FusionStatus], Any], what: str) -> FusionStatus:
        """Wait for a status made after this call that fulfils a condition."""
        first = len(self.statuses)

        def find() -> FusionStatus | None:
            return next((status for status in self.statuses[first:] if condition(status)), None)

        try:
            return wait_until(find, what)
        except AssertionError as error:
            self.check_alive()
            raise AssertionError(f"{error}; last status: {self.statuses[-1:]}") from None


@contextmanager
def robots(bundle: Path) -> Iterator[Callable]:
    """Give a function that starts a `Robot` with the given parameters; each must be alive at the end of the block."""
    started = []

    def start(namespace: str | None = None, **parameters) -> Robot:
        usual = {"bundle": str(bundle), "status_rate": 20.0, "threads": 1}
        still = {"thermal.frozen_after": 0.0}  # the tests' cameras show one image again and again
        started.append(Robot({**usual, **still, **parameters}, namespace))
        return started[-1]

    try:
        yield start
    finally:
        for robot in started:
            robot.stop()
    for robot in started:
        robot.check_alive()


STREAMS = ("visible", "thermal")


def make_header(stamp: float, frame: str) -> Header:
    """A header with a stamp in seconds, exact to the microsecond."""
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = (int(part) for part in divmod(round(stamp * 1e6) * 1000, 10**9))
    return header


def pixels_of(message: Image) -> np.ndarray:
    """The pixels (H,W,3) of an rgb8 message without padding."""
    assert message.encoding == "rgb8" and message.step == 3 * message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def boxes_of(message: Detection2DArray) -> list[tuple[str, float, float, float, float, float]]:
    """Class, score, centre x and y, width and height of every detection of a message."""
    found = []
    for detection in message.detections:
        (result,) = detection.results
        centre, box = detection.bbox.center.position, detection.bbox
        found.append((result.hypothesis.class_id, result.hypothesis.score, centre.x, centre.y, box.size_x, box.size_y))
    return found


def mask_of(message: Image) -> np.ndarray:
    """The class ids (H,W) of a mono8 message without padding."""
    assert message.encoding == "mono8" and message.step == message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def drops(entries: Any) -> dict[str, int]:
    """A status's list of DropCount as a dictionary."""
    return {entry.reason: entry.count for entry in entries}


def laws_hold(status: FusionStatus) -> bool:
    """Whether a status obeys the law of frames for both streams, and the law of pairs."""
    frames = all(
        stream.received == stream.paired + sum(drops(stream.dropped).values()) + stream.waiting
        for stream in (status.visible, status.thermal)
    )
    return frames and status.formed == status.processed + sum(drops(status.dropped).values()) + status.in_flight


def wait_for_publisher(node: Node, topic: str) -> None:
    """Wait until a subscription of `node` has found its publisher."""
    name = node.resolve_topic_name(topic)
    subscription = next(s for s in node.subscriptions if s.topic_name == name)
    wait_until(subscription.get_publisher_count, f"a publisher of {name}")
