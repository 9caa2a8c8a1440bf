"""Camera models: where a point in metres lies in a camera's raw pixels, and which way a raw pixel looks.

The models are those that ROS names in CameraInfo, with its coefficients and their order: `plumb_bob` (k1, k2, p1, p2,
k3), `rational_polynomial` (k1, k2, p1, p2, k3, k4, k5, k6) and `equidistant` or `fisheye` (k1, k2, k3, k4); see
https://docs.opencv.org/4.x/d9/d0c/group__calib3d.html and .../db/d58/group__calib3d__fisheye.html.

Points are in the camera's optical frame: metres, x right, y down, z forward. Pixels are continuous: x right, y down,
(0, 0) the outer corner of the first pixel. `camera_matrix` is OpenCV's, whose (0, 0) is that pixel's centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.distortion import Points, bend, distort, undo_bending, undo_distortion, widest_angle, widest_radius
from vifa_runtime.geometry import LARGEST_SIDE, GeometryError
from vifa_runtime.messages import shown

Size = tuple[int, int]  # (height, width) in pixels

FISHEYES = ("equidistant", "fisheye")
LARGEST_NUMBER = 1e9  # of any calibration; what is larger is a mistake, and overflows
_COEFFICIENTS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8), "equidistant": (0, 4), "fisheye": (0, 4)}
_SMALLEST_FOCAL = 1e-3  # pixels


class AlignmentError(GeometryError):
    """A calibration, an alignment or an alignment file that cannot be used; the message says why and the mend."""


@dataclass(frozen=True)
class Camera:
    """One calibrated camera, as its raw images are.

    Attributes:
        size: (height, width) of the images it was calibrated with.
        matrix: the camera matrix row by row, OpenCV's: (fx, 0, cx, 0, fy, cy, 0, 0, 1).
        model: `plumb_bob`, `rational_polynomial`, `equidistant` or `fisheye` (the same).
        coefficients: of the distortion, in OpenCV's order; none for none.

    Raises:
        AlignmentError: on construction, for what is no calibration; the message begins with the key of CameraInfo.
    """

    size: Size
    matrix: tuple[float, ...]
    model: str = "plumb_bob"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        object.__setattr__(self, "matrix", check_numbers("camera_matrix", self.matrix, 9))
        _check_matrix(self.matrix)
        if not isinstance(self.model, str) or self.model not in _COEFFICIENTS:
            known = ", ".join(_COEFFICIENTS)
            raise AlignmentError(f"distortion_model {shown(self.model)} is unknown; use one of {known}")
        counts = _COEFFICIENTS[self.model]
        coefficients = check_numbers("distortion_coefficients", self.coefficients)
        while len(coefficients) > counts[-1] and coefficients[-1] == 0:  # drivers pad with zeros
            coefficients = coefficients[:-1]
        if len(coefficients) not in counts:
            wanted = " or ".join(str(count) for count in counts)
            raise AlignmentError(
                f"distortion_coefficients: {self.model} has {wanted}, got {len(coefficients)}; "
                "give those of this model, or name the model that they belong to"
            )
        object.__setattr__(self, "coefficients", coefficients)

    def resized(self, size: Size) -> Camera:
        """The same camera where it delivers its whole image at another size (height, width) of the same aspect.

        Raises:
            AlignmentError: a size of another aspect, or none.
        """
        if size == self.size:
            return self
        down, right = scales(self.size, size)
        fx, fy, cx, cy = self._intrinsics()
        matrix = (right * fx, 0.0, right * (cx + 0.5) - 0.5, 0.0, down * fy, down * (cy + 0.5) - 0.5, 0.0, 0.0, 1.0)
        return replace(self, size=size, matrix=matrix)

    def cropped(self, left: int, top: int, size: Size) -> Camera:
        """The same camera where it delivers a part of its image only (CameraInfo's `roi`).

        Args:
            left, top: the first column and row that are delivered.
            size: (height, width) of the part.

        Raises:
            AlignmentError: the part does not lie in the image.
        """
        height, width = check_size(size)
        if left < 0 or top < 0 or left + width > self.size[1] or top + height > self.size[0]:
            raise AlignmentError(
                f"roi: {width}x{height} pixels from ({left}, {top}) do not lie in the image of "
                f"{self.size[1]}x{self.size[0]}; send the region of the full image"
            )
        fx, fy, cx, cy = self._intrinsics()
        return replace(self, size=size, matrix=(fx, 0.0, cx - left, 0.0, fy, cy - top, 0.0, 0.0, 1.0))

    def project(self, points: NDArray) -> Points:
        """Raw pixels (N, 2), float64, of points (N, 3) in metres in the optical frame.

        NaN for a point behind the camera or outside the range in which the distortion can be undone: up to where it
        leaves a hundredth of the magnification of the centre. Pixels may lie outside the image.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        with np.errstate(all="ignore"):
            distorted = self._fisheye(points) if self.model in FISHEYES else self._pinhole(points)
            fx, fy, cx, cy = self._intrinsics()
            return _finite(distorted * (fx, fy) + (cx + 0.5, cy + 0.5))

    def rays(self, pixels: NDArray) -> Points:
        """Directions (N, 3), float64, into which raw pixels (N, 2) look; the inverse of `project`.

        Their length is 1 for a fisheye, whose rays may point backwards, and z is 1 for other models. NaN for a pixel
        that the lens does not reach within the range of `project`.
        """
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        fx, fy, cx, cy = self._intrinsics()
        with np.errstate(all="ignore"):
            distorted = (pixels - (cx + 0.5, cy + 0.5)) / (fx, fy)
            if self.model in FISHEYES:
                return _finite(undo_bending(distorted, self._padded, self._widest))
            undistorted = _finite(undo_distortion(distorted, self._padded, self._widest))
            return np.concatenate([undistorted, 1 + 0 * undistorted[:, :1]], axis=1)

    def _pinhole(self, points: Points) -> Points:
        x, y = (np.where(points[:, 2] > 0, points[:, axis] / points[:, 2], np.nan) for axis in (0, 1))
        is_in_range = np.hypot(x, y) < self._widest
        return np.where(is_in_range[:, None], distort(np.stack([x, y]).T, self._padded), np.nan)

    def _fisheye(self, points: Points) -> Points:
        aside = np.hypot(points[:, 0], points[:, 1])
        angle = np.arctan2(aside, points[:, 2])
        is_in_range = (angle < self._widest) & (points != 0).any(axis=1)
        scale = np.where(aside > 0, bend(angle, self._padded) / np.where(aside > 0, aside, 1), 0)
        return np.where(is_in_range[:, None], points[:, :2] * scale[:, None], np.nan)

    def _intrinsics(self) -> tuple[float, float, float, float]:
        return self.matrix[0], self.matrix[4], self.matrix[2], self.matrix[5]

    @cached_property
    def _padded(self) -> tuple[float, ...]:
        count = 4 if self.model in FISHEYES else 8
        return (*self.coefficients, *[0.0] * (count - len(self.coefficients)))

    @cached_property
    def _widest(self) -> float:
        return widest_angle(self._padded) if self.model in FISHEYES else widest_radius(self._padded)


def rotation_from_quaternion(x: float, y: float, z: float, w: float) -> tuple[float, ...]:
    """The rotation matrix, nine numbers row by row, of a quaternion in the order of a ROS message.

    Raises:
        AlignmentError: its length is not 1 within a hundredth.
    """
    x, y, z, w = check_numbers("rotation", (x, y, z, w), 4)
    length = math.hypot(x, y, z, w)
    if not abs(length - 1) < 0.01:
        raise AlignmentError(f"rotation: the quaternion's length is {length:.6g}, not 1; send the transform again")
    x, y, z, w = (value / length for value in (x, y, z, w))
    return (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )


def check_size(size: Sequence[int]) -> Size:
    """An image size (height, width) as it is where both are whole numbers in 1..16384.

    Raises:
        AlignmentError: they are not.
    """
    for key, side in zip(("image_height", "image_width"), size, strict=True):
        if isinstance(side, bool) or not isinstance(side, (int, np.integer)) or not 1 <= side <= LARGEST_SIDE:
            raise AlignmentError(f"{key} must be a whole number in 1..{LARGEST_SIDE}, got {shown(side)}")
    return int(size[0]), int(size[1])


def check_numbers(key: str, values: Sequence[float] | NDArray, count: int | None = None) -> tuple[float, ...]:
    """Numbers as floats, where they are finite, at most 1e9 and, where `count` is given, so many.

    Raises:
        AlignmentError: they are not; the message begins with the key.
    """
    numbers = []
    for value in np.asarray(values, object).ravel():
        is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not is_number or not abs(value) <= LARGEST_NUMBER:  # so NaN is refused too
            raise AlignmentError(f"{key}: expected numbers of at most {LARGEST_NUMBER:g}, got {shown(value)}")
        numbers.append(float(value))
    if count is not None and len(numbers) != count:
        raise AlignmentError(f"{key}: expected {count} numbers, got {len(numbers)}")
    return tuple(numbers)


def scales(made_for: Size, size: Size) -> tuple[float, float]:
    """Factors (down, right) from one image size (height, width) to another of the same aspect.

    The same aspect is: one factor gives both sides within a pixel, as rounding leaves them.

    Raises:
        AlignmentError: the aspect is another one, or a size is none.
    """
    check_size(size)
    smallest = max((new - 1) / old for old, new in zip(made_for, size, strict=True))
    largest = min((new + 1) / old for old, new in zip(made_for, size, strict=True))
    if smallest > largest:
        raise AlignmentError(
            f"made for images of {made_for[1]}x{made_for[0]} pixels, got {size[1]}x{size[0]}, which has another "
            "aspect; calibrate at this size, or let the camera deliver its whole image"
        )
    return size[0] / made_for[0], size[1] / made_for[1]


def _check_matrix(matrix: Sequence[float]) -> None:
    fx, skew, _, zero, fy, _, *last = matrix
    if not any(matrix):
        raise AlignmentError("camera_matrix is all zeros, which means uncalibrated; calibrate the camera")
    if skew != 0 or zero != 0 or last != [0, 0, 1]:
        raise AlignmentError("camera_matrix must be (fx, 0, cx, 0, fy, cy, 0, 0, 1) row by row; copy it again")
    if not min(fx, fy) >= _SMALLEST_FOCAL:
        raise AlignmentError(f"camera_matrix: fx and fy must be at least {_SMALLEST_FOCAL:g} pixels, got {fx} and {fy}")


def _finite(values: Points) -> Points:
    """The same rows, all NaN where a number of one is not finite."""
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)
