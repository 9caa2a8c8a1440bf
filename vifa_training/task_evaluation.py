"""What task networks predict on labelled pairs, and how good that is, pooled over folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vifa_runtime.decode import decode_detections
from vifa_runtime.metrics import (
    DetectionMatches,
    Detections,
    Labels,
    confusion_matrices,
    match_detections,
    mean_iou,
    paired_bootstrap,
    pooled_confusion,
    pooled_map50,
)
from vifa_runtime.scoring import EVALUATION_DETECTIONS, EVALUATION_IOU, LOWEST_SCORE
from vifa_training.data import DataSet, Sample
from vifa_training.pictures import Picture
from vifa_training.task_recipe import TaskRecipe
from vifa_training.tasks import TaskNetwork
from vifa_training.tasks.graph import DeployedTask

BLOCK = 4  # neighbouring images that a resample keeps together


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one pair, in its pixels.

    Attributes:
        name: of the pair.
        detections: of a detector; None of a segmenter.
        mask: (H,W) uint8 class ids of a segmenter; None of a detector.
    """

    name: str
    detections: Detections | None = None
    mask: NDArray[np.uint8] | None = None


def predict(task: TaskNetwork, picture: Picture, pairs: DataSet, shrink: int = 1) -> list[Prediction]:
    """Predict every pair of a data set from what `picture` shows of it, as the exported graphs do."""
    return [predict_one(task, picture(pairs[i]), pairs.names[i], shrink) for i in range(len(pairs))]


@torch.no_grad()
def predict_one(task: TaskNetwork, shown: NDArray[np.uint8], name: str = "", shrink: int = 1) -> Prediction:
    """Predict one picture (H,W,3)."""
    device = next(task.parameters()).device
    deployed = DeployedTask(task, shrink).eval()
    result = {key: value[0].cpu().numpy() for key, value in deployed(torch.tensor(shown)[None].to(device)).items()}
    if task.kind == "segmentation":
        return Prediction(name, mask=result["mask"])
    height, width = shown.shape[:2]
    boxes = np.clip(result["boxes"], 0, np.array([width, height, width, height], np.float32))
    found = decode_detections(boxes, result["scores"], LOWEST_SCORE, EVALUATION_IOU, EVALUATION_DETECTIONS)
    return Prediction(name, detections=found)


def evaluate_task(task: TaskNetwork, picture: Picture, pairs: DataSet, recipe: TaskRecipe) -> dict[str, float]:
    """Metric -> value of a task network on labelled pairs; NaN where it is not defined."""
    return measure_predictions(recipe, pairs, predict(task, picture, pairs, recipe.shrink))


def measure_predictions(recipe: TaskRecipe, pairs: DataSet, made: Sequence[Prediction]) -> dict[str, float]:
    """Metric -> value of predictions for all of the labelled pairs, in their order; NaN where it is not defined."""
    pooled = Pooled(recipe, [pairs[index] for index in range(len(pairs))], {"": made})
    return {metric: score(pooled.of[""], images) for metric, (images, score) in pooled.metrics().items()}


class Pooled:
    """Out-of-fold predictions of several methods on the same pairs, ready to be averaged over any of them."""

    def __init__(
        self, recipe: TaskRecipe, pairs: Sequence[Sample], predictions: Mapping[str, Sequence[Prediction]]
    ) -> None:
        """Hold one prediction of each method for each pair, in the order of `pairs`.

        Args:
            pairs: labelled, in the order of their stamps or names.
            predictions: method -> predictions; those of a detector or a segmenter, as the recipe says.
        """
        self.recipe, self.tags = recipe, [pair.tags for pair in pairs]
        count = len(recipe.classes)
        if recipe.kind == "detection":
            truths = [Labels(pair.boxes, pair.labels) for pair in pairs]
            self.of = {
                method: match_detections([p.detections for p in made], truths, count)
                for method, made in predictions.items()
            }
        else:
            masks = [pair.mask for pair in pairs]
            self.of = {
                method: confusion_matrices(masks, [p.mask for p in made], count) for method, made in predictions.items()
            }

    def rows(
        self, reference: str, resamples: int = 1000, seed: int = 0, against: str | None = None
    ) -> list[dict[str, Any]]:
        """Flat rows `{method, metric, mean, low, high, ratio, ratio_low, ratio_high, pairs}`, a metric after the other.

        `low` and `high` are the 95 % bootstrap interval, `ratio` that to the method `reference` on the same resamples.
        With a method `against`, `gain`, `gain_low` and `gain_high` say how much more that one has, likewise paired.
        All are rounded to four decimals, and None where they are not defined.
        """
        rows = []
        for metric, (images, score) in self.metrics().items():
            statistics = {method: _statistic(score, made, images) for method, made in self.of.items()}
            groups = [",".join(self.tags[i]) for i in images]
            smallest = min(groups.count(group) for group in set(groups)) if groups else 0
            compare = partial(
                paired_bootstrap, statistics, len(images), resamples=resamples, seed=seed, groups=groups,
                block=min(BLOCK, smallest),
            )  # fmt: skip
            gains = compare(reference=against) if against else {}
            for method, (value, _, ratio) in compare(reference=reference).items():
                numbers = {
                    "mean": value.value, "low": value.low, "high": value.high,
                    "ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high,
                }  # fmt: skip
                if gains:
                    less = gains[method].difference
                    numbers |= {"gain": -less.value, "gain_low": -less.high, "gain_high": -less.low}
                rounded = {key: round(number, 4) if np.isfinite(number) else None for key, number in numbers.items()}
                rows.append({"method": method, "metric": metric, **rounded, "pairs": len(images)})
        return rows

    def metrics(self) -> dict[str, tuple[NDArray[np.int64], Callable[[Any, NDArray[np.int64]], float]]]:
        """Metric -> the images that it is of, and how it is computed of some of them.

        `map50` and its parts by day and night are means over the classes that are not rare, `map50_all` over all; those
        of which there is no box in the metric's images are left out, and a resample has the mean of the same classes.
        """
        every = np.arange(len(self.tags))
        if self.recipe.kind == "segmentation":
            return {"miou": (every, lambda made, i: mean_iou(pooled_confusion(made, i)))}
        names = list(self.recipe.classes)
        primary = [index for index, name in enumerate(names) if name not in self.recipe.rare]
        metrics = {
            "map50": (every, partial(_map50, every, primary)),
            "map50_all": (every, partial(_map50, every, range(len(names)))),
        }
        for tag in ("day", "night"):
            images = np.array([i for i, tags in enumerate(self.tags) if tag in tags], np.int64)
            if len(images):
                metrics[f"map50_{tag}"] = (images, partial(_map50, images, primary))
        for index, name in enumerate(names):
            metrics[f"ap50_{name}"] = (every, lambda made, i, index=index: pooled_map50(made, i, [index]))
        return metrics


def _map50(
    images: NDArray[np.int64], labels: Sequence[int], made: DetectionMatches, chosen: NDArray[np.int64]
) -> float:
    """mAP@0.5 of `chosen`, a resample of `images`, over those of `labels` that have a box in `images`.

    NaN where one of them has none in the resample: a mean over fewer classes would be another quantity.
    """
    there = [label for label in labels if made.ground_truths[images, label].any()]
    if not made.ground_truths[np.ix_(chosen, there)].any(axis=0).all():
        return float("nan")
    return pooled_map50(made, chosen, there)


def _statistic(score: Callable[[Any, NDArray], float], made: Any, images: NDArray) -> Callable[[NDArray], float]:
    return lambda chosen: score(made, images[chosen])
