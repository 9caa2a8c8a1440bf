"""Fusion metrics against other implementations (scikit-image, sewar), cases computed by hand, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate
from sewar.full_ref import vifp
from skimage.measure import shannon_entropy
from skimage.metrics import structural_similarity

from vifa_runtime.metrics import entropy, fusion_ssim, fusion_ssim_mean, fusion_vif, spatial_frequency, ssim, vif
from vifa_runtime.street import Street

SIZES = [(41, 41), (50, 63), (97, 80)]


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def natural(size):
    """Gray visible and thermal images with structure at every scale, and a mix of both."""
    visible, thermal = Street(seed=5, size=(2 * size[0], 2 * size[1]))[3]
    visible = visible[: size[0], : size[1], 1]
    thermal = np.clip((thermal[: size[0], : size[1]].astype(float) - 28_000) / 12, 0, 255).astype(np.uint8)
    return visible, thermal, ((visible.astype(int) + thermal) // 2).astype(np.uint8)


@pytest.fixture(params=SIZES, ids=str)
def images(request):
    return natural(request.param)


# Entropy


def test_entropy_of_known_histograms():
    assert entropy(np.full((4, 4), 7)) == 0
    assert entropy([[0, 255]]) == 1
    assert entropy([[1, 2], [3, 4]]) == 2
    assert entropy(np.arange(256).reshape(16, 16)) == 8
    assert entropy([[0, 0, 0, 9]]) == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))


def test_entropy_equals_scikit_image(images):
    for image in images:
        assert entropy(image) == pytest.approx(shannon_entropy(image))


def test_entropy_rounds_to_gray_levels_and_clips_to_the_range():
    assert entropy([[10.2, 9.8, 30.4, 29.6]]) == 1
    assert entropy([[-5.0, 0.0, 255.0, 300.0]]) == 1


# Spatial frequency


def test_spatial_frequency_by_hand():
    assert spatial_frequency(np.full((5, 5), 9)) == 0
    assert spatial_frequency([[0, 3], [0, 3]]) == 3
    assert spatial_frequency([[0, 3], [4, 7]]) == 5  # 3 along rows, 4 along columns
    assert spatial_frequency([[0, 0, 6], [0, 0, 6]]) == pytest.approx(np.sqrt(18))


def test_spatial_frequency_equals_that_of_scipys_derivatives(images):
    for image in images:
        power = [correlate(image.astype(float), kernel, mode="valid") ** 2 for kernel in ([[-1, 1]], [[-1], [1]])]
        assert spatial_frequency(image) == pytest.approx(np.sqrt(power[0].mean() + power[1].mean()))


@given(st.integers(0, 1000), st.integers(-100, 100), st.integers(-5, 5))
def test_spatial_frequency_ignores_offset_and_scales_with_gain(seed, offset, gain):
    image = noise((9, 7), seed).astype(float)
    assert spatial_frequency(gain * image + offset) == pytest.approx(abs(gain) * spatial_frequency(image))


def test_spatial_frequency_is_the_same_for_the_transposed_image():
    image = noise((9, 14))
    assert spatial_frequency(image) == pytest.approx(spatial_frequency(image.T))


# SSIM


def test_the_standard_ssim_equals_scikit_image(images):
    visible, thermal, fused = images
    for a, b in ((visible, fused), (thermal, fused), (visible, thermal)):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        assert ssim(a, b) == pytest.approx(structural_similarity(a.astype(float), b.astype(float), **options), abs=1e-9)


@pytest.mark.parametrize("data_range", [2.0, 255.0])
def test_the_uniform_ssim_equals_scikit_image(images, data_range):
    visible, thermal, fused = images
    for a, b in ((visible, fused), (thermal, fused), (visible, thermal)):
        reference = structural_similarity(a.astype(float), b.astype(float), data_range=data_range)
        assert ssim(a, b, window="uniform", data_range=data_range) == pytest.approx(reference, abs=1e-9)


def test_ssim_of_a_fused_image_in_both_conventions(images):
    visible, thermal, fused = (image.astype(float) for image in images)
    printed = sum(structural_similarity(source, fused, data_range=2.0) for source in (visible, thermal))
    assert fusion_ssim(*images) == pytest.approx(printed, abs=1e-9)
    assert fusion_ssim_mean(*images) == pytest.approx((ssim(visible, fused) + ssim(thermal, fused)) / 2)


def test_ssim_of_two_constant_images_is_their_luminance_term():
    a, b, constant = 100.0, 150.0, (0.01 * 255) ** 2
    by_hand = (2 * a * b + constant) / (a**2 + b**2 + constant)
    assert ssim(np.full((20, 20), a), np.full((20, 20), b)) == pytest.approx(by_hand)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_is_symmetric_1_for_the_same_and_below_for_another(images, window):
    visible, thermal, _ = images
    assert ssim(visible, visible, window=window) == pytest.approx(1)
    assert ssim(visible, thermal, window=window) == pytest.approx(ssim(thermal, visible, window=window))
    assert -1 <= ssim(visible, thermal, window=window) < 0.9
    assert ssim(visible, 255 - visible, window=window) < ssim(visible, thermal, window=window)


def test_an_unknown_window_is_refused():
    with pytest.raises(ValueError, match="window must be 'gaussian' or 'uniform', got 'box'"):
        ssim(noise((20, 20)), noise((20, 20)), window="box")


# VIF


def test_vif_equals_sewar(images):
    visible, thermal, fused = images
    for reference, distorted in ((visible, fused), (thermal, fused), (fused, visible), (visible, thermal)):
        assert vif(reference, distorted) == pytest.approx(vifp(reference, distorted), abs=1e-9)


def test_vif_of_noise_equals_sewar():
    a, b = noise((60, 70), 1), noise((60, 70), 2)
    assert vif(a, b) == pytest.approx(vifp(a, b), abs=1e-9)
    half = (a // 2 + 30).astype(np.uint8)
    assert vif(a, half) == pytest.approx(vifp(a, half), abs=1e-9)


def test_vif_of_a_fused_image_is_the_sum_over_both_sources(images):
    visible, thermal, fused = images
    assert fusion_vif(visible, thermal, fused) == pytest.approx(vifp(visible, fused) + vifp(thermal, fused), abs=1e-9)


def test_vif_is_1_for_the_same_image_and_0_for_an_empty_one(images):
    visible = images[0]
    assert vif(visible, visible) == pytest.approx(1)
    assert vif(visible, np.full_like(visible, 90)) == pytest.approx(0, abs=1e-9)


def test_vif_falls_with_noise_and_rises_with_contrast(images):
    visible = images[0].astype(float)
    grain = np.random.default_rng(0).normal(0, 1, visible.shape)
    values = [vif(visible, visible + strength * grain) for strength in (0, 5, 20, 60)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.6
    assert vif(visible, 1.2 * visible) > 1


def test_vif_ignores_brightness_and_is_not_symmetric(images):
    visible, _, fused = images
    assert vif(visible, fused + 20.0) == pytest.approx(vif(visible, fused), abs=1e-6)
    assert abs(vif(visible, fused) - vif(fused, visible)) > 0.01


def test_vif_of_a_constant_reference_is_1_not_nan():
    """There is no information to lose; other implementations divide 0 by 0 here."""
    assert vif(np.full((50, 50), 8), noise((50, 50))) == pytest.approx(1)


# All


METRICS = {
    "entropy": (entropy, 1, 1),
    "spatial_frequency": (spatial_frequency, 1, 2),
    "ssim": (ssim, 2, 11),
    "fusion_ssim": (fusion_ssim, 3, 7),
    "fusion_ssim_mean": (fusion_ssim_mean, 3, 11),
    "vif": (vif, 2, 41),
    "fusion_vif": (fusion_vif, 3, 41),
}
EVERY = pytest.mark.parametrize(("metric", "count", "smallest"), METRICS.values(), ids=METRICS)


@EVERY
def test_the_smallest_image_has_a_value_and_a_smaller_one_is_refused(metric, count, smallest):
    value = metric(*[noise((smallest, smallest + 3), seed) for seed in range(count)])
    assert isinstance(value, float) and np.isfinite(value)
    for size in ((smallest - 1, smallest + 3), (smallest + 3, smallest - 1)):
        if smallest > 1:
            with pytest.raises(ValueError, match=f"at least {smallest}x{smallest} pixels"):
                metric(*[noise(size)] * count)


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(metric, count, smallest, bad):
    image = noise((50, 50)).astype(float)
    broken = image.copy()
    broken[20, 20] = bad
    with pytest.raises(ValueError, match="finite"):
        metric(*[image] * (count - 1), broken)


@EVERY
def test_colour_images_and_other_shapes_are_refused(metric, count, smallest):
    with pytest.raises(ValueError, match=r"expected a gray image of shape \(H, W\)"):
        metric(*[noise((50, 50, 3))] * count)
    if count > 1:
        with pytest.raises(ValueError, match="expected images of one shape"):
            metric(*[noise((50, 50))] * (count - 1), noise((50, 51)))


@EVERY
def test_depth_and_memory_layout_do_not_matter_and_inputs_stay(metric, count, smallest):
    images = [noise((60, 52), seed) for seed in range(count)]
    before = [image.copy() for image in images]
    value = metric(*images)
    assert metric(*[image.astype(np.float32) for image in images]) == pytest.approx(value)
    assert metric(*[np.asfortranarray(image) for image in images]) == pytest.approx(value)
    for image, old in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, old)
