"""From what task graphs give to detections and masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.geometry import WorkingGrid
from vifa_runtime.labels import UNKNOWN
from vifa_runtime.metrics import Detections

MOST_CANDIDATES = 30_000  # of one image that suppression looks at, so that its time is bounded whatever a graph gives


def decode_detections(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], score: float, iou: float, max_detections: int
) -> Detections:
    """Class-aware non-maximum suppression (NMS) of what a detection graph gives for one image.

    A box counts for each class in which it scores above `score`: classes are trained and evaluated apart, so two of
    them may well be found in one place. Within a class, a box that overlaps a better one by more than `iou` goes.
    Boxes without area, and boxes or scores that are not finite, are left out. Of equal scores the first box, then the
    first class, is the better one. Beyond MOST_CANDIDATES the lowest scores are not looked at.

    Args:
        boxes: (A,4), x1 y1 x2 y2 in pixels; may reach beyond the image.
        scores: (A,K), 0..1.
        score, iou: 0..1.
        max_detections: the best so many are kept, of all classes together.

    Returns:
        boxes (N,4) float32, scores (N,) float32 in falling order, labels (N,) int64: arrays of their own.

    Raises:
        ValueError: arrays that do not fit together.
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.ndim != 2 or len(scores) != len(boxes):
        raise ValueError(f"expected boxes (A, 4) and scores (A, K), got {boxes.shape} and {scores.shape}")
    rows, labels = np.nonzero(scores > np.float32(score))
    boxes, scores = boxes[rows], scores[rows, labels]
    usable = np.isfinite(scores) & np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    order = np.flatnonzero(usable)
    order = order[np.argsort(-scores[order], kind="stable")][:MOST_CANDIDATES]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = [
        _suppress(boxes, scores, np.flatnonzero(labels == label), iou, max_detections) for label in np.unique(labels)
    ]
    best = np.sort(np.concatenate(kept))[:max_detections] if kept else slice(0)
    return Detections(boxes[best], scores[best], labels[best])


def restore_detections(detections: Detections, grid: WorkingGrid) -> Detections:
    """Map detections on a working grid to source pixels, clipped to the image; those outside it are left out."""
    boxes, scores, labels = map(np.asarray, detections)
    boxes = grid.restore_boxes(boxes)
    visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Detections(boxes[visible], scores[visible], labels[visible])


def decode_mask(mask: NDArray[np.uint8], classes: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Class ids (H,W) in which an id of no class is 255, unknown; into `out` where that is given."""
    ids = np.arange(256, dtype=np.uint8)
    ids[classes:] = UNKNOWN
    out = np.empty(mask.shape, np.uint8) if out is None else out
    cv2.LUT(mask, ids, dst=out)
    return out


def _suppress(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], members: NDArray[np.int64], iou: float, most: int
) -> NDArray[np.int64]:
    """The best `most` of the boxes of one class that no better one suppresses.

    Whether a box stays depends on better ones only, so the best of them are looked at first, and the rest where those
    do not suffice: time grows with the number of boxes, not with its square.

    Args:
        members: which boxes are of the class, in falling order of their scores.
    """
    corners = boxes[members].astype(np.float64)
    upright = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])  # OpenCV wants x y width height
    count = 4 * most
    while True:
        kept = cv2.dnn.NMSBoxes(upright[:count].tolist(), scores[members[:count]].tolist(), 0.0, iou)
        if len(kept) >= most or count >= len(members):
            return members[np.asarray(kept, np.int64).reshape(-1)[:most]]
        count *= 4
