"""Random images full of boxes, for the tests of detection metrics."""

import numpy as np

from vifa_runtime.metrics import Detections, Labels


def scene(seed, images=6, classes=3, side=60, most=9):
    """Truths and detections: jittered true boxes, some twice, some of another class, some of nothing; equal scores."""
    rng = np.random.default_rng(seed)
    detections, truths = [], []
    for _ in range(images):
        corners = rng.integers(0, side, (rng.integers(0, most), 2))
        boxes = np.concatenate([corners, corners + rng.integers(4, 24, corners.shape)], axis=1)
        labels = rng.integers(0, classes, len(boxes))
        repeats = rng.integers(0, 3, len(boxes))
        found = np.repeat(boxes, repeats, axis=0)
        found += rng.integers(-2, 3, found.shape)
        guessed = np.repeat(labels, repeats)
        wrong = rng.random(len(found)) < 0.2
        guessed[wrong] = rng.integers(0, classes, wrong.sum())
        stray = rng.integers(0, side, (rng.integers(0, 4), 2))
        found = np.concatenate([found, np.concatenate([stray, stray + 10], axis=1)])
        guessed = np.concatenate([guessed, rng.integers(0, classes, len(stray))])
        detections.append(Detections(found, np.round(rng.random(len(found)), 1), guessed))
        truths.append(Labels(boxes, labels))
    return detections, truths
