"""TarDAL's objective: similarity, both discriminators, their penalty, and who is trained by what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from objective_cases import number, plain, random_image, street_batch, train_on
from scipy import ndimage
from torch import nn

from vifa_training.networks import build_network
from vifa_training.objectives.fusion_loss import gradient_share
from vifa_training.objectives.saliency import saliency_mask
from vifa_training.objectives.similarity import ms_ssim_map
from vifa_training.objectives.tardal import (
    Discriminator,
    TarDALObjective,
    detail_map,
    discriminator_loss,
    gradient_penalty,
    similarity_loss_map,
)


class Linear(nn.Module):
    """D(x) = sum of w x."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image * self.weights).sum(dim=(1, 2, 3))


def gives(image: torch.Tensor) -> nn.Module:
    """A network in training mode that fuses every pair to `image`."""

    class Constant(nn.Module):
        def forward(self, visible_y: torch.Tensor, thermal: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"fused": image}

    return Constant()


def test_discriminator_has_the_published_layers_and_takes_any_size() -> None:
    discriminator = Discriminator()
    convolutions = [layer for layer in discriminator.convolutions if isinstance(layer, nn.Conv2d)]
    shapes = [(c.in_channels, c.out_channels, c.kernel_size, c.stride) for c in convolutions]
    assert shapes == [(a, b, (3, 3), (2, 2)) for a, b in ((1, 32), (32, 64), (64, 128))]
    assert discriminator(torch.rand(3, 1, 37, 50)).shape == (3,)


def test_similarity_loss_is_scipys() -> None:
    a, b = random_image(1), random_image(2)
    difference = ndimage.gaussian_filter(np.abs(plain(a) - plain(b)), 8, mode="mirror", radius=16)
    expected = 200 * (0.025 * (1 - plain(ms_ssim_map(a, b))) + 0.975 * difference)
    np.testing.assert_allclose(plain(similarity_loss_map(a, b, 0.025, 200)), expected, rtol=1e-3)
    torch.testing.assert_close(similarity_loss_map(a, b, 1.0, 1.0), 1 - ms_ssim_map(a, b))
    assert similarity_loss_map(a, a, 0.025, 200).abs().max() < 1e-3


def test_detail_map_is_scipys_gradient_length() -> None:
    image = random_image(3)
    across, down = (ndimage.sobel(plain(image), axis=axis)[1:-1, 1:-1] / 8 for axis in (1, 0))
    np.testing.assert_allclose(plain(detail_map(image)), np.hypot(across, down), atol=2e-4)


def test_detail_map_of_a_flat_image_has_a_finite_gradient() -> None:
    flat = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    detail_map(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_penalty_of_a_linear_discriminator_is_its_weights_length_to_the_sixth() -> None:
    weights = 0.3 * torch.randn(1, 4, 4)
    penalty = gradient_penalty(Linear(weights), torch.rand(5, 1, 4, 4))
    assert number(penalty) == pytest.approx(number(weights.norm()) ** 6, rel=1e-4)


def test_penalty_of_a_discriminator_is_that_of_finite_differences() -> None:
    discriminator = Discriminator().double()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    slope = torch.zeros(64, dtype=torch.float64)
    with torch.no_grad():
        for index in range(64):
            step = torch.zeros(64, dtype=torch.float64)
            step[index] = 1e-6
            step = step.view(1, 1, 8, 8)
            slope[index] = (discriminator(image + step) - discriminator(image - step)).item() / 2e-6
    assert number(gradient_penalty(discriminator, image)) == pytest.approx(number(slope.norm()) ** 6, rel=1e-3)


def test_penalty_trains_the_discriminator() -> None:
    linear = Linear(torch.full((1, 2, 2), 0.5))
    gradient_penalty(linear, torch.rand(1, 1, 2, 2)).backward()
    torch.testing.assert_close(linear.weights.grad, torch.full((1, 2, 2), 6 * 0.5))  # 6 |w|^4 w with |w| = 1


def test_discriminator_loss_by_hand() -> None:
    linear = Linear(torch.full((1, 2, 2), 0.5))
    real, fake = torch.full((3, 1, 2, 2), 0.8), torch.full((3, 1, 2, 2), 0.3)
    loss = discriminator_loss(linear, real, fake, torch.rand(3, 1, 1, 1))
    assert number(loss) == pytest.approx(2 * 0.3 - 2 * 0.8 + 2 * 1**6, rel=1e-5)


def test_penalty_is_taken_between_real_and_fake() -> None:
    class Square(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.square().sum(dim=(1, 2, 3)) / 2

    real, fake, blend = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.25)
    assert number(discriminator_loss(Square(), real, fake, blend)) == pytest.approx(-0.5 + 2 * 0.25**6, rel=1e-5)


def test_before_the_warmups_end_only_similarity_counts() -> None:
    objective, batch = TarDALObjective(["fused"], warmup=0.1), street_batch(side=40)
    fused = random_image(5, 40, 40).expand(2, -1, -1, -1)
    share = gradient_share(batch.visible_y, batch.thermal)
    unlike = [similarity_loss_map(fused, source, 0.025, 200) for source in (batch.visible_y, batch.thermal)]
    similarity = 0.8 * (share * unlike[0] + (1 - share) * unlike[1]).mean()
    assert number(objective(gives(fused), batch, 0.09)) == pytest.approx(number(similarity), rel=1e-5)

    target = objective.target_discriminator(fused * saliency_mask(batch.thermal)).mean()
    detail = objective.detail_discriminator(detail_map(fused)).mean()
    expected = similarity - 0.2 * (0.5 * target + 0.5 * detail)
    assert number(objective(gives(fused), batch, 0.1)) == pytest.approx(number(expected), rel=1e-5)
    assert number(objective(gives(fused).eval(), batch, 0.5)) == pytest.approx(number(similarity), rel=1e-5)


def test_opponent_loss_compares_warm_targets_and_visible_detail() -> None:
    objective, batch = TarDALObjective(["fused"]), street_batch(side=40)
    objective.target_discriminator = Linear(0.01 * torch.rand(1, 40, 40))
    objective.detail_discriminator = Linear(0.01 * torch.rand(1, 38, 38))
    fused = random_image(5, 40, 40).expand(2, -1, -1, -1)
    mask = saliency_mask(batch.thermal)
    assert 0 < mask.mean() < 0.2
    target, detail = objective.target_discriminator, objective.detail_discriminator
    expected = target(fused * mask) - target(batch.thermal * mask)
    expected = expected + detail(detail_map(fused)) - detail(detail_map(batch.visible_y))
    expected = expected.mean() + 2 * (target.weights.norm() ** 6 + detail.weights.norm() ** 6)
    assert number(objective.opponent_loss(gives(fused), batch, 0.0)) == pytest.approx(number(expected), rel=1e-3)


def test_each_loss_trains_its_own_side_alone() -> None:
    objective, network, batch = TarDALObjective(["fused"]), build_network("tardal", ["fused"]), street_batch()
    objective.opponent_loss(network, batch, 0.5).backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in objective.parameters() if parameter.ndim > 1)

    objective.zero_grad(set_to_none=True)
    objective(network, batch, 0.5).backward()
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_discriminators_judgement_reaches_the_network() -> None:
    objective, network = TarDALObjective(["fused"], similarity=0.0), build_network("nano", ["fused"])
    objective(network, street_batch(), 0.5).backward()
    assert network.heads["fused"].change.weight.grad.abs().sum() > 0


def test_the_opponents_step_leaves_the_networks_statistics_and_mode() -> None:
    objective, network = TarDALObjective(["fused"]), build_network("tardal", ["fused"]).train()
    network.backbone.first.eval()  # a frozen part stays as it is
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    objective.opponent_loss(network, street_batch(), 0.5)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training and network.heads["fused"].training and not network.backbone.first.training


def test_the_same_step_gives_the_same_opponent_loss() -> None:
    objective, network, batch = TarDALObjective(["fused"]), build_network("tardal", ["fused"]), street_batch()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.mul_(4)  # so that the penalty, which is drawn, counts
    losses = [number(objective.opponent_loss(network, batch, progress)) for progress in (0.25, 0.25, 0.26)]
    assert losses[0] == losses[1] != losses[2]


def test_the_discriminators_learn_to_tell_fused_from_real() -> None:
    objective, batch = TarDALObjective(["fused"]), street_batch()
    network = gives(torch.full((2, 1, 32, 32), 0.3))
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-3)
    first = number(objective.opponent_loss(network, batch, 0.0))
    for step in range(40):
        optimiser.zero_grad()
        objective.opponent_loss(network, batch, step / 40).backward()
        optimiser.step()
    assert number(objective.opponent_loss(network, batch, 0.0)) < first - 0.01


def test_tasks_are_summed() -> None:
    batch = street_batch()
    network = build_network("nano", ["a", "b"])  # whose heads start alike
    one, two = TarDALObjective(["a"]), TarDALObjective(["a", "b"])
    two.load_state_dict(one.state_dict())
    assert number(two(network, batch, 0.5)) == pytest.approx(2 * number(one(network, batch, 0.5)), rel=1e-5)
    opponents = [number(objective.opponent_loss(network, batch, 0.5)) for objective in (one, two)]
    assert opponents[1] == pytest.approx(2 * opponents[0], rel=1e-5)


@pytest.mark.parametrize("options", [{"warmup": 1.5}, {"structure": -0.1}])
def test_shares_outside_0_to_1_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TarDALObjective(["fused"], **options)


def test_tardal_learns_by_it() -> None:
    network = build_network("tardal", ["fused"])
    assert train_on(network, TarDALObjective(["fused"]), street_batch(side=24), steps=25) < 0.6
