"""What cameras differ in: polarity, the unit of their numbers, local contrast; and that the defaults change nothing."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny_bundle import write_tiny

from vifa_runtime.bundle import BundleError, load_bundle
from vifa_runtime.street import Street
from vifa_runtime.thermal import MODES, ThermalError, ThermalNormaliser, ThermalSettings, to_celsius

CAMERAS = {  # scale, offset and what each camera sends for -10, 25 and 130 degrees, by its maker's own words
    "celsius": (1.0, 0.0, np.array([[-10, 25, 130]], np.float32)),
    "kelvin": (1.0, -273.15, np.array([[263.15, 298.15, 403.15]], np.float32)),
    "lepton": (0.01, -273.15, np.array([[26315, 29815, 40315]], np.uint16)),
    "a65 high": (0.04, -273.15, np.array([[6579, 7454, 10079]], np.uint16)),
    "a65 low": (0.4, -273.15, np.array([[658, 745, 1008]], np.uint16)),
    "optris": (0.1, -100.0, np.array([[900, 1250, 2300]], np.uint16)),
}


def normalise(image, **settings):
    return ThermalNormaliser(ThermalSettings(**settings))(image)


@pytest.fixture
def counts():
    """A street in 16-bit counts, and what a camera of the other polarity sends for it."""
    image = Street(seed=1, size=(120, 160))[0][1]
    return image, np.uint16(60_000) - image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("mode", MODES)
def test_by_default_results_are_those_of_plain_float32_arithmetic_to_the_bit(mode, dtype):
    """The definition as it was before polarity, scale and CLAHE, operation for operation."""
    image = (Street(seed=2, size=(120, 160))[7][1] // 160).astype(dtype) * (1 if dtype is np.uint8 else 77)
    low, high = {
        "fixed": (100.0, 200.0),
        "min_max": (float(image[::4, ::4].min()), float(image[::4, ::4].max())),
        "percentile": np.percentile(image[::4, ::4], [1.0, 99.5]),
        "auto": (0.0, 255.0) if dtype is np.uint8 else np.percentile(image[::4, ::4], [1.0, 99.5]),
    }[mode]
    gain = 1.0 / (float(high) - float(low))
    expected = np.clip(image * np.float32(gain) - np.float32(float(low) * gain), np.float32(0), np.float32(1))
    np.testing.assert_array_equal(normalise(image, mode=mode, minimum=100.0, maximum=200.0), expected)


@pytest.mark.parametrize("mode", ["auto", "percentile", "min_max"])
def test_a_black_hot_camera_gives_the_same_as_a_white_hot_one(counts, mode):
    white, black = counts
    np.testing.assert_allclose(
        normalise(black, mode=mode, polarity="black_hot"), normalise(white, mode=mode), atol=3e-4
    )


def test_black_hot_in_a_fixed_range():
    image = np.array([[90, 100, 150, 200, 250]], np.uint16)
    result = normalise(image, mode="fixed", minimum=100, maximum=200, polarity="black_hot")
    np.testing.assert_allclose(result, [[1, 1, 0.5, 0, 0]], atol=1e-6)


def test_black_hot_8_bit_is_turned_over():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = normalise(levels, polarity="black_hot")
    np.testing.assert_allclose(result, 1 - levels / 255, atol=2e-7)
    assert (result[0, 0], result[-1, -1]) == (1, 0)


def test_smoothed_limits_follow_a_black_hot_camera_as_a_white_hot_one():
    street = Street(seed=3, size=(120, 160))
    white, black = ThermalNormaliser(), ThermalNormaliser(ThermalSettings(polarity="black_hot"))
    for index in range(8):
        image = street[5 * index][1]
        expected = white(image, index / 10)
        np.testing.assert_allclose(black(np.uint16(60_000) - image, index / 10), expected, atol=3e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clahe", [0.0, 2.0])
@pytest.mark.parametrize("dead", [np.nan, np.inf, -np.inf])
def test_dead_pixels_are_black_whatever_the_polarity_and_contrast(mode, clahe, dead):
    image = np.random.default_rng(0).uniform(20, 40, (32, 48)).astype(np.float32)
    image[1, 1] = image[9, 30] = dead
    result = normalise(image, mode=mode, minimum=20, maximum=40, polarity="black_hot", clahe=clahe)
    assert result[1, 1] == result[9, 30] == 0
    assert result[1, 2:5].max() > 0


@pytest.mark.parametrize("polarity", ["white_hot", "black_hot"])
def test_a_constant_image_is_black_in_both_polarities(polarity):
    image = np.full((10, 10), 77, np.uint16)
    assert not normalise(image, polarity=polarity, clahe=2.0).any()


@pytest.mark.parametrize("camera", CAMERAS)
def test_temperatures_of_real_cameras(camera):
    scale, offset, image = CAMERAS[camera]
    settings = ThermalSettings(scale=scale, offset=offset)
    celsius = to_celsius(image, settings)
    assert celsius.dtype == np.float32
    np.testing.assert_allclose(celsius, [[-10, 25, 130]], atol=0.5 * scale)  # half a count


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_fixed_range_in_celsius_fits_every_camera(camera):
    scale, offset, image = CAMERAS[camera]
    result = normalise(image, mode="fixed", minimum=-10, maximum=60, scale=scale, offset=offset)
    np.testing.assert_allclose(result, [[0, 0.5, 1]], atol=0.5 * scale / 70 + 1e-6)


def test_a_scale_leaves_the_other_modes_alone(counts):
    np.testing.assert_array_equal(normalise(counts[0], scale=0.01, offset=-273.15), normalise(counts[0]))


def test_no_scale_no_temperature(counts):
    assert to_celsius(counts[0], ThermalSettings()) is None


def test_temperatures_of_dead_pixels_are_nan():
    image = np.array([[20, np.nan, np.inf, -np.inf, 3e38]], np.float32)
    celsius = to_celsius(image, ThermalSettings(scale=100.0))
    assert celsius[0, 0] == 2000
    assert np.isnan(celsius[0, 1:]).all()
    assert image[0, 0] == 20


@given(
    arrays.arrays(np.uint16, (4, 5)),
    st.sampled_from([0.01, 0.04, 0.1, 0.4, 1 / 64]),
    st.sampled_from([0.0, -273.15, -100.0]),
)
def test_temperatures_and_fixed_range_agree(image, scale, offset):
    """A pixel is 0 at `minimum` degrees, 1 at `maximum`, and in between where its temperature is."""
    settings = ThermalSettings(mode="fixed", minimum=-20, maximum=80, scale=scale, offset=offset)
    celsius = to_celsius(image, settings)
    np.testing.assert_allclose(celsius, image * scale + offset, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(ThermalNormaliser(settings)(image), np.clip((celsius + 20) / 100, 0, 1), atol=3e-5)


def test_temperatures_go_where_they_are_wanted():
    image, out = np.array([[3000, 3100]], np.uint16), np.empty((1, 2), np.float32)
    assert to_celsius(image, ThermalSettings(scale=0.1, offset=-273.15), out=out) is out
    np.testing.assert_allclose(out, [[26.85, 36.85]], atol=1e-4)


@pytest.mark.parametrize("image", [np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.float64)])
def test_temperatures_of_what_is_no_thermal_image_are_refused(image):
    with pytest.raises(ThermalError, match="expected"):
        to_celsius(image, ThermalSettings(scale=1.0))


@pytest.mark.parametrize("clip_limit", [1.0, 2.0, 40.0])
def test_clahe_is_opencv_s_on_the_8_bit_result(counts, clip_limit):
    gray = np.rint(255 * normalise(counts[0])).astype(np.uint8)
    expected = cv2.createCLAHE(clip_limit, (8, 8)).apply(gray) / 255
    np.testing.assert_allclose(normalise(counts[0], clahe=clip_limit), expected, atol=1e-6)


def test_clahe_raises_local_contrast_by_its_clip_limit(counts):
    """What 16 bits would not do: there the same limits all give full equalisation."""
    contrast = [cv2.Laplacian(normalise(counts[0], clahe=limit), cv2.CV_32F).std() for limit in (0.0, 1.0, 3.0)]
    assert contrast[0] < contrast[1] < 0.8 * contrast[2]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_clahe_takes_images_of_any_size(height, width, dtype):
    image = np.random.default_rng(height).integers(0, 200, (height, width)).astype(dtype)
    result = normalise(image[::-1, ::-1], clahe=2.0, mode="min_max")
    assert result.shape == (height, width) and result.dtype == np.float32
    assert result.min() >= 0 and result.max() <= 1


def test_bundles_carry_them_and_older_ones_load_as_before(tmp_path):
    degrees = {"mode": "fixed", "minimum": -20, "maximum": 60, "scale": 0.04, "offset": -273.15, "clahe": 2.0}
    write_tiny(tmp_path / "new", thermal=degrees)
    assert load_bundle(tmp_path / "new").thermal == ThermalSettings(**degrees)
    write_tiny(tmp_path / "black", thermal={"mode": "auto", "polarity": "black_hot"})
    assert load_bundle(tmp_path / "black").thermal == ThermalSettings(polarity="black_hot")
    write_tiny(tmp_path / "old", thermal={"mode": "auto"})
    assert load_bundle(tmp_path / "old").thermal == ThermalSettings()


@pytest.mark.parametrize(
    "thermal", [{"polarity": "hot"}, {"clahe": -1}, {"scale": "kelvin"}, {"scale": -1}, {"offset": None}]
)
def test_bundles_with_settings_without_a_meaning_are_refused(tmp_path, thermal):
    with pytest.raises(BundleError, match=f"thermal/{next(iter(thermal))}"):
        write_tiny(tmp_path / "bad", thermal={"mode": "auto", **thermal})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"polarity": "green_hot"}, "polarity 'green_hot' is unknown; use one of white_hot, black_hot"),
        ({"clahe": -1}, "clip limit of at most 256"),
        ({"clahe": 1e20}, "clip limit of at most 256"),
        ({"clahe": float("nan")}, "clahe must be a number"),
        ({"scale": -0.01}, "scale must be 0"),
        ({"scale": 1e-9}, "scale must be 0"),
        ({"scale": float("inf")}, "scale must be a number"),
        ({"offset": -273.15}, "needs the camera's scale"),
        ({"scale": 0.01, "offset": -273.15, "polarity": "black_hot"}, "black_hot has no degrees"),
        ({"scale": 0.01, "mode": "fixed"}, "minimum and maximum are Celsius"),
        ({"scale": 0.01, "mode": "fixed", "minimum": -300, "maximum": 50}, "minimum and maximum are Celsius"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, reason):
    with pytest.raises(ThermalError, match=reason):
        ThermalSettings(**settings)
