"""Small pairs and a small training, for the tests of what trainings minimise."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from vifa_training.data.base import Batch
from vifa_training.networks import FusionNetwork
from vifa_training.objectives import Objective


def random_image(seed: int, height: int = 40, width: int = 48) -> Tensor:
    """A smooth random image (1,1,H,W) that spans 0..1."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    return torch.tensor((smooth - smooth.min()) / (smooth.max() - smooth.min()), dtype=torch.float32)[None, None]


def plain(image: Tensor) -> np.ndarray:
    """The first image of (B,1,H,W) as float64 (H,W)."""
    return image[0, 0].detach().numpy().astype(np.float64)


def number(tensor: Tensor) -> float:
    """The value of a scalar tensor."""
    return tensor.item()


def street_batch(side: int = 32, count: int = 2, seed: int = 0) -> Batch:
    """Pairs of a textured visible image, by day and by night in turn, and a thermal one with a warm target."""
    visible, thermal, tags = [], [], []
    for index in range(count):
        texture = random_image(seed + index, side, side)[0]
        tags.append(("night" if index % 2 else "day",))
        visible.append((0.05 + 0.15 * texture if index % 2 else 0.3 + 0.6 * texture).expand(3, side, side))
        warm = 0.25 + 0.1 * random_image(100 + seed + index, side, side)[0]
        warm[:, side // 4 : side // 2, side // 3 : side // 2] = 0.95
        thermal.append(warm)
    return Batch(torch.stack(visible), torch.stack(thermal), tags=tuple(tags))


def train_on(network: FusionNetwork, objective: Objective, batch: Batch, steps: int, rate: float = 2e-3) -> float:
    """Train on one batch, the opponent first in each step; the last loss as a share of the first."""
    torch.manual_seed(0)
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    opponents = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    opponent_optimiser = torch.optim.Adam(opponents, lr=1e-3) if opponents else None
    losses = []
    for _ in range(steps):
        if opponent_optimiser:
            opponent_optimiser.zero_grad()
            objective.opponent_loss(network, batch, 0.5).backward()
            opponent_optimiser.step()
        loss = objective(network, batch, 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    return losses[-1] / losses[0]
