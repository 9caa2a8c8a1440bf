"""Class-aware NMS against brute force, and what odd outputs of a graph become."""

import itertools
import time
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vifa_runtime.decode import MOST_CANDIDATES, decode_detections, decode_mask, restore_detections
from vifa_runtime.geometry import WorkingGrid
from vifa_runtime.metrics import Detections


def brute_force(boxes, scores, score, iou, max_detections):
    """The definition, box by box in whole numbers: (box, class) pairs that stay, best first."""
    candidates = [
        (row, label)
        for row, label in itertools.product(range(len(boxes)), range(scores.shape[1]))
        if scores[row, label] > np.float32(score) and area(boxes[row]) > 0
    ]
    candidates.sort(key=lambda candidate: -scores[candidate])  # stable: row, then class
    kept = []
    for row, label in candidates:
        rivals = [boxes[other] for other, its_label in kept if its_label == label]
        if not any(overlaps_by_more(boxes[row], rival, iou) for rival in rivals):
            kept.append((row, label))
    return kept[:max_detections]


def area(box):
    """Of a box with whole corners; 0 for one that is turned round."""
    x1, y1, x2, y2 = map(int, box)
    return max(0, x2 - x1) * max(0, y2 - y1)


def overlaps_by_more(a, b, iou):
    """Whether the IoU of two boxes with area is above `iou`, without a division."""
    shared = area([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    return shared > iou * (area(a) + area(b) - shared)


# Whole corners and thresholds in eighths: every product is exact, so ties are ties in any arithmetic.
EIGHTHS = st.integers(0, 8).map(lambda number: number / 8)


@st.composite
def outputs(draw):
    """Boxes (A,4) and scores (A,K) with many overlaps, equal scores, boxes turned round and outside the image."""
    count, classes = draw(st.integers(0, 30)), draw(st.integers(1, 4))
    boxes = draw(arrays.arrays(np.float32, (count, 4), elements=st.integers(-20, 60).map(float)))
    if draw(st.booleans()):
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    return boxes, draw(arrays.arrays(np.float32, (count, classes), elements=EIGHTHS))


@given(outputs(), EIGHTHS, EIGHTHS, st.integers(1, 40))
def test_detections_equal_brute_force(output, score, iou, max_detections):
    boxes, scores = output
    found = decode_detections(boxes, scores, score, iou, max_detections)
    kept = brute_force(boxes, scores, score, iou, max_detections)
    rows, labels = [row for row, _ in kept], [label for _, label in kept]
    np.testing.assert_array_equal(found.boxes, boxes[rows])
    np.testing.assert_array_equal(found.scores, scores[rows, labels])
    np.testing.assert_array_equal(found.labels, labels)
    assert [array.dtype for array in found] == [np.float32, np.float32, np.int64]


def test_more_boxes_than_are_kept_equal_brute_force_too():
    """So many that suppression looks at the best of them first, then at more: nearly all lie on each other."""
    rng = np.random.default_rng(0)
    corners = np.repeat(rng.integers(0, 400, (6, 2)), 60, axis=0) + rng.integers(0, 3, (360, 2))
    boxes = np.concatenate([corners, corners + 30], axis=1).astype(np.float32)
    scores = rng.uniform(0.3, 1, (360, 2)).astype(np.float32)
    for most in (1, 3, 7, 30):
        found = decode_detections(boxes, scores, 0.25, 0.5, most)
        kept = brute_force(boxes, scores, 0.25, 0.5, most)
        assert [(tuple(box), label) for box, label in zip(found.boxes, found.labels, strict=True)] == [
            (tuple(boxes[row]), label) for row, label in kept
        ]


def test_parts_of_a_pixel_count():
    """Two boxes within one pixel that overlap by a half, and two that do not touch: nothing is cut to whole pixels."""
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.2, 0.1, 0.4, 0.3], [0.6, 0.6, 0.7, 0.7], [0.8, 0.8, 0.9, 0.9]])
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    assert len(decode_detections(boxes, scores, 0.5, 0.34, 9).boxes) == 4  # the overlap is a third of the union
    np.testing.assert_allclose(decode_detections(boxes, scores, 0.5, 0.32, 9).scores, [0.9, 0.7, 0.6], rtol=1e-6)


def test_boxes_are_corners_and_not_sizes():
    """Far from the origin, x2 y2 taken for width and height would make all of these overlap."""
    boxes = np.array([[300, 200, 310, 210], [320, 200, 330, 210], [300, 220, 310, 230]])
    assert len(decode_detections(boxes, np.full((3, 1), 0.9), 0.5, 0.01, 9).boxes) == 3


def test_classes_do_not_suppress_each_other_and_one_box_may_be_of_two():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [-9, 0, 1, 10]])
    scores = np.array([[0.9, 0.1, 0.6], [0.2, 0.8, 0.3], [0.0, 0.7, 0.0]])
    found = decode_detections(boxes, scores, 0.5, 0.3, 9)
    np.testing.assert_array_equal(found.labels, [0, 1, 1, 2])
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7, 0.6], rtol=1e-6)


def test_a_score_counts_only_above_the_threshold():
    boxes = np.array([[0, 0, 1, 1], [2, 0, 3, 1], [4, 0, 5, 1]])
    scores = np.array([[0.3], [np.nextafter(np.float32(0.3), np.float32(1))], [0.29]], np.float32)
    np.testing.assert_array_equal(decode_detections(boxes, scores, 0.3, 0.5, 9).boxes, [[2, 0, 3, 1]])
    assert len(decode_detections(boxes, np.zeros((3, 1)), 0.0, 0.5, 9).boxes) == 0


def test_of_equal_scores_the_first_box_and_then_the_first_class_is_the_better_one():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [1, 0, 11, 10]])
    found = decode_detections(boxes, np.full((3, 2), 0.5), 0.25, 0.5, 3)
    np.testing.assert_array_equal(found.boxes[:, 0], [0, 0, 20])
    np.testing.assert_array_equal(found.labels, [0, 1, 0])


ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(arrays.arrays(np.float32, (12, 4), elements=ANY_FLOAT), arrays.arrays(np.float32, (12, 3), elements=ANY_FLOAT))
@example(np.full((12, 4), np.nan, np.float32), np.full((12, 3), np.nan, np.float32))
@example(np.tile(np.float32([-3e38, -3e38, 3e38, 3e38]), (12, 1)), np.full((12, 3), 3e38, np.float32))
def test_nothing_that_a_graph_may_give_crashes_or_gets_through(boxes, scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode_detections(boxes, scores, 0.25, 0.5, 10)
    assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert len(found.boxes) == len(found.scores) == len(found.labels) <= 10


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(5))
def test_a_box_that_is_not_finite_takes_no_good_one_with_it(odd, place):
    boxes, scores = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32), np.array([[0.9], [0.8]], np.float32)
    if place < 4:
        boxes[0, place] = odd
    else:
        scores[0] = odd
    found = decode_detections(boxes, scores, 0.25, 0.5, 10)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 9]])


def test_boxes_without_area_suppress_nothing():
    boxes = np.array([[5, 5, 5, 5], [80, 80, 80, 90], [3, 9, 1, 12], [0, 0, 10, 10]])
    found = decode_detections(boxes, np.array([[0.9], [0.8], [0.7], [0.6]]), 0.25, 0.5, 10)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 10]])


@pytest.mark.parametrize(("boxes", "classes"), [(0, 3), (5, 3), (0, 0), (5, 0)])
def test_nothing_found(boxes, classes):
    found = decode_detections(np.zeros((boxes, 4)), np.zeros((boxes, classes)), 0.25, 0.5, 10)
    assert [array.shape for array in found] == [(0, 4), (0,), (0,)]
    assert [array.dtype for array in found] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize(("boxes", "scores"), [((3, 4), (2, 1)), ((3, 5), (3, 1)), ((3, 4), (3,)), ((1, 3, 4), (3, 1))])
def test_arrays_that_do_not_fit_are_refused(boxes, scores):
    with pytest.raises(ValueError, match=r"expected boxes \(A, 4\) and scores \(A, K\), got"):
        decode_detections(np.zeros(boxes), np.zeros(scores), 0.25, 0.5, 10)


def test_the_graphs_arrays_are_neither_kept_nor_changed():
    boxes, scores = np.array([[0, 0, 9, 9], [5, 5, 20, 20]], np.float32), np.array([[0.4], [0.9]], np.float32)
    before = boxes.copy(), scores.copy()
    found = decode_detections(boxes, scores, 0.25, 0.5, 10)
    np.testing.assert_array_equal(boxes, before[0])
    np.testing.assert_array_equal(scores, before[1])
    assert not any(np.shares_memory(a, b) for a in found for b in (boxes, scores))


def test_a_graph_that_finds_something_everywhere_is_bounded_in_time():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 2000, (MOST_CANDIDATES * 2, 2))
    boxes = np.concatenate([corners, corners + 5], axis=1)
    scores = rng.uniform(0.5, 1, (len(boxes), 1))
    start = time.process_time()
    found = decode_detections(boxes, scores, 0.25, 0.5, 100)
    assert time.process_time() - start < 1  # seconds of work, a tenth of it here; all pairs of boxes would take several
    assert len(found.boxes) == 100
    assert found.scores.min() > 0.99


def test_beyond_the_most_candidates_the_lowest_scores_are_left_out():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (MOST_CANDIDATES + 1, 1))
    boxes[-1] += 100
    scores = np.full((len(boxes), 1), 0.5, np.float32)
    scores[-1] = 0.4
    assert len(decode_detections(boxes, scores, 0.25, 0.5, 10).boxes) == 1
    assert len(decode_detections(boxes[1:], scores[1:], 0.25, 0.5, 10).boxes) == 2


@pytest.mark.parametrize("classes", [1, 3, 254])
def test_ids_of_no_class_are_unknown(classes):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode_mask(mask, classes)
    np.testing.assert_array_equal(decoded, np.where(mask < classes, mask, 255))
    room = np.zeros((16, 16), np.uint8)
    assert decode_mask(mask[::-1, :], classes, out=room) is room
    np.testing.assert_array_equal(room, decoded[::-1])
    assert mask[-1, -1] == 255 and mask[0, 3] == 3


def test_detections_in_the_padding_are_left_out_and_others_clipped():
    grid = WorkingGrid.fit((30, 50), multiple=16)  # 32 x 64
    boxes = np.array([[45, 5, 60, 20], [51, 5, 60, 20], [10, 30, 20, 32], [-5, -5, 3, 3]], np.float32)
    found = restore_detections(Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.arange(4)), grid)
    np.testing.assert_array_equal(found.boxes, [[45, 5, 50, 20], [0, 0, 3, 3]])
    np.testing.assert_array_equal(found.scores, [0.9, 0.6])
    np.testing.assert_array_equal(found.labels, [0, 3])
