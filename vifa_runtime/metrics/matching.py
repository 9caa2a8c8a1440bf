"""Which detected boxes hit a true one: matched image by image as COCO does, kept so that AP can be averaged later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = 100  # of one class in one image: COCO's number, so that values compare with published ones


class Detections(NamedTuple):
    """What a detector found in one image: `boxes` (N,4) xyxy in pixels, `scores` (N,), `labels` (N,) integers."""

    boxes: ArrayLike
    scores: ArrayLike
    labels: ArrayLike


class Labels(NamedTuple):
    """What is in one image.

    Attributes:
        boxes: (N,4) float32, x1 y1 x2 y2 in pixels.
        labels: (N,) int64, the class of each box.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class ImageMatches(NamedTuple):
    """What one image adds to the average precision of K classes.

    Attributes:
        labels: (N,) the class of each detection that counts; within a class they stand in falling order of scores.
        scores: (N,).
        hits: (10,N) whether it is a true positive at each of IOU_THRESHOLDS.
        ground_truths: (K,) the number of true boxes of each class.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ground_truths: NDArray[np.int64]


class RankedDetections(NamedTuple):
    """All images' detections of one class, of falling score; equal scores in the order of the images.

    Attributes:
        images: (N,) the index of the image that each lies in.
        scores: (N,) falling.
        hits: (10,N) whether it is a true positive at each of IOU_THRESHOLDS.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DetectionMatches:
    """What each of n images adds to the average precision of K classes; made once, averaged over any images of them.

    Attributes:
        ranked: the detections of each of the K classes.
        ground_truths: (n,K) the number of true boxes by image and class.
    """

    ranked: tuple[RankedDetections, ...]
    ground_truths: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ground_truths)


def match_detections(
    detections: Sequence[Detections], truths: Sequence[Labels], classes: int, max_detections: int = MOST_DETECTIONS
) -> DetectionMatches:
    """Match the detections of every image to its true boxes, each image by `match_image`.

    Args:
        detections, truths: one of each per image, in one order; plain tuples do.
        classes, max_detections: as of `match_image`.

    Raises:
        ValueError: lists of different lengths, and what `match_image` refuses; names the image and the array.
    """
    if len(detections) != len(truths):
        raise ValueError(f"expected one truth an image, got {len(detections)} detections and {len(truths)} truths")
    _check_counts(classes, max_detections)
    images = enumerate(zip(detections, truths, strict=True))
    return pool_matches([match_image(*one, classes, max_detections, image) for image, one in images], classes)


def match_image(
    detected: Detections, true: Labels, classes: int, max_detections: int = MOST_DETECTIONS, image: int = 0
) -> ImageMatches:
    """Match the detections of one image to its true boxes, at each of IOU_THRESHOLDS.

    Within a class, a detection of higher score chooses first among the boxes that are free: the one of largest IoU.
    Detections of equal score rank in the order given. There are no crowd or ignored boxes.

    Args:
        detected, true: plain tuples do.
        classes: K; labels are 0..K-1.
        max_detections: of one class; those of lowest score beyond it are left out, as COCO does.
        image: its number, for messages.

    Raises:
        ValueError: arrays that do not fit together, boxes that are not finite or turned round, scores that are not
            finite, or labels out of range; names the image and the array.

    Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its evaluation page.
    """
    _check_counts(classes, max_detections)
    boxes, scores, labels = _as_detections(image, detected, classes)
    true_boxes, true_labels = _as_truth(image, true, classes)
    order = np.argsort(-scores, kind="stable")
    best = [order[labels[order] == label][:max_detections] for label in np.unique(labels)]
    hits = [_match(box_iou(boxes[own], true_boxes[true_labels == labels[own[0]]])) for own in best]
    counted = np.concatenate(best) if best else np.zeros(0, np.int64)
    matched = np.concatenate(hits, axis=1) if hits else np.zeros((len(IOU_THRESHOLDS), 0), bool)
    return ImageMatches(labels[counted], scores[counted], matched, np.bincount(true_labels, minlength=classes))


def pool_matches(images: Sequence[ImageMatches], classes: int) -> DetectionMatches:
    """The matches of several images of K classes together; images are numbered in the order given."""
    ranked = tuple(_ranked(images, label) for label in range(classes))
    truths = [one.ground_truths for one in images]
    return DetectionMatches(ranked, np.array(truths, np.int64).reshape(-1, classes))


def _ranked(images: Sequence[ImageMatches], label: int) -> RankedDetections:
    """One class's detections in one ranking over all images."""
    own = [one.labels == label for one in images]
    numbers = np.repeat(np.arange(len(images)), [np.count_nonzero(chosen) for chosen in own])
    scores = [one.scores[chosen] for one, chosen in zip(images, own, strict=True)]
    hits = [one.hits[:, chosen] for one, chosen in zip(images, own, strict=True)]
    joined = np.concatenate([*scores, np.zeros(0)])
    matched = np.concatenate([*hits, np.zeros((len(IOU_THRESHOLDS), 0), bool)], axis=1)
    order = np.argsort(-joined, kind="stable")
    return RankedDetections(numbers[order], joined[order], matched[:, order])


def _check_counts(classes: int, max_detections: int) -> None:
    if classes < 1 or max_detections < 1:
        raise ValueError(f"classes and max_detections must be at least 1, got {classes} and {max_detections}")


def box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union (N,M) of boxes (N,4) and (M,4), xyxy; 0 for a box without area."""
    corners = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.prod(np.maximum(corners, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _match(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which detections (in the order of falling score) find a box of their own, by threshold: IoU (N,M) to (10,N)."""
    thresholds = IOU_THRESHOLDS[:, None]
    hits = np.zeros((len(thresholds), len(iou)), bool)
    free = np.ones((len(thresholds), iou.shape[1]), bool)
    near = np.flatnonzero((iou >= IOU_THRESHOLDS[0]).any(axis=1))
    for index in near:
        candidates = np.where(free & (iou[index] >= thresholds), iou[index], -1)
        chosen = iou.shape[1] - 1 - candidates[:, ::-1].argmax(axis=1)  # of equal ones the last, as COCO does
        found = np.flatnonzero(candidates[np.arange(len(thresholds)), chosen] >= 0)
        hits[found, index] = True
        free[found, chosen[found]] = False
    return hits


def _as_detections(
    image: int, detected: Detections, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    boxes, scores, labels = detected
    box_array, label_array = _as_boxes(image, "detections", boxes, labels, classes)
    score_array = np.asarray(scores, np.float64)
    if score_array.shape != label_array.shape:
        raise ValueError(f"image {image}: detections have {len(box_array)} boxes and scores of {score_array.shape}")
    if not np.isfinite(score_array).all():
        raise ValueError(f"image {image}: scores of detections must be finite, got NaN or infinity")
    return box_array, score_array, label_array


def _as_truth(image: int, true: Labels, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    boxes, labels = true
    return _as_boxes(image, "truth", boxes, labels, classes)


def _as_boxes(
    image: int, what: str, boxes: ArrayLike, labels: ArrayLike, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    box_array, label_array = np.asarray(boxes, np.float64), np.asarray(labels)
    if box_array.size == 0 and label_array.size == 0:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    if box_array.ndim != 2 or box_array.shape[1] != 4 or label_array.shape != box_array.shape[:1]:
        raise ValueError(
            f"image {image}: {what} must have boxes (N, 4) and labels (N,), "
            f"got {box_array.shape} and {label_array.shape}"
        )
    if not np.isfinite(box_array).all() or (box_array[:, 2:] < box_array[:, :2]).any():
        raise ValueError(f"image {image}: boxes of {what} must be finite xyxy with x1 <= x2 and y1 <= y2")
    if label_array.dtype.kind not in "iu" or label_array.min() < 0 or label_array.max() >= classes:
        raise ValueError(f"image {image}: labels of {what} must be integers in 0..{classes - 1}")
    return box_array, label_array.astype(np.int64)
