"""Confusion matrix and IoU against scikit-image and plain sets of pixels, by hand, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import contingency_table

from vifa_runtime.metrics import class_iou, confusion_matrix, mean_iou

pytestmark = pytest.mark.filterwarnings("error")


def masks(seed, classes, size=(13, 17), unknown=0.1):
    """A true mask with some 255, and a guess that is right at about every second pixel."""
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, (2, *size)).astype(np.uint8)
    predicted = np.where(rng.random(size) < 0.5, truth, guess)
    truth[rng.random(size) < unknown] = 255
    return truth, predicted


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 20), unknown=st.sampled_from([0, 0.3, 0.99]))
def test_the_confusion_matrix_equals_scikit_image(seed, classes, unknown):
    truth, predicted = masks(seed, classes, unknown=unknown)
    table = contingency_table(truth.astype(int), predicted.astype(int), ignore_labels=[255]).toarray()
    expected = np.zeros((256, 256), int)
    expected[: table.shape[0], : table.shape[1]] = table
    confusion = confusion_matrix(truth, predicted, classes)
    np.testing.assert_array_equal(confusion, expected[:classes, :classes])
    assert confusion.sum() == np.count_nonzero(truth != 255)


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 12))
def test_iou_is_that_of_the_sets_of_pixels(seed, classes):
    pairs = [masks(seed + image, classes, size=(5, 4)) for image in range(3)]
    confusion = sum(confusion_matrix(truth, predicted, classes) for truth, predicted in pairs)
    expected = []
    for label in range(classes):
        true, guess = set(), set()
        for image, (truth, predicted) in enumerate(pairs):
            for place in np.ndindex(truth.shape):
                if truth[place] != 255:
                    true |= {(image, place)} if truth[place] == label else set()
                    guess |= {(image, place)} if predicted[place] == label else set()
        expected.append(len(true & guess) / len(true | guess) if true | guess else np.nan)
    np.testing.assert_allclose(class_iou(confusion), expected)
    known = [value for value in expected if not np.isnan(value)]
    assert mean_iou(confusion) == pytest.approx(sum(known) / len(known))


def test_by_hand():
    truth = [[0, 0, 1], [1, 255, 2]]
    predicted = [[0, 1, 1], [1, 0, 0]]
    confusion = confusion_matrix(truth, predicted, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert class_iou(confusion)[:3].tolist() == [pytest.approx(1 / 3), pytest.approx(2 / 3), 0]
    assert np.isnan(class_iou(confusion)[3])  # in neither
    assert mean_iou(confusion) == pytest.approx(1 / 3)


def test_a_class_predicted_and_nowhere_true_counts_as_0():
    confusion = confusion_matrix([[0, 0, 0, 0]], [[0, 0, 0, 1]], 3)
    assert class_iou(confusion)[:2].tolist() == [0.75, 0]
    assert mean_iou(confusion) == 0.375


def test_masks_with_nothing_known_have_no_iou():
    confusion = confusion_matrix(np.full((4, 4), 255), np.zeros((4, 4), int), 2)
    assert confusion.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(class_iou(confusion)).all()
    assert np.isnan(mean_iou(confusion))


def test_what_is_predicted_where_the_truth_is_unknown_is_not_looked_at():
    assert confusion_matrix([[255, 1]], [[200, 1]], 2).tolist() == [[0, 0], [0, 1]]
    assert confusion_matrix([[255, 1]], [[255, 1]], 2).tolist() == [[0, 0], [0, 1]]


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 8))
def test_swapping_transposes_and_renaming_classes_permutes(seed, classes):
    truth, predicted = masks(seed, classes, unknown=0)
    confusion = confusion_matrix(truth, predicted, classes)
    np.testing.assert_array_equal(confusion_matrix(predicted, truth, classes), confusion.T)
    np.testing.assert_array_equal(class_iou(confusion.T), class_iou(confusion))
    names = np.random.default_rng(seed).permutation(classes)
    np.testing.assert_array_equal(
        class_iou(confusion_matrix(names[truth], names[predicted], classes))[names], class_iou(confusion)
    )
    assert mean_iou(confusion_matrix(truth, truth, classes)) == 1


@pytest.mark.parametrize(
    ("truth", "predicted", "classes", "message"),
    [
        ([[0, 2]], [[0, 0]], 2, r"mask truth holds class 2; expected 0\.\.1"),
        ([[0, -1]], [[0, 0]], 2, "mask truth holds class -1"),
        ([[0, 1]], [[0, 7]], 2, "mask predicted holds class 7"),
        ([[0, 1]], [[0, 255]], 2, "mask predicted holds class 255"),
        ([[0.0, 1.0]], [[0, 1]], 2, "mask truth must hold integers, got float64"),
        ([[0, 1]], [[True, False]], 2, "mask predicted must hold integers, got bool"),
        ([[0, 1]], [[0, 1, 1]], 2, r"two masks of one shape \(H, W\), got \(1, 2\) and \(1, 3\)"),
        ([0, 1], [0, 1], 2, r"two masks of one shape \(H, W\)"),
        ([[0]], [[0]], 0, r"classes must be in 1\.\.255, got 0"),
        ([[0]], [[0]], 256, r"classes must be in 1\.\.255, got 256"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(truth, predicted, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(truth, predicted, classes)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.zeros(4), [[1, -1], [0, 1]], [[np.nan]]])
def test_what_is_no_confusion_matrix_is_refused(wrong):
    with pytest.raises(ValueError, match=r"confusion matrix \(K, K\)"):
        class_iou(wrong)
