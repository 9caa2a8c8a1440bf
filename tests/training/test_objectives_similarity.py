"""SSIM maps under Gaussian windows and saliency, against scikit-image, SciPy and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from objective_cases import plain, random_image
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from vifa_training.objectives.fusion_loss import gradient_share, magnitude_loss
from vifa_training.objectives.saliency import otsu_threshold, saliency_mask
from vifa_training.objectives.similarity import gaussian_blur, gaussian_ssim_map, ms_ssim_map


def scipys_ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = np.ones_like(a)
    for sigma in (0.5, 1, 2, 4, 8):

        def blur(image: np.ndarray, sigma: float = sigma) -> np.ndarray:
            return ndimage.gaussian_filter(image, sigma, mode="mirror", radius=16)

        covariance = blur(a * b) - blur(a) * blur(b)
        variances = blur(a * a) - blur(a) ** 2 + blur(b * b) - blur(b) ** 2
        product *= (2 * covariance + 9e-4) / (variances + 9e-4)
        luminance = (2 * blur(a) * blur(b) + 1e-4) / (blur(a) ** 2 + blur(b) ** 2 + 1e-4)
    return product * luminance


def test_gaussian_ssim_is_scikit_images_inside() -> None:
    a, b = random_image(1), random_image(2)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, expected = structural_similarity(plain(a), plain(b), full=True, **options)
    ours = gaussian_ssim_map(a, b)
    assert ours.shape == a.shape
    np.testing.assert_allclose(plain(ours)[5:-5, 5:-5], expected[5:-5, 5:-5], atol=2e-4)


def test_ms_ssim_is_the_product_over_scipys_windows() -> None:
    a = random_image(1)
    b = 0.7 * a + 0.3 * random_image(2)
    np.testing.assert_allclose(plain(ms_ssim_map(a, b)), scipys_ms_ssim(plain(a), plain(b)), atol=2e-3)


def test_similarity_of_flat_images_is_that_of_their_levels() -> None:
    dark, bright = torch.full((1, 1, 20, 20), 0.3), torch.full((1, 1, 20, 20), 0.6)
    expected = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    for similarity in (gaussian_ssim_map, ms_ssim_map):
        torch.testing.assert_close(similarity(dark, bright), torch.full_like(dark, expected), atol=1e-3, rtol=0)


def test_blur_is_scipys() -> None:
    images = torch.cat([random_image(3), random_image(4)], dim=1)
    ours = gaussian_blur(images, 2.0, 8)
    for channel in range(2):
        expected = ndimage.gaussian_filter(images[0, channel].numpy(), 2.0, mode="mirror", radius=8)
        np.testing.assert_allclose(ours[0, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("similarity", [gaussian_ssim_map, ms_ssim_map])
def test_similarity_is_one_for_the_same_image_symmetric_and_less_for_another(similarity) -> None:
    a, b = random_image(1), random_image(2)
    torch.testing.assert_close(similarity(a, a), torch.ones_like(a), atol=1e-4, rtol=0)
    torch.testing.assert_close(similarity(a, b), similarity(b, a))
    assert similarity(a, b).mean() < 0.5


@pytest.mark.parametrize("similarity", [gaussian_ssim_map, ms_ssim_map])
def test_similarity_keeps_its_precision_under_autocast(similarity) -> None:
    a, b = random_image(1), random_image(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(similarity(a, b), similarity(a, b).float())
        inside = similarity(a, b)
    torch.testing.assert_close(inside, similarity(a, b))


def test_magnitude_loss_is_scipys() -> None:
    images = [random_image(seed) for seed in (5, 6, 7)]
    magnitudes = []
    for image in map(plain, images):
        magnitudes.append(np.abs(ndimage.sobel(image, axis=0)) + np.abs(ndimage.sobel(image, axis=1)))
    fused, visible, thermal = (magnitude[1:-1, 1:-1] for magnitude in magnitudes)
    expected = np.abs(fused - np.maximum(visible, thermal)).mean()
    assert float(magnitude_loss(*images)) == pytest.approx(expected, rel=1e-4)


def test_magnitude_loss_does_not_see_the_sign_of_an_edge() -> None:
    image, flat = random_image(5), torch.full((1, 1, 40, 48), 0.5)
    assert float(magnitude_loss(1 - image, image, flat)) == pytest.approx(0, abs=1e-5)
    assert float(magnitude_loss(flat, image, flat)) > 0.1


def test_gradient_share_by_hand() -> None:
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 40, 40)
    flat = torch.full_like(ramp, 0.5)
    assert gradient_share(ramp, 0.25 * ramp).item() == pytest.approx(0.8, abs=1e-4)
    assert gradient_share(flat, flat).item() == 0.5
    assert gradient_share(torch.cat([ramp, flat]), torch.cat([flat, ramp])).flatten().tolist() == pytest.approx(
        [1, 0], abs=1e-4
    )


def test_otsu_is_scikit_images() -> None:
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.normal(0.3, 0.05, 3000), rng.normal(0.7, 0.1, 1000)]).clip(0, 1)
    # With bins over 0..1 as ours has; scikit-image names the lower class's last bin by its middle.
    counts, edges = np.histogram(image, 256, (0, 1))
    expected = threshold_otsu(hist=(counts, edges[:-1] + 0.5 / 256)) + 0.5 / 256
    ours = otsu_threshold(torch.tensor(image, dtype=torch.float32).view(1, 1, 40, 100))
    assert ours.item() == pytest.approx(expected, abs=1e-6)


def test_saliency_is_the_warm_blob_and_nothing_else() -> None:
    torch.manual_seed(0)
    thermal = 0.3 + 0.02 * torch.rand(2, 1, 48, 48)
    thermal[0, :, 10:20, 30:36] = 0.9
    thermal[1, :, 30:40, 5:9] = 0.7
    thermal[:, :, 2:8, 2:8] = 0.05  # cold things are no targets
    expected = torch.zeros_like(thermal)
    expected[0, :, 10:20, 30:36] = 1
    expected[1, :, 30:40, 5:9] = 1
    assert torch.equal(saliency_mask(thermal), expected)


@pytest.mark.parametrize("power,decides", [(1, "deviation"), (20, "otsu")])
def test_saliency_is_above_otsus_threshold_and_one_deviation(power: int, decides: str) -> None:
    thermal = torch.linspace(0, 1, 60).expand(1, 1, 60, 60) ** power
    image = plain(thermal)
    prominence = ((image - image.mean()) / (3 * image.std(ddof=1))).clip(0, 1)
    counts, edges = np.histogram(prominence, 256, (0, 1))
    threshold = threshold_otsu(hist=(counts, edges[:-1] + 0.5 / 256)) + 0.5 / 256
    assert (threshold > 1 / 3) == (decides == "otsu")
    np.testing.assert_array_equal(plain(saliency_mask(thermal)), prominence > max(threshold, 1 / 3))


def test_a_scene_without_warm_targets_has_no_mask() -> None:
    torch.manual_seed(0)
    assert saliency_mask(0.5 + 0.02 * torch.randn(1, 1, 48, 48)).sum() == 0
    assert saliency_mask(torch.full((1, 1, 48, 48), 0.4)).sum() == 0


def test_saliency_follows_a_moving_blob_and_gives_no_gradient() -> None:
    blob = F.pad(torch.ones(1, 1, 6, 6), (4, 38, 4, 38))
    moved = torch.roll(blob, (11, 23), dims=(2, 3))
    assert torch.equal(torch.roll(saliency_mask(blob), (11, 23), dims=(2, 3)), saliency_mask(moved))
    assert not saliency_mask(blob.requires_grad_(True)).requires_grad
