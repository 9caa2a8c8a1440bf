"""Messages for new bags, made without ROS: objects of the types that rosbags knows and of vision_msgs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.types import add_vision_types
from vifa_runtime.camera_model import Camera
from vifa_runtime.labels import Labels
from vifa_runtime.pixel_maps import Extrinsics

IMAGE_CODINGS = ("raw", "png", "jpeg")


@cache
def types() -> Typestore:
    """The types of ROS 2 Jazzy and of vision_msgs."""
    store = get_typestore(Stores.ROS2_JAZZY)
    add_vision_types(store)
    return store


def make_stamp(nanoseconds: int) -> Any:
    """A builtin_interfaces/Time."""
    return _new("builtin_interfaces", "Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def make_header(nanoseconds: int, frame: str) -> Any:
    """A std_msgs/Header."""
    return _new("std_msgs", "Header", stamp=make_stamp(nanoseconds), frame_id=frame)


def make_image(pixels: NDArray[Any], encoding: str, header: Any) -> Any:
    """A sensor_msgs/Image with a copy of `pixels`, (H,W) or (H,W,C) of the dtype that `encoding` says."""
    pixels = np.ascontiguousarray(pixels)
    return _new(
        "sensor_msgs",
        "Image",
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=pixels.nbytes // pixels.shape[0],
        data=pixels.reshape(-1).view(np.uint8),
    )


def make_compressed(pixels: NDArray[Any], encoding: str, coding: str, quality: int, header: Any) -> Any:
    """A sensor_msgs/CompressedImage, whose `format` is as compressed_image_transport writes it.

    Args:
        pixels: rgb8 (H,W,3), mono8 or mono16 (H,W).
        encoding: which of these.
        coding: `png`; or `jpeg`, by which images of 16 bits become PNG too.
        quality: of JPEG, 1 to 100.

    Raises:
        BagError: pixels that neither holds.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise BagError(f"{encoding} images cannot be compressed as {coding}; record them raw")
    if pixels.dtype != np.uint8:
        coding = "png"
    stored = {"rgb8": "bgr8"}.get(encoding, encoding)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if coding == "jpeg" else []
    source = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(f".{coding}", source, options)
    if not done:
        raise BagError(f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be compressed as {coding}")
    text = f"{encoding}; {coding} compressed {stored}"
    return _new("sensor_msgs", "CompressedImage", header=header, format=text, data=data.reshape(-1))


def make_camera_info(size: tuple[int, int], camera: Camera | None, header: Any) -> Any:
    """A sensor_msgs/CameraInfo of raw images of `size` (height, width); without a camera it is uncalibrated."""
    k, d, r, p = np.zeros(9), np.zeros(0), np.zeros(9), np.zeros(12)
    if camera is not None:
        k, d, r = np.array(camera.matrix, np.float64), np.array(camera.coefficients, np.float64), np.eye(3).ravel()
        p = np.column_stack([k.reshape(3, 3), np.zeros(3)]).ravel()
    roi = _new("sensor_msgs", "RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    model = "" if camera is None else camera.model
    return _new(
        "sensor_msgs", "CameraInfo", header=header, height=size[0], width=size[1], distortion_model=model,
        d=d, k=k, r=r, p=p, binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def make_extrinsics(extrinsics: Extrinsics, parent: str, child: str, nanoseconds: int) -> Any:
    """A tf2_msgs/TFMessage by which a point p of `child` is `rotation @ p + translation` in `parent`."""
    from scipy.spatial.transform import Rotation  # takes longer to import than the rest

    turn = Rotation.from_matrix(np.reshape(extrinsics.rotation, (3, 3))).as_quat().tolist()
    shift = dict(zip("xyz", map(float, extrinsics.translation), strict=True))
    transform = _new(
        "geometry_msgs",
        "Transform",
        translation=_new("geometry_msgs", "Vector3", **shift),
        rotation=_new("geometry_msgs", "Quaternion", **dict(zip("xyzw", turn, strict=True))),
    )
    header = make_header(nanoseconds, parent)
    stamped = _new("geometry_msgs", "TransformStamped", header=header, child_frame_id=child, transform=transform)
    return _new("tf2_msgs", "TFMessage", transforms=[stamped])


def make_detections(found: Labels, scores: Sequence[float], names: Sequence[str], header: Any) -> Any:
    """A vision_msgs/Detection2DArray, as `vifa_ros.findings` makes it: the class_id is the name of the class.

    Args:
        found: boxes (N,4) in pixels and their classes.
        scores: of each box, 0..1.
        names: of the classes; where there are none, the class_id is the number.
    """
    rows = zip(found.boxes.tolist(), found.labels.tolist(), scores, strict=True)
    boxes = [_make_detection(box, names[label] if names else str(label), score, header) for box, label, score in rows]
    return _new("vision_msgs", "Detection2DArray", header=header, detections=boxes)


def make_label_info(names: Sequence[str], header: Any) -> Any:
    """A vision_msgs/LabelInfo: the names of the class ids 0, 1, ..."""
    classes = [_new("vision_msgs", "VisionClass", class_id=i, class_name=name) for i, name in enumerate(names)]
    return _new("vision_msgs", "LabelInfo", header=header, class_map=classes, threshold=0.0)


def _make_detection(box: Sequence[float], name: str, score: float, header: Any) -> Any:
    left, top, right, bottom = box
    nowhere = _new(
        "geometry_msgs",
        "Pose",
        position=_new("geometry_msgs", "Point", x=0.0, y=0.0, z=0.0),
        orientation=_new("geometry_msgs", "Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    result = _new(
        "vision_msgs",
        "ObjectHypothesisWithPose",
        hypothesis=_new("vision_msgs", "ObjectHypothesis", class_id=name, score=float(score)),
        pose=_new("geometry_msgs", "PoseWithCovariance", pose=nowhere, covariance=np.zeros(36)),
    )
    middle = _new("vision_msgs", "Point2D", x=(left + right) / 2, y=(top + bottom) / 2)
    centre = _new("vision_msgs", "Pose2D", position=middle, theta=0.0)
    bounds = _new("vision_msgs", "BoundingBox2D", center=centre, size_x=right - left, size_y=bottom - top)
    return _new("vision_msgs", "Detection2D", header=header, results=[result], bbox=bounds, id="")


def _new(package: str, name: str, **fields: Any) -> Any:
    return types().types[f"{package}/msg/{name}"](**fields)
