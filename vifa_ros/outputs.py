"""What the fusion node publishes for one task."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from vifa_ros.conversions import RgbMessage

RELIABLE_QOS = QoSProfile(depth=10)


class TaskOutput:
    """The topics of one task."""

    def __init__(self, node: LifecycleNodeMixin, task: str) -> None:
        self._image = node.create_lifecycle_publisher(Image, f"~/{task}/image", RELIABLE_QOS)
        self._info = node.create_lifecycle_publisher(CameraInfo, f"~/{task}/camera_info", RELIABLE_QOS)
        self._message = RgbMessage()
        self.published = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody listens to the image."""
        return self._image.get_subscription_count() > 0

    def publish(self, rgb: Any, header: Any, camera_info: CameraInfo | None) -> None:
        """Publish one fused image and, where the visible camera sent its own, the camera_info that belongs to it."""
        self._image.publish(self._message.fill(rgb, header))
        if camera_info is not None:
            camera_info.header = header
            self._info.publish(camera_info)
        self.published += 1

    def destroy(self, node: LifecycleNodeMixin) -> None:
        """Take the topics back."""
        for publisher in (self._image, self._info):
            node.destroy_lifecycle_publisher(publisher)
