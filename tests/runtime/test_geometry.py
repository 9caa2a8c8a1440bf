"""Between camera pixels and the working grid: sizes, pixels and points, there and back."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vifa_runtime.geometry import LARGEST_SIDE, GeometryError, WorkingGrid, resize

SIDES = st.tuples(st.integers(1, 130), st.integers(1, 130))
MULTIPLES = st.sampled_from([1, 2, 4, 8, 32])


def own_size(source, multiple):
    return WorkingGrid.fit(source, multiple=multiple)


PADDED = st.builds(own_size, SIDES, MULTIPLES)
LETTERBOXED, STRETCHED = (
    st.builds(
        lambda source, working, multiple, aspect: WorkingGrid.fit(
            source, multiple=multiple, working=working, aspect=aspect
        ),
        SIDES,
        st.tuples(st.integers(8, 130), st.integers(8, 130)),
        MULTIPLES,
        st.just(aspect),
    )
    for aspect in ("letterbox", "stretch")
)
ANY = PADDED | LETTERBOXED | STRETCHED


def picture(size, channels=3, dtype=np.uint8):
    shape = size if channels == 0 else (*size, channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@given(PADDED, MULTIPLES)
def test_own_size_is_rounded_up_to_the_multiple_and_starts_in_the_corner(grid, multiple):
    padded = own_size(grid.source, multiple).padded
    assert all(
        side % multiple == 0 and 0 <= side - own < multiple for side, own in zip(padded, grid.source, strict=True)
    )
    assert (grid.content, grid.offset) == (grid.source, (0, 0))


@given(LETTERBOXED)
def test_letterbox_keeps_the_aspect_within_a_pixel_fills_one_side_and_is_centred(grid):
    scale = min(grid.padded[0] / grid.source[0], grid.padded[1] / grid.source[1])
    for side, source, padded, offset in zip(grid.content, grid.source, grid.padded, grid.offset, strict=True):
        assert abs(side - scale * source) < 1
        assert 0 <= padded - side - 2 * offset <= 1
    assert any(side == padded for side, padded in zip(grid.content, grid.padded, strict=True))


@given(STRETCHED)
def test_stretch_fills_the_whole_grid(grid):
    assert (grid.content, grid.offset) == (grid.padded, (0, 0))


@given(ANY, st.lists(st.tuples(st.floats(-200, 400), st.floats(-200, 400)), min_size=1, max_size=5))
def test_points_come_back(grid, points):
    np.testing.assert_allclose(grid.to_source(grid.to_grid(points)), points, atol=1e-6)
    np.testing.assert_allclose(grid.to_grid(grid.to_source(points)), points, atol=1e-6)


@given(ANY)
def test_corners_of_the_image_are_corners_of_the_content(grid):
    (height, width), (top, left) = grid.content, grid.offset
    corners = grid.to_grid([(0, 0), (grid.source[1], grid.source[0])])
    np.testing.assert_allclose(corners, [(left, top), (left + width, top + height)], atol=1e-9)


def test_points_of_a_known_grid():
    grid = WorkingGrid.fit((480, 640), multiple=32, working=(320, 320))
    assert (grid.content, grid.offset, grid.padded) == ((240, 320), (40, 0), (320, 320))
    np.testing.assert_array_equal(grid.to_grid([(0, 0), (320, 240), (640, 480)]), [(0, 40), (160, 160), (320, 280)])
    np.testing.assert_array_equal(grid.to_source([(160, 160)]), [(320, 240)])


@given(PADDED, st.sampled_from([0, 3]), st.sampled_from([np.uint8, np.float32]))
def test_padding_repeats_the_edge_and_is_cropped_exactly(grid, channels, dtype):
    image = picture(grid.source, channels, dtype)
    placed = grid.place(image)
    margins = [(0, padded - own) for padded, own in zip(grid.padded, grid.source, strict=True)]
    np.testing.assert_array_equal(placed, np.pad(image, margins + [(0, 0)] * (image.ndim - 2), mode="edge"))
    restored = grid.restore(placed)
    np.testing.assert_array_equal(restored, image)
    assert np.shares_memory(restored, placed)


@given(LETTERBOXED, st.sampled_from([0, 3]))
def test_letterbox_margins_repeat_the_edge_of_the_content(grid, channels):
    placed = grid.place(picture(grid.source, channels))
    (height, width), (top, left) = grid.content, grid.offset
    content = placed[top : top + height, left : left + width]
    margins = [(top, grid.padded[0] - top - height), (left, grid.padded[1] - left - width)]
    np.testing.assert_array_equal(placed, np.pad(content, margins + [(0, 0)] * (placed.ndim - 2), mode="edge"))


@given(ANY, st.sampled_from([0, 3]), st.sampled_from([np.uint8, np.float32]))
def test_shapes_and_dtypes_there_and_back(grid, channels, dtype):
    image = picture(grid.source, channels, dtype)
    placed = grid.place(image)
    assert (placed.shape, placed.dtype) == ((*grid.padded, *image.shape[2:]), dtype)
    restored = grid.restore(placed)
    assert (restored.shape, restored.dtype) == (image.shape, dtype)


@given(ANY, st.data())
def test_a_mark_lands_where_its_point_is_mapped(grid, data):
    """The centre of mass of a bright block, measured on the grid, against `to_grid` of the block's centre."""
    grow = max(2, int(np.ceil(max(np.divide(grid.source, grid.content)))))  # at least one grid pixel
    assume(min(grid.source) >= 3 * grow)
    y, x = (data.draw(st.integers(grow, side - 2 * grow)) for side in grid.source)
    image = np.zeros(grid.source, np.float32)
    image[y : y + grow, x : x + grow] = 1
    placed = grid.place(image)
    rows, columns = np.indices(placed.shape) + 0.5
    found = np.array([(columns * placed).sum(), (rows * placed).sum()]) / placed.sum()
    np.testing.assert_allclose(found, grid.to_grid([(x + grow / 2, y + grow / 2)])[0], atol=0.5)


@given(ANY)
def test_a_smooth_image_comes_back(grid):
    """Resizing keeps a ramp: what is lost is less than one step of the coarser of both grids."""
    ramp = np.linspace(0, 1, grid.source[1], dtype=np.float32) + np.zeros((grid.source[0], 1), np.float32)
    step = 1 / max(1, min(grid.content[1], grid.source[1]) - 1)
    np.testing.assert_allclose(grid.restore(grid.place(ramp)), ramp, atol=1.01 * step)


@given(ANY)
def test_buffers_are_filled_and_returned(grid):
    image = picture(grid.source)
    room, back = np.empty((*grid.padded, 3), np.uint8), np.empty((*grid.source, 3), np.uint8)
    placed = grid.place(image, out=room)
    assert placed is image if grid.is_identity else placed is room
    np.testing.assert_array_equal(placed, grid.place(image))
    restored = grid.restore(placed, out=back)
    np.testing.assert_array_equal(restored, grid.restore(placed))
    assert np.shares_memory(restored, back) == grid.resizes


@given(PADDED)
def test_views_with_negative_strides_are_placed(grid):
    image = picture(grid.source)
    np.testing.assert_array_equal(grid.place(image[::-1, :, ::-1]), grid.place(image[::-1, :, ::-1].copy()))


@pytest.mark.parametrize("aspect", ["letterbox", "stretch"])
@pytest.mark.parametrize("working", [None, (48, 64)])
def test_an_image_that_fits_is_given_back_itself(aspect, working):
    grid = WorkingGrid.fit((48, 64), multiple=16, working=working, aspect=aspect)
    image = picture((48, 64))
    assert grid.is_identity
    assert grid.place(image) is image
    assert np.shares_memory(grid.restore(image), image)


@pytest.mark.parametrize("source", [(1, 1), (1, LARGEST_SIDE), (LARGEST_SIDE, 1)])
def test_the_smallest_and_the_longest_images_fit(source):
    grid = WorkingGrid.fit(source, multiple=8, working=(64, 64))
    assert min(grid.content) >= 1
    assert grid.restore(grid.place(np.zeros(source, np.uint8))).shape == source


@pytest.mark.parametrize("source", [(0, 5), (5, 0), (LARGEST_SIDE + 1, 5), (5, LARGEST_SIDE + 1)])
def test_other_sizes_are_refused(source):
    with pytest.raises(GeometryError, match=rf"{source[1]}x{source[0]} is outside 1..{LARGEST_SIDE}"):
        WorkingGrid.fit(source, multiple=4)


def test_an_unknown_aspect_is_refused():
    with pytest.raises(GeometryError, match="aspect 'crop' is unknown; use one of letterbox, stretch"):
        WorkingGrid.fit((4, 4), multiple=4, aspect="crop")


def test_shrinking_averages_the_area():
    image = picture((40, 60), 0, np.float32)
    blocks = image.reshape(10, 4, 20, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, (10, 20)), blocks, rtol=1e-5)


def test_growing_is_linear_between_pixel_centres():
    image = np.array([[0, 100]], np.float32)
    np.testing.assert_allclose(resize(image, (1, 4)), [[0, 25, 75, 100]], atol=1e-4)


def boxes_inside(size):
    """Strategy: boxes (N,4) with area in an image of `size`, float64."""
    height, width = size
    corners = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
    scale = np.array([width, height, width, height], np.float64)
    return (
        st.lists(corners, max_size=5).map(lambda rows: np.array(rows, np.float64).reshape(-1, 4) * scale).map(upright)
    )


def upright(boxes):
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


@given(ANY, st.data())
def test_boxes_there_and_back(grid, data):
    boxes = data.draw(boxes_inside(grid.source))
    placed = grid.to_grid(boxes.reshape(-1, 2)).reshape(-1, 4)
    restored = grid.restore_boxes(placed)
    assert (restored.shape, restored.dtype) == (boxes.shape, np.float32)
    np.testing.assert_allclose(restored, boxes, rtol=1e-6, atol=1e-5)


@given(ANY, st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 4), max_size=5))
def test_boxes_are_clipped_to_the_image(grid, boxes):
    restored = grid.restore_boxes(upright(np.array(boxes, np.float64).reshape(-1, 4)))
    height, width = grid.source
    assert (restored >= 0).all()
    assert (restored <= [width, height, width, height]).all()
    assert (restored[:, 2:] >= restored[:, :2]).all()


def test_a_box_on_the_whole_grid_becomes_the_whole_image():
    for working in (None, (64, 64)):
        grid = WorkingGrid.fit((30, 50), multiple=16, working=working)
        height, width = grid.padded
        np.testing.assert_array_equal(grid.restore_boxes([[0, 0, width, height]]), [[0, 0, 50, 30]])


@given(ANY)
def test_a_mask_takes_the_nearest_grid_pixel(grid):
    """The centre of each source pixel, mapped to the grid, lies in the pixel that is taken (or on its edge)."""
    rows, columns = np.indices(grid.padded)
    taken = [grid.restore_mask(plane.astype(np.uint8)) for plane in (columns, rows)]
    centres = np.stack(np.indices(grid.source)[::-1], axis=-1).reshape(-1, 2) + 0.5
    wanted = grid.to_grid(centres).reshape(*grid.source, 2)
    for plane, coordinate in zip(taken, (wanted[..., 0], wanted[..., 1]), strict=True):
        assert (plane.shape, plane.dtype) == (grid.source, np.uint8)
        assert np.abs(plane + 0.5 - coordinate).max() <= 0.51  # OpenCV counts in 65536ths


@given(ANY)
def test_a_mask_that_was_enlarged_comes_back(grid):
    """By a tenth at least: OpenCV may take the neighbour where a centre falls on an edge within its precision."""
    assume(
        all(own in (content, min(own, content / 1.1)) for own, content in zip(grid.source, grid.content, strict=True))
    )
    ids = picture(grid.source, 0)
    centres = np.stack(np.indices(grid.padded)[::-1], axis=-1).reshape(-1, 2) + 0.5
    x, y = np.clip(np.floor(grid.to_source(centres)), 0, np.array(grid.source[::-1]) - 1).astype(int).T
    np.testing.assert_array_equal(grid.restore_mask(ids[y, x].reshape(grid.padded)), ids)


@given(ANY)
def test_masks_fill_the_buffer_that_is_given(grid):
    mask, room = picture(grid.padded, 0), np.empty(grid.source, np.uint8)
    restored = grid.restore_mask(mask, out=room)
    np.testing.assert_array_equal(restored, grid.restore_mask(mask))
    assert np.shares_memory(restored, room if grid.resizes else mask)
