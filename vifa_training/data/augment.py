"""Batches from samples: random crops of several, or one whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vifa_runtime.labels import UNKNOWN
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings
from vifa_training.data.base import Batch, DataError, DataSet, Sample
from vifa_training.data.transforms import crop, mirror, resize


@dataclass(frozen=True)
class Augmentation:
    """What is drawn at random beside the place of a crop.

    Attributes:
        mirror: probability that left and right are exchanged.
        stretch: probability that the thermal contrast is stretched by percentiles, as robots do with raw images.
        scale: smallest and largest magnification, drawn evenly by its logarithm.
        kept_share: of its area, that must be inside a crop for a box to stay.
    """

    mirror: float = 0.5
    stretch: float = 0.5
    scale: tuple[float, float] = (1.0, 1.0)
    kept_share: float = 0.3

    def __post_init__(self) -> None:
        for name in ("mirror", "stretch", "kept_share"):
            if not _is_number(getattr(self, name), 0, 1):
                raise DataError([f"augmentation {name} must be in 0..1, got {getattr(self, name)}"])
        pair = isinstance(self.scale, tuple) and len(self.scale) == 2
        if not (pair and _is_number(self.scale[0], 0.1, 10) and _is_number(self.scale[1], self.scale[0], 10)):
            raise DataError([f"augmentation scale must be two ascending numbers in 0.1..10, got {self.scale}"])


def draw_batch(
    dataset: DataSet,
    count: int,
    size: int | tuple[int, int],
    rng: np.random.Generator,
    augmentation: Augmentation | None = None,
) -> Batch:
    """Draw random crops of random samples; the same for the same state of `rng`.

    An image smaller than the crop lies at a random place in it; the rest repeats its edge, as the pipeline pads on the
    robot, and is unknown in the mask. Nothing is mirrored there: objects would appear that have no box.

    Args:
        dataset: with one sample or more.
        count: samples of the batch, drawn with replacement.
        size: of the crops, pixels; one number or (height, width).
        rng: the only source of chance.
        augmentation: defaults to `Augmentation()`.

    Returns:
        Boxes are None where any of the drawn samples has none; masks are None where all lack one, and unknown
        throughout where one does.

    Raises:
        DataError: a drawn sample is wrong.
    """
    augmentation = augmentation or Augmentation()
    height, width = (size, size) if isinstance(size, int) else size
    normalise = ThermalNormaliser(ThermalSettings(mode="percentile"))
    crops = []
    for index in rng.integers(len(dataset), size=count):
        sample = dataset[int(index)]
        # Always the same draws in the same order, so that one setting doesn't change what another does.
        stretched, mirrored, zoom, top, left = rng.random(5)
        if stretched < augmentation.stretch:
            sample = replace(sample, thermal=normalise(sample.thermal))  # not rounded to gray levels
        low, high = augmentation.scale
        scale = low * (high / low) ** zoom
        region = max(1, round(height / scale)), max(1, round(width / scale))
        place = _choose_place(sample.thermal.shape, region, (top, left))
        sample = crop(sample, place, region, augmentation.kept_share)
        if region != (height, width):
            sample = resize(sample, (width, height))
        crops.append(mirror(sample) if mirrored < augmentation.mirror else sample)
    return _stack(crops)


def whole_batch(sample: Sample, multiple: int = 1) -> Batch:
    """One whole sample, for validation; cut at its right and lower edge to sides that are multiples of `multiple`.

    Raises:
        DataError: the sample is smaller than `multiple`.
    """
    height, width = (side - side % multiple for side in sample.thermal.shape)
    if not (height and width):
        shown = f"{sample.thermal.shape[1]}x{sample.thermal.shape[0]}"
        raise DataError([f"{sample.name} is {shown}, smaller than {multiple}x{multiple}; use larger images"])
    return _stack([crop(sample, (0, 0), (height, width), Augmentation.kept_share)])


def _choose_place(image: Sequence[int], size: Sequence[int], shares: Sequence[float]) -> tuple[int, int]:
    """Place of a crop, (top, left), by two numbers in 0..1; wholly inside the image where it fits, else around it."""
    places = []
    for whole, side, share in zip(image, size, shares, strict=True):
        free = whole - side
        places.append(min(0, free) + int(share * (abs(free) + 1)))
    return places[0], places[1]


def _stack(samples: Sequence[Sample]) -> Batch:
    """Put samples of one size into tensors; thermal images may be stretched already, to float32 in 0..1."""
    visible = np.ascontiguousarray(np.stack([sample.visible for sample in samples]).transpose(0, 3, 1, 2))
    thermal = np.stack([_unit_range(sample.thermal) for sample in samples])[:, None]
    boxes = [sample.boxes for sample in samples]
    labels = [sample.labels for sample in samples]
    masks = [sample.mask for sample in samples]
    mask = None
    if any(some is not None for some in masks):
        unknown = np.full(thermal.shape[2:], UNKNOWN, np.uint8)
        mask = torch.from_numpy(np.stack([unknown if some is None else some for some in masks]).astype(np.int64))
    labelled = all(some is not None for some in boxes)
    imitates = all(sample.fused is not None for sample in samples)
    return Batch(
        visible=torch.from_numpy(_unit_range(visible)),
        thermal=torch.from_numpy(thermal),
        boxes=[torch.tensor(some) for some in boxes] if labelled else None,
        labels=[torch.tensor(some) for some in labels] if labelled else None,
        mask=mask,
        fused=torch.from_numpy(np.stack([sample.fused for sample in samples])[:, None]) if imitates else None,
        tags=tuple(sample.tags for sample in samples),
        names=tuple(sample.name for sample in samples),
    )


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and low <= value <= high


def _unit_range(image: NDArray) -> NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
