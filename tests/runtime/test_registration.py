"""Registration: pairs of a known warp, in which cameras see the same shapes with unrelated contrasts, give it back."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registration_scenes import THERMAL, VISIBLE, corner_errors, draw_scene, make_pairs, see, similarity

from vifa_runtime.edge_fields import Resampler, edge_field
from vifa_runtime.pixel_maps import HomographyMap
from vifa_runtime.registration import common_corners, register
from vifa_runtime.registration_blocks import MODELS, NUMBERS, Evidence, Fit, movement
from vifa_runtime.registration_frames import Frames, RegistrationError, fitted
from vifa_runtime.registration_overlay import render_alignment
from vifa_runtime.registration_search import SearchRange, search
from vifa_runtime.render import GAP

NARROW = SearchRange((0.78, 1.3), 4.0)  # quick


def frames_of(pairs):
    frames = Frames()
    for number, (visible, thermal) in enumerate(pairs):
        frames.add(visible, thermal, f"pair {number}")
    return frames


def shifted(image, right, down):
    """The image moved by whole pixels, its border repeated."""
    return cv2.warpAffine(image, np.float32([[1, 0, right], [0, 1, down]]), image.shape[::-1], borderMode=1)


@pytest.mark.parametrize("warp", [similarity(0.85, 3, 10, -8), similarity(1.2, -3, -12, 6)], ids=["smaller", "larger"])
def test_a_known_similarity_is_found(warp):
    found = register(frames_of(make_pairs(warp)), NARROW)
    assert corner_errors(found.pixels.matrix, warp).max() < 1.0
    assert found.model == "similarity"
    assert found.confidence.agreeing > 0.85
    assert found.confidence.peak_ratio > 1.2
    assert found.confidence.spread < 1.0
    assert found.confidence.halves < 1.6


def test_a_homography_is_found_where_the_frames_need_one():
    bend = np.array([[1.0, 0.03, 0], [-0.02, 0.93, 3], [4e-4, -3e-4, 1]])
    warp = similarity() @ bend
    found = register(frames_of(make_pairs(warp, 12, noise=1.0)), NARROW)
    assert found.model == "homography"
    assert corner_errors(found.pixels.matrix, warp).max() < 1.6
    # what a similarity can do at best is far worse
    points = np.array([(0, 0), (128, 0), (128, 96), (0, 96)], np.float32)
    best, _ = cv2.estimateAffinePartial2D(points, cv2.perspectiveTransform(points[None], warp)[0])
    assert corner_errors(np.vstack([best, [0, 0, 1]]), warp).max() > 3


def test_pixels_that_are_not_square_make_it_affine():
    warp = similarity() @ np.diag([1.0, 1.1, 1.0])
    found = register(frames_of(make_pairs(warp, 10)), NARROW)
    assert found.model == "affine"
    assert corner_errors(found.pixels.matrix, warp).max() < 1.2


def test_images_of_other_sizes_are_mapped_in_their_own_pixels():
    visible, thermal = (300, 400), (60, 80)
    warp = similarity(0.9, 2, -20, 15, visible, thermal)
    found = register(frames_of(make_pairs(warp, 8, 3, visible, thermal)), NARROW)
    assert (found.pixels.visible, found.pixels.thermal) == (visible, thermal)
    assert corner_errors(found.pixels.matrix, warp, thermal).max() < 3  # of pixels of which a thermal one spans five


def test_thermal_images_of_sixteen_bits_and_with_dead_borders():
    warp = similarity(0.9, -2, 6, 4)
    pairs = []
    for visible, thermal in make_pairs(warp, 8, 5):
        counts = 29_000 + 3 * thermal.astype(np.uint16)
        counts[:9] = counts[-9:] = 0
        counts[:, :14] = 0
        pairs.append((visible, counts))
    found = register(frames_of(pairs), NARROW)
    assert corner_errors(found.pixels.matrix, warp).max() < 1.2


def test_contrast_does_not_count_and_equal_seeds_give_equal_results():
    """Inverted and squeezed thermal images give the same place, twice the same to the bit; progress runs to its end."""
    pairs, told = make_pairs(similarity(1.0, 0, 8, -6), 6, 7), []
    plain = register(frames_of(pairs), NARROW, report=lambda stage, share: told.append((stage, share)))
    squeezed = [(visible, 60 - thermal // 5) for visible, thermal in pairs]
    first, second = (register(frames_of(squeezed), NARROW, seed=1) for _ in range(2))
    assert first == second
    assert corner_errors(first.pixels.matrix, plain.pixels.matrix).max() < 0.5
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["searching", "refining", "comparing"]
    assert dict(told) == dict.fromkeys(["searching", "refining", "comparing"], 1.0)
    assert plain.confidence.overlap == pytest.approx((160 - 8) * (120 - 6) / (160 * 120), abs=0.03)


def refusal(pairs, limits=NARROW):
    with pytest.raises(RegistrationError) as refused:
        register(frames_of(pairs), limits)
    return str(refused.value)


def test_few_pairs_are_refused():
    assert "too few pairs to align: 4 of 4" in refusal(make_pairs(similarity(), 4))


def test_pairs_of_one_scene_are_refused():
    visible, thermal = make_pairs(similarity(), 1)[0]
    rng = np.random.default_rng(0)
    noisy = [np.clip(visible + rng.normal(0, 5, visible.shape), 0, 255).astype(np.uint8) for _ in range(9)]
    message = refusal([(image, thermal) for image in noisy])
    assert "8 show the same scene as the one before" in message


def test_blank_images_are_refused_by_name():
    pairs = make_pairs(similarity(), 6)
    blank = [(visible, np.full(THERMAL, 90, np.uint8)) for visible, _ in pairs[:3]]
    message = refusal(blank + pairs[3:])
    assert "3 of 6 can be used" in message
    assert "3 show nothing in one of the images (pair 0 is the first)" in message


def test_pairs_that_show_different_things_are_refused():
    pairs = make_pairs(similarity(), 10)
    mixed = [(pairs[i][0], pairs[(i + 3) % 10][1]) for i in range(10)]
    assert re.search(r"no place where the images fit: the best fits 1\.0\d times as well as another", refusal(mixed))


def test_small_overlaps_are_not_preferred():
    """Where nothing fits, little that overlaps by chance fits best; the less there is, the less it counts."""
    shares = []
    for seed in range(8):
        pairs = make_pairs(similarity(), 6, seed)
        mixed = frames_of([(pairs[i][0], pairs[(i + 3) % 6][1]) for i in range(6)])
        place, _ = search(mixed, SearchRange((0.9, 1.1), 2.0))
        shares.append(cv2.contourArea(common_corners(place.matrix, THERMAL, VISIBLE).astype(np.float32)) / (120 * 160))
    assert np.median(shares) > 0.22  # 0.16 if it all counted the same


def test_cameras_that_look_past_each_other_are_refused():
    rng = np.random.default_rng(2)
    pairs = []
    for _ in range(10):
        bright, warm = draw_scene(rng, (120, 340))
        left, right = bright[:, : 4 * 160], warm[:, -4 * 160 :]
        pairs.append((np.repeat(see(left, VISIBLE, None, 2, rng)[:, :, None], 3, 2), see(right, (120, 160), None)))
    assert "no place where the images fit" in refusal(pairs)


def test_cameras_that_were_moved_between_are_refused():
    pairs = make_pairs(similarity(), 10)
    message = refusal(pairs[:5] + [(visible, shifted(thermal, 13, 5)) for visible, thermal in pairs[5:]])
    assert "the pairs disagree" in message
    assert "pair 5" in message
    assert "the cameras were moved" in message


def test_cameras_that_were_moved_a_little_are_refused():
    pairs = make_pairs(similarity(), 16, noise=1.0)
    moved = pairs[:8] + [(visible, shifted(thermal, 3, 0)) for visible, thermal in pairs[8:]]
    assert "the pairs disagree" in refusal(moved)


def test_a_pair_of_another_size_is_refused_by_name():
    frames = frames_of(make_pairs(similarity(), 2))
    with pytest.raises(RegistrationError, match=r"late\.png: the thermal image is 100x96, those before are 128x96"):
        frames.add(np.zeros((*VISIBLE, 3), np.uint8), np.zeros((96, 100), np.uint8), "late.png")


@given(st.floats(0.8, 1.25), st.floats(-5, 5), st.floats(-20, 20), st.floats(-15, 15), st.integers(0, 99))
@settings(max_examples=6)
def test_the_search_comes_near_any_similarity(scale, degrees, right, down, seed):
    warp = similarity(scale, degrees, right, down)
    place, ratio = search(frames_of(make_pairs(warp, 6, seed)), NARROW)
    assert corner_errors(place.matrix, warp).max() < 8  # five hundredths of the image; half a step is two
    assert ratio > 1.1


def test_ranges_are_searched_to_their_ends():
    limits = SearchRange((0.5, 2.0), 7.0)
    assert limits.scales()[[0, -1]] == pytest.approx((0.5, 2.0))
    assert (limits.scales()[1:] / limits.scales()[:-1]).max() <= 1.04 + 1e-9
    assert limits.rotations()[[0, -1]] == pytest.approx((-7, 7))
    assert 0 in limits.rotations()


def test_edges_of_opposite_contrast_are_the_same_and_crossing_ones_the_opposite():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.normal(0, 1, (60, 80)).astype(np.float32), (0, 0), 2)
    field = edge_field(image)
    np.testing.assert_allclose(edge_field(-image), field, atol=1e-6)
    np.testing.assert_allclose(edge_field(3 * image + 7), field, atol=1e-3)
    turned = np.rot90(edge_field(np.ascontiguousarray(np.rot90(image))), -1)
    inner = slice(6, -6), slice(6, -6)
    np.testing.assert_allclose(turned[inner], -field[inner], atol=1e-3)  # a quarter turn, doubled, is a half one
    assert np.abs(field).max() <= 1


@given(st.floats(0.3, 2), st.floats(-0.4, 0.4), st.floats(-20, 20), st.floats(-20, 20))
@settings(max_examples=25)
def test_resampled_images_lie_where_the_matrix_says(scale, angle, right, down):
    """A ramp, which neither interpolation nor averaging changes, has known values at the target's pixel centres."""
    matrix = np.array([[np.cos(angle), -np.sin(angle), right], [np.sin(angle), np.cos(angle), down], [0, 0, 1]])
    matrix[:2, :2] *= scale
    y, x = np.mgrid[:70, :90] + 0.5
    resample = Resampler(matrix, (60, 80), np.ones((70, 90), bool))
    warped = resample((x + 2 * y).astype(np.float32))
    v, u = np.mgrid[:60, :80] + 0.5
    back = np.linalg.inv(matrix) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    expected = (back[0] + 2 * back[1]).reshape(60, 80)
    np.testing.assert_allclose(warped[resample.inside], expected[resample.inside], atol=0.4)  # half a pixel is 1.5
    inside = ((back[:2] >= 0) & (back[:2] <= [[90], [70]])).all(axis=0).reshape(60, 80)
    assert not (resample.inside & ~inside).any()


@given(st.sampled_from(MODELS), st.lists(st.floats(-2, 2), min_size=8, max_size=8))
@settings(max_examples=25)
def test_numbers_of_a_map_move_blocks_as_their_matrix_does(model, numbers):
    size = (300, 400)
    numbers = np.array(numbers[: NUMBERS[model]])
    centres = np.random.default_rng(0).uniform(-0.7, 0.7, (20, 2))
    evidence = Evidence(np.zeros((1, 20, 9, 9), np.float32), np.ones((1, 20), np.float32), centres, size, 4)
    moved = Fit(evidence, 1.0)._basis(len(numbers)) @ numbers
    points = np.c_[centres * 200 + (200, 150), np.ones(20)]
    mapped = points @ movement(numbers, size).T
    displaced = mapped[:, :2] / mapped[:, 2:] - points[:, :2]
    np.testing.assert_allclose(moved, displaced, atol=0.15)  # of up to 16 pixels: perspective is linear to that


def test_a_fit_finds_the_numbers_that_made_its_evidence():
    """Blocks whose sums are bumps at the displacements that known numbers give them."""
    numbers = np.array([1.2, -0.7, 0.9, 1.5])
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, 8), np.linspace(-0.6, 0.6, 6))
    centres = np.c_[x.ravel(), y.ravel()]
    down, right = np.mgrid[-6:7, -6:7]
    moved = np.c_[1.2 + 0.9 * centres[:, 0] - 1.5 * centres[:, 1], -0.7 + 0.9 * centres[:, 1] + 1.5 * centres[:, 0]]
    sums = np.stack([np.exp(-((right - x) ** 2 + (down - y) ** 2) / 4) for x, y in moved])
    sums[5] = 0  # a blank wall
    sums[9] = np.exp(-((right - moved[9, 0]) ** 2) / 4)  # an upright edge, which knows nothing of up and down
    evidence = Evidence(sums[None].astype(np.float32), np.ones((1, 48), np.float32), centres, (300, 400), 6)
    fit = Fit(evidence, 0.5)
    np.testing.assert_allclose(fit.solve("similarity"), numbers, atol=0.01)
    np.testing.assert_allclose(fit.solve("similarity", far=True), numbers, atol=0.01)
    assert fit.score(numbers) > fit.score(numbers + 0.5)


def test_sizes_keep_their_aspect():
    assert fitted((1080, 1920)) == (360, 640)
    assert fitted((120, 160)) == (120, 160)
    assert fitted((480, 640), 80) == (60, 80)


def test_the_picture_shows_thermal_edges_where_they_are_aligned():
    """Orange lies on the visible image's edges on the right, as it does nowhere so well on the left."""
    warp = similarity(0.85, 3, 14, -9)
    frames = frames_of(make_pairs(warp, 5))
    picture = render_alignment(frames, HomographyMap(tuple(warp.ravel()), THERMAL, VISIBLE), rows=2)
    height, width = VISIBLE
    top = picture.shape[0] - height - GAP  # the last row, of the fourth frame
    panels = [picture[top : top + height, left : left + width] for left in (0, width + GAP)]
    edges = np.abs(edge_field(frames.visible(3)))
    on_edges = []
    for panel in panels:
        orange = (panel[:, :, 0] > 200) & (panel[:, :, 2] < 60)
        assert orange.sum() > 100
        on_edges.append(edges[orange].mean() / edges.mean())
    assert on_edges[1] > 1.5 * on_edges[0]
    outline = (panels[1] == (51, 230, 255)).all(axis=2)
    corner = warp @ (0, 96, 1)
    assert outline[round(corner[1]) - 2 : round(corner[1]) + 3, round(corner[0]) - 2 : round(corner[0]) + 3].any()
