"""Points in images against OpenCV's projection, and what they take from there against loops over single points."""

import math

import cv2
import numpy as np
import pytest
from alignment_scenes import cameras, centres, extrinsics
from hypothesis import assume, given
from hypothesis import strategies as st

from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.coloured_points import FATES, PointSettings, colour_points, find_hidden, project_points
from vifa_runtime.distortion import widest_angle, widest_radius
from vifa_runtime.pixel_maps import Extrinsics

HERE = Extrinsics((1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 0))
CAMERA = Camera((6, 8), (10, 0, 3.5, 0, 10, 2.5, 0, 0, 1))  # its axis meets the image's middle, (4, 3)
FISHEYE = Camera((6, 8), (1.5, 0, 3.5, 0, 1.5, 2.5, 0, 0, 1), "equidistant")


def all_around(seed=0, count=200):
    return np.random.default_rng(seed).normal(0, 5, (count, 3))


def pictures(size, seed=0):
    """A fused image, a mask and a thermal image of noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8), rng.normal(20, 9, size)


def fates(projection):
    return [FATES[code] for code in projection.fates]


def opencv_pixels(camera, points, to_camera):
    """Pixels by OpenCV, (0, 0) the outer corner of the first one."""
    matrix, turn = np.reshape(camera.matrix, (3, 3)), cv2.Rodrigues(np.reshape(to_camera.rotation, (3, 3)))[0]
    shift, coefficients = np.array(to_camera.translation), np.array(camera.coefficients or (0, 0, 0, 0), np.float64)
    if camera.model == "equidistant":
        found, _ = cv2.fisheye.projectPoints(points[:, None], turn, shift, matrix, coefficients)
    else:
        found, _ = cv2.projectPoints(points, turn, shift, matrix, coefficients)
    return found.reshape(-1, 2) + 0.5


def reach(camera, ahead):
    """Whether the lens shows points (N, 3) before the camera, by the range that its model has."""
    aside = np.hypot(ahead[:, 0], ahead[:, 1]) / ahead[:, 2]
    padded = (*camera.coefficients, *[0.0] * 8)
    if camera.model == "equidistant":
        return np.arctan(aside) < widest_angle(padded[:4])
    return aside < widest_radius(padded[:8])


@given(cameras(), extrinsics(), st.integers(0, 999))
def test_points_lie_in_the_pixels_that_opencv_says(camera, to_camera, seed):
    points = all_around(seed)
    moved = points @ np.reshape(to_camera.rotation, (3, 3)).T + to_camera.translation
    points, moved = points[moved[:, 2] > 0.01], moved[moved[:, 2] > 0.01]
    pixels = opencv_pixels(camera, points, to_camera)
    pixels[~np.isfinite(pixels)] = 1e9
    clear = np.abs(pixels - np.round(pixels)).min(axis=1) > 1e-4  # not where rounding decides
    points, pixels, moved = points[clear], pixels[clear], moved[clear]
    found = project_points(points, to_camera, camera)
    inside = ((pixels > 0) & (pixels < camera.size[::-1])).all(axis=1) & reach(camera, moved)
    np.testing.assert_array_equal(found.seen, np.flatnonzero(inside))
    np.testing.assert_array_equal(found.columns, np.floor(pixels[inside, 0]))
    np.testing.assert_array_equal(found.rows, np.floor(pixels[inside, 1]))
    assert {"behind", "invalid", "hidden"}.isdisjoint(fates(found))


@given(cameras(), extrinsics(), st.floats(0.1, 80), st.integers(0, 99))
def test_every_pixels_own_point_gets_its_colour(camera, to_camera, distance, seed):
    """There and back: a point on the ray through a pixel's inside, moved into the points' frame."""
    image, mask, temperature = pictures(camera.size, seed)
    inside = centres(camera.size) + np.random.default_rng(seed).uniform(-0.49, 0.49, (mask.size, 2))
    rays = camera.rays(inside)
    assume(not np.isnan(rays).any())
    rotation = np.reshape(to_camera.rotation, (3, 3))
    points = (distance * rays - to_camera.translation) @ rotation
    coloured = colour_points(project_points(points, to_camera, camera), image, mask, temperature)
    np.testing.assert_array_equal(coloured.points, points)
    np.testing.assert_array_equal(coloured.colours, image.reshape(-1, 3))
    np.testing.assert_array_equal(coloured.class_ids, mask.ravel())
    np.testing.assert_array_equal(coloured.temperatures, temperature.ravel().astype(np.float32))


def test_by_hand():
    """Ten pixels a unit aside at depth 1: 0.05 is the middle of the first pixel right of the axis."""
    points = [[0.05, 0.05, 1], [-0.05, -0.05, 1], [0.1, 0.2, 2], [0.39, -0.29, 1], [-0.4, -0.3, 1]]
    found = project_points(np.array(points), HERE, CAMERA)
    assert found.columns.tolist() == [4, 3, 4, 7, 0]
    assert found.rows.tolist() == [3, 2, 4, 0, 0]
    assert (found.size, found.counts["seen"]) == ((6, 8), 5)


def test_by_hand_the_transform_leads_from_the_points_to_the_camera():
    """A scanner whose x points ahead and z up, 1 m above the camera: ROS's axes and the optical ones."""
    to_camera = Extrinsics((0, -1, 0, 0, 0, -1, 1, 0, 0), (0, -1, 0))
    found = project_points(np.array([[10.0, -1.0, -1.5]]), to_camera, CAMERA)  # ahead, to the right, below
    assert (found.columns.tolist(), found.rows.tolist()) == ([5], [3])  # 1 m right, 0.5 m below its axis, at 10 m


@pytest.mark.parametrize(
    ("point", "fate"),
    [
        ((0.05, 0.05, 1.0), "seen"),
        ((0.401, 0.0, 1.0), "outside"),
        ((0.0, -0.301, 1.0), "outside"),
        ((0.4, 0.0, 1.0), "outside"),  # the right edge is no pixel's
        ((0.05, 0.05, -1.0), "behind"),
        ((1.0, 1.0, 0.0), "behind"),
        ((0.0, 0.0, 0.0), "behind"),
        ((math.nan, 0.0, 1.0), "invalid"),
        ((0.0, math.inf, 1.0), "invalid"),
        ((0.0, 0.0, -math.inf), "invalid"),
        ((1e308, 1e308, 1e308), "invalid"),
        ((1e200, 0.0, 1e-200), "beyond_lens"),
    ],
)
def test_the_fate_of_a_point(point, fate):
    found = project_points(np.array([point]), HERE, CAMERA)
    assert fates(found) == [fate]
    assert found.counts == {name: int(name == fate) for name in FATES}


@pytest.mark.parametrize(
    ("angle", "fate"), [(0.5, "seen"), (1.9, "seen"), (2.1, "outside"), (math.pi, "behind"), (math.nan, "invalid")]
)
def test_a_fisheye_sees_beside_and_behind_itself(angle, fate):
    """1.5 pixels a radian: the last row ends 3 pixels below the axis, at 2 radians."""
    point = 3 * np.array([[0, math.sin(angle), math.cos(angle)]])
    assert fates(project_points(point, HERE, FISHEYE)) == [fate]


def test_a_lens_that_folds_back_shows_nothing_twice():
    folding = Camera((6, 8), CAMERA.matrix, "plumb_bob", (-1 / 3, 0, 0, 0, 0))  # r - r³/3 comes back to 0 at √3
    found = project_points(np.array([[0.2, 0, 1], [1.7, 0, 1], [1.1, 0, 1]]), HERE, folding)
    assert fates(found) == ["seen", "beyond_lens", "beyond_lens"]


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE])
def test_points_far_more_than_a_strip_are_like_few(camera):
    points = all_around(count=20000)
    points[::7] = np.nan
    whole = project_points(points, HERE, camera)
    parts = [project_points(points[start : start + 777], HERE, camera) for start in range(0, 20000, 777)]
    np.testing.assert_array_equal(whole.fates, np.concatenate([part.fates for part in parts]))
    np.testing.assert_array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
    np.testing.assert_array_equal(whole.columns, np.concatenate([part.columns for part in parts]))
    assert sum(whole.counts.values()) == 20000
    assert min(whole.counts["seen"], whole.counts["outside"], whole.counts["invalid"]) > 100


@given(st.integers(0, 999), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_colours_are_those_of_a_loop_over_single_points(seed, keep, has_mask, has_temperature, has_covered):
    points = all_around(seed, 60) * (0.3, 0.3, 1)
    points[::11] = np.nan
    image, mask, temperature = pictures(CAMERA.size, seed)
    covered = (np.random.default_rng(seed).random(CAMERA.size) > 0.3).astype(np.float32)
    settings = PointSettings(keep_unseen=keep, unseen_colour=(1, 2, 3))
    found = project_points(points, HERE, CAMERA, settings)
    coloured = colour_points(
        found,
        image,
        mask if has_mask else None,
        temperature if has_temperature else None,
        covered if has_covered else None,
    )
    wanted, place = [], 0
    for index, point in enumerate(points):
        if found.fates[index] == FATES.index("seen"):
            pixel = int(found.rows[place]), int(found.columns[place])
            place += 1
            shows = has_temperature and (not has_covered or covered[pixel] > 0)
            values = (*image[pixel], mask[pixel] if has_mask else 255, temperature[pixel] if shows else np.nan)
        elif keep:
            values = (1, 2, 3, 255, np.nan)
        else:
            continue
        wanted.append((*point, *values))
    got = np.c_[coloured.points, coloured.colours, coloured.class_ids, coloured.temperatures]
    np.testing.assert_allclose(got, np.reshape(wanted, (-1, 8)), rtol=1e-6)
    assert (coloured.colours.dtype, coloured.class_ids.dtype) == (np.uint8, np.uint8)
    assert coloured.temperatures.dtype == np.float32


@st.composite
def crowds(draw):
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.integers(0, 20, count), rng.integers(0, 30, count), np.exp(rng.uniform(0, 1.5, count))


@given(crowds(), st.integers(1, 40), st.floats(0, 1))
def test_hidden_is_what_lies_far_behind_another_point_of_its_square(crowd, cell, margin):
    rows, columns, distances = crowd
    wanted = [
        any(
            rows[a] // cell == rows[b] // cell
            and columns[a] // cell == columns[b] // cell
            and distances[a] > distances[b] * (1 + margin)
            for b in range(len(rows))
        )
        for a in range(len(rows))
    ]
    found = find_hidden(rows, columns, distances, PointSettings(cell=cell, margin=margin))
    np.testing.assert_array_equal(found, np.array(wanted, bool))


def test_by_hand_a_wall_behind_a_post_is_hidden_where_the_test_is_on():
    """Two points of one pixel at 2 m and 8 m, and one of the next square at 8 m."""
    points = np.array([[0.1, 0.1, 2.0], [0.4, 0.4, 8.0], [-0.4, 0.4, 8.0]])
    assert fates(project_points(points, HERE, CAMERA)) == ["seen"] * 3
    found = project_points(points, HERE, CAMERA, PointSettings(cell=4))
    assert fates(found) == ["seen", "hidden", "seen"]
    assert found.rows.tolist() == [3, 3] and found.columns.tolist() == [4, 3]
    assert fates(project_points(points, HERE, CAMERA, PointSettings(cell=4, margin=3.1))) == ["seen"] * 3
    assert fates(project_points(points, HERE, CAMERA, PointSettings(cell=8))) == ["seen", "hidden", "hidden"]


def test_hidden_points_that_stay_are_uncoloured():
    points = np.array([[0.4, 0.4, 8.0], [0.1, 0.1, 2.0]])
    found = project_points(points, HERE, CAMERA, PointSettings(keep_unseen=True, cell=4))
    coloured = colour_points(found, *pictures(CAMERA.size))
    assert coloured.colours[0].tolist() == [128, 128, 128]
    assert (coloured.class_ids[0], np.isnan(coloured.temperatures).tolist()) == (255, [True, False])


def test_what_is_behind_hides_nothing_and_what_is_outside_neither():
    points = np.array([[0.05, 0.05, 5.0], [0.05, 0.05, -1.0], [9.0, 0.05, 1.0], [np.nan] * 3])
    found = project_points(points, HERE, CAMERA, PointSettings(cell=1000))
    assert fates(found) == ["seen", "behind", "outside", "invalid"]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("cell", [0, 4])
@pytest.mark.parametrize("points", [np.empty((0, 3)), np.array([[0.0, 0.0, -1.0]]), np.full((3, 3), np.nan)])
def test_no_point_to_be_seen(points, keep, cell):
    found = project_points(points, HERE, CAMERA, PointSettings(keep_unseen=keep, cell=cell))
    coloured = colour_points(found, *pictures(CAMERA.size))
    count = len(points) if keep else 0
    assert coloured.points.shape == (count, 3) and coloured.colours.shape == (count, 3)
    assert len(coloured.class_ids) == len(coloured.temperatures) == count


def test_an_image_of_another_size_wants_the_camera_at_that_size():
    points = all_around() * (0.1, 0.1, 1)
    image, mask, temperature = pictures(CAMERA.size)
    doubled = [np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in (image, mask, temperature)]
    small = colour_points(project_points(points, HERE, CAMERA), image, mask, temperature)
    large = colour_points(project_points(points, HERE, CAMERA.resized((12, 16))), *doubled)
    assert len(small.points) > 20
    for name in ("points", "colours", "class_ids", "temperatures"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))


def test_cropped_images_are_read_in_place():
    points = all_around() * (0.1, 0.1, 1)
    plain = pictures(CAMERA.size)
    cropped = [np.pad(picture, [(2, 3), (4, 1)] + [(0, 0)] * (picture.ndim - 2))[2:-3, 4:-1] for picture in plain]
    found = project_points(points, HERE, CAMERA)
    everywhere = np.broadcast_to(np.float32(1), CAMERA.size)
    a, b = colour_points(found, *plain), colour_points(found, *cropped, everywhere)
    np.testing.assert_array_equal(a.colours, b.colours)
    np.testing.assert_array_equal(a.class_ids, b.class_ids)
    np.testing.assert_array_equal(a.temperatures, b.temperatures)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.float64])
def test_points_of_any_number_stay_as_they_are(dtype):
    points = (all_around() * 10).astype(dtype)
    before = points.copy()
    coloured = colour_points(project_points(points, HERE, CAMERA), pictures(CAMERA.size)[0])
    assert coloured.points.dtype == dtype
    np.testing.assert_array_equal(points, before)
    exact = project_points(points.astype(np.float64), HERE, CAMERA)
    np.testing.assert_array_equal(coloured.points, points[exact.seen])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"image": np.zeros((6, 8), np.uint8)}, r"image has shape \(6, 8\), the points .* into \(6, 8, 3\)"),
        ({"image": np.zeros((3, 4, 3), np.uint8)}, "image has shape .* resize the camera"),
        ({"image": np.zeros((6, 8, 3), np.float32)}, "image is float32, not uint8; convert it"),
        ({"mask": np.zeros((8, 6), np.uint8)}, "mask has shape"),
        ({"mask": np.zeros((6, 8), np.uint16)}, "mask is uint16, not uint8"),
        ({"temperature": np.zeros((6, 9), np.float32)}, "temperature has shape"),
        ({"covered": np.zeros((6, 8, 1), np.float32)}, "covered has shape"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    found = project_points(np.array([[0.0, 0.0, 1.0]]), HERE, CAMERA)
    with pytest.raises(AlignmentError, match=message):
        colour_points(found, **{"image": np.zeros((6, 8, 3), np.uint8), **images})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": -1}, r"cell must be in 0..1000 pixels, got -1"),
        ({"cell": 1001}, "cell must be"),
        ({"margin": -0.1}, "margin must be in 0..100"),
        ({"margin": math.nan}, "margin must be"),
        ({"unseen_colour": (0, 0, 256)}, "unseen_colour must be three numbers in 0..255"),
        ({"unseen_colour": (0, 0)}, "unseen_colour must be"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PointSettings(**changes)
