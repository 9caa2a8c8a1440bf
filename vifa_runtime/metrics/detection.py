"""mAP: mean average precision of detected boxes, counted as COCO counts it, over all images or any multiset of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.matching import (
    IOU_THRESHOLDS,
    MOST_DETECTIONS,
    DetectionMatches,
    Detections,
    Labels,
    RankedDetections,
    match_detections,
)
from vifa_runtime.metrics.validation import image_counts

_RECALLS = np.linspace(0, 1, 101)


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
    detections: Sequence[Detections], truths: Sequence[Labels], classes: int, max_detections: int = MOST_DETECTIONS
) -> DetectionScores:
    """mAP@0.5 and mAP@0.5:0.95 over all images, and each class's part in them.

    Arguments and errors are those of `match_detections`, the values those of `average_precision`.
    """
    return pooled_detection_scores(match_detections(detections, truths, classes, max_detections))


def average_precision(
    detections: Sequence[Detections], truths: Sequence[Labels], classes: int, max_detections: int = MOST_DETECTIONS
) -> NDArray[np.float64]:
    """Average precision (K,10) of each class at each of IOU_THRESHOLDS, 0..1.

    Precision, made to fall with recall, is read at 101 recalls from 0 to 1 and averaged. Detections of equal score
    rank in the order given. Arguments, matching and errors are those of `match_detections`.

    A class without ground truth in any image is NaN, and detections of it count nowhere; a class with ground truth
    and without detections is 0.

    Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014, and its evaluation page.
    """
    return pooled_average_precision(match_detections(detections, truths, classes, max_detections))


def pooled_detection_scores(
    matches: DetectionMatches, images: ArrayLike | None = None, labels: Sequence[int] | None = None
) -> DetectionScores:
    """mAP over some of the images that were matched.

    Args:
        matches: of n images and K classes.
        images: as in `pooled_average_precision`.
        labels: the classes, 0..K-1, that count in the two means; all by default.

    Raises:
        ValueError: an image or a label that is not there.
    """
    return detection_scores(pooled_average_precision(matches, images), labels)


def pooled_map50(
    matches: DetectionMatches, images: ArrayLike | None = None, labels: Sequence[int] | None = None
) -> float:
    """mAP@0.5 alone: `map50` of `pooled_detection_scores`, equal to the bit and several times faster."""
    return _mean_of_present(pooled_average_precision(matches, images, thresholds=1)[:, 0], labels)


def pooled_average_precision(
    matches: DetectionMatches, images: ArrayLike | None = None, thresholds: int = len(IOU_THRESHOLDS)
) -> NDArray[np.float64]:
    """Average precision (K, `thresholds`) over some of the images that were matched, 0..1.

    Equals `average_precision` of the lists that hold each image as often as `images` does, to the bit where all
    scores of a class differ. Of equal scores those of the earlier image, as matched, rank first whatever the order
    in `images`, and copies of a detection rank one after the other.

    Args:
        matches: of n images and K classes.
        images: shape (M,), indices 0..n-1 in any order, repeated for an image that counts more than once; each image
            once by default.
        thresholds: 1..10, how many of IOU_THRESHOLDS, from 0.5 on.

    Raises:
        ValueError: an image that is not there, or a number of thresholds out of range.
    """
    if not 1 <= thresholds <= len(IOU_THRESHOLDS):
        raise ValueError(f"thresholds must be in 1..{len(IOU_THRESHOLDS)}, got {thresholds}")
    counts = image_counts(images, len(matches))
    positives = counts @ matches.ground_truths
    undefined = np.full(thresholds, np.nan)
    return np.stack(
        [
            _interpolated(ranked, counts, int(number), thresholds) if number else undefined
            for ranked, number in zip(matches.ranked, positives, strict=True)
        ]
    )


def _interpolated(
    ranked: RankedDetections, counts: NDArray[np.int64], positives: int, thresholds: int
) -> NDArray[np.float64]:
    """Average precision (thresholds,) of one class whose images count `counts` times, for `positives` true boxes.

    A detection that counts w times is w equal ones in a row. Precision rises along a row of hits and falls along a
    row of misses, so that its largest value at or beyond a recall always stands at the end of a row of hits: there
    alone it is needed. A hit that counts 0 times repeats the recall of the one before it at no higher precision.
    """
    weights = counts[ranked.images]
    ranks = np.maximum(np.cumsum(weights), 1)  # 0 before the first that counts, where no hit is either
    hits = ranked.hits[:thresholds]
    return np.array([interpolate(np.cumsum(weights[own]), ranks[own], positives) for own in hits])


def interpolate(found: NDArray[np.int64], ranks: NDArray[np.int64], positives: int) -> float:
    """Average precision from the hits alone, in their order, for `positives` true boxes.

    Args:
        found: (N,) true boxes found up to each hit.
        ranks: (N,) detections ranked up to it, itself too.
    """
    recall, precision = found / positives, found / ranks
    reached = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)  # 0 beyond the largest recall
    return float(reached[np.searchsorted(recall, _RECALLS, side="left")].mean())


def detection_scores(precision: NDArray[np.float64], labels: Sequence[int] | None = None) -> DetectionScores:
    """The scores of an average precision (K,10); `labels` as of `pooled_detection_scores`."""
    ap50, ap50_95 = precision[:, 0], precision.mean(axis=1)
    return DetectionScores(_mean_of_present(ap50, labels), _mean_of_present(ap50_95, labels), ap50, ap50_95)


def _mean_of_present(precision: NDArray[np.float64], labels: Sequence[int] | None) -> float:
    """The mean of (K,) over the classes with ground truth among `labels`; NaN where none has."""
    if labels is not None:
        if any(not 0 <= label < len(precision) for label in labels):
            raise ValueError(f"labels must be in 0..{len(precision) - 1}, got {list(labels)}")
        precision = precision[list(labels)]
    present = ~np.isnan(precision)
    return float(precision[present].mean()) if present.any() else float("nan")
