"""Camera models against OpenCV's, by hand, and there and back."""

import array
import math

import cv2
import numpy as np
import pytest
from alignment_scenes import cameras, centres, numbers
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vifa_runtime.camera_model import AlignmentError, Camera, rotation_from_quaternion
from vifa_runtime.distortion import bend, distort, widest_angle, widest_radius
from vifa_runtime.geometry import GeometryError

MATRIX = (100.0, 0.0, 49.5, 0.0, 110.0, 39.5, 0.0, 0.0, 1.0)
SIZE = (80, 100)
PINHOLES = ("plumb_bob", "rational_polynomial")
WILD = numbers(-2, 2, 8)
ANY_COEFFICIENTS = WILD.map(lambda c: (c[0], c[1], c[2] / 10, c[3] / 10, *c[4:])) | WILD.map(
    lambda c: (*c[:2], 0.0, 0.0, *c[4:])  # often with a pole
)


def camera(model="plumb_bob", coefficients=(), **changes):
    return Camera(**{"size": SIZE, "matrix": MATRIX, "model": model, "coefficients": coefficients, **changes})


def square(of):
    return np.array(of.matrix).reshape(3, 3)


def in_view(seed=0, widest=0.6, count=40):
    """Points (N, 3) in metres before a camera, up to `widest` times as far aside as away."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 30, (count, 1))
    return np.concatenate([rng.uniform(-widest, widest, (count, 2)) * depth, depth], axis=1)


@given(cameras(models=PINHOLES), st.integers(0, 99))
def test_pinholes_project_as_opencv_does(of, seed):
    points = in_view(seed)
    wanted, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), square(of), np.array(of.coefficients))
    np.testing.assert_allclose(of.project(points), wanted[:, 0] + 0.5, atol=1e-7)


@given(cameras(models=("equidistant",)), st.integers(0, 99))
def test_fisheyes_project_as_opencv_does(of, seed):
    points = in_view(seed, widest=1)
    coefficients = np.array(of.coefficients or (0, 0, 0, 0), np.float64)
    wanted, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), square(of), coefficients)
    np.testing.assert_allclose(of.project(points), wanted[:, 0] + 0.5, atol=1e-7)


@given(cameras(models=PINHOLES))
def test_pinhole_rays_are_opencvs(of):
    pixels = centres(of.size)[::7]
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
    wanted = cv2.undistortPointsIter(
        (pixels - 0.5)[:, None], square(of), np.array(of.coefficients, np.float64), np.eye(3), np.eye(3), until
    )
    rays = of.rays(pixels)
    np.testing.assert_array_equal(rays[:, 2], 1)
    np.testing.assert_allclose(rays[:, :2], wanted[:, 0], atol=1e-7)


@given(cameras(models=("equidistant",)))
def test_fisheye_rays_are_opencvs(of):
    pixels = centres(of.size)[::7]
    coefficients = np.array(of.coefficients or (0, 0, 0, 0), np.float64)
    wanted = cv2.fisheye.undistortPoints((pixels - 0.5)[:, None], square(of), coefficients)
    rays = of.rays(pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(rays[:, :2] / rays[:, 2:], wanted[:, 0], atol=1e-6)


@given(cameras())
def test_every_pixel_comes_back(of):
    pixels = centres(of.size)
    np.testing.assert_allclose(of.project(of.rays(pixels)), pixels, atol=1e-7)
    np.testing.assert_allclose(of.project(7.5 * of.rays(pixels)), pixels, atol=1e-7)


@given(ANY_COEFFICIENTS, st.integers(0, 99))
def test_any_lens_gives_the_point_back_within_its_range(coefficients, seed):
    """However wild: inside the range every point comes back, and outside nothing does."""
    of, rng = camera("rational_polynomial", coefficients), np.random.default_rng(seed)
    widest = min(widest_radius(coefficients), 5)
    turn, radius = rng.uniform(0, 2 * math.pi, 50), rng.uniform(0, 2, 50) * widest
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.ones(50)], axis=1)
    pixels = of.project(points)
    back = of.rays(pixels)
    is_inside = radius < widest_radius(coefficients)
    assert np.isnan(pixels[~is_inside]).all()
    assert np.isnan(back[~is_inside]).all()
    np.testing.assert_allclose(back[is_inside], points[is_inside], atol=1e-6)


@pytest.mark.parametrize(
    "coefficients",
    [(0.3, 0.5, 0.2, 0.2, 0.1, 0.6, -0.8, 0.3), (0.2, -0.5, -0.1, 0.2, 0.3, 0.5, -0.7, 0.1)],
)
def test_lenses_that_whole_steps_of_newton_would_jump_over(coefficients):
    turn, radius = np.meshgrid(np.arange(0, 6.3, 0.01), np.linspace(0.5, 0.99, 50) * widest_radius(coefficients))
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.ones_like(turn)], axis=-1).reshape(-1, 3)
    of = camera("rational_polynomial", coefficients)
    np.testing.assert_allclose(of.rays(of.project(points)), points, atol=1e-6)


@given(numbers(-1, 1, 4), st.integers(0, 99))
def test_any_fisheye_gives_the_point_back_within_its_range(coefficients, seed):
    of, rng = camera("equidistant", coefficients), np.random.default_rng(seed)
    widest = widest_angle(coefficients)
    angle, turn = rng.uniform(0, 1.2, 50) * widest, rng.uniform(0, 2 * math.pi, 50)
    is_inside = angle < widest
    aside = np.sin(angle)
    points = np.stack([aside * np.cos(turn), aside * np.sin(turn), np.cos(angle)], axis=1)[angle <= math.pi]
    is_inside = is_inside[angle <= math.pi]
    pixels = of.project(points)
    back = of.rays(pixels)
    assert np.isnan(pixels[~is_inside]).all()
    assert np.isnan(back[~is_inside]).all()
    np.testing.assert_allclose(back[is_inside], points[is_inside], atol=1e-6)


@given(numbers(-1, 1, 4))
def test_a_fisheyes_range_ends_where_a_hundredth_of_the_magnification_is_left(coefficients):
    widest = widest_angle(coefficients)
    angles = np.linspace(0, 1, 400) * widest
    growth = np.gradient(bend(angles, coefficients), angles)
    assert (growth[:-4] > 0.009).all()
    if widest < math.pi:
        step = 1e-6 * widest
        ends = bend(np.array([widest - step, widest + step]), coefficients)
        np.testing.assert_allclose((ends[1] - ends[0]) / (2 * step), 0.01, atol=1e-4)
    else:
        assert widest == math.pi


@given(ANY_COEFFICIENTS, st.lists(numbers(-1e4, 1e4, 2), min_size=1, max_size=20))
def test_any_pixel_gives_a_ray_that_leads_to_it_or_none(coefficients, pixels):
    of = camera("rational_polynomial", coefficients)
    rays = of.rays(np.array(pixels))
    back = of.project(rays)
    np.testing.assert_array_equal(np.isnan(rays).all(axis=1), np.isnan(back).any(axis=1))
    is_seen = ~np.isnan(back[:, 0])
    np.testing.assert_allclose(back[is_seen], np.array(pixels)[is_seen], rtol=1e-8, atol=1e-6)


@given(ANY_COEFFICIENTS)
def test_within_the_range_the_image_moves_as_the_point_does(coefficients):
    """By finite differences, in directions that the implementation does not sample."""
    widest = min(widest_radius(coefficients), 100)
    turns, step = np.arange(0.013, 2 * math.pi, 0.31), 1e-6 * widest
    radii = np.linspace(0.001, 0.99, 60)[:, None] * widest
    points = np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=-1).reshape(-1, 2)
    for way in np.array([(1, 0), (0, 1), (0.6, 0.8), (0.6, -0.8)]):
        change = (distort(points + step * way, coefficients) - distort(points - step * way, coefficients)) @ way
        assert (change / (2 * step) > 0.005).all()


def test_a_lens_that_folds_back_is_followed_up_to_a_hundredth_of_its_magnification():
    of = camera(coefficients=(-1 / 3, 0, 0, 0, 0))  # r - r³/3 folds at 1
    widest = math.sqrt(0.99)
    inside, outside = ([[radius, 0, 1]] for radius in (widest - 1e-9, widest + 1e-9))
    assert np.isfinite(of.project(inside)).all()
    assert np.isnan(of.project(outside)).all()
    reached = widest - widest**3 / 3
    assert np.isfinite(of.rays([[50 + 100 * (reached - 1e-6), 40]])).all()
    assert np.isnan(of.rays([[50 + 100 * (reached + 1e-6), 40]])).all()


def test_a_pole_of_the_rational_model_is_not_crossed():
    of = camera("rational_polynomial", (0, 0, 0, 0, 0, -1, 0, 0))  # r / (1 - r²)
    assert np.isfinite(of.project([[0.99, 0, 1]])).all()
    assert np.isnan(of.project([[1.01, 0, 1], [3, 0, 1]])).all()


def test_a_fisheye_that_folds_back_is_followed_up_to_a_hundredth_of_its_magnification():
    of = camera("equidistant", (-1 / 3, 0, 0, 0))
    widest = math.sqrt(0.99)
    for angle, is_seen in ((widest - 1e-9, True), (widest + 1e-9, False)):
        assert np.isfinite(of.project([[math.sin(angle), 0, math.cos(angle)]])).all() == is_seen
    reached = widest - widest**3 / 3
    assert np.isfinite(of.rays([[50, 40 + 110 * (reached - 1e-6)]])).all()
    assert np.isnan(of.rays([[50, 40 + 110 * (reached + 1e-6)]])).all()


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", "equidistant", "fisheye"])
@pytest.mark.parametrize("count", [0, 4])
def test_by_hand_the_axis_meets_the_middle_of_an_image_whose_centre_is_between_its_pixels(model, count):
    """cx = 49.5 of 100 columns is between the centres of columns 49 and 50, thus 50.0 from the image's edge."""
    if model == "rational_polynomial":
        count *= 2
    of = camera(model, (0.1,) * count)
    np.testing.assert_allclose(of.project([[0, 0, 3]]), [[50, 40]], atol=1e-12)
    np.testing.assert_allclose(of.rays([[50, 40]]), [[0, 0, 1]], atol=1e-12)


def test_by_hand_without_distortion():
    np.testing.assert_allclose(camera().project([[1, -0.5, 2]]), [[50 + 100 / 2, 40 - 110 / 4]])
    np.testing.assert_allclose(camera().rays([[100, 12.5]]), [[0.5, -0.25, 1]])


def test_by_hand_with_distortion():
    of = camera("plumb_bob", (0.1, 0.01, 0.02, 0.03, 0.001))
    x, y, r2 = 0.5, -0.25, 0.3125
    radial = 1 + 0.1 * r2 + 0.01 * r2**2 + 0.001 * r2**3
    along = x * radial + 2 * 0.02 * x * y + 0.03 * (r2 + 2 * x * x)
    down = y * radial + 0.02 * (r2 + 2 * y * y) + 2 * 0.03 * x * y
    np.testing.assert_allclose(of.project([[1, -0.5, 2]]), [[50 + 100 * along, 40 + 110 * down]])


def test_a_fisheye_sees_behind_itself():
    of = camera("equidistant", ())
    points = [[math.sin(2), 0, math.cos(2)], [0, 3, 0], [0, 0, -1]]
    wanted = [[50 + 200, 40], [50, 40 + 110 * math.pi / 2], [np.nan, np.nan]]
    np.testing.assert_allclose(of.project(points), wanted)
    np.testing.assert_allclose(of.rays(wanted[:2]), [points[0], [0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
@pytest.mark.parametrize("coefficients", [(), (0.01, 0.01, 0, 0)])
def test_nothing_is_made_up(model, coefficients):
    of = camera(model, coefficients)
    nowhere = [[0, 0, 0], [0, 0, -2], [np.nan, 0, 1], [np.inf, 1, np.inf]]
    assert np.isnan(of.project(nowhere)).all()
    assert np.isnan(of.rays([[np.nan, 1], [np.inf, 1], [1e300, 1e300]])[:2]).all()
    assert of.project(np.empty((0, 3))).shape == (0, 2)
    assert of.rays(np.empty((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("coefficients", [(), (0.01, 0.01, 0, 0)])
def test_a_pinhole_sees_nothing_beside_or_behind_itself(coefficients):
    points = [[1, 0, -1], [1, 1, 0], [1, 0, -1e-300], [1, 0, 1e-320]]
    assert np.isnan(camera(coefficients=coefficients).project(points)).all()


@given(cameras(), st.floats(0.2, 3))
def test_a_camera_at_another_size_scales_its_pixels(of, factor):
    size = tuple(max(1, round(side * factor)) for side in of.size)
    scale = np.divide(size, of.size)[::-1]
    resized = of.resized(size)
    assert (resized.size, resized.coefficients) == (size, of.coefficients)
    points = in_view()
    np.testing.assert_allclose(resized.project(points), of.project(points) * scale, atol=1e-9)
    np.testing.assert_allclose(resized.rays(centres(of.size) * scale), of.rays(centres(of.size)), atol=1e-9)


@pytest.mark.parametrize("size", [(80, 99), (81, 100), (40, 50), (41, 51), (239, 300)])
def test_sizes_as_rounding_leaves_them_are_of_one_aspect(size):
    assert camera().resized(size).size == size


@pytest.mark.parametrize("size", [(100, 100), (80, 96), (160, 210), (60, 100), (1000, 1200)])
def test_sizes_of_another_aspect_are_refused(size):
    with pytest.raises(AlignmentError, match=rf"made for images of 100x80 pixels, got {size[1]}x{size[0]}"):
        camera().resized(size)


def test_a_part_of_the_image():
    part = camera(coefficients=(0.1, 0, 0, 0, 0)).cropped(10, 20, (40, 60))
    points = in_view()
    assert part.size == (40, 60)
    whole = camera(coefficients=(0.1, 0, 0, 0, 0)).project(points)
    np.testing.assert_allclose(part.project(points), whole - (10, 20), atol=1e-9)


@pytest.mark.parametrize(
    ("left", "top", "size"), [(-1, 0, (1, 1)), (0, -1, (1, 1)), (1, 0, (80, 100)), (0, 1, (80, 100))]
)
def test_a_part_that_is_none_is_refused(left, top, size):
    with pytest.raises(AlignmentError, match=r"roi: .* do not lie in the image of 100x80"):
        camera().cropped(left, top, size)


def test_fields_of_a_message_are_taken_as_they_come():
    """`k` of CameraInfo is a NumPy array, `d` an array of the standard library; drivers pad it with zeros."""
    of = camera("rational_polynomial", array.array("d", [0.1] * 8 + [0] * 6), matrix=np.array(MATRIX))
    assert of == camera("rational_polynomial", (0.1,) * 8)
    assert hash(of) == hash(camera("rational_polynomial", (0.1,) * 8))


REFUSED = {
    "size 0": ({"size": (0, 10)}, r"image_height must be a whole number in 1..16384, got 0"),
    "huge": ({"size": (10, 16385)}, r"image_width must be a whole number in 1..16384, got 16385"),
    "size with a fraction": ({"size": (10, 2.5)}, "image_width must be a whole number"),
    "size true": ({"size": (True, 10)}, "image_height must be a whole number"),
    "uncalibrated": ({"matrix": (0,) * 9}, "camera_matrix is all zeros, which means uncalibrated"),
    "skew": ({"matrix": (1, 0.1, 0, 0, 1, 0, 0, 0, 1)}, r"camera_matrix must be \(fx, 0, cx"),
    "last row": ({"matrix": (1, 0, 0, 0, 1, 0, 0, 0, 2)}, r"camera_matrix must be \(fx, 0, cx"),
    "below the diagonal": ({"matrix": (1, 0, 0, 0.1, 1, 0, 0, 0, 1)}, r"camera_matrix must be \(fx, 0, cx"),
    "mirrored": ({"matrix": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}, "fx and fy must be at least 0.001 pixels"),
    "flat": ({"matrix": (1, 0, 0, 0, 0, 0, 0, 0, 1)}, "fx and fy must be at least 0.001 pixels"),
    "nan": ({"matrix": (*MATRIX[:2], math.nan, *MATRIX[3:])}, "camera_matrix: expected numbers of .* got nan"),
    "eight numbers": ({"matrix": MATRIX[:8]}, "camera_matrix: expected 9 numbers, got 8"),
    "text": ({"matrix": ("a",) * 9}, "camera_matrix: expected numbers"),
    "true": ({"coefficients": (True,) * 5}, "distortion_coefficients: expected numbers"),
    "infinite": ({"coefficients": (math.inf,) * 5}, "distortion_coefficients: expected numbers"),
    "huge integer": ({"coefficients": (10**5000,) * 5}, "distortion_coefficients: expected numbers"),
    "three coefficients": ({"coefficients": (0.1,) * 3}, "distortion_coefficients: plumb_bob has 0 or 4 or 5, got 3"),
    "of another model": ({"coefficients": (0.1,) * 8}, "name the model that they belong to"),
    "unknown model": ({"model": "omni"}, "distortion_model 'omni' is unknown; use one of plumb_bob"),
    "no model": ({"model": None}, "distortion_model None is unknown"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_calibration_is_refused(changes, message):
    with pytest.raises(AlignmentError, match=message) as caught:
        camera(**changes)
    assert isinstance(caught.value, GeometryError)
    assert "\n" not in str(caught.value)


@given(numbers(-1, 1, 4).filter(lambda q: math.hypot(*q) > 0.1))
def test_quaternions_are_rotations_in_the_order_of_ros(quaternion):
    quaternion = np.array(quaternion) / math.hypot(*quaternion)
    found = np.reshape(rotation_from_quaternion(*quaternion), (3, 3))
    np.testing.assert_allclose(found, Rotation.from_quat(quaternion).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(np.reshape(rotation_from_quaternion(*0.995 * quaternion), (3, 3)), found, atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, 1.1), (math.nan, 0, 0, 1)])
def test_what_is_no_quaternion_is_refused(quaternion):
    with pytest.raises(AlignmentError, match="rotation"):
        rotation_from_quaternion(*quaternion)
