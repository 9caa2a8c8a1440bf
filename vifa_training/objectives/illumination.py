"""Day or night from the visible image: the classifier that PIAFusion's loss asks how far to trust that image.

Source: Tang et al., "PIAFusion", Information Fusion 2022; sizes as in its PyTorch port.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.data.base import Batch

WIDTHS = (3, 16, 32, 64, 128)
DAY, NIGHT = 0, 1
WEIGHT_DECAY = 1e-4


class IlluminationClassifier(nn.Module):
    """Four 4x4 convolutions of stride 2, a global mean, two linear layers: visible RGB (B,3,H,W) in 0..1 -> (B,2).

    Scores of day and night, not yet probabilities. Its parameters ask for no gradient but while it is trained, so it
    is part of a checkpoint and of no optimiser.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1, padding_mode="reflect") for a, b in pairwise(WIDTHS)
        )
        self.hidden = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.output = nn.Linear(WIDTHS[-1], 2)
        for conv in self.convolutions:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.requires_grad_(False)

    def forward(self, visible: Tensor) -> Tensor:
        """Scores (B,2) of images of at least 16x16 pixels."""
        for conv in self.convolutions:
            visible = F.leaky_relu(conv(visible))
        # The port has no activation between the two linear layers.
        return self.output(self.hidden(visible.mean(dim=(2, 3))))


def day_or_night(batch: Batch) -> Tensor:
    """0 for each sample tagged `day`, 1 for `night`, (B,) int64 on the batch's device.

    Raises:
        ValueError: a sample has neither tag, or both.
    """
    tags = batch.tags or ((),) * len(batch.visible)
    for index, of_sample in enumerate(tags):
        if ("day" in of_sample) == ("night" in of_sample):
            raise ValueError(
                f"the illumination classifier needs the tag 'day' or 'night' (one of them) on every sample; sample "
                f"{index} of a batch has {', '.join(map(repr, of_sample)) or 'no tag'}: train on a data set that knows"
            )
    classes = [DAY if "day" in of_sample else NIGHT for of_sample in tags]
    return torch.tensor(classes, device=batch.visible.device)


def visible_weight(scores: Tensor) -> Tensor:
    """w_vi = p_day / (p_day + p_night) of scores (B,2), shaped (B,1,1,1); one half where both are 0.

    As in the port, p is the score with negative values cut off, not a softmax: a sure answer gives 0 or 1.
    """
    day, night = F.relu(scores).unbind(dim=1)
    total = day + night
    weight = torch.where(total > 0, day / total.clamp(min=torch.finfo(scores.dtype).tiny), 0.5)
    return weight.view(-1, 1, 1, 1)


def train_illumination_classifier(
    classifier: IlluminationClassifier,
    draw: Callable[[int], Batch],
    steps: int,
    learning_rate: float = 1e-3,
) -> float:
    """Train by cross-entropy and Adam, the rate constant in the first half of the steps and falling to 0 in the second.

    The port takes the cross-entropy of scores whose negative part is cut off, where a classifier that starts with two
    negative scores never learns; ours takes it of the whole scores. Leaves the classifier frozen.

    Args:
        draw: step -> a batch with day and night tags.

    Returns:
        Share of right answers over the last tenth of the steps, each before its update.

    Raises:
        ValueError: a sample without tag, see `day_or_night`.
    """
    classifier.train().requires_grad_(True)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
    right = asked = 0
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, 2 * (1 - step / steps))
        batch = draw(step)
        truth = day_or_night(batch)
        scores = classifier(batch.visible)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(scores, truth).backward()
        optimiser.step()
        if step >= steps - max(1, steps // 10):
            right += int((scores.argmax(dim=1) == truth).sum())
            asked += len(truth)
    optimiser.zero_grad(set_to_none=True)
    classifier.eval().requires_grad_(False)
    return right / asked
