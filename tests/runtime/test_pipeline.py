"""One pair through the pipeline: what the back end is given, and what comes back in visible pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import expected, write_tiny

from vifa_runtime.backends import RawResults
from vifa_runtime.geometry import GeometryError
from vifa_runtime.pipeline import FusionPipeline, InputError
from vifa_runtime.thermal import ThermalError, ThermalNormaliser, ThermalSettings

TASKS = ["bright", "blend"]


class Mirror:
    """A back end that gives the visible image back as every fused one, and remembers what it was given."""

    def run(self, visible, thermal, tasks, fused_only):
        self.visible, self.thermal, self.tasks = visible.copy(), thermal.copy(), list(tasks)
        self.are_contiguous = visible.flags.c_contiguous and thermal.flags.c_contiguous
        return RawResults(dict.fromkeys(tasks, visible), {"backbone": 0.0})

    def describe(self):
        return {}

    def close(self):
        self.is_closed = True


@pytest.fixture
def make_mirrored(tmp_path):
    """A function that makes a pipeline over a `Mirror` from fields of the manifest."""

    def make(**changes):
        return FusionPipeline(write_tiny(tmp_path / "mirrored", **changes), Mirror())

    return make


def normalised(thermal, **settings):
    return ThermalNormaliser(ThermalSettings(**settings))(thermal)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=30)
def test_fused_images_equal_the_arithmetic_at_any_size(make_pipeline, make_pair, height, width, seed):
    pipeline = make_pipeline()
    visible, thermal = make_pair(height, width, seed)
    fused = pipeline.process(visible, thermal).fused
    assert list(fused) == TASKS
    for task in TASKS:
        np.testing.assert_array_equal(fused[task], expected(task, visible, normalised(thermal)))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_raw_counts_and_degrees_are_normalised_first(make_pipeline, make_pair, dtype):
    visible, thermal = make_pair(32, 40)
    thermal = thermal.astype(dtype) * 7 + 900
    fused = make_pipeline().process(visible, thermal).fused["blend"]
    np.testing.assert_array_equal(fused, expected("blend", visible, normalised(thermal)))


def test_stamps_smooth_the_thermal_limits_in_order(make_pipeline, make_pair):
    pipeline, reference = make_pipeline(), ThermalNormaliser()
    for frame in range(5):
        visible, thermal = make_pair(16, 16, frame)
        thermal = thermal.astype(np.uint16) * (10 + frame)
        fused = pipeline.process(visible, thermal, stamp=0.1 * frame).fused["bright"]
        np.testing.assert_array_equal(fused, expected("bright", visible, reference(thermal, 0.1 * frame)))
    assert pipeline.normaliser.limits == reference.limits


def test_pairs_without_a_stamp_are_taken_by_themselves(make_pipeline, make_pair):
    pipeline = make_pipeline()
    visible, thermal = make_pair(16, 16)
    thermal = thermal.astype(np.uint16)
    alone = pipeline.process(visible, thermal).fused["bright"].copy()
    pipeline.process(visible, thermal * 200)
    np.testing.assert_array_equal(pipeline.process(visible, thermal).fused["bright"], alone)


def test_thermal_settings_of_the_caller_win(make_pipeline, make_pair):
    settings = ThermalSettings(mode="fixed", minimum=0, maximum=510)
    visible, thermal = make_pair(8, 8)
    fused = make_pipeline(thermal=settings).process(visible, thermal).fused["bright"]
    half = thermal.astype(np.float32) / 510
    assert np.abs(fused.astype(int) - expected("bright", visible, half)).max() <= 1  # x.5 may round either way


def test_a_size_that_changes_mid_stream_and_comes_back(make_pipeline, make_pair):
    pipeline = make_pipeline()
    for seed, size in enumerate([(21, 30), (33, 17), (16, 16), (21, 30), (5, 60), (33, 17)]):
        visible, thermal = make_pair(*size, seed)
        for task, fused in pipeline.process(visible, thermal, stamp=float(seed)).fused.items():
            np.testing.assert_array_equal(fused, expected(task, visible, normalised(thermal)))


def test_a_larger_thermal_image_is_averaged_down(make_pipeline, make_pair):
    visible, thermal = make_pair(20, 28)
    doubled = np.kron(thermal, np.ones((2, 2), np.uint8))
    fused = make_pipeline().process(visible, doubled).fused["blend"]
    np.testing.assert_array_equal(fused, expected("blend", visible, normalised(thermal)))


def test_a_smaller_thermal_image_is_stretched_over_the_visible_one(make_mirrored, make_pair):
    pipeline = make_mirrored()
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (6, 1))  # 20 columns
    pipeline.process(make_pair(24, 40)[0], ramp)
    given = pipeline.backend.thermal[0]
    assert given.shape == (24, 40)
    centres = (np.arange(40) + 0.5) / 2 - 0.5  # of the visible columns, in thermal ones
    np.testing.assert_allclose(given[7], np.clip(10 * centres, 0, 190) / 255, atol=1e-5)


def test_odd_sizes_are_padded_by_their_edge(make_mirrored, make_pair):
    pipeline = make_mirrored(size_multiple=16)
    visible, thermal = make_pair(21, 35)
    fused = pipeline.process(visible, thermal).fused
    margins = [(0, 11), (0, 13)]
    np.testing.assert_array_equal(pipeline.backend.visible[0], np.pad(visible, [*margins, (0, 0)], mode="edge"))
    np.testing.assert_array_equal(pipeline.backend.thermal[0], np.pad(normalised(thermal), margins, mode="edge"))
    for image in fused.values():
        np.testing.assert_array_equal(image, visible)


@pytest.mark.parametrize("aspect", ["letterbox", "stretch"])
def test_a_working_size_is_worked_at_and_mapped_back(make_mirrored, aspect):
    pipeline = make_mirrored(working_size=[64, 64], aspect=aspect)
    visible, thermal = np.zeros((60, 120, 3), np.uint8), np.zeros((60, 120), np.uint8)
    visible[20:30, 90:100], thermal[20:30, 90:100] = 255, 255
    fused = pipeline.process(visible, thermal).fused["bright"]
    given = pipeline.backend.visible[0], pipeline.backend.thermal[0]
    assert [image.shape[:2] for image in given] == [(64, 64), (64, 64)]
    grid = pipeline.bundle.grid((60, 120))
    for image in (given[0][:, :, 0], given[1]):
        np.testing.assert_allclose(centre_of_mass(image), grid.to_grid([(95, 25)])[0], atol=0.5)
    assert fused.shape == (60, 120, 3)
    np.testing.assert_allclose(centre_of_mass(fused[:, :, 1]), (95, 25), atol=1)


def centre_of_mass(image):
    rows, columns = np.indices(image.shape) + 0.5
    return np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()


@pytest.mark.parametrize(
    ("wanted", "run"), [(None, TASKS), (["blend"], ["blend"]), (["blend", "bright", "blend"], TASKS), ([], [])]
)
def test_only_wanted_tasks_are_run_each_once_in_the_order_of_the_bundle(make_mirrored, make_pair, wanted, run):
    pipeline = make_mirrored()
    results = pipeline.process(*make_pair(8, 8), tasks=wanted)
    assert pipeline.backend.tasks == run
    assert list(results.fused) == run


def test_every_stage_is_timed(make_pipeline, make_pair):
    times = make_pipeline().process(*make_pair(8, 8), tasks=["blend"]).milliseconds
    assert times.keys() == {"normalise", "align", "backbone", "head.blend", "restore"}
    assert all(time >= 0 for time in times.values())


@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
def test_views_and_images_that_must_not_be_written_to(make_pipeline, make_pair, size):
    visible, thermal = make_pair(*size)
    visible.flags.writeable = thermal.flags.writeable = False
    pipeline = make_pipeline()
    for turn in (slice(None), slice(None, None, -1)):
        pair = visible[turn, :, ::-1], thermal[turn]
        fused = pipeline.process(*pair).fused["blend"]
        np.testing.assert_array_equal(fused, expected("blend", pair[0], normalised(pair[1])))


def test_the_engine_gets_contiguous_arrays(make_mirrored, make_pair):
    pipeline = make_mirrored()
    visible, thermal = make_pair(16, 32)
    pipeline.process(visible[:, ::2, ::-1], thermal[:, ::2])
    assert pipeline.backend.are_contiguous
    np.testing.assert_array_equal(pipeline.backend.visible[0], visible[:, ::2, ::-1])


def test_camera_images_are_left_as_they_were(make_pipeline, make_pair):
    visible, thermal = make_pair(17, 16)
    before = visible.copy(), thermal.copy()
    make_pipeline().process(visible, thermal)
    np.testing.assert_array_equal(visible, before[0])
    np.testing.assert_array_equal(thermal, before[1])


@pytest.mark.parametrize(
    "visible",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
    ],
)
def test_another_visible_image_is_refused_before_the_state_moves(make_pipeline, visible):
    pipeline = make_pipeline()
    with pytest.raises(InputError, match=r"expected a visible image uint8 \(H, W, 3\)"):
        pipeline.process(visible, np.arange(64, dtype=np.uint16).reshape(8, 8), stamp=1.0)
    assert pipeline.normaliser.limits is None


@pytest.mark.parametrize("thermal", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), np.zeros((0, 8), np.uint8)])
def test_another_thermal_image_is_refused(make_pipeline, make_pair, thermal):
    with pytest.raises(ThermalError, match="expected"):
        make_pipeline().process(make_pair(8, 8)[0], thermal)


def test_a_thermal_image_without_a_finite_pixel_is_refused_and_the_next_pair_is_fused(make_pipeline, make_pair):
    pipeline = make_pipeline()
    visible, thermal = make_pair(8, 8)
    with pytest.raises(ThermalError, match="no finite pixel"):
        pipeline.process(visible, np.full((8, 8), np.nan, np.float32), stamp=0.0)
    fused = pipeline.process(visible, thermal, stamp=0.1).fused["bright"]
    np.testing.assert_array_equal(fused, expected("bright", visible, normalised(thermal)))


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (1, 16385)])
def test_a_visible_image_of_no_or_too_large_a_size_is_refused(make_pipeline, size):
    with pytest.raises(GeometryError, match=f"image size {size[1]}x{size[0]} is outside"):
        make_pipeline().process(np.zeros((*size, 3), np.uint8), np.zeros((8, 8), np.uint8))


def test_an_unknown_task_is_refused_by_name(make_pipeline, make_pair):
    with pytest.raises(InputError, match="bundle tiny has no task 'detect'; it has bright, blend"):
        make_pipeline().process(*make_pair(8, 8), tasks=["bright", "detect"])


def test_closing_closes_the_engine(make_mirrored):
    pipeline = make_mirrored()
    pipeline.close()
    assert pipeline.backend.is_closed
