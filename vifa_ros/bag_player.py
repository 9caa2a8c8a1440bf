"""Plays a bag where `ros2 bag play` is missing: its messages as they were recorded, under their topics, and /clock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from vifa_ros.bags.errors import BagError
from vifa_ros.players import SETTLE

if TYPE_CHECKING:
    from vifa_ros.bags.opening import Bag

CLOCK = "/clock"
TOLD_ABOUT_ITSELF = (CLOCK, "/diagnostics", "/rosout", "/parameter_events")  # of the robot; not played
_CLOCK_PERIOD = 0.01  # seconds
_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_LATCHED_TYPES = ("vision_msgs/msg/LabelInfo",)
_LATCHED_TOPICS = ("/tf_static",)


class BagPlayer(Node):
    """Publishes what a bag holds, at the pace of its recording.

    Attributes:
        sent: topic -> messages so far.
        left_out: topic -> why it is not played.
    """

    def __init__(self, bag: Bag, rate: float = 1.0, without: Collection[str] = (), **options: Any) -> None:
        """Advertise all topics of an open bag.

        Args:
            rate: 2.0 plays twice as fast.
            without: topics that begin so are left out, such as what an older node published.
            options: of the node.
        """
        super().__init__("bag_player", **options)
        self._bag, self._rate = bag, rate
        self.sent: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self._clock_output = self.create_publisher(Clock, CLOCK, 10)
        self._outputs: dict[str, Any] = {}
        for name, topic in bag.topics.items():
            if name in TOLD_ABOUT_ITSELF or any(name.startswith(prefix) for prefix in without):
                self.left_out[name] = "told by the recorded robot about itself"
            elif (kind := _find_type(topic.type)) is None:
                self.left_out[name] = f"{topic.type} is not installed here"
            else:
                latched = topic.type in _LATCHED_TYPES or name in _LATCHED_TOPICS
                durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                self._outputs[name] = self.create_publisher(kind, name, QoSProfile(depth=50, durability=durability))
        if not self._outputs:
            raise BagError(f"{bag.path}: nothing to play: {self.left_out}")

    def wait_for_listeners(self, timeout: float) -> bool:
        """Wait until somebody listens to some images of the bag; returns whether that came true.

        A listener is seen before it is ready to hear, so a moment more passes once one is there.
        """
        images = [output for name, output in self._outputs.items() if self._bag.topics[name].type in _IMAGES]
        deadline = time.monotonic() + timeout
        while not (found := any(output.get_subscription_count() for output in images)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        time.sleep(SETTLE)
        return found

    def play(self, before: Callable[[str, int], object] = lambda topic, index: None) -> None:
        """Publish everything once.

        Args:
            before: called with the topic and its number there before each message.
        """
        start = time.monotonic()
        for topic, arrival, raw in self._bag.raw_messages(list(self._outputs)):
            self._sleep_until(start, arrival)
            before(topic, self.sent[topic])
            self._tell(arrival)
            self._outputs[topic].publish(raw)
            self.sent[topic] += 1

    def _sleep_until(self, start: float, arrival: int) -> None:
        """Let time pass on /clock."""
        due = start + (arrival - self._bag.start) * 1e-9 / self._rate
        while (rest := due - time.monotonic()) > 0:
            self._tell(arrival - round(rest * self._rate * 1e9))
            time.sleep(min(rest, _CLOCK_PERIOD))

    def _tell(self, now: int) -> None:
        self._clock_output.publish(Clock(clock=Time(nanoseconds=now).to_msg()))


def _find_type(name: str) -> Any:
    """The class of a message type; None where its package is not installed."""
    package, _, kind = name.split("/")
    with suppress(ImportError, AttributeError):
        return getattr(import_module(f"{package}.msg"), kind)
    return None
