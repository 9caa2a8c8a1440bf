"""mIoU: mean intersection over union of class masks, from confusion matrices that add up over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vifa_runtime.metrics.validation import image_counts

IGNORED = 255


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Pixels (K,K) by true class (row) and predicted class (column); the sum over images is a data set's.

    Args:
        truth: shape (H, W), class ids 0..K-1, or 255 where the class is unknown: such pixels count nowhere.
        predicted: shape (H, W), class ids 0..K-1; anything where the truth is 255.
        classes: K, 1..255.

    Raises:
        ValueError: masks of different shapes, not of integers, or a class id out of range; names the mask and the id.
    """
    _check_classes(classes)
    true_ids, predicted_ids = np.asarray(truth), np.asarray(predicted)
    if true_ids.ndim != 2 or true_ids.shape != predicted_ids.shape:
        raise ValueError(f"expected two masks of one shape (H, W), got {true_ids.shape} and {predicted_ids.shape}")
    known = true_ids != IGNORED
    true_ids, predicted_ids = true_ids[known], predicted_ids[known]
    for name, ids in (("truth", true_ids), ("predicted", predicted_ids)):
        if ids.dtype.kind not in "iu":
            raise ValueError(f"mask {name} must hold integers, got {ids.dtype}")
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            wrong = ids[(ids < 0) | (ids >= classes)][0]
            raise ValueError(f"mask {name} holds class {wrong}; expected 0..{classes - 1}")
    pairs = true_ids.astype(np.int64) * classes + predicted_ids.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confusion_matrices(truths: Sequence[ArrayLike], predicted: Sequence[ArrayLike], classes: int) -> NDArray[np.int64]:
    """The confusion matrices (n,K,K) of n images, each by `confusion_matrix`; the images may differ in size.

    Raises:
        ValueError: lists of different lengths, or what `confusion_matrix` refuses; names the image.
    """
    if len(truths) != len(predicted):
        raise ValueError(f"expected one true mask a prediction, got {len(truths)} and {len(predicted)}")
    _check_classes(classes)
    matrices = np.zeros((len(truths), classes, classes), np.int64)
    for image, masks in enumerate(zip(truths, predicted, strict=True)):
        try:
            matrices[image] = confusion_matrix(*masks, classes)
        except ValueError as error:
            raise ValueError(f"image {image}: {error}") from error
    return matrices


def pooled_confusion(matrices: ArrayLike, images: ArrayLike | None = None) -> NDArray[np.int64]:
    """The confusion matrix (K,K) of some images together, for `class_iou` and `mean_iou`.

    Args:
        matrices: shape (n, K, K), integers, one of each image, as `confusion_matrices` gives them.
        images: shape (M,), indices 0..n-1 in any order, repeated for an image that counts more than once; each image
            once by default.

    Raises:
        ValueError: matrices of another shape or not of integers, or an image that is not there.
    """
    pixels = np.asarray(matrices)
    if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2] or pixels.dtype.kind not in "iu":
        raise ValueError(f"expected confusion matrices (n, K, K) of pixel counts, got {pixels.shape} of {pixels.dtype}")
    return np.tensordot(image_counts(images, len(pixels)), pixels.astype(np.int64), 1)


def class_iou(confusion: ArrayLike) -> NDArray[np.float64]:
    """IoU (K,) of each class, 0..1; NaN for a class that is neither in the truth nor predicted.

    A class that is predicted somewhere and true nowhere has an IoU of 0.

    Args:
        confusion: shape (K, K), pixels by true (row) and predicted class (column).

    Raises:
        ValueError: not square, or negative.
    """
    pixels = np.asarray(confusion, np.float64)
    if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1] or not (pixels >= 0).all():
        raise ValueError(f"expected a confusion matrix (K, K) of pixel counts, got shape {pixels.shape}")
    both = np.diag(pixels)
    either = pixels.sum(axis=0) + pixels.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def mean_iou(confusion: ArrayLike) -> float:
    """mIoU: the mean of `class_iou` over the classes that are in the truth or predicted; NaN where none is."""
    iou = class_iou(confusion)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else float("nan")


def _check_classes(classes: int) -> None:
    if not 1 <= classes <= IGNORED:
        raise ValueError(f"classes must be in 1..{IGNORED}, got {classes}")
