"""What the fusion node publishes for one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from vision_msgs.msg import Detection2DArray, LabelInfo

from vifa_ros.colouring import PlacedCloud, make_points
from vifa_ros.compressed import make_jpeg
from vifa_ros.conversions import ImageMessage
from vifa_ros.findings import make_detections, make_label_info
from vifa_runtime.bundle import Task
from vifa_runtime.pipeline import Results
from vifa_runtime.render import render_overlay

RELIABLE_QOS = QoSProfile(depth=10)
LABEL_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # who subscribes later hears it too

IMAGE, DETECTIONS, MASK, OVERLAY = "image", "detections", "mask", "overlay"
COMPRESSED = "/compressed"
POINTS = "points"
OUTPUTS = {  # kind of task -> output -> its messages; each is made only while somebody listens to it
    "fusion": {IMAGE: Image, IMAGE + COMPRESSED: CompressedImage},
    "detection": {
        IMAGE: Image,
        IMAGE + COMPRESSED: CompressedImage,
        DETECTIONS: Detection2DArray,
        OVERLAY: Image,
        OVERLAY + COMPRESSED: CompressedImage,
    },
    "segmentation": {
        IMAGE: Image,
        IMAGE + COMPRESSED: CompressedImage,
        MASK: Image,
        OVERLAY: Image,
        OVERLAY + COMPRESSED: CompressedImage,
    },
}
ENCODINGS = {IMAGE: "rgb8", MASK: "mono8", OVERLAY: "rgb8"}
_OF_THE_IMAGE = {IMAGE, IMAGE + COMPRESSED}


class TaskOutput:
    """The topics of one task, by its kind."""

    def __init__(self, node: LifecycleNodeMixin, task: Task, jpeg_quality: Callable[[], int], has_points: bool) -> None:
        """Advertise them.

        Args:
            jpeg_quality: gives that of the moment.
            has_points: whether clouds come in, to be coloured.
        """
        self._task = task
        self._jpeg_quality = jpeg_quality
        kinds = {**OUTPUTS[task.kind], **({POINTS: PointCloud2} if has_points else {})}
        self._publishers = {
            output: node.create_lifecycle_publisher(kind, f"~/{task.name}/{output}", RELIABLE_QOS)
            for output, kind in kinds.items()
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

    def needs_image_only(self, wanted: Sequence[str]) -> bool:
        """Whether these outputs show the fused image and nothing that is found in it."""
        return set(wanted) <= _OF_THE_IMAGE or self._task.kind == "fusion"

    def begin(self, stamp: Any) -> None:
        """Count from zero, and tell the names of the classes; the publishers must be active."""
        self.published = 0
        if self._label_info is not None:
            self._label_info.publish(make_label_info(self._task, stamp))

    def publish(
        self,
        wanted: Sequence[str],
        results: Results,
        header: Any,
        camera_info: CameraInfo | None,
        placed: PlacedCloud | None = None,
    ) -> None:
        """Publish the wanted outputs of one pair and, where the visible camera sent its own, their camera_info.

        Args:
            wanted: as the property gave them before the pair was processed: of another one there is no result.
            placed: the cloud to colour by them, if there is one.
        """
        pixels: dict[str, NDArray[Any]] = {}  # an overlay is drawn once, for both transports
        for output in wanted:
            if output != POINTS:
                self._publishers[output].publish(self._make_message(output, results, header, pixels))
            elif placed is not None:
                self._publishers[output].publish(make_points(placed, results, self._task))
        if camera_info is not None:
            camera_info.header = header
            self._info.publish(camera_info)
        self.published += 1

    def destroy(self, node: LifecycleNodeMixin) -> None:
        """Take the topics back."""
        for publisher in (*self._publishers.values(), self._info, self._label_info):
            if publisher is not None:
                node.destroy_lifecycle_publisher(publisher)

    def _make_message(
        self, output: str, results: Results, header: Any, pixels: dict[str, NDArray[Any]]
    ) -> Image | CompressedImage | Detection2DArray:
        if output == DETECTIONS:
            return make_detections(results.detections[self._task.name], self._task.classes, header)
        picture = output.removesuffix(COMPRESSED)
        if picture not in pixels:
            pixels[picture] = self._find_pixels(picture, results)
        if output.endswith(COMPRESSED):
            return make_jpeg(pixels[picture], self._jpeg_quality(), header)
        return self._images[picture].fill(pixels[picture], header)

    def _find_pixels(self, picture: str, results: Results) -> NDArray[Any]:
        if picture == OVERLAY:
            return render_overlay(results, self._task)
        return (results.masks if picture == MASK else results.fused)[self._task.name]
