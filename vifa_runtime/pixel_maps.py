"""Exact maps between the pixels of a thermal and of a visible camera: by a homography, or by both calibrations.

Pixels are continuous: x right, y down, (0, 0) the outer corner of the first pixel. A point that has no counterpart,
because it lies behind a camera or outside what a lens shows, becomes NaN and never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import AlignmentError, Camera, Points, Size, check_numbers, check_size, scales

_SINGULAR = 1e-12  # determinant of a homography between unit squares whose largest number is 1
_HORIZON = 1e-6  # smallest depth of a corner, as a share of the largest
_SAME_PIXEL = 1e-3  # pixels between corners that are taken for the same
_ROTATION_ERROR = 1e-3  # of a rotation matrix, as rounding to a few digits leaves
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)


@dataclass(frozen=True)
class HomographyMap:
    """A homography from thermal to visible pixels.

    Attributes:
        matrix: the 3x3 matrix row by row, (0, 0) the outer corner of the first pixel; its last number becomes 1.
        thermal, visible: (height, width) of the images that it was made for.

    Raises:
        AlignmentError: on construction, for a matrix that is singular, mirrors the image or sends part of it behind
            the camera.
    """

    matrix: tuple[float, ...]
    thermal: Size
    visible: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "thermal", _check_size("thermal", self.thermal))
        object.__setattr__(self, "visible", _check_size("visible", self.visible))
        matrix = _square(check_numbers("homography", self.matrix, 9))
        with np.errstate(all="ignore"):
            unit = _diagonal(self.visible, -1) @ matrix @ _diagonal(self.thermal)
            unit = unit / np.abs(unit).max()
            if not abs(np.linalg.det(unit)) > _SINGULAR:  # so NaN, from a matrix of zeros, is refused too
                raise AlignmentError("homography is singular: it has no inverse; measure it again")
            depths = (np.c_[_CORNERS, np.ones(4)] @ unit[2]) / unit[2, 2]
            if not depths.min() > _HORIZON * depths.max():
                raise AlignmentError(
                    "homography sends part of the thermal image behind the camera; measure it again with points that "
                    "are spread over the whole image"
                )
            if np.linalg.det(unit / unit[2, 2]) < 0:
                raise AlignmentError(
                    "homography turns the image inside out, as a mirror does; flip the thermal image in its driver, "
                    "or check the order of the points"
                )
            object.__setattr__(self, "matrix", tuple((matrix / matrix[2, 2]).ravel().tolist()))

    @classmethod
    def from_centres(cls, matrix: Sequence[float] | NDArray, thermal: Size, visible: Size) -> HomographyMap:
        """From a matrix for which (0, 0) is the centre of the first pixel, as `cv2.findHomography` gives it.

        Args:
            matrix: 3x3, or nine numbers row by row.
            thermal, visible: (height, width) of the images that it was made for.

        Raises:
            AlignmentError: as on construction.
        """
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        back = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
        moved = shift @ _square(check_numbers("homography", matrix, 9)) @ back
        return cls(tuple(moved.ravel().tolist()), thermal, visible)

    @classmethod
    def same_view(cls, thermal: Size, visible: Size) -> HomographyMap:
        """The map between two images that show the same field of view: a scale.

        Raises:
            AlignmentError: a size outside 1..16384 pixels a side.
        """
        (height, width), (tall, wide) = _check_size("thermal", thermal), _check_size("visible", visible)
        return cls((wide / width, 0.0, 0.0, 0.0, tall / height, 0.0, 0.0, 0.0, 1.0), thermal, visible)

    @property
    def is_same_view(self) -> bool:
        """Whether the thermal image's corners lie on those of the visible one, within a thousandth of a pixel."""
        found = self.to_visible(_CORNERS * self.thermal[::-1])
        return bool(np.abs(found - _CORNERS * self.visible[::-1]).max() <= _SAME_PIXEL)

    def resized(self, thermal: Size, visible: Size) -> HomographyMap:
        """The same map for images of other sizes (height, width) of the same aspects.

        Raises:
            AlignmentError: a size of another aspect, or none.
        """
        if (thermal, visible) == (self.thermal, self.visible):
            return self
        before = _check_scale("thermal", self.thermal, thermal)
        after = _check_scale("visible", self.visible, visible)
        matrix = _diagonal(after) @ _square(self.matrix) @ _diagonal(before, -1)
        return HomographyMap(tuple(matrix.ravel().tolist()), thermal, visible)

    def to_visible(self, points: NDArray) -> Points:
        """Map points (N, 2) in thermal pixels to visible ones, float64; NaN where they fall behind the camera."""
        return _apply(_square(self.matrix), points)

    def to_thermal(self, points: NDArray) -> Points:
        """Map points (N, 2) in visible pixels to thermal ones, float64; NaN where no thermal point maps there."""
        return _apply(np.linalg.inv(_square(self.matrix)), points)


@dataclass(frozen=True)
class Extrinsics:
    """Where the thermal camera is: a point p of the visible optical frame is `rotation @ p + translation` in its own.

    Attributes:
        rotation: the 3x3 matrix row by row; what rounding took from it is mended.
        translation: metres.

    Raises:
        AlignmentError: on construction, for a matrix that is no rotation.
    """

    rotation: tuple[float, ...]
    translation: tuple[float, ...]

    def __post_init__(self) -> None:
        rotation = _square(check_numbers("rotation", self.rotation, 9))
        object.__setattr__(self, "translation", check_numbers("translation", self.translation, 3))
        error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
        if error > _ROTATION_ERROR:
            raise AlignmentError(
                f"rotation is no rotation matrix: its rows are off unit length and right angles by {error:.3g}; "
                "give it with six digits or more"
            )
        if np.linalg.det(rotation) < 0:
            raise AlignmentError("rotation is a reflection: its determinant is -1; check the order and signs of axes")
        if error > 1e-12:  # not always, so that a rotation that is read and written stays the same to the bit
            left, _, right = np.linalg.svd(rotation)
            rotation = left @ right
        object.__setattr__(self, "rotation", tuple(rotation.ravel().tolist()))


@dataclass(frozen=True)
class CameraMap:
    """Between the raw pixels of two calibrated cameras, exact for what lies in a plane before the visible camera.

    The plane faces the visible camera at `distance`. What is nearer or farther appears shifted: by about
    `focal * baseline * |1 / true - 1 / distance|` pixels. Without distortion the map is the homography that the plane
    induces (Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 13.1).

    Attributes:
        thermal_camera, visible_camera: both calibrations.
        extrinsics: from the visible to the thermal camera.
        distance: of the plane along the visible camera's axis, metres.

    Raises:
        AlignmentError: on construction, for a distance that is none, or a plane behind the thermal camera.
    """

    thermal_camera: Camera
    visible_camera: Camera
    extrinsics: Extrinsics
    distance: float

    def __post_init__(self) -> None:
        (distance,) = check_numbers("distance", (self.distance,), 1)
        if not distance > 0:
            raise AlignmentError(f"distance must be above 0 metres, got {distance:g}")
        object.__setattr__(self, "distance", distance)
        if not self._height() > 0:
            raise AlignmentError(
                f"distance: a plane {distance:g} m before the visible camera lies behind the thermal one; enlarge "
                "distance, or check the direction of the translation"
            )

    @property
    def thermal(self) -> Size:
        """(height, width) of the thermal images."""
        return self.thermal_camera.size

    @property
    def visible(self) -> Size:
        """(height, width) of the visible images."""
        return self.visible_camera.size

    @property
    def is_same_view(self) -> bool:
        """False: not even two equal cameras at one place are told from others."""
        return False

    def resized(self, thermal: Size, visible: Size) -> CameraMap:
        """The same map for images of other sizes (height, width) of the same aspects.

        Raises:
            AlignmentError: a size of another aspect, or none.
        """
        _check_scale("thermal", self.thermal, thermal)
        _check_scale("visible", self.visible, visible)
        cameras = self.thermal_camera.resized(thermal), self.visible_camera.resized(visible)
        return replace(self, thermal_camera=cameras[0], visible_camera=cameras[1])

    def to_thermal(self, points: NDArray) -> Points:
        """Map points (N, 2) in raw visible pixels to raw thermal ones, float64.

        NaN for a pixel that does not look at the plane, or whose point of the plane the thermal camera cannot show:
        see `Camera.project` and `Camera.rays`.
        """
        rays = self.visible_camera.rays(points)
        with np.errstate(all="ignore"):
            places = np.where(rays[:, 2:] > 0, rays * (self.distance / rays[:, 2:]), np.nan)
        rotation, translation = _square(self.extrinsics.rotation), np.array(self.extrinsics.translation)
        return self.thermal_camera.project(places @ rotation.T + translation)

    def to_visible(self, points: NDArray) -> Points:
        """Map points (N, 2) in raw thermal pixels to raw visible ones, float64; NaN as for `to_thermal`."""
        rotation, translation = _square(self.extrinsics.rotation), np.array(self.extrinsics.translation)
        rays = self.thermal_camera.rays(points) @ rotation  # in the visible frame, as all below
        with np.errstate(all="ignore"):
            reach = np.where(rays[:, 2:] > 0, self._height() / rays[:, 2:], np.nan)
            return self.visible_camera.project(reach * rays - translation @ rotation)

    def _height(self) -> float:
        """Distance from the thermal camera to the plane, metres; below 0 where it is behind."""
        rotation, translation = _square(self.extrinsics.rotation), np.array(self.extrinsics.translation)
        return self.distance + float((translation @ rotation)[2])


PixelMap = HomographyMap | CameraMap


def _apply(matrix: NDArray, points: NDArray) -> Points:
    """Map (N, 2) by a homography whose depth is above 0 before the camera."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    with np.errstate(all="ignore"):
        mapped = points @ matrix[:, :2].T + matrix[:, 2]
        places = np.where(mapped[:, 2:] > 0, mapped[:, :2] / mapped[:, 2:], np.nan)
    return np.where(np.isfinite(places).all(axis=1, keepdims=True), places, np.nan)


def _square(numbers: Sequence[float]) -> NDArray[np.float64]:
    return np.array(numbers, np.float64).reshape(3, 3)


def _diagonal(factors: Sequence[float], power: int = 1) -> NDArray[np.float64]:
    """The 3x3 matrix that scales by factors (down, right)."""
    return np.diag([float(factors[1]) ** power, float(factors[0]) ** power, 1.0])


def _check_size(which: str, size: Size) -> Size:
    try:
        return check_size(size)
    except AlignmentError as error:
        raise AlignmentError(f"{which}: {error}") from None


def _check_scale(which: str, made_for: Size, size: Size) -> tuple[float, float]:
    try:
        return scales(made_for, size)
    except AlignmentError as error:
        raise AlignmentError(f"{which}: {error}") from None
