"""What a task network gets to see of a pair: one source, their average, or an image fused for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vifa_runtime.luma import rgb_to_luma
from vifa_training.data import DataSet, Sample
from vifa_training.data.cache import SampleCache
from vifa_training.data.transforms import crop, resize
from vifa_training.networks import FusionNetwork

Picture = Callable[[Sample], NDArray[np.uint8]]  # a sample -> RGB (H,W,3)


def show_visible(sample: Sample) -> NDArray[np.uint8]:
    """The visible image as it is."""
    return sample.visible


def show_thermal(sample: Sample) -> NDArray[np.uint8]:
    """The thermal image in all three channels."""
    return np.repeat(sample.thermal[:, :, None], 3, axis=2)


def show_average(sample: Sample) -> NDArray[np.uint8]:
    """The visible image with the mean of both images as its luma."""
    return replace_luma(sample.visible, (rgb_to_luma(sample.visible) + sample.thermal) / 510)


SOURCES: dict[str, Picture] = {"visible": show_visible, "thermal": show_thermal, "average": show_average}


class Fused:
    """Shows the image that a network fuses for one of its tasks, rounded to bytes as the exported graph does."""

    def __init__(self, network: FusionNetwork, task: str) -> None:
        self.network, self.task = network.eval(), task

    def luma(self, sample: Sample) -> NDArray[np.float32]:
        """Fused luma (H,W), 0..1, of a sample of any size; padded by its edges as the pipeline does."""
        return fuse_luma(self.network, self.task, sample)

    def __call__(self, sample: Sample) -> NDArray[np.uint8]:
        return replace_luma(sample.visible, self.luma(sample))


class Pictures:
    """The samples of a data set with what a task network is shown in place of the visible image.

    Pictures are made once and kept while there is room. Boxes and masks follow where they are shrunk.
    """

    def __init__(self, dataset: DataSet, picture: Picture, shrink: int = 1) -> None:
        """Show `picture(sample)`, averaged over `shrink` x `shrink` pixels."""
        self.classes, self.mask_classes, self.names = dataset.classes, dataset.mask_classes, dataset.names
        self._dataset, self._picture, self._shrink = dataset, picture, shrink
        self._cache = SampleCache()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._cache.get(index, self._make)

    def _make(self, index: int) -> Sample:
        sample = self._dataset[index]
        shown = replace(sample, visible=self._picture(sample))
        if self._shrink == 1:
            return shown
        height, width = (side // self._shrink for side in sample.thermal.shape)
        whole = crop(shown, (0, 0), (height * self._shrink, width * self._shrink))
        return resize(whole, (width, height))


def fuse_luma(network: FusionNetwork, task: str, sample: Sample) -> NDArray[np.float32]:
    """Fused luma (H,W), 0..1, of a sample of any size, by a network in evaluation mode; see `Fused.luma`."""
    height, width = sample.thermal.shape
    pad = [(0, -side % network.size_multiple) for side in (height, width)]
    device = next(network.parameters()).device
    luma, thermal = (
        torch.from_numpy(np.pad(np.float32(image) / 255, pad, mode="edge"))[None, None].to(device)
        for image in (rgb_to_luma(sample.visible), sample.thermal)
    )
    with torch.no_grad():
        fused = network.heads[task](network.backbone(luma, thermal))
    return fused[0, 0, :height, :width].clamp(0, 1).cpu().numpy()


def replace_luma(rgb: NDArray[np.uint8], fused: NDArray) -> NDArray[np.uint8]:
    """RGB (H,W,3) with the luma `fused` (H,W, 0..1): clip(rgb + (255 fused - luma)), rounded as the graphs do."""
    change = 255 * fused.astype(np.float32) - rgb_to_luma(rgb)
    return np.rint(np.clip(rgb + change[:, :, None], 0, 255)).astype(np.uint8)
