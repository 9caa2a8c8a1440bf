"""Metrics over any multiset of images against the same metrics of lists that hold each image as often, and by hand."""

import time

import numpy as np
import pytest
from box_scenes import scene
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.metrics import (
    Detections,
    Labels,
    average_precision,
    bootstrap_estimate,
    confusion_matrices,
    confusion_matrix,
    match_detections,
    mean_average_precision,
    mean_iou,
    pooled_average_precision,
    pooled_confusion,
    pooled_detection_scores,
    pooled_map50,
)

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = st.integers(0, 10**6)


def numbers(scores):
    return [scores.map50, scores.map50_95, *scores.ap50, *scores.ap50_95]


def with_distinct_scores(detections):
    """The same detections with scores that rank as pooled ones do: equal scores by image, then in the order given."""
    scores = np.concatenate([d.scores for d in detections])
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = -np.arange(len(scores))
    ends = np.cumsum([len(d.scores) for d in detections])[:-1]
    return [d._replace(scores=part) for d, part in zip(detections, np.split(ranks, ends), strict=True)]


# Boxes


@given(seed=SEEDS, images=st.integers(1, 9), limit=st.sampled_from([1, 100]))
def test_a_multiset_equals_the_repeated_lists_to_the_bit(seed, images, limit):
    detections, truths = scene(seed, images)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(images, size=rng.integers(0, 2 * images + 1))
    matches = match_detections(detections, truths, 4, limit)
    distinct = with_distinct_scores(detections)
    expected = mean_average_precision([distinct[i] for i in drawn], [truths[i] for i in drawn], 4, limit)
    np.testing.assert_array_equal(numbers(pooled_detection_scores(matches, drawn)), numbers(expected))
    np.testing.assert_array_equal(pooled_map50(matches, drawn), expected.map50)


@given(seed=SEEDS, images=st.integers(1, 9))
def test_images_once_or_never_equal_the_shorter_lists_with_equal_scores_too(seed, images):
    detections, truths = scene(seed, images)
    matches = match_detections(detections, truths, 3)
    kept = np.flatnonzero(np.random.default_rng(seed).random(images) < 0.6)
    expected = average_precision([detections[i] for i in kept], [truths[i] for i in kept], 3)
    np.testing.assert_array_equal(pooled_average_precision(matches, kept), expected)
    np.testing.assert_array_equal(pooled_average_precision(matches, kept[::-1]), expected)
    everything = average_precision(detections, truths, 3)
    np.testing.assert_array_equal(pooled_average_precision(matches), everything)
    np.testing.assert_array_equal(pooled_average_precision(matches, range(images)), everything)


@given(seed=SEEDS, times=st.integers(2, 5))
def test_every_image_equally_often_changes_nothing(seed, times):
    matches = match_detections(*scene(seed), 3)
    repeated = pooled_average_precision(matches, np.tile(np.arange(6), times))
    np.testing.assert_allclose(repeated, pooled_average_precision(matches), rtol=1e-12)


BOX, AWAY = [10, 10, 20, 20], [40, 40, 50, 50]
FOUND = Detections([BOX], [0.6], [0]), Labels([BOX], [0])
FALSE = Detections([AWAY], [0.9], [0]), Labels([], [])
MISSED = Detections([], [], []), Labels([BOX], [0])
OTHER = Detections([BOX], [0.5], [1]), Labels([BOX], [1])


@pytest.mark.parametrize(
    ("images", "first", "mean"),
    [
        ([0], 1, 1),
        ([1, 0], 1 / 2, 1 / 2),
        ([0, 1, 1], 1 / 3, 1 / 3),  # two false alarms rank before the hit
        ([0, 0, 1], 2 / 3, 2 / 3),  # 1/2 at the first copy, 2/3 at the second
        ([0, 2], 51 / 101, 51 / 101),  # half of the boxes found: recalls 0 to 0.5
        ([0, 0, 0, 2], 76 / 101, 76 / 101),
        ([2, 2], 0, 0),
        ([0, 1, 3], 1 / 2, 3 / 4),
        ([3], np.nan, 1),
        ([1], np.nan, np.nan),
        ([], np.nan, np.nan),
    ],
)
def test_multisets_by_hand(images, first, mean):
    matches = match_detections(*zip(FOUND, FALSE, MISSED, OTHER, strict=True), 2)
    scores = pooled_detection_scores(matches, images)
    np.testing.assert_allclose([scores.ap50[0], scores.map50, pooled_map50(matches, images)], [first, mean, mean])


def test_what_an_image_adds():
    near = [10, 10, 20, 17.2]  # IoU 0.72: a hit at 0.5 ... 0.7
    detections = [Detections([AWAY, near, BOX], [0.2, 0.9, 0.4], [0, 0, 1]), Detections([BOX], [0.3], [0])]
    matches = match_detections(detections, [Labels([BOX, AWAY], [0, 0]), Labels([BOX, BOX], [1, 1])], 3)
    first, second, third = matches.ranked
    assert len(matches) == 2
    assert matches.ground_truths.tolist() == [[2, 0, 0], [0, 2, 0]]
    assert (first.images.tolist(), first.scores.tolist()) == ([0, 1, 0], [0.9, 0.3, 0.2])
    assert first.hits.T.tolist() == [[True] * 5 + [False] * 5, [False] * 10, [True] * 10]
    assert (second.images.tolist(), second.hits.any()) == ([0], False)  # no box of its class in its image
    assert (third.images.shape, third.scores.shape, third.hits.shape) == ((0,), (0,), (10, 0))


def test_the_means_may_be_of_some_classes():
    matches = match_detections(*zip(FOUND, FALSE, MISSED, OTHER, strict=True), 3)
    first, second, _ = pooled_detection_scores(matches).ap50
    for labels, mean in (([0], first), ([1], second), ([0, 1], (first + second) / 2), ([1, 2], second), ([2], np.nan)):
        scores = pooled_detection_scores(matches, labels=labels)
        np.testing.assert_allclose([scores.map50, scores.map50_95, pooled_map50(matches, labels=labels)], [mean] * 3)
        np.testing.assert_array_equal(scores.ap50, [first, second, np.nan])


@given(seed=SEEDS, thresholds=st.integers(1, 10))
def test_fewer_thresholds_are_the_first_of_all(seed, thresholds):
    matches = match_detections(*scene(seed), 3)
    images = np.random.default_rng(seed).integers(6, size=6)
    few, every = pooled_average_precision(matches, images, thresholds), pooled_average_precision(matches, images)
    np.testing.assert_array_equal(few, every[:, :thresholds])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([0, 6], r"image 6 is not among the 6 images; expected 0\.\.5"),
        ([0, -1], "image -1 is not among the 6 images"),
        ([0.0, 1.0], r"expected image indices \(M,\) of integers, got shape \(2,\) of float64"),
        ([True] * 6, "expected image indices"),
        ([[0, 1]], r"got shape \(1, 2\)"),
        (3, r"got shape \(\)"),
    ],
)
def test_images_that_are_not_there_are_refused(images, message):
    matches = match_detections(*scene(0), 3)
    for pooled in (pooled_average_precision, pooled_detection_scores, pooled_map50):
        with pytest.raises(ValueError, match=message):
            pooled(matches, images)
    with pytest.raises(ValueError, match=message):
        pooled_confusion(np.zeros((6, 2, 2), int), images)


def test_labels_and_thresholds_out_of_range_are_refused():
    matches = match_detections(*scene(0), 3)
    for labels in ([3], [0, -1]):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.2"):
            pooled_map50(matches, labels=labels)
    for thresholds in (0, 11):
        with pytest.raises(ValueError, match=r"thresholds must be in 1\.\.10"):
            pooled_average_precision(matches, thresholds=thresholds)


def test_a_bootstrap_of_300_images_takes_seconds():
    rng = np.random.default_rng(0)
    detections, truths = [], []
    for _ in range(300):
        corners = rng.uniform(0, 600, (300, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 60, (300, 2))], axis=1)
        labels = rng.integers(0, 3, 300)
        detections.append(Detections(boxes + rng.uniform(0, 5, (300, 1)), rng.random(300), labels))
        truths.append(Labels(boxes[::2], labels[::2]))
    start = time.process_time()
    matches = match_detections(detections, truths, 3)
    estimate = bootstrap_estimate(lambda images: pooled_map50(matches, images), 300, 1000)
    assert time.process_time() - start < 10  # about 2 s on a quiet machine
    assert 0 < estimate.low < estimate.value < estimate.high < 1


# Masks


def random_masks(seed, images, classes):
    """True masks of different sizes with some 255, and guesses that are right at about every second pixel."""
    rng = np.random.default_rng(seed)
    truths, predicted = [], []
    for _ in range(images):
        size = rng.integers(1, 9, 2)
        truth, guess = rng.integers(0, classes, (2, *size))
        predicted.append(np.where(rng.random(size) < 0.5, truth, guess))
        truths.append(np.where(rng.random(size) < 0.1, 255, truth))
    return truths, predicted


@given(seed=SEEDS, images=st.integers(1, 6), classes=st.integers(1, 5))
def test_pooled_confusion_equals_that_of_all_the_pixels_in_one_mask(seed, images, classes):
    truths, predicted = random_masks(seed, images, classes)
    matrices = confusion_matrices(truths, predicted, classes)
    assert matrices.shape == (images, classes, classes) and matrices.dtype == np.int64
    rng = np.random.default_rng(seed)
    drawn = rng.integers(images, size=rng.integers(1, 2 * images + 1))
    for chosen, pooled in ((drawn, pooled_confusion(matrices, drawn)), (range(images), pooled_confusion(matrices))):
        pixels = [np.concatenate([masks[i].ravel() for i in chosen])[None] for masks in (truths, predicted)]
        expected = confusion_matrix(*pixels, classes)
        np.testing.assert_array_equal(pooled, expected)
        np.testing.assert_array_equal(mean_iou(pooled), mean_iou(expected))


def test_pooled_iou_by_hand_where_a_class_is_in_one_image_alone():
    truths, predicted = [[[0, 0]], [[0, 1]], [[255, 255]]], [[[0, 0]], [[1, 1]], [[0, 1]]]
    matrices = confusion_matrices(truths, predicted, 3)
    assert matrices[:, :2, :2].tolist() == [[[2, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]]

    def iou(*images):
        return mean_iou(pooled_confusion(matrices, images))

    assert iou(0) == 1  # one class alone is in it
    assert iou(1) == pytest.approx((0 + 1 / 2) / 2)
    assert iou(0, 1) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert iou(0, 1, 1) == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert iou(0, 0, 1, 2) == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert np.isnan(iou(2)) and np.isnan(iou())


def test_no_images_have_no_pixels():
    assert confusion_matrices([], [], 2).shape == (0, 2, 2)
    assert pooled_confusion(confusion_matrices([], [], 2)).tolist() == [[0, 0], [0, 0]]


def test_masks_and_matrices_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"image 1: mask truth holds class 2; expected 0\.\.1"):
        confusion_matrices([[[0]], [[2]]], [[[0]], [[0]]], 2)
    with pytest.raises(ValueError, match=r"image 0: expected two masks of one shape"):
        confusion_matrices([[[0]]], [[[0, 0]]], 2)
    with pytest.raises(ValueError, match="expected one true mask a prediction, got 1 and 2"):
        confusion_matrices([[[0]]], [[[0]], [[0]]], 2)
    with pytest.raises(ValueError, match=r"classes must be in 1\.\.255, got -1"):
        confusion_matrices([], [], -1)
    for wrong in (np.zeros((2, 2), int), np.zeros((1, 2, 3), int), np.zeros((1, 2, 2))):
        with pytest.raises(ValueError, match=r"expected confusion matrices \(n, K, K\)"):
            pooled_confusion(wrong)
