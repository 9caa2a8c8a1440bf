"""Normalising one thermal image: modes, depths, dead pixels, constant images, errors."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vifa_runtime.street import Street
from vifa_runtime.thermal import ThermalError, ThermalNormaliser, ThermalSettings

FLOAT32 = {"allow_nan": False, "allow_infinity": False, "width": 32}


def normalise(image, **settings):
    return ThermalNormaliser(ThermalSettings(**settings))(image)


def stretched(image, low, high):
    """The definition, in double precision."""
    return np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)


@pytest.fixture
def counts():
    """16-bit counts as a camera gives them: a small part of the range, far from 0."""
    return np.random.default_rng(0).normal(30_000, 150, (60, 80)).astype(np.uint16)


def test_auto_divides_8_bit_by_255():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = normalise(levels)
    assert result.dtype == np.float32
    assert (result[0, 0], result[-1, -1]) == (0, 1)
    np.testing.assert_allclose(result, levels / 255, rtol=2e-7)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_auto_takes_percentiles_of_every_other_depth(counts, dtype):
    image = counts.astype(dtype)
    low, high = np.percentile(image[::4, ::4], [1, 99.5])
    np.testing.assert_allclose(normalise(image), stretched(image, low, high), atol=1e-4)


def test_percentile_mode_also_stretches_8_bit():
    image = np.random.default_rng(0).integers(100, 140, (40, 40), np.uint8)
    low, high = np.percentile(image[::4, ::4], [10, 80])
    result = normalise(image, mode="percentile", low_percentile=10, high_percentile=80)
    np.testing.assert_allclose(result, stretched(image, low, high), atol=1e-5)


def test_limits_of_the_sparse_grid_are_those_of_the_whole_image():
    _, image = Street(seed=1, size=(240, 320))[0]
    normaliser = ThermalNormaliser()
    normaliser(image, stamp=0.0)
    whole = np.percentile(image, [1, 99.5])
    np.testing.assert_allclose(normaliser.limits, whole, atol=0.03 * (whole[1] - whole[0]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_min_max(dtype):
    image = np.full((8, 8), 150, dtype)
    image[0, 0], image[4, 4], image[1, 1], image[2, 2] = 100, 200, 90, 230  # the last two are not on the grid
    result = normalise(image, mode="min_max")
    np.testing.assert_allclose(result, stretched(image, 100, 200), atol=1e-6)
    assert (result[1, 1], result[2, 2]) == (0, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_fixed(dtype):
    image = np.array([[10, 20, 25], [30, 40, 50]], dtype)
    result = normalise(image, mode="fixed", minimum=20, maximum=40)
    np.testing.assert_allclose(result, [[0, 0, 0.25], [0.5, 1, 1]], atol=1e-6)


def test_fixed_takes_degrees_below_zero():
    image = np.array([[-40.0, -10.0, 20.0]], np.float32)
    np.testing.assert_allclose(normalise(image, mode="fixed", minimum=-40, maximum=20), [[0, 0.5, 1]], atol=1e-6)


@pytest.mark.parametrize("mode", ["auto", "percentile", "min_max", "fixed"])
@pytest.mark.parametrize("dead", [np.nan, np.inf, -np.inf])
def test_dead_pixels_are_black_and_change_nothing_else(mode, dead):
    image = np.random.default_rng(0).uniform(20, 40, (32, 32)).astype(np.float32)
    clean = normalise(image, mode=mode, minimum=20, maximum=40)
    image[1, 1] = image[9, 30] = dead  # off the grid that limits are measured on
    result = normalise(image, mode=mode, minimum=20, maximum=40)
    assert result[1, 1] == result[9, 30] == 0
    alive = np.isfinite(image)
    np.testing.assert_array_equal(result[alive], clean[alive])


def test_dead_pixels_on_the_grid_are_left_out_of_the_limits():
    image = np.random.default_rng(0).uniform(20, 40, (32, 32)).astype(np.float32)
    image[0, ::2] = np.nan
    image[4, ::2] = np.inf
    sample = image[::4, ::4]
    low, high = np.percentile(sample[np.isfinite(sample)], [1, 99.5])
    alive = np.isfinite(image)
    np.testing.assert_allclose(normalise(image)[alive], stretched(image[alive], low, high), atol=1e-5)


def test_an_image_alive_only_off_the_grid_is_normalised():
    image = np.full((8, 8), np.nan, np.float32)
    image[1, 1:4] = 10, 20, 30
    np.testing.assert_allclose(normalise(image, mode="min_max")[1, 1:4], [0, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize("mode", ["auto", "percentile", "min_max", "fixed"])
@pytest.mark.parametrize("dead", [np.nan, np.inf])
def test_no_finite_pixel_is_refused(mode, dead):
    with pytest.raises(ThermalError, match="no finite pixel"):
        normalise(np.full((6, 6), dead, np.float32), mode=mode)


@pytest.mark.parametrize("mode", ["percentile", "min_max"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_image_is_black(mode, dtype):
    assert not normalise(np.full((10, 10), 77, dtype), mode=mode).any()


@pytest.mark.parametrize("image", [np.zeros((4, 4, 1), np.uint8), np.zeros(16, np.uint8), np.zeros((0, 4), np.uint8)])
def test_another_shape_is_refused(image):
    with pytest.raises(ThermalError, match="shape"):
        normalise(image)


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int32, bool, ">u2", ">f4"])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(ThermalError, match="uint8, uint16 or float32"):
        normalise(np.zeros((4, 4), dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("level", [0, 5])
def test_out_is_filled_and_returned(dtype, level):
    image = np.full((12, 12), level, dtype)  # constant where level > 0, else with one warm pixel
    image[0, 0] = 5
    out = np.full(image.shape, np.nan, np.float32)
    result = ThermalNormaliser()(image, out=out)
    assert result is out
    np.testing.assert_array_equal(out, ThermalNormaliser()(image))


def test_the_input_is_left_as_it_was(counts):
    image = counts.astype(np.float32)
    image[0, 0] = np.nan
    before = image.copy()
    normalise(image)
    np.testing.assert_array_equal(image, before)


def test_views_with_any_strides_are_read(counts):
    np.testing.assert_array_equal(normalise(counts[::-1, ::2]), normalise(np.ascontiguousarray(counts[::-1, ::2])))


@given(arrays.arrays(np.float32, (5, 6), elements=st.floats(width=32)))
def test_any_float_image_becomes_0_to_1_or_is_refused(image):
    try:
        result = normalise(image, mode="min_max")
    except ThermalError:
        assert not np.isfinite(image).any()
        return
    assert np.isfinite(result).all()
    assert result.min() >= 0 and result.max() <= 1


@given(arrays.arrays(np.float32, (5, 6), elements=st.floats(-1e6, 1e6, **FLOAT32)))
def test_warmer_is_never_darker(image):
    order = np.argsort(image.ravel())
    assert (np.diff(normalise(image, mode="min_max").ravel()[order]) >= 0).all()


def test_a_finite_pixel_far_above_the_limits_is_white_though_its_product_overflows():
    image = np.tile(np.linspace(20, 20.001, 32, dtype=np.float32), (32, 1))
    image[1, 1], image[2, 2] = 3e38, -3e38
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalise(image)
    assert (result[1, 1], result[2, 2]) == (1, 0)


def test_a_span_too_small_for_float32_counts_as_constant():
    image = np.array([[0, 1e-38]], np.float32).repeat(4, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not normalise(image, mode="min_max").any()


@given(gain=st.integers(1, 20), offset=st.integers(0, 20_000), seed=st.integers(0, 100))
def test_gain_and_offset_of_16_bit_counts_do_not_matter(gain, offset, seed):
    image = np.random.default_rng(seed).integers(0, 2000, (40, 40)).astype(np.uint16)
    np.testing.assert_allclose(normalise(image * np.uint16(gain) + np.uint16(offset)), normalise(image), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "histogram"}, "mode 'histogram' is unknown"),
        ({"low_percentile": 60, "high_percentile": 40}, "low < high"),
        ({"low_percentile": -1}, "low < high"),
        ({"high_percentile": 101}, "low < high"),
        ({"minimum": 5, "maximum": 5}, "below maximum"),
        ({"minimum": float("nan")}, "minimum must be a number"),
        ({"minimum": float("-inf")}, "minimum must be a number"),
        ({"maximum": 10**400}, "maximum must be a number"),
        ({"time_constant": float("nan")}, "time_constant must be a number"),
        ({"time_constant": 0}, "above 0"),
        ({"max_gain_step": -0.1}, "above 0"),
        ({"max_gap": 0}, "above 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, reason):
    with pytest.raises(ThermalError, match=reason):
        ThermalSettings(**settings)
