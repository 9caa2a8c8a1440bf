"""Both cameras' topics: what arrives, which frames make a pair, and whether a camera is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vifa.msg import StreamStatus
from vifa_ros.compressed import CompressedView, view_compressed
from vifa_ros.conversions import ConversionError, ImageView, read_stamp, view_image
from vifa_ros.health import SILENT_AFTER, StreamWatch, stream_status
from vifa_ros.losses import find_alone, find_lost
from vifa_ros.pairing import STREAMS, Pair, PairingBuffer, PairingSettings, StreamCounts
from vifa_ros.publishers import find_publisher_problem

BAD_IMAGE = "bad_image"
View = Callable[[Any, str], ImageView | CompressedView]
_TYPES: dict[str, tuple[type, View]] = {
    "raw": (Image, view_image),
    "compressed": (CompressedImage, view_compressed),
}
_WORTH_JUDGING = 10  # frames of both cameras without one pair that are no accident


@dataclass(frozen=True)
class Frame:
    """One camera's frame on its way: the message's header, and its pixels not yet converted."""

    header: Any
    view: ImageView | CompressedView


class Cameras:
    """Subscribes to both cameras while it is open, and hands over pairs. Counts start at zero with a new object."""

    def __init__(
        self, node: Node, transports: dict[str, str], settings: PairingSettings, policy: tuple[str, float]
    ) -> None:
        """Make closed cameras.

        Args:
            transports: stream -> `raw` or `compressed`.
            policy: what becomes of the results while a camera is lost, one of POLICIES, and after how many seconds.
        """
        self.pairing = PairingBuffer(settings)
        self.policy = policy
        self.infos: dict[str, CameraInfo] = {}
        self.watches: dict[str, StreamWatch] = {}
        self.lost: str | None = None
        self._node = node
        self._transports = transports
        self._subscriptions: list[Any] = []
        self._qos: dict[str, QoSProfile] = {}  # of the streams' subscriptions, while it is open
        self._opened = time.monotonic()
        self._on_pair: Callable[[Pair], None] = lambda pair: None
        self._on_loss: Callable[[str], None] = lambda stream: None
        for stream in STREAMS:
            suffix = "/compressed" if transports[stream] == "compressed" else ""
            topic = node.resolve_topic_name(f"{stream}/image_raw")
            self.watches[stream] = StreamWatch(f"{topic}{suffix}")

    @property
    def is_open(self) -> bool:
        """Whether it subscribes."""
        return bool(self._qos)

    def open(self, on_pair: Callable[[Pair], None], on_loss: Callable[[str], None]) -> None:
        """Subscribe.

        Args:
            on_pair: takes each pair, in the thread that receives.
            on_loss: told the stream when a camera that had delivered is lost.
        """
        self._on_pair, self._on_loss = on_pair, on_loss
        self._opened = time.monotonic()
        for stream in STREAMS:
            kind, view = _TYPES[self._transports[stream]]
            receive = partial(self.receive, stream, view)
            self._qos[stream] = self.subscribe(kind, self.watches[stream].topic, receive)
            self.subscribe(CameraInfo, f"{stream}/camera_info", partial(self.infos.__setitem__, stream))

    def close(self) -> None:
        """Unsubscribe; safe to call twice."""
        self._qos = {}
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def receive(self, stream: str, view: View, message: Any) -> None:
        """Take one frame: look at it without a copy, and hand over the pairs that it completes."""
        watch = self.watches[stream]
        watch.arrivals.append(time.monotonic())
        watch.last_stamp = message.header.stamp
        try:
            stamp = read_stamp(message.header)
            frame = Frame(message.header, view(message, stream))
        except ConversionError as error:
            watch.problem = str(error)
            self.pairing.refuse(stream, BAD_IMAGE)
            self._node.get_logger().error(f"{watch.topic}: {error}", throttle_duration_sec=5.0)
            return
        watch.problem = ""
        self._hand_over(self.pairing.add(stream, stamp, frame, self._now()))

    def silence(self, stream: str, now: float) -> float:
        """Seconds without a frame by a monotonic clock that shows `now`, at most since it was opened."""
        return self.watches[stream].silence(now, self._opened)

    def counts(self, stream: str) -> StreamCounts:
        """What became of a stream's frames so far."""
        return self.pairing.counts(stream)

    def status(self, stream: str, now: float) -> StreamStatus:
        """One stream's part of the status."""
        watch = self.watches[stream]
        return stream_status(watch, self.counts(stream), now, watch.problem or self.find_publisher_problem(stream))

    def find_problem(self, now: float, statuses: Sequence[StreamStatus]) -> tuple[bool, str]:
        """What is wrong with the cameras, by a monotonic clock that shows `now`, and whether it is an error.

        Args:
            statuses: of both streams, as `status` gives them.

        Returns:
            Whether it is worse than a warning, and a line that names the topic and the mend; empty where all is well.
        """
        for status in statuses:
            if status.problem:
                return True, f"{status.topic}: {status.problem}"
        if (lost := self.lost) is not None:
            return False, self._describe_loss(lost, now)
        for stream, watch in self.watches.items():
            if (silence := self.silence(stream, now)) > SILENT_AFTER:
                return False, f"no image on {watch.topic} for {silence:.0f} s; is the camera running?"
        if all(status.received > _WORTH_JUDGING and status.paired == 0 for status in statuses):
            return False, "both cameras deliver but no stamps match; check the clocks, offsets and slop"
        return False, ""

    def find_publisher_problem(self, stream: str) -> str:
        """Why a stream's publishers don't reach this node; empty where they do."""
        qos = self._qos.get(stream)
        if qos is None:
            return ""
        kind = f"sensor_msgs/msg/{_TYPES[self._transports[stream]][0].__name__}"
        return find_publisher_problem(self._node, self.watches[stream].topic, qos, kind)

    def look(self) -> None:
        """Let go what waited too long, and see whether a camera is lost; to be called again and again."""
        if not self.is_open:
            return
        self._hand_over(self.pairing.expire(self._now()))
        now = time.monotonic()
        policy, timeout = self.policy
        lost = find_lost({stream: self.silence(stream, now) for stream in STREAMS}, timeout)
        if lost != self.lost:
            self._tell_loss(lost, now)
        self.lost = lost
        alone = find_alone(policy, lost)
        if alone != self.pairing.alone:
            self._hand_over(self.pairing.set_alone(alone))

    def _tell_loss(self, lost: str | None, now: float) -> None:
        if lost is None:
            self._node.get_logger().info("both cameras deliver, or none does")
        else:
            self._node.get_logger().warning(self._describe_loss(lost, now))
            if self.watches[lost].arrivals:
                self._on_loss(lost)

    def _describe_loss(self, lost: str, now: float) -> str:
        alone = find_alone(self.policy[0], lost)
        results = "there are no results" if alone is None else f"results are made of the {alone} image alone"
        silence = self.silence(lost, now)
        return f"no image on {self.watches[lost].topic} for {silence:.1f} s, so {results}; is the camera running?"

    def _hand_over(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self._on_pair(pair)

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> QoSProfile:
        """Subscribe as to the cameras until it closes; `callback` runs in the receiving thread. Returns the QoS."""
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # overrides are written into it
        overriding = QoSOverridingOptions.with_default_policies()
        subscription = self._node.create_subscription(kind, topic, callback, qos, qos_overriding_options=overriding)
        self._subscriptions.append(subscription)
        return qos
