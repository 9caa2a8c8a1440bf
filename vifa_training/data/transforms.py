"""Cutting, scaling and mirroring a sample: pair, boxes and mask stay together."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.labels import UNKNOWN
from vifa_training.data.base import Sample

_SMALLEST_SIDE = 1.0  # of a box, pixels


def crop(sample: Sample, place: tuple[int, int], size: tuple[int, int], kept_share: float = 0.0) -> Sample:
    """Cut a rectangle out of a sample; outside the image it repeats the edge and the mask is unknown.

    Args:
        sample: as a data set gives it.
        place: (top, left) of the rectangle in the image, pixels; may be negative.
        size: (height, width) of the rectangle, pixels.
        kept_share: boxes with a smaller share of their area inside are left out, the others clipped.
    """
    rows, columns = (np.arange(start, start + side) for start, side in zip(place, size, strict=True))
    height, width = sample.thermal.shape
    inside_rows, inside_columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    grid = np.ix_(inside_rows, inside_columns)
    mask = None
    if sample.mask is not None:
        mask = sample.mask[grid]
        mask[rows != inside_rows] = UNKNOWN
        mask[:, columns != inside_columns] = UNKNOWN
    boxes, labels = sample.boxes, sample.labels
    if boxes is not None and labels is not None:
        top, left = place
        boxes, kept = clip_boxes(boxes - np.array([left, top, left, top], np.float32), size, kept_share)
        labels = labels[kept]
    return replace(
        sample,
        visible=sample.visible[grid],
        thermal=sample.thermal[grid],
        boxes=boxes,
        labels=labels,
        mask=mask,
        fused=None if sample.fused is None else sample.fused[grid],
    )


def clip_boxes(
    boxes: NDArray[np.float32], size: tuple[int, int], kept_share: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clip boxes (N,4) to an image of (height, width).

    Returns:
        The clipped boxes (M,4) of which at least `kept_share` of the area and one pixel of each side remain, and which
        of the N they are, (N,) bool.
    """
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    clipped = np.clip(boxes, 0, limits)
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept = (np.prod(sides, axis=1) >= kept_share * whole) & (sides >= _SMALLEST_SIDE).all(axis=1)
    return clipped[kept], kept


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Scale a sample to (width, height) pixels: images smoothly, the mask by its nearest pixel, boxes in proportion."""
    height, width = sample.thermal.shape
    method = cv2.INTER_AREA if size[0] < width else cv2.INTER_LINEAR
    factors = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    limits = np.array([*size, *size], np.float32)  # which rounding may pass
    return replace(
        sample,
        visible=cv2.resize(sample.visible, size, interpolation=method),
        thermal=cv2.resize(sample.thermal, size, interpolation=method),
        boxes=None if sample.boxes is None else np.minimum(sample.boxes * factors, limits),
        mask=None if sample.mask is None else cv2.resize(sample.mask, size, interpolation=cv2.INTER_NEAREST_EXACT),
        fused=None if sample.fused is None else cv2.resize(sample.fused, size, interpolation=method),
    )


def mirror(sample: Sample) -> Sample:
    """Exchange left and right."""
    boxes = sample.boxes
    if boxes is not None:
        width = sample.thermal.shape[1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    return replace(
        sample,
        visible=sample.visible[:, ::-1],
        thermal=sample.thermal[:, ::-1],
        boxes=boxes,
        mask=None if sample.mask is None else sample.mask[:, ::-1],
        fused=None if sample.fused is None else sample.fused[:, ::-1],
    )
