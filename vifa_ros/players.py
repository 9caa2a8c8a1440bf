"""Players: a folder of pairs, or the synthetic street, as two camera topics."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vifa_ros.conversions import make_image
from vifa_ros.pairing import THERMAL, VISIBLE
from vifa_ros.play_plan import (
    THERMAL_ENCODINGS,
    FolderSource,
    PlaySettings,
    Shot,
    Source,
    open_source,
    plan,
    play_thermal,
)

__all__ = ["SETTLE", "FolderSource", "PlaySettings", "PlayerNode", "Shot", "Source", "open_source", "plan"]

SETTLE = 0.5  # seconds


class PlayerNode(Node):
    """Publishes a source on `visible/image_raw` and `thermal/image_raw`, best effort, as cameras do."""

    def __init__(self, source: Source, settings: PlaySettings) -> None:
        super().__init__("player")
        self._source, self._settings = source, settings
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images = {s: self.create_publisher(Image, f"{s}/image_raw", qos) for s in (VISIBLE, THERMAL)}
        self._info = self.create_publisher(CameraInfo, "visible/camera_info", qos)
        self.sent: dict[str, list[tuple[int, int]]] = {VISIBLE: [], THERMAL: []}

    def wait_for_listeners(self, timeout: float) -> bool:
        """Wait until somebody listens to both cameras; returns whether that came true.

        A listener is seen before it is ready to hear, so a moment more passes once one is there.
        """
        deadline = time.monotonic() + timeout
        while not all(publisher.get_subscription_count() for publisher in self._images.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        time.sleep(SETTLE)
        return True

    def play(self) -> None:
        """Publish every frame of the plan at its time; `sent` holds (stamp in nanoseconds, pair index) of all."""
        start = time.monotonic()
        epoch = self.get_clock().now().nanoseconds
        for shot in plan(self._settings):
            message = self._make_message(shot, epoch + round(shot.time * 1e9))
            time.sleep(max(0.0, start + shot.time - time.monotonic()))
            # Before it is published: Ctrl-C may come between the two, and what arrives somewhere must be in the list.
            self.sent[shot.stream].append((Time.from_msg(message.header.stamp).nanoseconds, shot.index))
            self._images[shot.stream].publish(message)
            if shot.stream == VISIBLE:
                self._info.publish(CameraInfo(header=message.header, width=message.width, height=message.height))

    def _make_message(self, shot: Shot, stamp: int) -> Image:
        visible, thermal = self._source[shot.index]
        header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=f"{shot.stream}_camera")
        if shot.stream == VISIBLE:
            return make_image(visible, "rgb8", header)
        thermal = play_thermal(thermal, self._settings.mono16)
        return make_image(thermal, THERMAL_ENCODINGS[thermal.dtype.name], header)
