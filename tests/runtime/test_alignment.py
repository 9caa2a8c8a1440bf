"""Thermal images in visible pixels: where they come to lie, what lies beside them, and how both are blended."""

import tracemalloc

import cv2
import numpy as np
import pytest
from alignment_scenes import LARGE, SIZES, camera_maps, centres, fitted, homographies, noise, numbers, shifted, waves
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, map_coordinates

from vifa_runtime.alignment import Alignment, ThermalView, blend_outside, soften
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.geometry import GeometryError, resize
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
DTYPES = [np.uint8, np.uint16, np.float32]
MAPS = homographies() | camera_maps(sizes=LARGE)
ENLARGED = homographies(scale=(0.8, 1.5), sizes=LARGE).map(  # by so much that nothing is averaged first
    lambda pixels: pixels.resized(pixels.thermal, tuple(4 * side for side in pixels.visible))
)


def fit_or_skip(pixels, **options):
    """The view of a drawn map; the case is dropped where the thermal image covers nothing."""
    try:
        return fitted(pixels, **options)
    except AlignmentError as error:
        assert "covers no pixel" in str(error)
        assume(False)


def sources(view):
    """Where the centres of all visible pixels lie in the thermal image (H, W, 2), and whether inside it (H, W)."""
    found = view.to_thermal(centres(view.visible)).reshape(*view.visible, 2)
    return found, ((found >= 0) & (found <= view.thermal[::-1])).all(axis=2)


def brute_force(view, image):
    """Bilinear interpolation by SciPy at every visible pixel, the thermal border repeated outside."""
    places, _ = sources(view)
    height, width = view.thermal
    x, y = np.clip(places[..., 0] - 0.5, 0, width - 1), np.clip(places[..., 1] - 0.5, 0, height - 1)
    return map_coordinates(image.astype(np.float64), [y, x], order=1, mode="nearest")


@given(SIZES, st.sampled_from(DTYPES))
def test_none_gives_the_image_itself(size, dtype):
    view = Alignment("none").fit(size, size)
    image = noise(size, dtype)
    assert view.is_identity
    assert view.covers_all
    assert view.warp(image) is image


def test_none_refuses_images_of_two_sizes():
    message = "needs images of one size, but thermal is 40x30 and visible 80x60; use resize where"
    with pytest.raises(AlignmentError, match=message) as caught:
        Alignment("none").fit((30, 40), (60, 80))
    assert isinstance(caught.value, GeometryError)


@given(SIZES, SIZES, st.sampled_from(DTYPES))
def test_resize_is_what_the_pipeline_did_before(thermal, visible, dtype):
    view, image = Alignment().fit(thermal, visible), noise(thermal, dtype)
    assert view.is_identity == (thermal == visible)
    assert view.covers_all
    np.testing.assert_array_equal(view.warp(image), image if view.is_identity else resize(image, visible))
    np.testing.assert_array_equal(view.soft_mask, np.ones(visible, np.float32))
    assert view.soft_mask.shape == visible


@given(SIZES, SIZES, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_a_homography_that_is_a_scale_is_resize(thermal, visible, factor):
    pixels = HomographyMap.same_view(thermal, visible)
    sizes = [tuple(max(1, round(factor * side)) for side in size) for size in (thermal, visible)]
    image = noise(sizes[0])
    warped = Alignment("homography", pixels).fit(*sizes).warp(image)
    np.testing.assert_array_equal(warped, Alignment().fit(*sizes).warp(image))


@given(SIZES, numbers(1.0, 4.0, 2))
def test_a_homography_that_is_nearly_a_scale_is_nearly_resize(thermal, factors):
    """So that nothing jumps by half a pixel between the two ways, which `resize` and `remap` count differently."""
    visible = tuple(round(side * factor) for side, factor in zip(thermal, factors, strict=True))
    pixels = HomographyMap.same_view(thermal, visible)
    near = HomographyMap((*pixels.matrix[:2], 0.002, *pixels.matrix[3:]), thermal, visible)
    view, image = fitted(near), waves(centres(thermal), thermal).reshape(thermal).astype(np.float32)
    assert not near.is_same_view
    step = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    np.testing.assert_allclose(view.warp(image), resize(image, visible), atol=step / 16)


def test_by_hand_a_shift_by_whole_pixels_copies_them():
    view = fitted(shifted(3, 2, (4, 5), (9, 12)), soft_border=0)
    image = noise((4, 5))
    warped = view.warp(image)
    np.testing.assert_array_equal(warped[2:6, 3:8], image)
    np.testing.assert_array_equal(warped, np.pad(image, [(2, 3), (3, 4)], mode="edge"))
    wanted = np.zeros((9, 12), np.float32)
    wanted[2:6, 3:8] = 1
    np.testing.assert_array_equal(view.soft_mask, wanted)
    assert not view.covers_all


def test_by_hand_a_shift_by_half_a_pixel_averages_two():
    view = fitted(shifted(3.5, 2, (4, 5), (9, 12)), soft_border=0)
    image = noise((4, 5))
    np.testing.assert_allclose(view.warp(image)[2:6, 4:8], (image[:, :-1] + image[:, 1:]) / 2, atol=1e-6)


def test_by_hand_a_scale_of_two_lies_between_pixel_centres():
    """The centre of visible column 4 + j is (j + 0.5) / 2 from the thermal edge: a quarter off a pixel's centre."""
    view = fitted(shifted(4, 0, (6, 6), (12, 20), scale=2.0))
    ramp = np.tile(np.arange(6, dtype=np.float32), (6, 1))
    wanted = np.clip((np.arange(20) - 4 + 0.5) / 2 - 0.5, 0, 5)
    np.testing.assert_allclose(view.warp(ramp), np.tile(wanted, (12, 1)), atol=1e-6)


@given(MAPS, st.sampled_from(DTYPES))
def test_a_smooth_scene_lies_where_points_are_mapped(pixels, dtype):
    view = fit_or_skip(pixels)
    largest = 1 if dtype == np.float32 else np.iinfo(dtype).max
    scene = waves(centres(view.thermal), view.thermal).reshape(view.thermal)
    warped = view.warp((scene * largest).astype(dtype)) / largest
    places, inside = sources(view)
    wanted = waves(np.nan_to_num(places).reshape(-1, 2), view.thermal).reshape(view.visible)
    coarsest = 6 / min(view.thermal) + 6 / min(view.visible)  # a pixel's share of the scene, which moves by so much
    assert np.abs(warped - wanted)[inside].max() <= 0.75 * coarsest + 2 / 255


@given(homographies(scale=(0.8, 1.4)))
def test_a_smooth_scene_comes_back(pixels):
    view = fitted(pixels)
    scene = waves(centres(view.thermal), view.thermal).reshape(view.thermal).astype(np.float32)
    warped = view.warp(scene)
    places = view.to_visible(centres(view.thermal))
    is_seen = ((places > 1) & (places < np.subtract(view.visible[::-1], 1))).all(axis=1)
    x, y = (places[is_seen] - 0.5).T
    back = map_coordinates(warped, [y, x], order=1, mode="nearest")
    tolerance = 3 / min(view.thermal) + 3 / min(view.visible)
    np.testing.assert_allclose(back, scene.ravel()[is_seen], atol=tolerance)


@given(ENLARGED, st.sampled_from(DTYPES))
def test_noise_is_interpolated_between_the_four_pixels_around(pixels, dtype):
    """Within the 1/64 of a pixel by which `remap` may miss, times the largest step that noise can make there."""
    view = fitted(pixels)
    image = noise(view.thermal, dtype)
    warped = view.warp(image)
    assert (warped.dtype, warped.shape) == (image.dtype, view.visible)
    largest = 1 if dtype == np.float32 else np.iinfo(dtype).max
    assert np.abs(warped - brute_force(view, image)).max() / largest <= 2 / 64 + 1 / 255


@given(ENLARGED)
def test_fixed_point_maps_equal_float_ones_within_a_gray_level(pixels):
    view, image = fitted(pixels), noise(pixels.thermal)
    maps = np.clip(sources(view)[0], 0.5, np.subtract(view.thermal[::-1], 0.5)).astype(np.float32) - np.float32(0.5)
    wanted = cv2.remap(image, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(view.warp(image) - wanted).max() <= 1 / 255


@given(MAPS, st.sampled_from(DTYPES))
def test_the_nearest_border_pixel_is_repeated_outside(pixels, dtype):
    """A constant stays constant, and noise within its range: also where a pixel has no place at all."""
    view = fit_or_skip(pixels)
    for image in (np.full(view.thermal, 7, dtype), noise(view.thermal, dtype)):
        warped = view.warp(image)
        assert warped.min() >= image.min() * (1 - 1e-6)
        assert warped.max() <= image.max() * (1 + 1e-6)


@given(ENLARGED)
def test_outside_are_the_values_of_the_border(pixels):
    view, image = fitted(pixels), noise(pixels.thermal)
    image[1:-1, 1:-1] = 5  # far from all values of the border
    places, _ = sources(view)
    is_beyond = ((places < 0.5 - 1 / 32) | (places > np.subtract(view.thermal[::-1], 0.5 - 1 / 32))).any(axis=2)
    assert view.warp(image)[is_beyond].max(initial=0) <= 1 + 1e-6


def test_a_pixel_without_a_place_takes_its_neighbours():
    """A fisheye sees half of the world; the plane before it ends 157 pixels from its middle."""
    wide = Camera((400, 400), (100, 0, 199.5, 0, 100, 199.5, 0, 0, 1), "equidistant")
    ahead = Camera((30, 30), (30, 0, 14.5, 0, 30, 14.5, 0, 0, 1))
    view = fitted(CameraMap(ahead, wide, Extrinsics(IDENTITY, (0, 0, 0)), 2.0))
    assert np.isnan(sources(view)[0][0]).all()
    image = np.tile(np.linspace(0, 1, 30, dtype=np.float32), (30, 1))
    warped = view.warp(image)
    np.testing.assert_allclose(warped[:, 0], 0, atol=0.02)
    np.testing.assert_allclose(warped[200, -1], 1, atol=0.02)
    assert (view.soft_mask[[0, -1]] == 0).all()


def test_a_finer_thermal_image_is_averaged_and_nothing_skipped():
    for step, visible in ((4, (34, 44)), (2, (64, 84))):
        dots = (np.indices((120, 160)) % step == 0).all(axis=0)  # one in each visible pixel, far from its centre
        warped = fitted(shifted(1, 1, (120, 160), visible, scale=1 / step)).warp(dots.astype(np.float32))
        np.testing.assert_allclose(warped, 1 / step**2, atol=1e-6)


@pytest.mark.parametrize("finer", [0, 1])
@pytest.mark.parametrize("striped", [0, 1])
def test_only_the_side_that_is_finer_is_averaged(finer, striped):
    """Stripes of single pixels where four rows, or columns, are one in the visible image."""
    scale = [1.0, 1.0]
    scale[finer] = 0.25
    visible = tuple(round(side * factor) + 2 for side, factor in zip((120, 160), scale, strict=True))
    view = fitted(HomographyMap((scale[1], 0, 1, 0, scale[0], 1, 0, 0, 1), (120, 160), visible))
    stripes = (np.indices((120, 160))[striped] % 4 == 0).astype(np.float32)
    inner = view.warp(stripes)[1:-1, 1:-1]
    wanted = 0.25 if striped == finer else np.indices(inner.shape)[striped] % 4 == 0
    np.testing.assert_allclose(inner, np.broadcast_to(wanted, inner.shape), atol=1e-6)


def test_averaging_follows_the_dtype():
    view = fitted(shifted(1, 1, (120, 160), (34, 44), scale=0.25))
    for dtype in (*DTYPES, np.uint8):
        largest = 1 if dtype == np.float32 else np.iinfo(dtype).max
        image = noise((120, 160), dtype)
        inner = view.warp(image)[1:31, 1:41] / largest
        np.testing.assert_allclose(inner, noise((120, 160)).reshape(30, 4, 40, 4).mean(axis=(1, 3)), atol=0.01)


def test_images_of_many_strips_are_located_as_one():
    """More pixels than are located at a time, in rows that do not divide them."""
    pixels = HomographyMap((1.7, 0.1, 30.2, -0.05, 1.6, 20.7, 1e-4, 5e-5, 1), (190, 250), (401, 523))
    view = fitted(pixels)
    image = waves(centres(view.thermal), view.thermal).reshape(view.thermal).astype(np.float32)
    np.testing.assert_allclose(view.warp(image), brute_force(view, image), atol=1e-3)
    np.testing.assert_array_equal(view.soft_mask > 0, sources(view)[1])


@given(MAPS, st.integers(0, 20))
def test_the_soft_mask_is_the_distance_to_what_is_outside(pixels, border):
    view = fit_or_skip(pixels, soft_border=border)
    _, inside = sources(view)
    assert (view.soft_mask.shape, view.soft_mask.dtype) == (view.visible, np.float32)
    assert view.covers_all == inside.all()
    wanted = np.ones(view.visible)
    if not inside.all():
        wanted = np.minimum(distance_transform_edt(inside) / (border + 1), 1)
    np.testing.assert_allclose(view.soft_mask, wanted, atol=1e-5)
    np.testing.assert_array_equal(view.soft_mask == 0, ~inside)


def test_by_hand_sixteen_pixels_lie_between_outside_and_well_inside():
    row = fitted(shifted(10, -5, (60, 100), (50, 80))).soft_mask[25]
    np.testing.assert_allclose(row, [0] * 10 + [step / 17 for step in range(1, 17)] + [1] * 54, rtol=1e-6)


def test_nothing_fades_at_the_border_of_the_visible_image():
    """The thermal image begins at the left, ends before the right, and goes beyond the other two sides."""
    mask = fitted(shifted(0, -3, (60, 70), (50, 100))).soft_mask
    np.testing.assert_array_equal(mask[:, :54], 1)
    np.testing.assert_array_equal(mask[:, 70:], 0)
    assert (np.diff(mask[:, 53:71], axis=1) < 0).all()


def test_an_island_of_one_pixel_and_a_mask_without_an_outside():
    inside = np.zeros((5, 5), bool)
    inside[2, 2] = True
    np.testing.assert_allclose(soften(inside, 3)[2, 2], 0.25)
    np.testing.assert_array_equal(soften(~inside | True, 3), 1)
    np.testing.assert_array_equal(soften(inside & False, 3), 0)


SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))


@given(SHAPES, st.integers(0, 99))
def test_blending_passes_both_images_to_the_byte_and_mixes_between(shape, seed):
    visible, fused = noise(shape, np.uint8, seed), noise(shape, np.uint8, seed + 1)
    mask = np.clip(noise(shape[:2], seed=seed + 2) * 3 - 1, 0, 1)  # a third each: 0, between, 1
    blended = blend_outside(visible, fused, mask).reshape(shape)
    np.testing.assert_array_equal(blended[mask == 0], visible[mask == 0])
    np.testing.assert_array_equal(blended[mask == 1], fused[mask == 1])
    share = mask[..., None].astype(np.float64)
    assert np.abs(blended - (share * fused + (1 - share) * visible)).max() <= 0.51


def test_every_pair_of_bytes_passes():
    visible, fused = (plane.astype(np.uint8) for plane in np.indices((256, 256)))
    np.testing.assert_array_equal(blend_outside(visible, fused, np.zeros((256, 256), np.float32)), visible)
    np.testing.assert_array_equal(blend_outside(visible, fused, np.ones((256, 256), np.float32)), fused)


@pytest.mark.parametrize("into", ["a buffer", "visible", "fused"])
def test_blending_fills_the_buffer_that_is_given(into):
    visible, fused = noise((30, 40, 3), np.uint8), noise((30, 40, 3), np.uint8, 1)
    mask = noise((30, 40), seed=2)
    wanted = blend_outside(visible, fused, mask)
    out = {"a buffer": np.empty_like(visible), "visible": visible, "fused": fused}[into]
    assert blend_outside(visible, fused, mask, out=out) is out
    np.testing.assert_array_equal(out, wanted)


def test_views_of_other_images_are_blended():
    """A fused image cropped from a padded one, and a visible one whose channels were turned round."""
    visible, fused = noise((30, 40, 3), np.uint8)[:, :, ::-1], noise((32, 48, 3), np.uint8, 1)[:30, :40]
    mask = noise((30, 40), seed=2)
    wanted = blend_outside(visible.copy(), fused.copy(), mask)
    np.testing.assert_array_equal(blend_outside(visible, fused, mask), wanted)


def test_a_view_blends_by_its_own_mask_and_passes_what_is_covered():
    visible, fused = noise((50, 80, 3), np.uint8), noise((50, 80, 3), np.uint8, 1)
    view, out = fitted(shifted(10, -5, (60, 100), (50, 80))), np.empty_like(visible)
    assert view.blend(visible, fused, out=out) is out
    np.testing.assert_array_equal(out, blend_outside(visible, fused, view.soft_mask))
    np.testing.assert_array_equal(out[:, :10], visible[:, :10])
    np.testing.assert_array_equal(out[:, 26:], fused[:, 26:])
    assert Alignment().fit((5, 8), (50, 80)).blend(visible, fused) is fused


@pytest.mark.parametrize(
    "pixels", [shifted(30, 20, (256, 320), (480, 640)), shifted(9, 9, (480, 640), (240, 320), 0.4)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_allocated_in_the_steady_state(pixels, dtype):
    view, thermal = fitted(pixels), noise(pixels.thermal, dtype)
    visible, fused = (noise((*pixels.visible, 3), np.uint8, seed) for seed in (0, 1))
    warped, blended = np.empty(pixels.visible, dtype), np.empty_like(visible)
    assert not view.covers_all

    def frame():
        assert view.warp(thermal, out=warped) is warped
        assert view.blend(visible, fused, out=blended) is blended

    view.warp(noise(pixels.thermal, np.uint8 if dtype != np.uint8 else np.float32))
    frame()
    tracemalloc.start()
    try:
        for _ in range(3):
            frame()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000  # bytes: some Python objects, a seventh of the smallest buffer of a frame


def test_a_thermal_image_that_covers_nothing_is_refused():
    with pytest.raises(AlignmentError, match="covers no pixel of the visible one; check the direction"):
        fitted(shifted(100, 0, (20, 20), (50, 80)))
    turned = Extrinsics((-1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 0))
    camera = Camera((20, 20), (20, 0, 9.5, 0, 20, 9.5, 0, 0, 1))
    with pytest.raises(AlignmentError, match="covers no pixel"):
        fitted(CameraMap(camera, camera, turned, 2.0))


@pytest.mark.parametrize("view", [Alignment().fit((4, 6), (8, 12)), fitted(shifted(1, 1, (4, 6), (8, 12)))])
def test_images_of_another_size_are_refused(view):
    for size in ((6, 4), (4, 7), (4, 6, 1)):
        with pytest.raises(AlignmentError, match="fit anew"):
            view.warp(np.zeros(size, np.float32))
        with pytest.raises(AlignmentError, match="fit anew"):
            view.mask_to_visible(np.zeros(size, np.uint8))
        with pytest.raises(AlignmentError, match="fit anew"):
            view.mask_to_thermal(np.zeros(size, np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "magic"}, "mode 'magic' is unknown; use one of none, resize, homography, cameras"),
        ({"mode": None}, "mode None is unknown"),
        ({"mode": "homography"}, "mode homography needs a HomographyMap, got NoneType"),
        ({"mode": "cameras", "pixels": shifted(0, 0, (1, 1), (1, 1))}, "cameras needs a CameraMap, got HomographyMap"),
        ({"mode": "resize", "pixels": shifted(0, 0, (1, 1), (1, 1))}, "mode resize needs no map, got HomographyMap"),
        ({"soft_border": -1}, "soft_border must be a whole number in 0..1000, got -1"),
        ({"soft_border": 1001}, "soft_border must be"),
        ({"soft_border": 1.5}, "soft_border must be"),
        ({"soft_border": True}, "soft_border must be"),
        ({"soft_border": "16"}, "soft_border must be"),
    ],
)
def test_alignments_that_are_none_are_refused(arguments, message):
    with pytest.raises(AlignmentError, match=message):
        Alignment(**arguments)


@pytest.mark.parametrize("mode", ["none", "resize"])
@pytest.mark.parametrize("size", [(0, 5), (5, 16385)])
def test_sizes_that_are_none_are_refused(mode, size):
    with pytest.raises(AlignmentError, match=r"must be a whole number in 1\.\.16384"):
        Alignment(mode).fit(size, size)


@given(st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 3), st.integers(1, 3)))
@example((1, 1), (1, 1))
def test_the_smallest_images_work(thermal, visible):
    for pixels in (HomographyMap.same_view(thermal, visible), shifted(0.25, 0.25, thermal, visible)):
        view = ThermalView(pixels, soft_border=2)
        warped = view.warp(np.full(thermal, 0.5, np.float32))
        np.testing.assert_array_equal(warped, np.full(visible, 0.5, np.float32))
        assert view.mask_to_visible(np.zeros(thermal, np.uint8)).shape == visible
        assert view.mask_to_thermal(np.zeros(visible, np.uint8)).shape == thermal
