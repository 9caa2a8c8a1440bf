"""What the fusion node publishes for one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from vifa_ros.conversions import ImageMessage
from vifa_ros.findings import make_detections, make_label_info
from vifa_runtime.bundle import Task
from vifa_runtime.pipeline import Results
from vifa_runtime.render import render_overlay

RELIABLE_QOS = QoSProfile(depth=10)
LABEL_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # who subscribes later hears it too

IMAGE, DETECTIONS, MASK, OVERLAY = "image", "detections", "mask", "overlay"
OUTPUTS = {  # kind of task -> output -> its messages; each is made only while somebody listens to it
    "fusion": {IMAGE: Image},
    "detection": {IMAGE: Image, DETECTIONS: Detection2DArray, OVERLAY: Image},
    "segmentation": {IMAGE: Image, MASK: Image, OVERLAY: Image},
}
ENCODINGS = {IMAGE: "rgb8", MASK: "mono8", OVERLAY: "rgb8"}


class TaskOutput:
    """The topics of one task, by its kind."""

    def __init__(self, node: LifecycleNodeMixin, task: Task) -> None:
        self._task = task
        self._publishers = {
            output: node.create_lifecycle_publisher(kind, f"~/{task.name}/{output}", RELIABLE_QOS)
            for output, kind in OUTPUTS[task.kind].items()
        }
        self._info = node.create_lifecycle_publisher(CameraInfo, f"~/{task.name}/camera_info", RELIABLE_QOS)
        self._label_info = None
        if task.classes:
            self._label_info = node.create_lifecycle_publisher(LabelInfo, f"~/{task.name}/label_info", LABEL_QOS)
        self._images = {output: ImageMessage(encoding) for output, encoding in ENCODINGS.items()}
        self.published = 0

    @property
    def wanted(self) -> list[str]:
        """Those of OUTPUTS that somebody listens to."""
        return [name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0]

    def begin(self, stamp: Any) -> None:
        """Count from zero, and tell the names of the classes; the publishers must be active."""
        self.published = 0
        if self._label_info is not None:
            self._label_info.publish(make_label_info(self._task, stamp))

    def publish(self, wanted: Sequence[str], results: Results, header: Any, camera_info: CameraInfo | None) -> None:
        """Publish the wanted outputs of one pair and, where the visible camera sent its own, their camera_info.

        Args:
            wanted: as the property gave them before the pair was processed: of another one there is no result.
        """
        for output in wanted:
            self._publishers[output].publish(self._make_message(output, results, header))
        if camera_info is not None:
            camera_info.header = header
            self._info.publish(camera_info)
        self.published += 1

    def destroy(self, node: LifecycleNodeMixin) -> None:
        """Take the topics back."""
        for publisher in (*self._publishers.values(), self._info, self._label_info):
            if publisher is not None:
                node.destroy_lifecycle_publisher(publisher)

    def _make_message(self, output: str, results: Results, header: Any) -> Image | Detection2DArray:
        if output == DETECTIONS:
            return make_detections(results.detections[self._task.name], self._task.classes, header)
        return self._images[output].fill(self._find_pixels(output, results), header)

    def _find_pixels(self, output: str, results: Results) -> NDArray[Any]:
        if output == OVERLAY:
            return render_overlay(results, self._task)
        return (results.masks if output == MASK else results.fused)[self._task.name]
