"""Colour points by what the cameras see: each takes what is in the pixel in which it lies.

Points go by a rigid transform into the visible camera's optical frame and through its lens into raw pixels, which are
those of fused images, masks and aligned thermal images. Nothing is interpolated: a class id between two is none, and
a colour mixed over an edge belongs to neither side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import FISHEYES, AlignmentError, Camera, Size
from vifa_runtime.distortion import Points
from vifa_runtime.labels import UNKNOWN
from vifa_runtime.pixel_maps import Extrinsics

SEEN = "seen"
INVALID, BEHIND, BEYOND_LENS, OUTSIDE, HIDDEN = "invalid", "behind", "beyond_lens", "outside", "hidden"
FATES = (SEEN, INVALID, BEHIND, BEYOND_LENS, OUTSIDE, HIDDEN)  # of a point; the place is its code
_SEEN, _INVALID, _BEHIND, _BEYOND_LENS, _OUTSIDE, _HIDDEN = range(len(FATES))
LARGEST_CELL = 1000
_STRIP = 1 << 13  # points at a time: what is computed between stays in the cache


@dataclass(frozen=True)
class PointSettings:
    """What becomes of points that the camera does not show, and which those are.

    Attributes:
        keep_unseen: whether they stay, uncoloured; else they are dropped.
        unseen_colour: RGB of those that stay. Not black, which RViz shows as nothing.
        cell: side in pixels of the squares of the test for hidden points; 0, the default, for no test. In each square
            the nearest point is looked for, and those much farther away count as hidden behind it. Without the test, a
            scanner that looks over an obstacle paints what is behind with the colour of the obstacle. With it, points
            that the camera does see are lost along edges, behind fences and in leaves, and how many depends on how
            dense the points are. So it is for scanners well apart from the camera: a few times the distance between
            neighbouring points in pixels, 4 to 8 for most.
        margin: how much farther than the nearest one a point may be that still counts as seen, as a share of the
            nearest one's distance: enough for a floor at a flat angle within one square.

    Raises:
        ValueError: on construction, for a number out of range.
    """

    keep_unseen: bool = False
    unseen_colour: tuple[int, int, int] = (128, 128, 128)
    cell: int = 0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if len(self.unseen_colour) != 3 or not all(0 <= value <= 255 for value in self.unseen_colour):
            raise ValueError(f"unseen_colour must be three numbers in 0..255, got {self.unseen_colour}")
        if not 0 <= self.cell <= LARGEST_CELL:
            raise ValueError(f"cell must be in 0..{LARGEST_CELL} pixels, got {self.cell}")
        if not 0 <= self.margin <= 100:
            raise ValueError(f"margin must be in 0..100, got {self.margin}")


@dataclass(frozen=True)
class Projection:
    """Where points lie in the images of a camera.

    Attributes:
        points: (N, 3), as they came.
        fates: (N,) uint8: what became of each point, as its place in `FATES`.
        seen: (M,) int64: those of the points that are seen, in their order.
        rows, columns: (M,) int64: the pixel of each of those.
        size: (height, width) of the images.
        settings: those that it was made with.
    """

    points: NDArray
    fates: NDArray[np.uint8]
    seen: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    size: Size
    settings: PointSettings

    @property
    def counts(self) -> dict[str, int]:
        """Fate -> number of points, for all of `FATES`; their sum is the number of points that came."""
        return dict(zip(FATES, np.bincount(self.fates, minlength=len(FATES)).tolist(), strict=True))


@dataclass(frozen=True)
class ColouredPoints:
    """Points with what the cameras see there.

    Attributes:
        points: (M, 3) in metres, in the frame in which they came.
        colours: (M, 3) uint8 RGB.
        class_ids: (M,) uint8, 255 where unknown or unseen.
        temperatures: (M,) float32, in the unit of the image that they are from; NaN where there is none.
    """

    points: NDArray
    colours: NDArray[np.uint8]
    class_ids: NDArray[np.uint8]
    temperatures: NDArray[np.float32]


def project_points(
    points: NDArray, to_camera: Extrinsics, camera: Camera, settings: PointSettings | None = None
) -> Projection:
    """Find the pixel in which every point lies.

    Args:
        points: (N, 3) in metres, in any frame; NaN or infinite where there is none.
        to_camera: from that frame to the visible camera's optical frame.
        camera: the visible camera at the size of the images: `Camera.resized`. Keep it between calls: its first
            projection measures how far its lens can be followed.
        settings: which points count as hidden, and whether those that are not seen stay.
    """
    settings = settings or PointSettings()
    count = len(points)
    fates, distances = np.empty(count, np.uint8), np.empty(count if settings.cell else 0, np.float64)
    rows, columns = np.empty(count, np.int64), np.empty(count, np.int64)
    with np.errstate(all="ignore"):  # points may be NaN, or so far that their squares overflow
        for start in range(0, count, _STRIP):
            strip = slice(start, start + _STRIP)
            moved = _move(points[strip], to_camera)
            fates[strip], rows[strip], columns[strip] = _locate(moved, camera)
            if settings.cell:
                x, y, z = moved.T
                distances[strip] = np.sqrt(x * x + y * y + z * z)
    seen = np.flatnonzero(fates == _SEEN)
    if settings.cell:
        is_hidden = find_hidden(rows[seen], columns[seen], distances[seen], settings)
        fates[seen[is_hidden]] = _HIDDEN
        seen = seen[~is_hidden]
    return Projection(points, fates, seen, rows[seen], columns[seen], camera.size, settings)


def find_hidden(
    rows: NDArray[np.int64], columns: NDArray[np.int64], distances: NDArray[np.float64], settings: PointSettings
) -> NDArray[np.bool_]:
    """Which points (M,) lie much farther away than the nearest one in their square of the image.

    Args:
        rows, columns: (M,), the points' pixels.
        distances: (M,) from the camera.
        settings: the squares' side and the margin.
    """
    across = columns // settings.cell
    squares = rows // settings.cell * (across.max(initial=0) + 1) + across
    nearest = np.full(squares.max(initial=0) + 1, np.inf)
    np.minimum.at(nearest, squares, distances)
    return distances > nearest[squares] * (1 + settings.margin)


def colour_points(
    projection: Projection,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None = None,
    temperature: NDArray | None = None,
    covered: NDArray | None = None,
) -> ColouredPoints:
    """Give every point what is in its pixel. One projection serves all images of one pair.

    Args:
        projection: of `project_points`, into images of this size.
        image: (H, W, 3) uint8 RGB, the fused one.
        mask: (H, W) uint8 class ids, 255 where unknown.
        temperature: (H, W) thermal values in visible pixels, of any real dtype.
        covered: (H, W), 0 where the thermal camera has nothing, as `ThermalView.soft_mask`: temperatures are NaN there.

    Raises:
        AlignmentError: an image of another size than the projection's, or of another dtype.
    """
    _check_image("image", image, (*projection.size, 3), np.uint8)
    _check_image("mask", mask, projection.size, np.uint8)
    _check_image("temperature", temperature, projection.size)
    _check_image("covered", covered, projection.size)
    pixels = projection.rows, projection.columns
    colours, class_ids = image[pixels], np.full(len(projection.seen), UNKNOWN, np.uint8)
    temperatures = np.full(len(projection.seen), np.nan, np.float32)
    if mask is not None:
        class_ids = mask[pixels]
    if temperature is not None:
        temperatures = temperature[pixels].astype(np.float32)
        if covered is not None:
            temperatures[covered[pixels] == 0] = np.nan
    if not projection.settings.keep_unseen:
        return ColouredPoints(projection.points[projection.seen], colours, class_ids, temperatures)
    return ColouredPoints(
        projection.points,
        _spread(colours, projection, np.array(projection.settings.unseen_colour, np.uint8)),
        _spread(class_ids, projection, np.array(UNKNOWN, np.uint8)),
        _spread(temperatures, projection, np.array(np.nan, np.float32)),
    )


def _move(points: NDArray, to_camera: Extrinsics) -> Points:
    """Points (N, 3) in the camera's frame, column by column in memory.

    Not by `@`: BLAS wakes its threads for it, and on a busy machine waits for them longer than all else takes.
    """
    moved = np.empty((3, len(points)), np.float64)
    x, y, z = points.T.astype(np.float64)
    for row in range(3):
        xx, yy, zz = to_camera.rotation[3 * row : 3 * row + 3]
        np.add(xx * x + yy * y + zz * z, to_camera.translation[row], out=moved[row])
    return moved.T


def _locate(points: Points, camera: Camera) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Fates of points (N, 3) of the optical frame, but for hidden ones; rows and columns, right for those seen."""
    height, width = camera.size
    is_finite, is_ahead = np.isfinite(points.T.sum(axis=0)), points[:, 2] > 0
    tried = np.flatnonzero(is_finite if camera.model in FISHEYES else is_finite & is_ahead)
    x, y = camera.project(points[tried] if len(tried) < len(points) else points).T
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    seen = tried[is_inside]
    fates = np.where(is_finite, np.where(is_ahead, _BEYOND_LENS, _BEHIND), _INVALID).astype(np.uint8)
    fates[tried[x == x]] = _OUTSIDE  # whatever has a place
    fates[seen] = _SEEN
    rows, columns = np.zeros(len(points), np.int64), np.zeros(len(points), np.int64)
    rows[seen], columns[seen] = y[is_inside], x[is_inside]  # cut off, which is floor from 0 on
    return fates, rows, columns


def _spread(values: NDArray, projection: Projection, unseen: NDArray) -> NDArray:
    """Values (M, ...) of the seen points at their places among all, (N, ...)."""
    spread = np.empty((len(projection.fates), *values.shape[1:]), values.dtype)
    spread[:] = unseen
    spread[projection.seen] = values
    return spread


def _check_image(name: str, image: NDArray | None, shape: tuple[int, ...], dtype: type | None = None) -> None:
    if image is None:
        return
    if image.shape != shape:
        raise AlignmentError(
            f"{name} has shape {image.shape}, the points were projected into {shape}; resize the camera"
        )
    if dtype is not None and image.dtype != dtype:
        raise AlignmentError(f"{name} is {image.dtype}, not {np.dtype(dtype)}; convert it")
