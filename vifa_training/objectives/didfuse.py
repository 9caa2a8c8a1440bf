"""DIDFuse's training: an auto-encoder of both images, whose base features agree and whose detail features differ.

Source: Zhao et al., "DIDFuse: deep image decomposition for infrared and visible image fusion", IJCAI 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.networks.didfuse import DIDFuseBackbone
from vifa_training.objectives.base import Objective
from vifa_training.objectives.fusion_loss import SOBEL_SUM, sobel
from vifa_training.objectives.similarity import gaussian_ssim_map


class DIDFuseObjective(Objective):
    """2 L_V + 2 L_I + tanh|B_I - B_V| - 0.5 tanh|D_I - D_V| + 10 |grad V - grad V^|_1; L = 5 (1 - SSIM) + MSE.

    V and I are the images, V^ and I^ what a task's head makes of their own features, B and D the base and detail
    features; every |.| is a mean. The fusion itself, a sum of features, has no loss of its own. Published: all terms,
    their weights, the 11x11 Gaussian window of SSIM. The authors' code halves 1 - SSIM, through its library: that is
    `ssim` 2.5 here. Ours: with several heads the whole is summed over them, so that the terms keep their proportion;
    borders (see `similarity`; derivatives only inside the image).
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        visible: float = 2.0,
        thermal: float = 2.0,
        base: float = 1.0,
        detail: float = 0.5,
        gradient: float = 10.0,
        ssim: float = 5.0,
    ) -> None:
        """Weights of the two reconstructions, the two decompositions, the gradients, and of 1 - SSIM within L."""
        super().__init__()
        self.tasks = tuple(tasks)
        self.visible, self.thermal, self.base, self.detail = visible, thermal, base, detail
        self.gradient, self.ssim = gradient, ssim

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        """See `Objective.forward`.

        Raises:
            ValueError: the network is not DIDFuse.
        """
        backbone = network.backbone
        if not isinstance(backbone, DIDFuseBackbone):
            raise ValueError(f"the objective 'didfuse' trains the network 'didfuse', not {network.name!r}")
        visible_y, thermal = batch.visible_y, batch.thermal
        of_visible, of_thermal = backbone.encode(visible_y), backbone.encode(thermal)
        decomposition = self.base * torch.tanh(F.l1_loss(of_thermal["base"], of_visible["base"]))
        decomposition = decomposition - self.detail * torch.tanh(F.l1_loss(of_thermal["detail"], of_visible["detail"]))
        of_visible, of_thermal = backbone.decode(of_visible), backbone.decode(of_thermal)
        losses = []
        for task in self.tasks:
            head = network.heads[task]
            visible_again = head(of_visible)
            losses.append(
                self.visible * reconstruction_loss(visible_again, visible_y, self.ssim)
                + self.thermal * reconstruction_loss(head(of_thermal), thermal, self.ssim)
                + self.gradient * F.l1_loss(sobel(visible_again), sobel(visible_y)) / SOBEL_SUM
                + decomposition
            )
        return torch.stack(losses).sum()


def reconstruction_loss(reconstructed: Tensor, image: Tensor, ssim: float) -> Tensor:
    """`ssim` (1 - SSIM) + mean squared error of (B,1,H,W) images in 0..1."""
    return ssim * (1 - gaussian_ssim_map(reconstructed, image).mean()) + F.mse_loss(reconstructed, image)
