"""SwinFusion's objective, term by term."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from objective_cases import number, plain, random_image, street_batch, train_on
from scipy import ndimage
from skimage.metrics import structural_similarity

from vifa_training.networks import build_network
from vifa_training.objectives.swinfusion import SwinFusionObjective, weighted_ssim_loss


def sobel_magnitude(image: np.ndarray) -> np.ndarray:
    return (np.abs(ndimage.sobel(image, axis=0)) + np.abs(ndimage.sobel(image, axis=1)))[1:-1, 1:-1]


def scikit_ssim(a: np.ndarray, b: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return structural_similarity(a, b, full=True, **options)[1].mean()


def test_the_three_terms_are_weighed_as_published() -> None:
    batch = street_batch(side=64, count=1)
    fused = random_image(3, 64, 64)
    f, v, t = plain(fused), plain(batch.visible_y), plain(batch.thermal)
    gf, gv, gt = map(sobel_magnitude, (f, v, t))
    share = gv.mean() / (gv.mean() + gt.mean())
    expected = (
        20 * np.abs(f - np.maximum(v, t)).mean()
        + 20 * np.abs(gf - np.maximum(gv, gt)).mean()
        + 10 * (1 - share * scikit_ssim(v, f) - (1 - share) * scikit_ssim(t, f))
    )
    loss = SwinFusionObjective(["fused"])(lambda v, t: {"fused": fused}, batch, 0.0)
    assert number(loss) == pytest.approx(expected, rel=1e-3)  # scikit-image's borders are padded another way


def test_identical_images_cost_nothing() -> None:
    batch = street_batch()
    same = torch.stack([batch.thermal[:, 0]] * 3, dim=1)
    loss = SwinFusionObjective(["fused"])(lambda v, t: {"fused": t}, type(batch)(same, batch.thermal), 0.0)
    assert number(loss) == pytest.approx(0, abs=1e-2)


def test_every_pair_has_weights_of_its_own() -> None:
    flat, rough = torch.full((1, 1, 40, 48), 0.5), random_image(1)
    visible, thermal = torch.cat([rough, flat]), torch.cat([flat, rough])
    rough_ones, flat_ones = torch.cat([rough, rough]), torch.cat([flat, flat])
    assert number(weighted_ssim_loss(rough_ones, visible, thermal)) == pytest.approx(0, abs=1e-3)
    assert number(weighted_ssim_loss(flat_ones, visible, thermal)) > 0.3


def test_tasks_are_summed() -> None:
    batch = street_batch()
    one = SwinFusionObjective(["a"])(lambda v, t: {"a": v}, batch, 0.0)
    two = SwinFusionObjective(["a", "b"])(lambda v, t: {"a": v, "b": v}, batch, 0.0)
    assert number(two) == pytest.approx(2 * number(one), rel=1e-5)


def test_swinfusion_learns_by_it() -> None:
    network = build_network("swinfusion", ["fused"])
    assert train_on(network, SwinFusionObjective(["fused"]), street_batch(side=24, count=1), steps=12) < 0.8
