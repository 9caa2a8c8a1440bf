"""TarDAL's loss: similarity to both sources, and two discriminators, one for warm targets and one for visible detail.

Source: Liu et al., "Target-aware dual adversarial learning and a multi-scenario multi-modality benchmark to fuse
infrared and visible for object detection", CVPR 2022, and the authors' public code where the paper is short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import SOBEL_SUM, gradient_share, sobel
from vifa_training.objectives.saliency import saliency_mask
from vifa_training.objectives.similarity import MULTI_SCALE_SIGMAS, gaussian_blur, ms_ssim_map, window_radius

WIDTHS = (1, 32, 64, 128)
PENALTY_WEIGHT, PENALTY_POWER = 2, 6  # k and p of WGAN-div


class TarDALObjective(Objective):
    """0.8 sum of w similarity loss(source, F) + 0.2 (target / 2 + detail / 2), summed over tasks.

    Published: the terms and their weights; the similarity loss, 200 [0.025 (1 - MS-SSIM) + 0.975 G |F - S|], which is
    what the authors' "MS-SSIM" is in their code (`structure` 1 and `gain` 1 give 1 - MS-SSIM alone); discriminators of
    three strided convolutions on IR inside the mask and on the visible gradient, trained from the first step as
    WGAN-div, judging the fusion only after 10 epochs. Ours: w by each source's share of the mean gradient and the mask
    by `saliency_mask`, where the authors ask downloaded networks; scores averaged over the image, so that it may have
    any size; on validation pairs the similarity alone, because scores drift and cannot rank two checkpoints.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        similarity: float = 0.8,
        adversarial: float = 0.2,
        target: float = 0.5,
        detail: float = 0.5,
        structure: float = 0.025,
        gain: float = 200.0,
        warmup: float = 0.01,
    ) -> None:
        """Weights of the terms and, within the adversarial one, of the two scores.

        Args:
            structure: share of 1 - MS-SSIM in the similarity loss, 0..1; the rest is absolute difference.
            gain: factor of the similarity loss.
            warmup: share of the training, 0..1, in which the discriminators learn but do not judge; 10 of 1000 epochs.

        Raises:
            ValueError: `structure` or `warmup` is no share.
        """
        super().__init__()
        for name, share in (("structure", structure), ("warmup", warmup)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of 0..1, got {share}")
        self.tasks = tuple(tasks)
        self.similarity, self.adversarial, self.target, self.detail = similarity, adversarial, target, detail
        self.structure, self.gain, self.warmup = structure, gain, warmup
        self.target_discriminator = Discriminator()
        self.detail_discriminator = Discriminator()

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`; trains the network alone."""
        visible_y = batch.visible_y
        fused = network(visible_y, batch.thermal)
        mask = saliency_mask(batch.thermal)
        losses = []
        for task in self.tasks:
            loss = self.similarity * self._similarity(fused[task], visible_y, batch.thermal)
            if network.training and progress >= self.warmup:
                loss = loss + self.adversarial * self._adversarial(fused[task], mask)
            losses.append(loss)
        return torch.stack(losses).sum()

    def opponent_loss(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """The sum of both discriminators' losses over tasks; trains the discriminators alone."""
        visible_y, thermal = batch.visible_y, batch.thermal
        mask = saliency_mask(thermal)
        with torch.no_grad(), evaluating(network):
            fused = network(visible_y, thermal)
        blend = _blend(len(thermal), progress).to(thermal)
        visible_detail = detail_map(visible_y)
        losses = []
        for task in self.tasks:
            losses.append(discriminator_loss(self.target_discriminator, thermal * mask, fused[task] * mask, blend))
            losses.append(discriminator_loss(self.detail_discriminator, visible_detail, detail_map(fused[task]), blend))
        return torch.stack(losses).sum()

    def _similarity(self, fused: Tensor, visible_y: Tensor, thermal: Tensor) -> Tensor:
        share = gradient_share(visible_y, thermal)
        loss = (1 - share) * self._unlike(fused, thermal) + share * self._unlike(fused, visible_y)
        return loss.mean()

    def _unlike(self, fused: Tensor, source: Tensor) -> Tensor:
        return similarity_loss_map(fused, source, self.structure, self.gain)

    def _adversarial(self, fused: Tensor, mask: Tensor) -> Tensor:
        target = -frozen(self.target_discriminator)(fused * mask).mean()
        detail = -frozen(self.detail_discriminator)(detail_map(fused)).mean()
        return self.target * target + self.detail * detail


class Discriminator(nn.Module):
    """Three 3x3 convolutions of stride 2, 1 -> 32 -> 64 -> 128, and a linear score: (B,1,H,W) -> (B,).

    The score is the mean over places of a linear one; the published layer has weights for every place of a 224x224
    crop, which would tie a checkpoint to that size.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(WIDTHS):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.convolutions = nn.Sequential(*layers)
        self.score = nn.Linear(WIDTHS[-1], 1)

    def forward(self, image: Tensor) -> Tensor:
        """How real each image looks; any size, no bounds."""
        return self.score(self.convolutions(image).mean(dim=(2, 3))).squeeze(1)


def similarity_loss_map(fused: Tensor, source: Tensor, structure: float, gain: float) -> Tensor:
    """gain [structure (1 - MS-SSIM) + (1 - structure) G |F - S|], G the widest Gaussian window; all (B,1,H,W)."""
    widest = MULTI_SCALE_SIGMAS[-1]
    difference = gaussian_blur((fused - source).abs(), widest, window_radius(widest))
    return gain * (structure * (1 - ms_ssim_map(fused, source)) + (1 - structure) * difference)


def detail_map(image: Tensor) -> Tensor:
    """Length of the Sobel gradient in grey levels a pixel, inside the image: (B,1,H,W) -> (B,1,H-2,W-2)."""
    derivatives = sobel(image) / SOBEL_SUM
    return (derivatives.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()  # the root has no gradient at 0


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, blend: Tensor) -> Tensor:
    """-D(real) + D(fake) + 2 |grad D|^6, the gradient at blend real + (1 - blend) fake (WGAN-div, Wu et al. 2018).

    Args:
        real, fake: (B,1,H,W).
        blend: (B,1,1,1) in 0..1.
    """
    penalty = gradient_penalty(discriminator, blend * real + (1 - blend) * fake)
    return discriminator(fake).mean() - discriminator(real).mean() + PENALTY_WEIGHT * penalty


def gradient_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Mean over images (B,1,H,W) of |dD / d image|^6, Euclidean; a scalar that can be differentiated again."""
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1).pow(PENALTY_POWER / 2).mean()


def frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module as a function through which gradients reach its input but not its parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda image: functional_call(module, parameters, (image,))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, as the published discriminators see it, and back: no statistics change."""
    was_training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in was_training:
            module.training = training


def _blend(count: int, progress: float) -> Tensor:
    """Where between real and fake each penalty is taken, (count,1,1,1): by `progress`, so a resumed run repeats it."""
    generator = torch.Generator().manual_seed(round(progress * 2**31))
    return torch.rand((count, 1, 1, 1), generator=generator)
