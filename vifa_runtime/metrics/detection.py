"""mAP: mean average precision of detected boxes, counted as COCO counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


class Detections(NamedTuple):
    """What a detector found in one image: `boxes` (N,4) xyxy in pixels, `scores` (N,), `labels` (N,) integers."""

    boxes: ArrayLike
    scores: ArrayLike
    labels: ArrayLike


class Truth(NamedTuple):
    """What is in one image: `boxes` (N,4) xyxy in pixels, `labels` (N,) integers."""

    boxes: ArrayLike
    labels: ArrayLike


@dataclass(frozen=True)
class DetectionScores:
    """What `mean_average_precision` gives, all 0..1.

    Attributes:
        map50: mAP@0.5, the mean of `ap50` over the classes that have ground truth; NaN where none has.
        map50_95: mAP@0.5:0.95, the same of `ap50_95`.
        ap50: (K,) average precision of each class at an IoU of 0.5; NaN for a class without ground truth.
        ap50_95: (K,) the mean over the IoU thresholds 0.5, 0.55 ... 0.95.
    """

    map50: float
    map50_95: float
    ap50: NDArray[np.float64]
    ap50_95: NDArray[np.float64]


def mean_average_precision(
    detections: Sequence[Detections], truths: Sequence[Truth], classes: int, max_detections: int = 100
) -> DetectionScores:
    """mAP@0.5 and mAP@0.5:0.95 over all images, and each class's part in them.

    Arguments and errors are those of `average_precision`.
    """
    precision = average_precision(detections, truths, classes, max_detections)
    present = ~np.isnan(precision[:, 0])
    ap50, ap50_95 = precision[:, 0], precision.mean(axis=1)
    means = [float(ap[present].mean()) if present.any() else float("nan") for ap in (ap50, ap50_95)]
    return DetectionScores(means[0], means[1], ap50, ap50_95)


def average_precision(
    detections: Sequence[Detections], truths: Sequence[Truth], classes: int, max_detections: int = 100
) -> NDArray[np.float64]:
    """Average precision (K,10) of each class at each of IOU_THRESHOLDS, 0..1.

    Precision, made to fall with recall, is read at 101 recalls from 0 to 1 and averaged. Within an image and a class,
    a detection of higher score chooses first among the boxes that are free: the one of largest IoU. Detections of
    equal score rank in the order given. There are no crowd or ignored boxes.

    A class without ground truth in any image is NaN, and detections of it count nowhere; a class with ground truth
    and without detections is 0.

    Args:
        detections, truths: one of each per image, in one order; plain tuples do.
        classes: K; labels are 0..K-1.
        max_detections: of one class in one image; those of lowest score beyond it are left out, as COCO does.

    Raises:
        ValueError: lists of different lengths, arrays that do not fit together, boxes that are not finite or turned
            round, scores that are not finite, or labels out of range; names the image and the array.

    Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its evaluation page.
    """
    if len(detections) != len(truths):
        raise ValueError(f"expected one truth an image, got {len(detections)} detections and {len(truths)} truths")
    if classes < 1 or max_detections < 1:
        raise ValueError(f"classes and max_detections must be at least 1, got {classes} and {max_detections}")
    positives = np.zeros(classes, np.int64)
    scores: list[list[NDArray[np.float64]]] = [[] for _ in range(classes)]
    hits: list[list[NDArray[np.bool_]]] = [[] for _ in range(classes)]
    for image, (detected, true) in enumerate(zip(detections, truths, strict=True)):
        boxes, confidence, labels = _as_detections(image, detected, classes)
        true_boxes, true_labels = _as_truth(image, true, classes)
        positives += np.bincount(true_labels, minlength=classes)
        order = np.argsort(-confidence, kind="stable")
        for label in np.unique(labels):
            best = order[labels[order] == label][:max_detections]
            scores[label].append(confidence[best])
            hits[label].append(_match(box_iou(boxes[best], true_boxes[true_labels == label])))
    empty = np.full(len(IOU_THRESHOLDS), np.nan)
    return np.stack(
        [_interpolated(s, h, n) if n else empty for s, h, n in zip(scores, hits, positives.tolist(), strict=True)]
    )


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


def _interpolated(
    scores: list[NDArray[np.float64]], hits: list[NDArray[np.bool_]], positives: int
) -> NDArray[np.float64]:
    """Average precision (10,) of one class from its images' scores (N,) and hits (10,N), for `positives` true boxes."""
    if not scores:
        return np.zeros(len(IOU_THRESHOLDS))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    found = np.cumsum(np.concatenate(hits, axis=1)[:, order], axis=1)
    recall, precision = found / positives, found / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.pad(precision, [(0, 0), (0, 1)])  # 0 beyond the largest recall
    return np.array(
        [line[np.searchsorted(r, _RECALLS, side="left")].mean() for line, r in zip(reached, recall, strict=True)]
    )


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


def _as_truth(image: int, true: Truth, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
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
