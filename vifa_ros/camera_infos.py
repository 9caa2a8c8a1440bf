"""From messages to the geometry of the runtime: a camera from its CameraInfo, extrinsics from a transform."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vifa_runtime.camera_model import AlignmentError, Camera, check_size, rotation_from_quaternion
from vifa_runtime.pixel_maps import Extrinsics

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo


def camera_from_info(message: CameraInfo) -> Camera:
    """The camera whose raw images come with a CameraInfo: its calibration, less what `roi` and `binning` take away.

    A region is in pixels of the full image, and is cut out first. A binned pixel is the mean of a rectangle of whole
    pixels, so its centre is that rectangle's; what is left over at the right and the bottom is lost. 0 is 1. An empty
    `distortion_model` with no coefficient but 0, as simulators send it, means no distortion. `r` and `p` belong to
    rectified images and are not looked at.

    Building a camera is cheap, its first projection is not: keep the one at hand while the new one equals it.

    Raises:
        AlignmentError: no calibration, or a region or binning that does not fit it. The message begins with the field,
            under the name that it has in calibration files; the caller puts the topic before it.
    """
    if not any(message.k):
        raise AlignmentError("k is all zeros, which means uncalibrated; calibrate the camera, or load its calibration")
    coefficients = tuple(message.d)
    model = message.distortion_model or ("" if any(coefficients) else "plumb_bob")
    camera = Camera((message.height, message.width), tuple(float(number) for number in message.k), model, coefficients)
    return _binned(_region(camera, message), message)


def extrinsics_from_transform(transform: Any) -> Extrinsics:
    """Extrinsics from a geometry_msgs/Transform: a point p of its child frame is `rotation @ p + translation` in its
    parent.

    Those that an alignment wants have the thermal camera's optical frame as parent (`frame_id`) and the visible one's
    as child (`child_frame_id`).

    Raises:
        AlignmentError: a rotation that is none, or numbers that are not finite.
    """
    rotation, translation = transform.rotation, transform.translation
    return Extrinsics(
        rotation_from_quaternion(rotation.x, rotation.y, rotation.z, rotation.w),
        (translation.x, translation.y, translation.z),
    )


def _region(camera: Camera, message: CameraInfo) -> Camera:
    roi = message.roi
    if not (roi.x_offset or roi.y_offset or roi.width or roi.height):
        return camera
    if not (roi.width and roi.height):
        raise AlignmentError(
            f"roi has {roi.width}x{roi.height} pixels from ({roi.x_offset}, {roi.y_offset}), which is no region; "
            "send all zeros for the full image"
        )
    return camera.cropped(roi.x_offset, roi.y_offset, (roi.height, roi.width))


def _binned(camera: Camera, message: CameraInfo) -> Camera:
    across, down = max(1, message.binning_x), max(1, message.binning_y)
    if (across, down) == (1, 1):
        return camera
    height, width = camera.size
    if across > width or down > height:
        raise AlignmentError(f"binning of {across}x{down} leaves nothing of {width}x{height} pixels; check the driver")
    fx, _, cx, _, fy, cy, *_ = camera.matrix
    matrix = (fx / across, 0.0, (cx + 0.5) / across - 0.5, 0.0, fy / down, (cy + 0.5) / down - 0.5, 0.0, 0.0, 1.0)
    return replace(camera, size=check_size((height // down, width // across)), matrix=matrix)
