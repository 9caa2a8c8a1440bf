"""What stands out in a thermal image, without learnt weights."""

from __future__ import annotations

import torch
from torch import Tensor

from vifa_training.objectives.fusion_loss import thermal_prominence

LEVELS = 256
LEAST_PROMINENCE = 1 / 3  # one standard deviation above the mean, on the scale of `thermal_prominence`
LEAST_CONTRAST = 0.1  # above the mean, of the full range: below this it is the sensor's noise that stands out


def saliency_mask(thermal: Tensor) -> Tensor:
    """1 where a thermal image (B,1,H,W) in 0..1 is much warmer than its surroundings, else 0; no gradient.

    A pixel is salient when its prominence (standard deviations above the image's mean) is above Otsu's threshold of
    the image's prominence, and it is at least one deviation and 0.1 above the mean. A scene without warm targets has
    an empty mask, which Otsu's threshold alone would not give.
    """
    with torch.no_grad():
        prominence = thermal_prominence(thermal)
        threshold = otsu_threshold(prominence).clamp(min=LEAST_PROMINENCE)
        contrast = thermal - thermal.mean(dim=(2, 3), keepdim=True)
        return ((prominence > threshold) & (contrast > LEAST_CONTRAST)).to(thermal.dtype)


def otsu_threshold(images: Tensor) -> Tensor:
    """The value that parts each image's 256-bin histogram into the two classes that differ most; (B,1,1,1).

    Images (B,1,H,W) in 0..1; what lies above the threshold is the upper class. Source: Otsu, "A threshold selection
    method from gray-level histograms", 1979.
    """
    bins = (images * LEVELS).long().clamp(0, LEVELS - 1).flatten(1)
    histogram = torch.zeros(len(images), LEVELS, dtype=torch.float64, device=images.device)
    histogram.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64))
    centres = (torch.arange(LEVELS, dtype=torch.float64, device=images.device) + 0.5) / LEVELS
    below, moment = histogram.cumsum(1), (histogram * centres).cumsum(1)
    above, moment_above = below[:, -1:] - below, moment[:, -1:] - moment
    difference = moment / below.clamp(min=1) - moment_above / above.clamp(min=1)
    best = (below * above * difference**2).argmax(dim=1)
    return ((best + 1) / LEVELS).to(images.dtype).view(-1, 1, 1, 1)
