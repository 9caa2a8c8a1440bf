"""Crops of pairs, and what a frozen backbone makes of them when it sees the whole images: computed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vifa_training.data import Batch, DataSet, Sample, whole_batch
from vifa_training.data.transforms import crop
from vifa_training.networks import FusionNetwork

FEATURE_BYTES = 2 * 2**30


class FeatureCrops:
    """A fixed number of random crops, as a data set, each with its part of the whole image's features.

    A crop that passed the backbone by itself would have other features near its edges than those that the image to
    imitate was made of: half a receptive field deep, which is much of a crop.
    """

    def __init__(
        self,
        network: FusionNetwork,
        dataset: DataSet,
        size: int | tuple[int, int],
        count: int,
        seed: int,
        room: int = FEATURE_BYTES,
    ) -> None:
        """Cut crops, each sample's turn after the other's, the same for the same seed.

        Args:
            network: in evaluation mode; its backbone must not change.
            dataset: of one sample or more.
            size: of the crops, pixels; one number or (height, width), multiples of the network's `size_multiple`.
            count: of the crops; there are fewer, but one, where the features of so many do not fit.
            room: bytes for features.
        """
        self.classes, self.mask_classes = dataset.classes, dataset.mask_classes
        self._multiple = network.size_multiple
        self._size = (size, size) if isinstance(size, int) else size
        self._samples: dict[int, Sample] = {}
        self._features: dict[str, dict[str, Tensor]] = {}
        for first in range(min(count, len(dataset))):
            if first >= count:
                break
            sample = self._padded(dataset[first])
            features = _features(network, sample)
            used = sum(self._cut(tensor, sample, (0, 0)).nbytes for tensor in features.values())
            count = min(count, max(1, room // used))
            for index in range(first, count, len(dataset)):
                top, left = self._place(sample, np.random.default_rng([seed, index]).random(2))
                name = f"{sample.name}#{index}"
                self._samples[index] = replace(crop(sample, (top, left), self._size), name=name)
                self._features[name] = {key: self._cut(tensor, sample, (top, left)) for key, tensor in features.items()}
        self._samples = {index: self._samples[index] for index in range(count)}
        self.names = [self._samples[index].name for index in range(count)]

    def __deepcopy__(self, memo: object) -> FeatureCrops:
        """Itself: a copy of who reads from it, like averaged weights, shares what never changes."""
        return self

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._samples:
            raise IndexError(f"crop {index} of {len(self)}")
        return self._samples[index]

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Features (B,C,h,w) of a batch of these crops."""
        each = [self._features[name] for name in batch.names]
        return {key: torch.cat([features[key] for features in each]) for key in each[0]}

    def _padded(self, sample: Sample) -> Sample:
        """As large as a crop at least, of a size that fits the network; edges are repeated, as on the robot."""
        sides = [max(side, least) for side, least in zip(sample.thermal.shape, self._size, strict=True)]
        height, width = (side + -side % self._multiple for side in sides)
        return crop(sample, (0, 0), (height, width))

    def _place(self, sample: Sample, shares: np.ndarray) -> tuple[int, int]:
        """Top and left of a crop by two numbers in 0..1, on the grid that all features share."""
        free = [(side - own) // self._multiple for side, own in zip(sample.thermal.shape, self._size, strict=True)]
        top, left = (self._multiple * int(share * (steps + 1)) for share, steps in zip(shares, free, strict=True))
        return top, left

    def _cut(self, tensor: Tensor, sample: Sample, place: tuple[int, int]) -> Tensor:
        """The part of a feature (1,C,h,w) that lies over a crop."""
        rows, columns = (
            slice(start * side // whole, (start + own) * side // whole)
            for start, own, side, whole in zip(place, self._size, tensor.shape[2:], sample.thermal.shape, strict=True)
        )
        return tensor[:, :, rows, columns].clone()


def whole(sample: Sample, network: FusionNetwork) -> Batch:
    """A whole sample as a batch for the network, on its device."""
    return whole_batch(sample, network.size_multiple).to(next(network.parameters()).device)


@torch.no_grad()
def _features(network: FusionNetwork, sample: Sample) -> dict[str, Tensor]:
    batch = whole(sample, network)
    return network.backbone(batch.visible_y, batch.thermal)
