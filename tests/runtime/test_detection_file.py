"""mAP of a file of matches: equal to the bit to that of the same matches in memory."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.metrics import detection_file as module
from vifa_runtime.metrics import match_image, pool_matches, pooled_detection_scores
from vifa_runtime.metrics.detection_file import DetectionFile

CLASSES = 3


def random_image(rng, levels):
    """What an image adds, with many equal scores: boxes near true ones and others."""
    corners = rng.integers(0, 50, (rng.integers(0, 6), 2))
    true = np.hstack([corners, corners + 10]).astype(np.float32)
    labels = rng.integers(0, CLASSES, len(true))
    near = np.repeat(true, 2, axis=0) + rng.integers(-3, 4, (2 * len(true), 4))
    far = np.hstack([low := rng.integers(0, 50, (rng.integers(0, 8), 2)), low + 9])
    boxes = np.vstack([near, far]).astype(np.float32)
    found_labels = np.concatenate([np.repeat(labels, 2), rng.integers(0, CLASSES, len(far))])
    scores = (rng.integers(1, levels + 1, len(boxes)) / levels).astype(np.float32)
    return match_image((boxes, scores, found_labels), (true, labels), CLASSES)


def same(first, second):
    for name in ("map50", "map50_95", "ap50", "ap50_95"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([3, 50, 10**6]), st.sampled_from([1, 7, 1 << 16]))
def test_scores_are_those_of_the_matches_in_memory(seed, count, levels, chunk):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, levels) for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        file = DetectionFile(CLASSES, io.BytesIO())
        for image in images:
            file.add(image)
        assert len(file) == count and file.detections == sum(len(image.labels) for image in images)
        matches = pool_matches(images, CLASSES)
        same(file.scores(), pooled_detection_scores(matches))
        chosen = rng.random(count) < 0.5
        same(file.scores(chosen), pooled_detection_scores(matches, np.flatnonzero(chosen)))
        loaded = file.load()
    np.testing.assert_array_equal(loaded.ground_truths, matches.ground_truths)
    for one, other in zip(loaded.ranked, matches.ranked, strict=True):
        for name in ("images", "scores", "hits"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_an_image_can_be_added_after_scores_were_asked_for():
    rng = np.random.default_rng(0)
    images = [random_image(rng, 10) for _ in range(6)]
    file = DetectionFile(CLASSES, io.BytesIO())
    for number, image in enumerate(images):
        file.add(image)
        same(file.scores(), pooled_detection_scores(pool_matches(images[: number + 1], CLASSES)))


def test_memory_does_not_grow_with_what_is_found(tmp_path):
    rng = np.random.default_rng(0)
    boxes = np.tile(np.array([[20, 20, 30, 30]], np.float32), (300, 1))
    true = (boxes[:1] - 20, np.array([0]))
    with (tmp_path / "matches").open("w+b") as stored:
        file = DetectionFile(CLASSES, stored)
        tracemalloc.start()
        for _ in range(1500):
            found = (boxes, rng.random(300).astype(np.float32), np.arange(300) % CLASSES)
            file.add(match_image(found, true, CLASSES))
        assert file.scores().map50 == 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert file.detections == 1500 * 300
    assert peak < 6e6, "in memory, the scores and hits alone would be 8 MB, and 4 MB more to rank them"
