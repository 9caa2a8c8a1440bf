"""Cameras from CameraInfo and extrinsics from transforms, against OpenCV's projection and SciPy's rotations."""

import math

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, Vector3
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from vifa_ros.camera_infos import camera_from_info, extrinsics_from_transform
from vifa_runtime.camera_model import AlignmentError, Camera

K = (100.0, 0.0, 49.5, 0.0, 110.0, 39.5, 0.0, 0.0, 1.0)
D = (-0.1, 0.02, 0.001, -0.002, 0.003)
FINITE = st.floats(-100, 100)


def info(**changes):
    return CameraInfo(**{"height": 80, "width": 100, "k": K, "d": D, "distortion_model": "plumb_bob", **changes})


def region(left, top, height, width):
    return RegionOfInterest(x_offset=left, y_offset=top, height=height, width=width)


def points_in_view(seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 20, (30, 1))
    return np.concatenate([rng.uniform(-0.5, 0.5, (30, 2)) * depth, depth], axis=1)


def opencv_pixels(points):
    """Pixels of the full image, (0, 0) the outer corner of the first pixel."""
    found, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), np.array(D))
    return found[:, 0] + 0.5


def test_a_calibration_is_taken_as_it_is():
    assert camera_from_info(info()) == Camera((80, 100), K, "plumb_bob", D)


def test_the_fields_of_rectified_images_change_nothing():
    rectified = {"r": [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], "p": np.arange(12.0)}
    roi = RegionOfInterest(do_rectify=True)
    assert camera_from_info(info(**rectified, roi=roi)) == camera_from_info(info())


@pytest.mark.parametrize(
    ("model", "coefficients"), [("equidistant", (0.1, 0.2, 0.3, 0.4)), ("rational_polynomial", (0.01,) * 8)]
)
def test_other_lenses_are_taken_as_they_are(model, coefficients):
    found = camera_from_info(info(distortion_model=model, d=coefficients))
    assert (found.model, found.coefficients) == (model, coefficients)


@pytest.mark.parametrize("coefficients", [(), (0.0,) * 5])
def test_simulators_leave_out_the_model_of_what_is_not_distorted(coefficients):
    found = camera_from_info(info(distortion_model="", d=coefficients))
    np.testing.assert_allclose(found.project([[1, -0.5, 2]]), [[50 + 100 / 2, 40 - 110 / 4]])


@st.composite
def regions(draw):
    left, top = draw(st.integers(0, 99)), draw(st.integers(0, 79))
    return region(left, top, draw(st.integers(1, 80 - top)), draw(st.integers(1, 100 - left)))


@given(regions(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 99))
def test_region_and_binning_move_opencvs_pixels_as_the_message_says(roi, across, down, seed):
    """A region begins at full-image pixel (x_offset, y_offset); a binned pixel is a rectangle of its pixels."""
    factors = np.maximum(1, (across, down))
    message = info(roi=roi, binning_x=across, binning_y=down)
    if (np.array([roi.width, roi.height]) < factors).any():
        with pytest.raises(AlignmentError, match="binning of"):
            camera_from_info(message)
        return
    found = camera_from_info(message)
    assert found.size == (roi.height // factors[1], roi.width // factors[0])
    points = points_in_view(seed)
    wanted = (opencv_pixels(points) - (roi.x_offset, roi.y_offset)) / factors
    np.testing.assert_allclose(found.project(points), wanted, atol=1e-7)


def test_by_hand_binning_keeps_the_middle_of_the_image():
    """100 columns whose middle is at 50 become 50 whose middle is at 25; 80 rows become 20 with 10."""
    found = camera_from_info(info(binning_x=2, binning_y=4))
    assert found.size == (20, 50)
    np.testing.assert_allclose(found.project([[0, 0, 1]]), [[25, 10]])


def test_the_full_region_is_the_full_image():
    assert camera_from_info(info(roi=region(0, 0, 80, 100))) == camera_from_info(info())


REFUSED = {
    "uncalibrated": ({"k": (0.0,) * 9, "d": ()}, "k is all zeros, which means uncalibrated; calibrate"),
    "only the size is missing": ({"height": 0}, "image_height must be a whole number in 1..16384, got 0"),
    "NaN": ({"k": (math.nan, *K[1:])}, "camera_matrix: expected numbers .* got nan"),
    "an unknown model": ({"distortion_model": "omni"}, "distortion_model 'omni' is unknown; use one of"),
    "coefficients without a model": ({"distortion_model": ""}, "distortion_model '' is unknown; use one of"),
    "three coefficients": ({"d": D[:3]}, "distortion_coefficients: plumb_bob has 0 or 4 or 5, got 3"),
    "a region beside the image": ({"roi": region(60, 0, 80, 50)}, r"roi: 50x80 pixels from \(60, 0\) do not lie"),
    "a region without width": ({"roi": region(0, 0, 80, 0)}, "roi has 0x80 pixels .* send all zeros"),
    "a region that only begins": ({"roi": region(5, 6, 0, 0)}, r"roi has 0x0 pixels from \(5, 6\)"),
    "binning by more than there is": ({"binning_x": 101}, "binning of 101x1 leaves nothing of 100x80 pixels"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_calibration_is_refused_by_name(changes, message):
    with pytest.raises(AlignmentError, match=message) as caught:
        camera_from_info(info(**changes))
    assert "\n" not in str(caught.value)


def transform(quaternion, translation):
    x, y, z, w = quaternion
    return Transform(
        rotation=Quaternion(x=x, y=y, z=z, w=w),
        translation=Vector3(**dict(zip("xyz", translation, strict=True))),
    )


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 0.1), st.tuples(FINITE, FINITE, FINITE))
def test_extrinsics_move_points_as_the_transform_does(quaternion, translation):
    quaternion = tuple(np.array(quaternion) / math.hypot(*quaternion))
    found = extrinsics_from_transform(transform(quaternion, translation))
    points = points_in_view()
    moved = points @ np.reshape(found.rotation, (3, 3)).T + found.translation
    np.testing.assert_allclose(moved, Rotation.from_quat(quaternion).apply(points) + translation, atol=1e-9)


@pytest.mark.parametrize(
    ("quaternion", "translation", "message"),
    [
        ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "rotation: the quaternion's length is 0"),
        ((0.0, 0.0, 0.0, 1.0), (0.0, math.nan, 0.0), "translation: expected numbers"),
    ],
)
def test_what_is_no_transform_is_refused_by_name(quaternion, translation, message):
    with pytest.raises(AlignmentError, match=message):
        extrinsics_from_transform(transform(quaternion, translation))
