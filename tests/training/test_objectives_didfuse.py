"""DIDFuse's objective, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objective_cases import number, plain, random_image, street_batch, train_on
from scipy import ndimage
from skimage.metrics import structural_similarity

from vifa_training.data.base import Batch
from vifa_training.networks import build_network
from vifa_training.objectives.didfuse import DIDFuseObjective, reconstruction_loss
from vifa_training.objectives.similarity import gaussian_ssim_map

ALL = ("visible", "thermal", "base", "detail", "gradient")


def only(**weights: float) -> DIDFuseObjective:
    return DIDFuseObjective(["fused"], **{**dict.fromkeys(ALL, 0.0), **weights})


def scikit_ssim(a: np.ndarray, b: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return structural_similarity(a, b, full=True, **options)[1].mean()


def test_reconstruction_is_scikit_images_ssim_and_the_squared_error() -> None:
    image = random_image(1, 96, 96)
    other = 0.8 * image + 0.2 * random_image(2, 96, 96)
    a, b = plain(image), plain(other)
    expected = 5 * (1 - scikit_ssim(a, b)) + ((a - b) ** 2).mean()
    assert number(reconstruction_loss(other, image, 5.0)) == pytest.approx(expected, rel=1e-2)
    assert number(reconstruction_loss(image, image, 5.0)) == pytest.approx(0, abs=1e-4)


def test_each_term_is_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    network, batch = build_network("didfuse", ["fused"]).eval(), street_batch()
    visible, thermal = batch.visible_y, batch.thermal
    with torch.no_grad():
        of_visible, of_thermal = network.backbone.encode(visible), network.backbone.encode(thermal)
        visible_again = network.heads["fused"](network.backbone.decode(of_visible))
        thermal_again = network.heads["fused"](network.backbone.decode(of_thermal))
        ours = {name: number(only(**{name: 1.0})(network, batch, 0.0)) for name in ALL}
        whole = number(DIDFuseObjective(["fused"])(network, batch, 0.0))

    def slopes(images: torch.Tensor) -> np.ndarray:
        each = images[:, 0].numpy().astype(np.float64)
        both = [ndimage.sobel(image, axis=axis)[1:-1, 1:-1] for image in each for axis in (0, 1)]
        return np.stack(both) / 8

    base, detail = ((of_thermal[name] - of_visible[name]).abs().mean().item() for name in ("base", "detail"))
    assert ours["visible"] == pytest.approx(number(reconstruction_loss(visible_again, visible, 5.0)), rel=1e-5)
    assert ours["thermal"] == pytest.approx(number(reconstruction_loss(thermal_again, thermal, 5.0)), rel=1e-5)
    assert ours["base"] == pytest.approx(math.tanh(base), rel=1e-5)
    assert ours["detail"] == pytest.approx(-math.tanh(detail), rel=1e-5)
    assert ours["gradient"] == pytest.approx(np.abs(slopes(visible) - slopes(visible_again)).mean(), rel=1e-4)
    published = {"visible": 2, "thermal": 2, "base": 1, "detail": 0.5, "gradient": 10}
    assert whole == pytest.approx(sum(published[name] * ours[name] for name in ALL), rel=1e-5)


def test_identical_images_have_nothing_to_decompose() -> None:
    batch = street_batch()
    same = Batch(batch.thermal.expand(-1, 3, -1, -1), batch.thermal)
    network = build_network("didfuse", ["fused"])
    assert only(base=1.0, detail=1.0)(network, same, 0.0).item() == pytest.approx(0, abs=1e-4)


def test_every_tasks_head_learns_to_reconstruct() -> None:
    network = build_network("didfuse", ["a", "b"])
    DIDFuseObjective(["a", "b"])(network, street_batch(), 0.0).backward()
    for head in network.heads.values():
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_another_network_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'didfuse'.*not 'nano'"):
        DIDFuseObjective(["fused"])(build_network("nano", ["fused"]), street_batch(), 0.0)


def test_didfuse_learns_by_it_to_reconstruct_both_images() -> None:
    network, batch = build_network("didfuse", ["fused"]), street_batch(side=24)
    assert train_on(network, DIDFuseObjective(["fused"]), batch, steps=25) < 0.5
    with torch.no_grad():
        for image in (batch.visible_y, batch.thermal):
            again = network.heads["fused"](network.backbone.decode(network.backbone.encode(image)))
            assert gaussian_ssim_map(again, image).mean() > 0.6
