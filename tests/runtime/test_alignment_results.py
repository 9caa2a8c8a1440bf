"""What is found in one image, in the pixels of the other: points, boxes and masks, there and back."""

import numpy as np
import pytest
from alignment_scenes import LARGE, SIZES, camera_maps, centres, fitted, homographies, numbers, shifted
from hypothesis import assume, given
from hypothesis import strategies as st

from vifa_runtime.alignment import Alignment
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SCALES = st.builds(lambda thermal, visible: Alignment().fit(thermal, visible), SIZES, SIZES)
PLANES = homographies().map(fitted)
BOXES = st.lists(numbers(0, 1, 4), max_size=4).map(lambda rows: np.array(rows, np.float64).reshape(-1, 4))


@st.composite
def lenses(draw):
    """Views between two cameras, those left out that do not see the same."""
    try:
        return fitted(draw(camera_maps(sizes=LARGE)))
    except AlignmentError:
        assume(False)


ANY = SCALES | PLANES | lenses()


def boxes_in(size, shares):
    """Upright boxes (N, 4) in an image, from shares of its sides."""
    height, width = size
    boxes = shares * (width, height, width, height)
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


def ways(view):
    """Both directions: points, boxes, the boxes' way back, and the size that they start from."""
    yield view.to_visible, view.boxes_to_visible, view.boxes_to_thermal, view.thermal
    yield view.to_thermal, view.boxes_to_thermal, view.boxes_to_visible, view.visible


@given(ANY, st.lists(numbers(-0.5, 1.5, 2), min_size=1, max_size=6))
def test_points_come_back_or_have_no_counterpart(view, shares):
    for there, back, size in (
        (view.to_visible, view.to_thermal, view.thermal),
        (view.to_thermal, view.to_visible, view.visible),
    ):
        points = np.array(shares) * size[::-1]
        mapped = there(points)
        assert (mapped.shape, mapped.dtype) == (points.shape, np.float64)
        is_seen = ~np.isnan(mapped).any(axis=1)
        np.testing.assert_array_equal(np.isnan(mapped).all(axis=1), ~is_seen)
        np.testing.assert_allclose(back(mapped)[is_seen], points[is_seen], rtol=1e-6, atol=1e-6)


@given(SIZES, SIZES)
def test_corners_of_one_image_are_corners_of_the_other(thermal, visible):
    view = Alignment().fit(thermal, visible)
    np.testing.assert_allclose(view.to_visible([(0, 0), thermal[::-1]]), [(0, 0), visible[::-1]], atol=1e-9)
    np.testing.assert_allclose(view.to_thermal([(0, 0), visible[::-1]]), [(0, 0), thermal[::-1]], atol=1e-9)


@given(ANY, BOXES, numbers(0, 1, 2))
def test_a_box_takes_in_its_corners_and_the_middles_of_its_edges_and_no_more(view, shares, inner):
    for points, boxes_there, _, size in ways(view):
        boxes = boxes_in(size, shares)
        found = boxes_there(boxes)
        assert found.shape == boxes.shape
        for (x1, y1, x2, y2), box in zip(boxes, found, strict=True):
            eight = [(x, y) for x in (x1, (x1 + x2) / 2, x2) for y in (y1, (y1 + y2) / 2, y2)]
            eight.remove(((x1 + x2) / 2, (y1 + y2) / 2))
            around = points(eight)
            np.testing.assert_allclose(box, [*around.min(axis=0), *around.max(axis=0)], rtol=1e-9, atol=1e-9)


@given(SCALES | PLANES, BOXES, numbers(0, 1, 2))
def test_what_is_in_a_box_stays_in_it(view, shares, inner):
    for points, boxes_there, boxes_back, size in ways(view):
        boxes = boxes_in(size, shares)
        found = boxes_there(boxes)
        within = points(boxes[:, :2] + np.array(inner) * (boxes[:, 2:] - boxes[:, :2]))
        assert (within >= found[:, :2] - 1e-6).all()
        assert (within <= found[:, 2:] + 1e-6).all()
        returned = boxes_back(found)
        assert (returned[:, :2] <= boxes[:, :2] + 1e-6).all()
        assert (returned[:, 2:] >= boxes[:, 2:] - 1e-6).all()


@given(SCALES, BOXES)
def test_boxes_come_back_from_a_scale(view, shares):
    for _, boxes_there, boxes_back, size in ways(view):
        boxes = boxes_in(size, shares)
        np.testing.assert_allclose(boxes_back(boxes_there(boxes)), boxes, atol=1e-9)


def test_by_hand_a_box_on_a_quarter_turn():
    """x' = 40 - y, y' = x."""
    view = fitted(HomographyMap((0, -1, 40, 1, 0, 0, 0, 0, 1), (40, 60), (60, 40)))
    np.testing.assert_allclose(view.boxes_to_visible([[1, 2, 11, 5]]), [[35, 1, 38, 11]])
    np.testing.assert_allclose(view.boxes_to_thermal([[35, 1, 38, 11]]), [[1, 2, 11, 5]])


def test_by_hand_an_edge_that_a_lens_bends_outwards_is_taken_in():
    """Barrel distortion: the top edge's middle lies above its corners in the raw image."""
    flat = Camera((100, 100), (100, 0, 49.5, 0, 100, 49.5, 0, 0, 1))
    barrel = Camera((100, 100), (100, 0, 49.5, 0, 100, 49.5, 0, 0, 1), "plumb_bob", (-0.3, 0, 0, 0, 0))
    view = fitted(CameraMap(flat, barrel, Extrinsics(IDENTITY, (0, 0, 0)), 2.0))
    top = 50 - 100 * 0.4 * (1 - 0.3 * 0.16)
    np.testing.assert_allclose(view.boxes_to_visible([[10, 10, 90, 90]]), [[top, top, 100 - top, 100 - top]])
    assert view.to_visible([[10, 10]])[0, 1] > top + 1


def test_a_box_of_which_a_part_has_no_counterpart_is_no_box():
    view = fitted(HomographyMap((1, 0, 0, 0, 1, 0, 0.01, 0, 1), (50, 50), (150, 150)))
    found = view.boxes_to_thermal([[90, 0, 110, 10], [10, 0, 20, 10]])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_no_boxes_are_none():
    view = fitted(shifted(1, 1, (8, 8), (9, 9)))
    assert view.boxes_to_visible(np.empty((0, 4))).shape == (0, 4)
    assert view.boxes_to_thermal([]).shape == (0, 4)
    assert view.to_visible(np.empty((0, 2))).shape == (0, 2)


@given(ANY)
def test_a_mask_takes_the_pixel_in_which_its_centre_lies(view):
    for to_source, bring, source, target in (
        (view.to_thermal, view.mask_to_visible, view.thermal, view.visible),
        (view.to_visible, view.mask_to_thermal, view.visible, view.thermal),
    ):
        rows, columns = np.indices(source)
        taken = [bring(plane.astype(np.uint8), outside=255).astype(int) for plane in (columns, rows)]
        wanted = to_source(centres(target)).reshape(*target, 2)
        inside = ((wanted >= 0) & (wanted <= source[::-1])).all(axis=2)
        for plane, coordinate in zip(taken, (wanted[..., 0], wanted[..., 1]), strict=True):
            assert plane.shape == target
            np.testing.assert_array_equal(plane == 255, ~inside)
            assert np.abs(plane + 0.5 - coordinate)[inside].max(initial=0) <= 0.5 + 1e-4


@given(homographies(scale=(0.5, 0.9)), st.sampled_from([np.uint8, np.uint16]))
def test_a_mask_that_was_enlarged_comes_back(pixels, dtype):
    """Enlarged so that every thermal pixel's centre lies in a visible one whose centre it holds."""
    tall, wide = (6 * max(small, large) for small, large in zip(pixels.thermal, pixels.visible, strict=True))
    scale = np.diag([wide / pixels.visible[1], tall / pixels.visible[0], 1]) @ np.reshape(pixels.matrix, (3, 3))
    view = fitted(HomographyMap(tuple(scale.ravel()), pixels.thermal, (tall, wide)))
    ids = np.random.default_rng(0).integers(0, 255, pixels.thermal).astype(dtype)
    found = view.to_visible(centres(pixels.thermal))
    is_seen = ((found > 0) & (found < (wide, tall))).all(axis=1).reshape(pixels.thermal)
    returned = view.mask_to_thermal(view.mask_to_visible(ids))
    assert returned.dtype == dtype
    np.testing.assert_array_equal(returned[is_seen], ids[is_seen])
    np.testing.assert_array_equal(returned[~is_seen], 255)


def test_by_hand_a_mask_of_twice_the_size():
    view = fitted(shifted(1, 1, (2, 3), (6, 8), scale=2.0))
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    wanted = np.full((6, 8), 9, np.uint8)
    wanted[1:5, 1:7] = np.kron(ids, np.ones((2, 2), np.uint8))
    np.testing.assert_array_equal(view.mask_to_visible(ids, outside=9), wanted)
    np.testing.assert_array_equal(view.mask_to_thermal(wanted), ids)


@pytest.mark.parametrize("view", [Alignment().fit((4, 6), (8, 12)), fitted(shifted(1, 1, (4, 6), (8, 12)))])
def test_masks_fill_the_buffer_that_is_given(view):
    for bring, source, target in (
        (view.mask_to_visible, view.thermal, view.visible),
        (view.mask_to_thermal, view.visible, view.thermal),
    ):
        mask, out = np.arange(source[0] * source[1], dtype=np.uint8).reshape(source), np.empty(target, np.uint8)
        wanted = bring(mask)
        assert bring(mask, out=out) is out
        np.testing.assert_array_equal(out, wanted)
