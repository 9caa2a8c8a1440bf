"""Points in the colours of the fused image, with class and temperature: what ~/<task>/points sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, PointCloud2

from vifa_ros.camera_alignment import named_camera
from vifa_ros.conversions import ConversionError, read_stamp
from vifa_ros.point_clouds import make_cloud, read_points
from vifa_ros.transforms import TransformBuffer, TransformError
from vifa_runtime.bundle import Task
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.coloured_points import Projection, colour_points, project_points
from vifa_runtime.labels import UNKNOWN
from vifa_runtime.pipeline import Results
from vifa_runtime.pixel_maps import Extrinsics


@dataclass(frozen=True)
class PointSource:
    """What a cloud is coloured by.

    Attributes:
        frame: of the visible camera.
        stamp: of the pair, nanoseconds.
        info: the visible camera's; None where none came.
        size: (height, width) of the pair's results.
        temperatures: (H, W) in visible pixels; None where the thermal camera is lost.
        covered: (H, W), 0 where the thermal camera sees nothing; None where it sees all that the visible one does.
    """

    frame: str
    stamp: int
    info: CameraInfo | None
    size: tuple[int, int]
    temperatures: NDArray[Any] | None
    covered: NDArray[np.float32] | None


@dataclass(frozen=True)
class PlacedCloud:
    """A cloud, where its points lie in the images of a pair, and that pair."""

    cloud: PointCloud2
    projection: Projection
    source: PointSource


class PointColourer:
    """Keeps the newest cloud until a pair comes that is near enough in time. Each cloud is coloured once."""

    def __init__(self, node: Node, transforms: TransformBuffer, slop: Callable[[], float], fixed_frame: str) -> None:
        """Make one that holds no cloud.

        Args:
            slop: gives the largest distance between the stamps of a cloud and a pair, seconds.
            fixed_frame: one that does not move with the robot, by which the movement between both stamps is undone;
                empty to take both for one moment.
        """
        self.problem = ""
        self._node, self._transforms, self._slop, self._fixed_frame = node, transforms, slop, fixed_frame
        self._cloud: PointCloud2 | None = None
        self._camera: Camera | None = None

    def receive(self, cloud: PointCloud2) -> None:
        """Take a cloud; an older one that still waits is forgotten."""
        self._cloud = cloud

    def take(self, stamp: int, find_source: Callable[[], PointSource]) -> PlacedCloud | None:
        """The waiting cloud, placed in the pair's images; None where there is none, or it failed: see `problem`.

        Args:
            stamp: of the pair, nanoseconds.
            find_source: what to colour by; only asked where there is a cloud.
        """
        cloud = self._cloud
        if cloud is None:
            return None
        try:
            if abs(read_stamp(cloud.header) - stamp) > self._slop() * 1e9:
                return None
            self._cloud = None
            source = find_source()
            found = PlacedCloud(cloud, self._project(cloud, source), source)
        except (ConversionError, TransformError, AlignmentError) as error:
            self._cloud = None
            self.problem = f"points: {error}"
            self._node.get_logger().error(self.problem, throttle_duration_sec=5.0)
            return None
        self.problem = ""
        return found

    def _project(self, cloud: PointCloud2, source: PointSource) -> Projection:
        if source.info is None:
            raise AlignmentError("nothing came on visible/camera_info yet, by which points find their pixels")
        camera = named_camera("visible/camera_info", source.info).resized(source.size)
        if self._camera is None or camera != self._camera:  # a camera's first projection is the dear one
            self._camera = camera
        return project_points(read_points(cloud), self._to_camera(cloud, source), self._camera)

    def _to_camera(self, cloud: PointCloud2, source: PointSource) -> Extrinsics:
        frame, stamp = cloud.header.frame_id, read_stamp(cloud.header)
        if not self._fixed_frame:
            return self._transforms.lookup(source.frame, frame, stamp)
        to_fixed = self._transforms.lookup(self._fixed_frame, frame, stamp)
        from_fixed = self._transforms.lookup(source.frame, self._fixed_frame, source.stamp)
        return chain(from_fixed, to_fixed)


def chain(second: Extrinsics, first: Extrinsics) -> Extrinsics:
    """The transform that does `first`, then `second`."""
    turn, before = (np.reshape(part.rotation, (3, 3)) for part in (second, first))
    moved = turn @ np.array(first.translation) + second.translation
    return Extrinsics(tuple((turn @ before).ravel().tolist()), tuple(moved.tolist()))


def make_points(placed: PlacedCloud, results: Results, task: Task) -> PointCloud2:
    """A task's cloud: the points that the visible camera sees, in the colours of the task's fused image."""
    source, fused = placed.source, results.fused[task.name]
    classes = find_classes(results, task)
    coloured = colour_points(placed.projection, fused, classes, source.temperatures, source.covered)
    return make_cloud(coloured, placed.cloud.header)


def find_classes(results: Results, task: Task) -> NDArray[np.uint8] | None:
    """Class ids (H,W) of a task's results, 255 where unknown: its mask, or its boxes, the best score on top."""
    if task.name in results.masks:
        return results.masks[task.name]
    if task.name not in results.detections:
        return None
    height, width = results.fused[task.name].shape[:2]
    classes = np.full((height, width), UNKNOWN, np.uint8)
    boxes, _, labels = (np.asarray(column) for column in results.detections[task.name])
    for box, label in zip(reversed(boxes.tolist()), reversed(labels.tolist()), strict=True):  # in falling order
        left, top, right, bottom = (round(side) for side in box)
        classes[top:bottom, left:right] = label
    return classes
