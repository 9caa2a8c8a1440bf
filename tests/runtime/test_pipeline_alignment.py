"""Alignment and lost cameras in the pipeline: what the network is given, and what is shown where."""

import cv2
import numpy as np
import pytest
from test_pipeline import Mirror, centre_of_mass, normalised
from tiny_bundle import expected, write_tiny

from vifa_runtime.alignment import Alignment, AlignmentError
from vifa_runtime.pipeline import FusionPipeline, InputError
from vifa_runtime.pixel_maps import HomographyMap

THERMAL, VISIBLE = (20, 30), (64, 80)
# Thermal pixels are two visible ones wide; the thermal image covers columns 10 to 70 and rows 12 to 52.
MATRIX = (2.0, 0.0, 10.0, 0.0, 2.0, 12.0, 0.0, 0.0, 1.0)
BORDER = 4


@pytest.fixture
def alignment():
    return Alignment("homography", HomographyMap(MATRIX, THERMAL, VISIBLE), soft_border=BORDER)


@pytest.fixture
def make_mirrored(tmp_path):
    """A function that makes a pipeline over a `Mirror`, with an alignment and fields of the manifest."""

    def make(alignment=None, **changes):
        return FusionPipeline(write_tiny(tmp_path / "mirrored", **changes), Mirror(), alignment=alignment)

    return make


def luma(visible):
    return cv2.cvtColor(visible, cv2.COLOR_RGB2GRAY) / np.float32(255)


def covered(margin=0):
    """Visible pixels that the thermal image covers, less a margin."""
    inside = np.zeros(VISIBLE, bool)
    inside[12 + margin : 52 - margin, 10 + margin : 70 - margin] = True
    return inside


def test_outside_the_thermal_view_the_visible_image_passes_to_the_byte(make_pipeline, make_pair, alignment):
    visible, thermal = make_pair(*VISIBLE)[0], make_pair(*THERMAL)[1]
    fused = make_pipeline(alignment=alignment).process(visible, thermal).fused["bright"]
    outside = ~covered()
    np.testing.assert_array_equal(fused[outside], visible[outside])
    assert (fused[covered(BORDER)] != visible[covered(BORDER)]).mean() > 0.5


def test_well_inside_the_pair_is_fused_with_the_enlarged_thermal_image(make_pipeline, make_pair, alignment):
    visible, thermal = make_pair(*VISIBLE)[0], make_pair(*THERMAL)[1]
    enlarged = np.zeros(VISIBLE, np.float32)
    enlarged[12:52, 10:70] = cv2.resize(normalised(thermal), (60, 40), interpolation=cv2.INTER_LINEAR)
    fused = make_pipeline(alignment=alignment).process(visible, thermal).fused["bright"]
    inside = covered(BORDER)
    wanted = expected("bright", visible, enlarged)[inside]
    # remap works in 1/32 of a pixel, so a sample may be a 64th of the largest step off.
    assert np.abs(fused[inside].astype(int) - wanted).max() <= 255 / 64 + 1


def test_the_soft_border_fades_in_a_straight_line(make_pipeline, alignment):
    visible, thermal = np.zeros((*VISIBLE, 3), np.uint8), np.full(THERMAL, 200, np.uint8)
    fused = make_pipeline(alignment=alignment).process(visible, thermal).fused["bright"]
    # What the network gets fades (its thermal image turns into the visible one's luma) and so does what it makes.
    shares = np.clip(np.arange(1, 11) / (BORDER + 1), 0, 1)
    np.testing.assert_allclose(fused[32, 10:20, 0], 200 * shares**2, atol=1.5)
    assert fused[32, :10].max() == 0


def test_the_network_gets_luma_where_there_is_no_thermal_image(make_mirrored, make_pair, alignment):
    pipeline = make_mirrored(alignment)
    visible, thermal = make_pair(*VISIBLE)[0], make_pair(*THERMAL)[1]
    pipeline.process(visible, thermal)
    given, outside = pipeline.backend.thermal[0], ~covered()
    np.testing.assert_allclose(given[outside], luma(visible)[outside], atol=1e-4)
    np.testing.assert_array_equal(pipeline.backend.visible[0], visible)


def test_a_homography_mends_a_misaligned_camera(make_mirrored):
    """A warm spot that a turned and shifted thermal camera sees elsewhere lands where the visible camera sees it."""
    turned = cv2.getRotationMatrix2D((40, 32), 12, 1.3)
    turned[:, 2] += (-3.5, 2.25)
    matrix = np.vstack([turned, [0, 0, 1]])
    visible, spot = np.zeros((*VISIBLE, 3), np.uint8), (47.0, 28.0)
    (x, y) = (np.linalg.inv(matrix) @ [*spot, 1])[:2]
    thermal = np.zeros(VISIBLE, np.uint8)
    cv2.circle(thermal, (round((x - 0.5) * 16), round((y - 0.5) * 16)), 5 * 16, 255, -1, shift=4)
    for found, tolerance in (
        (None, np.inf),
        (Alignment("homography", HomographyMap(tuple(matrix.ravel()), VISIBLE, VISIBLE)), 0.2),
    ):
        pipeline = make_mirrored(found)
        pipeline.process(visible, thermal)
        error = np.hypot(*(centre_of_mass(pipeline.backend.thermal[0]) - spot))
        assert error <= tolerance
        assert found is not None or error > 2  # without it, the spot lies elsewhere


def test_maps_are_computed_once_as_long_as_alignment_and_sizes_stay(make_mirrored, make_pair, alignment, monkeypatch):
    fitted = []
    fit = Alignment.fit
    monkeypatch.setattr(Alignment, "fit", lambda self, *sizes: fitted.append(sizes) or fit(self, *sizes))
    pipeline = make_mirrored(alignment)
    small, large = make_pair(*VISIBLE)[0], make_pair(128, 160)[0]
    thermal = make_pair(*THERMAL)[1]
    for visible in (small, small, large, large, small):
        pipeline.process(visible, thermal)
    assert fitted == [(THERMAL, VISIBLE), (THERMAL, (128, 160)), (THERMAL, VISIBLE)]
    pipeline.alignment = Alignment()
    pipeline.process(small, thermal)
    assert len(fitted) == 4
    np.testing.assert_allclose(  # the new one is used
        pipeline.backend.thermal[0], cv2.resize(normalised(thermal), VISIBLE[::-1]), atol=1e-6
    )


def test_sizes_that_the_alignment_does_not_fit_are_refused_and_the_next_pair_is_fused(make_pipeline, make_pair):
    pipeline = make_pipeline(alignment=Alignment("none"))
    visible, thermal = make_pair(16, 16)
    for _ in range(2):
        with pytest.raises(AlignmentError, match="thermal is 8x8 and visible 16x16"):
            pipeline.process(visible, thermal[:8, :8])
    fused = pipeline.process(visible, thermal).fused["bright"]
    np.testing.assert_array_equal(fused, expected("bright", visible, normalised(thermal)))


def test_on_a_smaller_grid_the_thermal_image_is_resized_once(make_mirrored, make_pair):
    pipeline = make_mirrored(working_size=[32, 40])
    thermal = make_pair(32, 40)[1]
    pipeline.process(make_pair(64, 80)[0], thermal)
    np.testing.assert_array_equal(pipeline.backend.thermal[0], normalised(thermal))  # not blurred on the way


def test_without_a_thermal_image_the_network_gets_the_visible_one_twice(make_mirrored, make_pair):
    pipeline = make_mirrored()
    visible = make_pair(16, 24)[0]
    results = pipeline.process(visible, None, stamp=1.0)
    np.testing.assert_array_equal(pipeline.backend.visible[0], visible)
    np.testing.assert_allclose(pipeline.backend.thermal[0], luma(visible), atol=1e-6)
    np.testing.assert_array_equal(results.fused["bright"], visible)
    assert pipeline.normaliser.limits is None


def test_without_a_visible_image_the_results_keep_its_size(make_mirrored, make_pair):
    pipeline = make_mirrored()
    thermal = make_pair(16, 20)[1]
    assert pipeline.process(None, thermal).fused["bright"].shape == (16, 20, 3)  # there was none yet
    pipeline.process(make_pair(48, 60)[0], thermal)
    fused = pipeline.process(None, thermal).fused["bright"]
    enlarged = cv2.resize(normalised(thermal), (60, 48))
    gray = np.rint(255 * enlarged)
    np.testing.assert_array_equal(fused, np.repeat(gray[:, :, None], 3, axis=2))
    np.testing.assert_allclose(pipeline.backend.thermal[0], enlarged, atol=1e-6)


def test_without_a_visible_image_there_is_black_around_the_thermal_one(make_pipeline, make_pair, alignment):
    pipeline = make_pipeline(alignment=alignment)
    thermal = np.full(THERMAL, 90, np.uint8)
    pipeline.process(make_pair(*VISIBLE)[0], thermal)
    fused = pipeline.process(None, thermal).fused["bright"]
    assert (fused[~covered()] == 0).all()
    assert (fused[covered(BORDER)] == 180).all()  # gray 90 + heat 90


def test_a_pair_of_nothing_is_refused(make_pipeline):
    with pytest.raises(InputError, match="neither a visible nor a thermal image"):
        make_pipeline().process(None, None)


def test_temperatures_are_brought_into_visible_pixels(make_pipeline, make_pair, alignment):
    pipeline = make_pipeline(alignment=alignment)
    degrees = np.tile(np.linspace(20, 49, THERMAL[1], dtype=np.float32), (THERMAL[0], 1))
    with pytest.raises(InputError, match="no pair was fused yet"):
        pipeline.thermal_in_visible(degrees)
    pipeline.process(make_pair(*VISIBLE)[0], degrees)
    brought = pipeline.thermal_in_visible(degrees)
    assert brought.shape == VISIBLE
    columns = (np.arange(80) + 0.5 - 10) / 2 - 0.5
    np.testing.assert_allclose(brought[30], np.clip(20 + columns, 20, 49), atol=1 / 32)
