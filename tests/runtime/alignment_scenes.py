"""Cameras, homographies and views for the tests of alignment, as Hypothesis strategies."""

import cv2
import numpy as np
from hypothesis import strategies as st

from vifa_runtime.alignment import Alignment
from vifa_runtime.camera_model import Camera
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap

SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))
LARGE = st.tuples(st.integers(30, 60), st.integers(30, 60))
UNIT = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)


def numbers(low, high, count):
    """Strategy: a tuple of so many floats."""
    return st.tuples(*[st.floats(low, high)] * count)


@st.composite
def homographies(draw, scale=(0.4, 1.5), sizes=SIZES):
    """Maps whose thermal image is a jittered, slightly turned rectangle around the visible image's middle."""
    thermal, visible = draw(sizes), draw(sizes)
    corners = (UNIT - 0.5) * draw(numbers(*scale, 2)) + 0.5 + np.array(draw(numbers(-0.1, 0.1, 2)))
    corners += np.array(draw(numbers(-0.05, 0.05, 8))).reshape(4, 2)
    source, target = (UNIT * thermal[::-1]).astype(np.float32), (corners * visible[::-1]).astype(np.float32)
    return HomographyMap(tuple(cv2.getPerspectiveTransform(source, target).ravel()), thermal, visible)


COEFFICIENTS = {
    "plumb_bob": numbers(-0.05, 0.05, 5).map(lambda c: (2 * c[0], c[1], c[2] / 20, c[3] / 20, c[4] / 5)),
    "rational_polynomial": numbers(-0.05, 0.05, 8).map(lambda c: (c[0], c[1], c[2] / 20, c[3] / 20, *c[4:])),
    "equidistant": numbers(-0.02, 0.02, 4),
}


@st.composite
def cameras(draw, sizes=SIZES, models=tuple(COEFFICIENTS)):
    """Cameras of common lenses."""
    height, width = size = draw(sizes)
    fx = draw(st.floats(1, 2.5)) * max(size)
    fy = fx * draw(st.floats(0.9, 1.1))
    cx, cy = (side * (0.5 + draw(st.floats(-0.05, 0.05))) - 0.5 for side in (width, height))
    model = draw(st.sampled_from(models))
    coefficients = draw(COEFFICIENTS[model] | st.just(()))
    return Camera(size, (fx, 0, cx, 0, fy, cy, 0, 0, 1), model, coefficients)


@st.composite
def extrinsics(draw):
    """Two cameras on one mast."""
    rotation, _ = cv2.Rodrigues(np.array(draw(numbers(-0.05, 0.05, 3))))
    return Extrinsics(tuple(rotation.ravel()), draw(numbers(-0.2, 0.2, 3)))


@st.composite
def camera_maps(draw, **options):
    """Pairs of cameras that look at a plane."""
    distance = draw(st.floats(1, 50))
    return CameraMap(draw(cameras(**options)), draw(cameras(**options)), draw(extrinsics()), distance)


def fitted(pixels, **options):
    """The view of a map at the sizes that it was made for."""
    mode = "homography" if isinstance(pixels, HomographyMap) else "cameras"
    return Alignment(mode, pixels, **options).fit(pixels.thermal, pixels.visible)


def shifted(right, down, thermal, visible, scale=1.0):
    """A view whose thermal image begins at (right, down) of the visible one."""
    return HomographyMap((scale, 0, right, 0, scale, down, 0, 0, 1), thermal, visible)


def centres(size):
    """The centres (N, 2) of all pixels of an image, row by row."""
    return np.stack(np.indices(size)[::-1], axis=-1).reshape(-1, 2) + 0.5


def noise(size, dtype=np.float32, seed=0):
    """Noise over the whole range of a dtype, 0..1 for float32."""
    values = np.random.default_rng(seed).random(size)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def waves(points, size):
    """A smooth scene of 0..1 at points (N, 2) of an image."""
    x, y = (np.asarray(points) / size[::-1]).T
    return 0.5 + 0.25 * np.sin(3 * x + 1) + 0.25 * np.cos(2 * y + x)
