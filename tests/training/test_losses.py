"""Loss terms against scikit-image, SciPy and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from vifa_training.objectives.fusion_loss import (
    FusionWeights,
    fusion_loss,
    gradient_loss,
    information,
    sobel,
    ssim_loss,
    ssim_map,
    thermal_prominence,
)

NOTHING = FusionWeights(gradient=0, ssim=0)


def random_image(seed: int, height: int = 40, width: int = 48) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    return torch.tensor((smooth - smooth.min()) / (smooth.max() - smooth.min()), dtype=torch.float32)[None, None]


def test_sobel_is_scipys() -> None:
    image = random_image(0)
    ours = sobel(image)[0].numpy()
    for axis, derivative in ((1, ours[0]), (0, ours[1])):
        expected = ndimage.sobel(image[0, 0].numpy(), axis=axis)[1:-1, 1:-1]
        np.testing.assert_allclose(derivative, expected, atol=1e-5)


def test_ssim_map_is_scikit_images_at_every_other_window() -> None:
    a, b = random_image(1), random_image(2)
    _, full = structural_similarity(
        a[0, 0].numpy().astype(np.float64),
        b[0, 0].numpy().astype(np.float64),
        data_range=1.0,
        use_sample_covariance=False,
        full=True,
    )
    np.testing.assert_allclose(ssim_map(a, b)[0, 0].numpy(), full[3:-3:2, 3:-3:2], atol=2e-4)


def test_gradient_loss_is_zero_for_the_only_source_with_gradients() -> None:
    image, flat = random_image(3), torch.full((1, 1, 40, 48), 0.5)
    assert gradient_loss(image, image, flat) == 0
    assert gradient_loss(image, flat, image) == 0


def test_gradient_loss_forbids_inverted_edges() -> None:
    image, flat = random_image(3), torch.full((1, 1, 40, 48), 0.5)
    inverted = 1 - image
    expected = 2 * float(sobel(image).abs().mean())
    assert float(gradient_loss(inverted, image, flat)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("term,expected", [("visible", 0.3), ("thermal", 0.1), ("maximum", 0.3)])
def test_intensity_terms_of_flat_images(term: str, expected: float) -> None:
    fused, visible, thermal = (torch.full((1, 1, 20, 20), value) for value in (0.5, 0.8, 0.6))
    weights = FusionWeights(gradient=0, ssim=0, **{term: 2.0})
    assert float(fusion_loss(fused, visible, thermal, weights)) == pytest.approx(2 * expected, rel=1e-5)


def test_hot_pixels_count_more() -> None:
    thermal = torch.zeros(1, 1, 20, 20)
    thermal[..., :4, :4] = 1
    wrong_when_hot = torch.zeros_like(thermal)
    plain = fusion_loss(wrong_when_hot, wrong_when_hot, thermal, FusionWeights(maximum=1, gradient=0, ssim=0))
    hot = fusion_loss(wrong_when_hot, wrong_when_hot, thermal, FusionWeights(maximum=1, hot=1, gradient=0, ssim=0))
    prominence = float(thermal_prominence(thermal)[..., :4, :4].mean())
    assert 0.5 < prominence <= 1
    assert float(hot) == pytest.approx(float(plain) * (1 + prominence), rel=1e-5)


def test_ssim_share_chooses_the_source() -> None:
    visible, thermal = random_image(4), random_image(5)
    assert float(ssim_loss(visible, visible, thermal, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(ssim_loss(thermal, visible, thermal, 0.0)) == pytest.approx(0, abs=1e-5)
    assert float(ssim_loss(visible, visible, thermal, 0.0)) > 0.2


def test_ssim_share_by_gradient_prefers_the_source_with_more() -> None:
    visible, flat = random_image(4), torch.full((1, 1, 40, 48), 0.5)
    assert float(ssim_loss(visible, visible, flat)) < 0.05


def test_information_of_the_source_itself_is_whole_and_of_noise_is_small() -> None:
    source = random_image(6)
    torch.manual_seed(0)
    assert float(information(source, source)) == pytest.approx(1, abs=1e-3)
    assert float(information(torch.rand_like(source), source)) < 0.2


def test_information_does_not_reward_exaggeration() -> None:
    source = random_image(6)
    assert float(information(2 * source, source)) <= 1


@pytest.mark.parametrize("term", ["maximum", "visible", "thermal", "gradient", "ssim", "information"])
def test_every_term_gives_a_finite_gradient_even_on_flat_images(term: str) -> None:
    fused = torch.full((1, 1, 24, 24), 0.5, requires_grad=True)
    flat = torch.full((1, 1, 24, 24), 0.25)
    weights = FusionWeights(**{**vars(NOTHING), term: 1.0})
    fusion_loss(fused, flat, flat, weights).backward()
    assert fused.grad is not None
    assert torch.isfinite(fused.grad).all()


def test_thermal_gain_dims_the_thermal_image_for_every_term() -> None:
    fused, visible, thermal = random_image(7), random_image(8), random_image(9)
    weights = {"maximum": 1.0, "thermal": 1.0, "hot": 1.0, "gradient": 1.0, "ssim": 1.0, "information": 1.0}
    dimmed = fusion_loss(fused, visible, thermal, FusionWeights(thermal_gain=0.5, **weights))
    assert dimmed == fusion_loss(fused, visible, 0.5 * thermal, FusionWeights(**weights))
    assert dimmed != fusion_loss(fused, visible, thermal, FusionWeights(**weights))
