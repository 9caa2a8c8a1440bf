"""How good a bundle is, pair by pair: the same numbers whatever the pairs come from.

`vifa-train evaluate` on a folder, `vifa evaluate` on a bag and `vifa bundle quantize` all measure here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Bundle, Task
from vifa_runtime.geometry import resize
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.metrics import (
    DetectionScores,
    ImageMatches,
    Labels,
    class_iou,
    confusion_matrix,
    entropy,
    match_image,
    mean_iou,
    pool_matches,
    pooled_detection_scores,
    spatial_frequency,
)
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.metrics.ssim import PRINTED_RANGE, Windowed, ssim_of
from vifa_runtime.metrics.validation import as_gray
from vifa_runtime.metrics.vif import SMALLEST, VifReference, scales_of
from vifa_runtime.pipeline import Results
from vifa_runtime.thermal import POLARITIES, ThermalNormaliser, ThermalSettings

LOWEST_SCORE = 0.001  # evaluation looks at the whole curve of precision and recall
EVALUATION_IOU = 0.6
EVALUATION_DETECTIONS = 300  # of all classes together that a pair keeps; of one class, metrics count MOST_DETECTIONS
FUSION_METRICS = ("en", "sf", "vif", "ssim")
EXTENDED_METRICS = (*FUSION_METRICS, "ssim_mean", "target_contrast", "ssim_visible")
WARMEST = 98  # percentile of the thermal image above which a pixel counts for `target_contrast`


def for_evaluation(bundle: Bundle) -> Bundle:
    """The same bundle in memory, whose detectors give all they find, as average precision needs it."""
    tasks = (
        replace(task, score=LOWEST_SCORE, iou=EVALUATION_IOU, max_detections=EVALUATION_DETECTIONS)
        for task in bundle.tasks
    )
    return replace(bundle, tasks=tuple(tasks))


def gray_thermal(raw: NDArray, shape: tuple[int, ...], polarity: str = POLARITIES[0]) -> NDArray[np.float64]:
    """A thermal image of any depth and size in whole gray levels and the visible image's size, for every method.

    Each image is normalised by itself, whatever a bundle's own settings are, so that methods and pairs compare.
    """
    warm = ThermalNormaliser(ThermalSettings(polarity=polarity))(raw)
    if warm.shape != shape:
        warm = resize(warm, (shape[0], shape[1]))
    return np.rint(255 * warm).astype(np.float64)


def gray_levels(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The luma (H,W) of an RGB image (H,W,3) in whole gray levels."""
    return np.rint(rgb_to_luma(rgb)).astype(np.float64)


class Sources:
    """The two images of one pair in gray levels, against which fused images are measured. Used by one thread at a time.

    What a metric needs of a source alone is computed once, however many tasks fuse the pair.
    """

    def __init__(
        self, visible: NDArray[np.float64], thermal: NDArray[np.float64], buffers: Buffers | None = None
    ) -> None:
        """Hold both images, (H,W), 0..255, at least 41x41 as VIF needs them.

        Args:
            buffers: those of the pair before, which is done with, for speed; None for new ones.

        Raises:
            ValueError: images of different shapes, smaller, or not finite.
        """
        self.visible, self.thermal = as_gray(visible, thermal, smallest=SMALLEST)
        self._buffers = buffers or Buffers()

    def measure(self, fused: NDArray[np.float64], metrics: Collection[str] = FUSION_METRICS) -> dict[str, float]:
        """Metrics of one fused luma, in the order of EXTENDED_METRICS.

        `en` and `sf` are of it alone, `vif` and `ssim` sums over both sources, `ssim_mean` the mean over both of the
        standard SSIM and `ssim_visible` that of the visible one; `target_contrast` is how much brighter the warmest
        2 % of the pixels are than the image, in gray levels.

        Args:
            fused: (H,W), gray levels 0..255, of the sources' shape.
            metrics: those of EXTENDED_METRICS to compute.

        Raises:
            ValueError: an image of another shape, or not finite.
        """
        _, fused = as_gray(self.visible, fused)
        buffers, values = self._buffers, dict[str, float]()
        if "en" in metrics:
            values["en"] = entropy(fused)
        if "sf" in metrics:
            values["sf"] = spatial_frequency(fused)
        if "vif" in metrics:
            scales = scales_of(fused, buffers, "vif fused")
            values["vif"] = sum(source.vif(scales, buffers) for source in self._references)
        if "ssim" in metrics:
            windowed = Windowed.of(fused, "uniform", buffers, "uniform fused")
            values["ssim"] = sum(ssim_of(source, windowed, PRINTED_RANGE, buffers) for source in self._uniform)
        if "ssim_mean" in metrics or "ssim_visible" in metrics:
            windowed = Windowed.of(fused, "gaussian", buffers, "gaussian fused")
            of_sources = [ssim_of(source, windowed, 255.0, buffers) for source in self._gaussian]
            values |= {"ssim_mean": sum(of_sources) / 2, "ssim_visible": of_sources[0]}
        if "target_contrast" in metrics:
            values["target_contrast"] = float(fused[self._warmest].mean() - fused.mean())
        return {metric: values[metric] for metric in EXTENDED_METRICS if metric in metrics}

    @property
    def _named(self) -> dict[str, NDArray[np.float64]]:
        return {"visible": self.visible, "thermal": self.thermal}

    @cached_property
    def _references(self) -> list[VifReference]:
        scales = {name: scales_of(image, self._buffers, f"vif {name}") for name, image in self._named.items()}
        return [VifReference(own, self._buffers, f"vif {name}") for name, own in scales.items()]

    @cached_property
    def _uniform(self) -> list[Windowed]:
        return [Windowed.of(image, "uniform", self._buffers, f"uniform {name}") for name, image in self._named.items()]

    @cached_property
    def _gaussian(self) -> list[Windowed]:
        named = self._named.items()
        return [Windowed.of(image, "gaussian", self._buffers, f"gaussian {name}") for name, image in named]

    @cached_property
    def _warmest(self) -> NDArray[np.bool_]:
        return self.thermal >= np.percentile(self.thermal, WARMEST)


@dataclass(frozen=True, eq=False)
class TaskScore:
    """What one pair adds to the metrics of one task.

    Attributes:
        fusion: metric -> value of its fused image.
        matches: of its boxes; None where the pair has no labels for the task.
        confusion: (K,K) pixels of its mask by true and found class; None where the pair has no mask for the task.
    """

    fusion: Mapping[str, float]
    matches: ImageMatches | None = None
    confusion: NDArray[np.int64] | None = None


def measure_pair(
    bundle: Bundle,
    sources: Sources | None,
    results: Results,
    boxes: Mapping[str, Labels] | None = None,
    masks: Mapping[str, NDArray[np.uint8]] | None = None,
    metrics: Collection[str] = FUSION_METRICS,
) -> dict[str, TaskScore]:
    """Measure what the pipeline gave for one pair, by task.

    Args:
        bundle: one of `for_evaluation`, which the pipeline ran.
        sources: of the pair; None where no fusion metric is wanted.
        results: of that pair; nothing of it is kept.
        boxes, masks: task -> its labels, where the pair has some.
        metrics: of the fused images, see `Sources.measure`.

    Raises:
        ValueError: images or labels that do not fit together.
    """
    scores = {}
    for task in bundle.tasks:
        if task.name not in results.fused:
            continue
        fusion: Mapping[str, float] = {}
        if sources is not None and metrics:
            fusion = sources.measure(gray_levels(results.fused[task.name]), metrics)
        matches = confusion = None
        if boxes and task.name in boxes and task.name in results.detections:
            matches = match_image(results.detections[task.name], boxes[task.name], len(task.classes))
        if masks and task.name in masks and task.name in results.masks:
            confusion = confusion_matrix(masks[task.name], results.masks[task.name], len(task.classes))
        scores[task.name] = TaskScore(fusion, matches, confusion)
    return scores


def detection_values(classes: Sequence[str], images: Sequence[ImageMatches]) -> dict[str, float]:
    """`map50_all` and `map50_95_all`, the means over all classes, and `ap50_<class>`; NaN where it is not defined.

    Args:
        classes: names, in the order of the labels.
        images: what each labelled image adds, as `match_image` gives it.
    """
    return name_scores(classes, pooled_detection_scores(pool_matches(images, len(classes))))


def name_scores(classes: Sequence[str], scores: DetectionScores) -> dict[str, float]:
    """The scores of `detection_values` by the names of their metrics."""
    values = {"map50_all": scores.map50, "map50_95_all": scores.map50_95}
    return values | {f"ap50_{name}": float(value) for name, value in zip(classes, scores.ap50, strict=True)}


def segmentation_values(classes: Sequence[str], confusion: NDArray[np.int64]) -> dict[str, float]:
    """`miou`, and `iou_<class>` of each class, from the pixels (K,K) of all images; NaN where it is not defined."""
    of_class = zip(classes, class_iou(confusion), strict=True)
    return {"miou": mean_iou(confusion), **{f"iou_{name}": float(value) for name, value in of_class}}


@dataclass
class _OfTask:
    """What the pairs so far add to one task."""

    fusion: list[Mapping[str, float]] = field(default_factory=list)
    matches: list[ImageMatches] = field(default_factory=list)
    confusions: list[NDArray[np.int64]] = field(default_factory=list)


class Scores:
    """Collects the results of pairs, and gives every metric that their labels allow."""

    def __init__(self, bundle: Bundle) -> None:
        """Nothing is collected yet; `bundle` is one of `for_evaluation`."""
        self._bundle = bundle
        self._of: dict[str, _OfTask] = {task.name: _OfTask() for task in bundle.tasks}

    def add(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float64],
        results: Results,
        boxes: Mapping[str, Labels] | None = None,
        masks: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        """Take in one pair.

        Args:
            visible: (H,W,3) RGB.
            thermal: (H,W), gray levels 0..255 as the network saw them; 41 pixels and more a side.
            results: of the pipeline on that pair; nothing of it is kept.
            boxes, masks: task -> its labels, where the pair has some.
        """
        sources = Sources(gray_levels(visible), thermal)
        for name, score in measure_pair(self._bundle, sources, results, boxes, masks).items():
            own = self._of[name]
            own.fusion.append(score.fusion)
            if score.matches is not None:
                own.matches.append(score.matches)
            if score.confusion is not None:
                own.confusions.append(score.confusion)

    def rows(self) -> list[dict[str, Any]]:
        """Rows `{task, metric, value, pairs}`; a metric that is not defined on these pairs has no row."""
        rows = []
        for task in self._bundle.tasks:
            for values, pairs in _values(task, self._of[task.name]):
                rows += [
                    {"task": task.name, "metric": metric, "value": value, "pairs": pairs}
                    for metric, value in values.items()
                    if np.isfinite(value)
                ]
        return rows


def _values(task: Task, own: _OfTask) -> list[tuple[dict[str, float], int]]:
    """Metrics of one task with the number of pairs that they are of."""
    names, found = [known.name for known in task.classes], []
    if own.fusion:
        means = {metric: float(np.mean([one[metric] for one in own.fusion])) for metric in own.fusion[0]}
        found.append((means, len(own.fusion)))
    if own.matches:
        found.append((detection_values(names, own.matches), len(own.matches)))
    if own.confusions:
        found.append((segmentation_values(names, np.sum(own.confusions, axis=0)), len(own.confusions)))
    return found
