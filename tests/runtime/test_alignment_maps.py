"""Maps between two cameras' pixels: against OpenCV, against points in space, by hand, and there and back."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from alignment_scenes import UNIT, camera_maps, cameras, centres, extrinsics, homographies, numbers
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
POINTS = st.lists(numbers(-50, 150, 2), min_size=1, max_size=6)


def square(matrix):
    return np.array(matrix).reshape(3, 3)


def simple_camera(size=(100, 100), focal=100.0, model="plumb_bob", coefficients=()):
    """A camera whose axis meets the middle of its image."""
    middle = (size[1] / 2 - 0.5, size[0] / 2 - 0.5)
    return Camera(size, (focal, 0, middle[0], 0, focal, middle[1], 0, 0, 1), model, coefficients)


@given(homographies())
def test_homographies_map_as_opencv_does(pixels):
    points = centres(pixels.thermal)[::5]
    wanted = cv2.perspectiveTransform(points[None], square(pixels.matrix))[0]
    np.testing.assert_allclose(pixels.to_visible(points), wanted, atol=1e-9)


@given(homographies(), POINTS)
def test_points_of_a_homography_come_back_or_are_behind(pixels, points):
    """The jittered rectangles are mild: what lies near the images is before the camera."""
    for there, back in ((pixels.to_visible, pixels.to_thermal), (pixels.to_thermal, pixels.to_visible)):
        mapped = there(points)
        returned = back(mapped)
        is_seen = ~np.isnan(mapped).any(axis=1)
        np.testing.assert_array_equal(np.isnan(returned).any(axis=1), ~is_seen)
        np.testing.assert_allclose(returned[is_seen], np.array(points)[is_seen], rtol=1e-6, atol=1e-6)


@given(homographies())
def test_every_pixel_of_a_homography_comes_back(pixels):
    points = centres(pixels.thermal)
    np.testing.assert_allclose(pixels.to_thermal(pixels.to_visible(points)), points, atol=1e-7)


@given(homographies(), st.sampled_from([-3.0, 0.25, 1e-5, 1e5]))
def test_a_homography_is_the_same_by_any_factor(pixels, factor):
    matrix = tuple(factor * value for value in pixels.matrix)
    np.testing.assert_allclose(replace(pixels, matrix=matrix).matrix, pixels.matrix, rtol=1e-9)


@given(homographies(), st.floats(0.5, 4), st.floats(0.5, 4))
def test_a_homography_holds_at_other_sizes(pixels, before, after):
    sizes = [
        tuple(max(1, round(side * factor)) for side in size)
        for size, factor in ((pixels.thermal, before), (pixels.visible, after))
    ]
    scaled = pixels.resized(*sizes)
    assert (scaled.thermal, scaled.visible) == tuple(sizes)
    scales = [np.divide(new, old)[::-1] for new, old in zip(sizes, (pixels.thermal, pixels.visible), strict=True)]
    points = centres(pixels.thermal)[::3]
    np.testing.assert_allclose(scaled.to_visible(points * scales[0]), pixels.to_visible(points) * scales[1], atol=1e-7)


def test_by_hand_a_homography_counts_from_the_outer_corner():
    doubled = HomographyMap((2, 0, 0, 0, 2, 0, 0, 0, 1), (10, 20), (20, 40))
    np.testing.assert_array_equal(doubled.to_visible([(0, 0), (0.5, 0.5), (20, 10)]), [(0, 0), (1, 1), (40, 20)])
    assert doubled.is_same_view


def test_by_hand_a_matrix_of_opencv_counts_from_the_centre_of_the_first_pixel():
    """Its first pixel's centre (0.5, 0.5) stays where it is; the one beside it moves by two."""
    doubled = HomographyMap.from_centres([[2, 0, 0], [0, 2, 0], [0, 0, 1]], (10, 20), (20, 40))
    np.testing.assert_allclose(doubled.to_visible([(0.5, 0.5), (1.5, 0.5)]), [(0.5, 0.5), (2.5, 0.5)])
    assert not doubled.is_same_view


@given(homographies())
def test_what_opencv_finds_between_pixel_centres_is_the_map(pixels):
    points = centres(pixels.thermal)[:: max(1, pixels.thermal[1] // 3)]
    found, _ = cv2.findHomography(points - 0.5, pixels.to_visible(points) - 0.5)
    again = HomographyMap.from_centres(found, pixels.thermal, pixels.visible)
    np.testing.assert_allclose(again.to_visible(points), pixels.to_visible(points), atol=1e-3)


def test_by_hand_nothing_comes_from_behind_a_horizon():
    """u = x / (1 + 0.01 x): never reaches 100, and x = -100 is at infinity."""
    pixels = HomographyMap((1, 0, 0, 0, 1, 0, 0.01, 0, 1), (50, 50), (50, 50))
    np.testing.assert_allclose(pixels.to_visible([(100, 0), (-50, 1), (-100, 0), (-150, 0)])[:2], [(50, 0), (-100, 2)])
    assert np.isnan(pixels.to_visible([(-100, 0), (-150, 0), (np.nan, 0)])).all()
    assert np.isfinite(pixels.to_thermal([(99.9, 0)])).all()
    assert np.isnan(pixels.to_thermal([(100.1, 0), (300, 0)])).all()


def test_same_view_is_the_scale_between_both_images():
    pixels = HomographyMap.same_view((30, 41), (77, 64))
    np.testing.assert_allclose(pixels.to_visible([(0, 0), (41, 30)]), [(0, 0), (64, 77)])
    assert pixels.is_same_view
    moved = HomographyMap((*pixels.matrix[:2], 0.01, *pixels.matrix[3:]), (30, 41), (77, 64))
    assert not moved.is_same_view


REFUSED = {
    "zeros": ([0] * 9, "singular"),
    "rank two": ([1, 2, 3, 2, 4, 6, 0, 0, 1], "singular"),
    "nearly singular": ([1, 0, 0, 0, 1e-16, 0, 0, 0, 1], "singular"),
    "tiny": ([1e-300] * 9, "singular"),
    "nan": ([math.nan, *IDENTITY[1:]], "homography: expected numbers"),
    "eight numbers": (IDENTITY[:8], "homography: expected 9 numbers, got 8"),
    "mirrored": ([-1, 0, 20, 0, 1, 0, 0, 0, 1], "turns the image inside out"),
    "axes swapped": ([0, 1, 0, 1, 0, 0, 0, 0, 1], "turns the image inside out"),
    "right half behind": ([1, 0, 0, 0, 1, 0, -0.1, 0, 1], "part of the thermal image behind the camera"),
    "left half behind": ([1, 0, 0, 0, 1, 0, 0.2, 0, -1], "part of the thermal image behind the camera"),
    "a corner on the horizon": ([1, 0, 0, 0, 1, 0, -1 / 40, -1 / 20, 1], "part of the thermal image behind"),
    "the first corner on the horizon": ([1, 0, 0, 0, 1, 1, 1, 1, 0], "part of the thermal image behind"),
}


@pytest.mark.parametrize(("matrix", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_view_of_a_plane_is_refused(matrix, message):
    with pytest.raises(AlignmentError, match=message):
        HomographyMap(tuple(matrix), (10, 20), (10, 20))


def test_turned_by_a_half_is_no_mirror():
    turned = HomographyMap((-1, 0, 20, 0, -1, 10, 0, 0, 1), (10, 20), (10, 20))
    np.testing.assert_allclose(turned.to_visible([(0, 0), (5, 2)]), [(20, 10), (15, 8)])


@pytest.mark.parametrize("which", ["thermal", "visible"])
def test_sizes_that_are_none_are_refused_by_name(which):
    sizes = {"thermal": (10, 10), "visible": (10, 10), which: (0, 10)}
    with pytest.raises(AlignmentError, match=f"{which}: image_height must be a whole number"):
        HomographyMap(IDENTITY, **sizes)
    with pytest.raises(AlignmentError, match=f"{which}: image_height must be a whole number"):
        HomographyMap.same_view(**sizes)


@given(camera_maps(), st.integers(0, 99))
def test_points_of_the_plane_land_where_opencv_projects_them(pixels, seed):
    """Real points of the plane, projected into both cameras by OpenCV, against the map from one to the other."""
    reach = 0.15 * pixels.distance * np.random.default_rng(seed).uniform(-1, 1, (20, 2))
    points = np.concatenate([reach, np.full((20, 1), pixels.distance)], axis=1)
    rotation = cv2.Rodrigues(square(pixels.extrinsics.rotation))[0]
    seen = [
        project(pixels.visible_camera, points, np.zeros(3), np.zeros(3)),
        project(pixels.thermal_camera, points, rotation, np.array(pixels.extrinsics.translation)),
    ]
    np.testing.assert_allclose(pixels.to_thermal(seen[0]), seen[1], atol=1e-6)
    np.testing.assert_allclose(pixels.to_visible(seen[1]), seen[0], atol=1e-6)


def project(camera, points, rotation, translation):
    """OpenCV's projection, in pixels that count from the image's outer corner."""
    coefficients = np.array(camera.coefficients or (0,) * 4, np.float64)
    if camera.model == "equidistant":
        found, _ = cv2.fisheye.projectPoints(
            points[:, None], rotation, translation, square(camera.matrix), coefficients
        )
    else:
        found, _ = cv2.projectPoints(points, rotation, translation, square(camera.matrix), coefficients)
    return found[:, 0] + 0.5


@given(camera_maps())
def test_points_between_cameras_come_back(pixels):
    for there, back, size in (
        (pixels.to_visible, pixels.to_thermal, pixels.thermal),
        (pixels.to_thermal, pixels.to_visible, pixels.visible),
    ):
        points = centres(size)
        mapped = there(points)
        is_seen = ~np.isnan(mapped).any(axis=1)
        assert is_seen[len(points) // 2 + size[1] // 2]  # the middle of the image
        np.testing.assert_allclose(back(mapped)[is_seen], points[is_seen], atol=1e-6)


@given(cameras(models=("plumb_bob",)), cameras(models=("plumb_bob",)), extrinsics(), st.floats(0.5, 20))
def test_without_distortion_the_map_is_the_homography_that_the_plane_induces(thermal, visible, pose, distance):
    """x' = K' (R + t nᵀ / d) K⁻¹ x, with n the plane's normal and pixel centres at whole numbers."""
    thermal, visible = replace(thermal, coefficients=()), replace(visible, coefficients=())
    induced = square(pose.rotation) + np.outer(pose.translation, (0, 0, 1)) / distance
    homography = square(thermal.matrix) @ induced @ np.linalg.inv(square(visible.matrix))
    pixels = CameraMap(thermal, visible, pose, distance)
    points = centres(visible.size)[::3]
    wanted = cv2.perspectiveTransform(points[None] - 0.5, homography)[0] + 0.5
    np.testing.assert_allclose(pixels.to_thermal(points), wanted, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(pixels.to_visible(wanted), points, rtol=1e-7, atol=1e-5)


def test_by_hand_a_camera_to_the_right_sees_the_plane_shifted_to_the_left():
    """10 cm to the right, 2 m away, focal length 100 pixels: by 100 * 0.1 / 2 = 5 pixels."""
    pixels = CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (-0.1, 0, 0)), 2.0)
    np.testing.assert_allclose(pixels.to_thermal([(50, 50), (10.5, 20.5)]), [(45, 50), (5.5, 20.5)])
    np.testing.assert_allclose(pixels.to_visible([(45, 50)]), [(50, 50)])


def test_by_hand_what_is_nearer_than_the_plane_appears_shifted_as_the_docstring_says():
    pixels = CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (-0.1, 0, 0)), 2.0)
    near = np.array([[0.0, 0.0, 1.0]])
    seen = pixels.thermal_camera.project(near - (0.1, 0, 0))
    np.testing.assert_allclose(pixels.to_visible(seen)[0, 0] - 50, -100 * 0.1 * (1 / 1.0 - 1 / 2.0))


@given(camera_maps(), st.sampled_from([0.5, 2.0, 3.0]))
def test_cameras_hold_at_other_sizes(pixels, factor):
    sizes = [tuple(max(1, round(factor * side)) for side in size) for size in (pixels.thermal, pixels.visible)]
    scaled = pixels.resized(*sizes)
    assert (scaled.thermal, scaled.visible) == tuple(sizes)
    scales = [np.divide(new, old)[::-1] for new, old in zip(sizes, (pixels.thermal, pixels.visible), strict=True)]
    points = centres(pixels.visible)[::5]
    np.testing.assert_allclose(scaled.to_thermal(points * scales[1]), pixels.to_thermal(points) * scales[0], atol=1e-6)


def test_sizes_of_another_aspect_are_refused_by_name():
    pixels = CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (0, 0, 0)), 2.0)
    homography = HomographyMap(IDENTITY, (100, 100), (100, 100))
    for of in (pixels, homography):
        with pytest.raises(AlignmentError, match="thermal: made for images of 100x100 pixels, got 120x100"):
            of.resized((100, 120), (100, 100))
        with pytest.raises(AlignmentError, match="visible: made for images of 100x100 pixels, got 120x100"):
            of.resized((100, 100), (100, 120))


def test_a_pixel_that_looks_away_from_the_plane_has_no_counterpart():
    """A fisheye of 100 pixels a radian looks sideways 157 pixels from its middle."""
    wide = simple_camera((400, 400), 100.0, "equidistant")
    pixels = CameraMap(wide, wide, Extrinsics(IDENTITY, (0, 0, 0)), 2.0)
    points = [(200 + 156, 200), (200 + 158, 200)]
    for mapped in (pixels.to_thermal(points), pixels.to_visible(points)):
        np.testing.assert_allclose(mapped[0], points[0])
        assert np.isnan(mapped[1]).all()


def test_a_camera_that_looks_the_other_way_sees_none_of_the_plane():
    turned = Extrinsics((-1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 0))
    pixels = CameraMap(simple_camera(), simple_camera(), turned, 2.0)
    assert np.isnan(pixels.to_thermal(centres((100, 100)))).all()
    assert np.isnan(pixels.to_visible(centres((100, 100)))).all()


@pytest.mark.parametrize("distance", [0, -1, math.nan, math.inf, True, "2", None, 1e10])
def test_distances_that_are_none_are_refused(distance):
    with pytest.raises(AlignmentError, match="distance"):
        CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (0, 0, 0)), distance)


def test_a_plane_behind_the_thermal_camera_is_refused():
    """The thermal camera is 3 m ahead of the visible one, the plane 2 m."""
    with pytest.raises(AlignmentError, match="2 m before the visible camera lies behind the thermal one"):
        CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (0, 0, -3)), 2.0)
    CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (0, 0, 3)), 2.0)


@given(extrinsics(), st.integers(4, 6))
def test_rotations_of_a_few_digits_are_mended(pose, digits):
    rounded = Extrinsics(tuple(np.round(pose.rotation, digits)), pose.translation)
    rotation = square(rounded.rotation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(rounded.rotation, pose.rotation, atol=10.0**-digits)
    assert Extrinsics(rounded.rotation, rounded.translation) == rounded


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        ([0] * 9, [0] * 3, "is no rotation matrix"),
        ([1, 0, 0, 0, 1, 0, 0, 0, 1.01], [0] * 3, "is no rotation matrix"),
        ([1, 0.01, 0, 0, 1, 0, 0, 0, 1], [0] * 3, "is no rotation matrix"),
        ([1, 0, 0, 0, 1, 0, 0, 0, -1], [0] * 3, "is a reflection"),
        (IDENTITY[:8], [0] * 3, "rotation: expected 9 numbers"),
        ([math.inf, *IDENTITY[1:]], [0] * 3, "rotation: expected numbers"),
        (IDENTITY, [0] * 2, "translation: expected 3 numbers"),
        (IDENTITY, [0, 0, math.nan], "translation: expected numbers"),
    ],
)
def test_what_is_no_pose_is_refused(rotation, translation, message):
    with pytest.raises(AlignmentError, match=message):
        Extrinsics(tuple(rotation), tuple(translation))


def test_maps_are_equal_by_their_values():
    """So that a node sees whether a new calibration differs from the one in use."""
    maps = [CameraMap(simple_camera(), simple_camera(), Extrinsics(IDENTITY, (0, 0, 0)), d) for d in (2.0, 2, 3)]
    assert maps[0] == maps[1] != maps[2]
    assert len({*maps}) == 2
    assert HomographyMap(IDENTITY, (1, 1), (2, 2)) == HomographyMap((2, 0, 0, 0, 2, 0, 0, 0, 2), (1, 1), (2, 2))


def test_corners_are_the_unit_square():
    """The order in which the scenes draw them: a mirrored one would be refused."""
    np.testing.assert_array_equal(UNIT, [(0, 0), (1, 0), (1, 1), (0, 1)])
