"""mAP against COCO's own evaluator (pycocotools), cases computed by hand, and its properties."""

import contextlib
import io
import time

import numpy as np
import pytest
from box_scenes import scene
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vifa_runtime.metrics import Detections, Labels, average_precision, mean_average_precision
from vifa_runtime.metrics.matching import box_iou

pytestmark = pytest.mark.filterwarnings("error")

NONE = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
EMPTY = Labels(np.zeros((0, 4)), np.zeros(0, int))


def coco(detections, truths, classes, max_detections=100):
    """(K,10) by pycocotools, NaN for classes without ground truth."""

    def annotations(images, **extra):
        for image, (boxes, labels, scores) in enumerate(images):
            for box, label, score in zip(np.asarray(boxes), labels, scores, strict=True):
                x, y, width, height = (float(v) for v in (*box[:2], *(box[2:] - box[:2])))
                yield {"image_id": image, "category_id": int(label), "bbox": [x, y, width, height],
                       "area": width * height, "iscrowd": 0, "score": float(score)}  # fmt: skip

    true = list(annotations((t.boxes, t.labels, np.ones(len(t.boxes))) for t in truths))
    found = list(annotations((d.boxes, d.labels, d.scores) for d in detections))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": [{**one, "id": index + 1} for index, one in enumerate(true)],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(found) if found else COCO(), "bbox")
        evaluator.params.maxDets = [max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, 0]  # (10, 101, K), all areas
    return np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1)).T


@given(seed=st.integers(0, 10**6), images=st.integers(1, 8), classes=st.integers(1, 5), limit=st.sampled_from([1, 100]))
def test_average_precision_equals_coco(seed, images, classes, limit):
    detections, truths = scene(seed, images, classes)
    expected = coco(detections, truths, classes, limit)
    np.testing.assert_allclose(average_precision(detections, truths, classes, limit), expected, atol=1e-12)


def test_the_means_equal_coco_where_a_class_is_missing():
    detections, truths = scene(3, images=30)
    expected = coco(detections, truths, 5)
    found = mean_average_precision(detections, truths, 5)
    assert np.isnan(found.ap50).tolist() == [False, False, False, True, True]
    assert 0.2 < found.map50 < 0.9
    assert found.map50 == pytest.approx(np.nanmean(expected[:, 0]))
    assert found.map50_95 == pytest.approx(np.nanmean(expected))
    np.testing.assert_allclose(found.ap50, expected[:, 0])
    np.testing.assert_allclose(found.ap50_95, expected.mean(axis=1))


# By hand


BOX = [10, 10, 20, 20]
AWAY = [40, 40, 50, 50]


def ap50(detections, truths, classes=1):
    return mean_average_precision([detections], [truths], classes).ap50.tolist()


def test_one_box_found_is_1_and_missed_is_0():
    truth = Labels([BOX], [0])
    assert ap50(Detections([BOX], [0.3], [0]), truth) == [1]
    assert ap50(Detections([AWAY], [0.3], [0]), truth) == [0]
    assert ap50(NONE, truth) == [0]


def test_a_false_alarm_costs_by_its_rank():
    truth = Labels([BOX], [0])
    assert ap50(Detections([BOX, AWAY], [0.9, 0.1], [0, 0]), truth) == [1]  # after the last hit: nothing
    assert ap50(Detections([BOX, AWAY], [0.1, 0.9], [0, 0]), truth) == [pytest.approx(0.5)]  # before it: 1 of 2


def test_half_of_the_boxes_found_fills_51_of_101_recalls():
    truth = Labels([BOX, AWAY], [0, 0])
    assert ap50(Detections([BOX], [0.9], [0]), truth) == [pytest.approx(51 / 101)]


def test_precision_at_a_recall_is_the_best_at_that_recall_or_above():
    """Hit, miss, hit, hit: precision 1, 1/2, 2/3, 3/4 at recalls 1/3, 1/3, 2/3, 1."""
    truth = Labels([BOX, AWAY, [60, 0, 70, 10]], [0, 0, 0])
    found = Detections([BOX, [90, 90, 99, 99], AWAY, [60, 0, 70, 10]], [0.9, 0.8, 0.7, 0.6], [0] * 4)
    assert ap50(found, truth) == [pytest.approx((34 * 1 + 67 * 0.75) / 101)]


def test_a_box_is_found_once():
    truth = Labels([BOX, AWAY], [0, 0])
    twice = Detections([BOX, BOX, AWAY], [0.9, 0.8, 0.7], [0, 0, 0])
    assert ap50(twice, truth) == [pytest.approx((51 * 1 + 50 * 2 / 3) / 101)]


def test_the_higher_score_chooses_first_and_takes_the_nearest_box():
    near, far = [0, 0, 10, 10], [0, 0, 10, 7]
    truth = Labels([near, far], [0, 0])
    sharp = Detections([[0, 0, 10, 9], [0, 0, 10, 6]], [0.9, 0.8], [0, 0])  # IoU .9 and .78; .6 and .86
    found = average_precision([sharp], [truth], 1)[0]
    assert found[:8].tolist() == [1] * 8  # up to 0.85
    assert found[8] == pytest.approx(51 / 101)  # at 0.9 the first alone
    assert found[9] == 0


def test_of_two_boxes_equally_near_the_last_is_taken():
    """COCO's rule; here it decides whether the second detection still finds its own box."""
    left, right = [0, 0, 10, 10], [4, 0, 14, 10]
    between = Detections([[2, 0, 12, 10], left], [0.9, 0.8], [0, 0])
    for boxes, expected in (([left, right], 1), ([right, left], 51 / 101)):
        truth = Labels(boxes, [0, 0])
        assert ap50(between, truth) == [pytest.approx(expected)]
        assert coco([between], [truth], 1)[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(("width", "hits"), [(4.99, 0), (5, 1), (7.49, 5), (7.5, 6), (9.5, 10), (10, 10)])
def test_an_iou_equal_to_the_threshold_is_a_hit(width, hits):
    found = average_precision([Detections([[0, 0, width, 10]], [1], [0])], [Labels([[0, 0, 10, 10]], [0])], 1)
    assert found[0].tolist() == [1] * hits + [0] * (10 - hits)


def test_other_classes_and_other_images_do_not_match():
    truth = Labels([BOX, AWAY], [0, 1])
    assert ap50(Detections([AWAY, BOX], [0.9, 0.8], [0, 1]), truth, classes=2) == [0, 0]
    scores = mean_average_precision([Detections([BOX], [0.9], [0]), NONE], [EMPTY, Labels([BOX], [0])], 1)
    assert scores.map50 == 0


def test_images_are_ranked_together():
    sure, unsure = Detections([AWAY], [0.9], [0]), Detections([BOX], [0.8], [0])
    found = mean_average_precision([unsure, sure], [Labels([BOX], [0]), EMPTY], 1)
    assert found.map50 == pytest.approx(0.5)


def test_a_class_without_truth_is_nan_and_its_detections_count_nowhere():
    scores = mean_average_precision([Detections([BOX, AWAY], [0.9, 1.0], [0, 1])], [Labels([BOX], [0])], 3)
    assert scores.ap50[0] == scores.ap50_95[0] == 1
    assert np.isnan(scores.ap50[1:]).all() and np.isnan(scores.ap50_95[1:]).all()
    assert scores.map50 == scores.map50_95 == 1


@pytest.mark.parametrize(("detections", "truths"), [([], []), ([NONE], [EMPTY]), ([([], [], [])], [([], [])])])
def test_nothing_at_all_is_nan(detections, truths):
    scores = mean_average_precision(detections, truths, 2)
    assert np.isnan([scores.map50, scores.map50_95, *scores.ap50, *scores.ap50_95]).all()


def test_the_limit_is_of_one_class_in_one_image_and_keeps_the_best():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(4)]
    truth, found = Labels(boxes, [0, 0, 0, 1]), Detections(boxes, [0.1, 0.9, 0.5, 0.2], [0, 0, 0, 1])
    by_limit = [average_precision([found], [truth], 2, limit)[:, 0] for limit in (1, 2, 3)]
    np.testing.assert_allclose(by_limit, [[34 / 101, 1], [67 / 101, 1], [1, 1]])


def test_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9]], float)
    b = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [0, 0, 5, 20], [5, 5, 5, 9]], float)
    expected = [[1, 25 / 175, 0, 50 / 150, 0], [0] * 5]
    np.testing.assert_allclose(box_iou(a, b), expected)


# Properties


@given(seed=st.integers(0, 10**6), shift=st.integers(-50, 50), factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_moving_scaling_and_another_order_change_nothing(seed, shift, factor):
    detections, truths = scene(seed)
    rng = np.random.default_rng(seed)
    detections = [d._replace(scores=rng.permutation(len(d.scores)) + 100 * i) for i, d in enumerate(detections)]
    before = average_precision(detections, truths, 3)
    assert np.nanmax(before, initial=0) <= 1 and np.nanmin(before, initial=1) >= 0
    moved = [d._replace(boxes=factor * (d.boxes + shift)) for d in detections]
    moved_truths = [t._replace(boxes=factor * (t.boxes + shift)) for t in truths]
    np.testing.assert_array_equal(average_precision(moved, moved_truths, 3), before)
    order = rng.permutation(len(truths))
    mixed = [_shuffled(detections[index], rng) for index in order]
    np.testing.assert_allclose(average_precision(mixed, [truths[index] for index in order], 3), before)
    raised = [d._replace(scores=np.exp(np.asarray(d.scores) / 1000)) for d in detections]
    np.testing.assert_array_equal(average_precision(raised, truths, 3), before)


def _shuffled(detected, rng):
    order = rng.permutation(len(detected.scores))
    return Detections(*(np.asarray(array)[order] for array in detected))


@given(seed=st.integers(0, 10**6))
def test_the_truth_itself_is_perfect(seed):
    _, truths = scene(seed)
    found = [Detections(truth.boxes, np.ones(len(truth.labels)), truth.labels) for truth in truths]
    perfect = average_precision(found, truths, 3)
    assert (perfect[~np.isnan(perfect)] == 1).all()
    present = {int(label) for truth in truths for label in truth.labels}
    assert [not np.isnan(row).any() for row in perfect] == [label in present for label in range(3)]


def test_inputs_stay_as_they_are():
    detections, truths = scene(1)
    before = [np.array(array) for image in (*detections, *truths) for array in image]
    average_precision(detections, truths, 3)
    for array, old in zip((array for image in (*detections, *truths) for array in image), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_thousands_of_images_take_seconds():
    detections, truths = scene(0, images=2000, classes=6, side=500, most=20)
    start = time.process_time()
    mean_average_precision(detections, truths, 6)
    assert time.process_time() - start < 20  # about 1 s on a quiet machine


# Errors


GOOD, TRUE = Detections([BOX], [0.5], [0]), Labels([BOX], [0])


@pytest.mark.parametrize(
    ("detected", "true", "message"),
    [
        (GOOD._replace(boxes=[[1, 2, 3]]), TRUE, r"image 1: detections must have boxes \(N, 4\) and labels \(N,\)"),
        (GOOD._replace(labels=[0, 0]), TRUE, "image 1: detections must have boxes"),
        (GOOD._replace(boxes=np.zeros((0, 4))), TRUE, "image 1: detections must have boxes"),
        (GOOD._replace(scores=[0.5, 0.5]), TRUE, "image 1: detections have 1 boxes and scores of"),
        (GOOD._replace(scores=[np.nan]), TRUE, "image 1: scores of detections must be finite"),
        (GOOD._replace(boxes=[[0, 0, np.inf, 1]]), TRUE, "image 1: boxes of detections must be finite xyxy"),
        (GOOD._replace(boxes=[[20, 10, 10, 20]]), TRUE, "image 1: boxes of detections must be finite xyxy"),
        (GOOD._replace(labels=[2]), TRUE, r"image 1: labels of detections must be integers in 0\.\.1"),
        (GOOD._replace(labels=[-1]), TRUE, "image 1: labels of detections"),
        (GOOD._replace(labels=[0.0]), TRUE, "image 1: labels of detections"),
        (GOOD, TRUE._replace(labels=[2]), "image 1: labels of truth"),
        (GOOD, TRUE._replace(boxes=[[0, 9, 9, 0]]), "image 1: boxes of truth"),
        (GOOD, TRUE._replace(boxes=[BOX, BOX]), "image 1: truth must have boxes"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(detected, true, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision([GOOD, detected], [TRUE, true], 2)


def test_lists_of_different_lengths_and_numbers_below_1_are_refused():
    with pytest.raises(ValueError, match="got 1 detections and 2 truths"):
        mean_average_precision([GOOD], [TRUE, TRUE], 1)
    for classes, limit in ((0, 100), (1, 0)):
        with pytest.raises(ValueError, match="classes and max_detections must be at least 1"):
            mean_average_precision([GOOD], [TRUE], classes, limit)
