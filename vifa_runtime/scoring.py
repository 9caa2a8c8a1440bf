"""How good a bundle is, pair by pair: the same numbers whatever the pairs come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Bundle, Task
from vifa_runtime.geometry import resize
from vifa_runtime.labels import Labels
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.metrics import (
    Detections,
    Truth,
    confusion_matrix,
    entropy,
    fusion_ssim,
    fusion_vif,
    match_detections,
    mean_iou,
    pooled_detection_scores,
    spatial_frequency,
)
from vifa_runtime.pipeline import Results
from vifa_runtime.thermal import ThermalNormaliser

LOWEST_SCORE = 0.001  # evaluation looks at the whole curve of precision and recall
EVALUATION_IOU = 0.6
EVALUATION_DETECTIONS = 300
FUSION_METRICS = ("en", "sf", "vif", "ssim")


def for_evaluation(bundle: Bundle) -> Bundle:
    """The same bundle in memory, whose detectors give all they find, as average precision needs it."""
    tasks = (
        replace(task, score=LOWEST_SCORE, iou=EVALUATION_IOU, max_detections=EVALUATION_DETECTIONS)
        for task in bundle.tasks
    )
    return replace(bundle, tasks=tuple(tasks))


def gray_thermal(raw: NDArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A thermal image of any depth and size in whole gray levels and the visible image's size, for every method."""
    warm = ThermalNormaliser()(raw)
    if warm.shape != shape:
        warm = resize(warm, (shape[0], shape[1]))
    return np.rint(255 * warm).astype(np.float64)


def measure_fusion(
    visible: NDArray[np.float64], thermal: NDArray[np.float64], fused: NDArray[np.float64]
) -> dict[str, float]:
    """FUSION_METRICS of one fused luma: EN and SF of it alone, VIF and SSIM as sums over its two sources.

    Args:
        visible, thermal, fused: (H,W), gray levels 0..255; 41 pixels and more a side.

    Raises:
        ValueError: images of different shapes, smaller, or not finite.
    """
    return {
        "en": entropy(fused),
        "sf": spatial_frequency(fused),
        "vif": fusion_vif(visible, thermal, fused),
        "ssim": fusion_ssim(visible, thermal, fused),
    }


@dataclass
class _OfTask:
    """What was found and what is there, of one task."""

    fusion: list[dict[str, float]] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    confusion: NDArray[np.int64] | None = None
    masks: int = 0


class Scores:
    """Collects the results of pairs, and gives every metric that their labels allow."""

    def __init__(self, bundle: Bundle) -> None:
        """Nothing is collected yet; `bundle` is one of `for_evaluation`."""
        self._tasks = {task.name: task for task in bundle.tasks}
        self._of: dict[str, _OfTask] = {name: _OfTask() for name in self._tasks}

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
        luma = np.rint(rgb_to_luma(visible)).astype(np.float64)
        for name, image in results.fused.items():
            own = self._of[name]
            fused = np.rint(rgb_to_luma(image)).astype(np.float64)
            own.fusion.append(measure_fusion(luma, thermal, fused))
            if boxes and name in boxes and name in results.detections:
                own.found.append(results.detections[name])
                own.truths.append(Truth(*boxes[name]))
            if masks and name in masks and name in results.masks:
                matrix = confusion_matrix(masks[name], results.masks[name], len(self._tasks[name].classes))
                own.confusion = matrix if own.confusion is None else own.confusion + matrix
                own.masks += 1

    def rows(self) -> list[dict[str, Any]]:
        """Rows `{task, metric, value, pairs}`; a metric that is not defined on these pairs has no row."""
        rows = []
        for name, own in self._of.items():
            values = {
                metric: (float(np.mean([one[metric] for one in own.fusion])), len(own.fusion))
                for metric in FUSION_METRICS
                if own.fusion
            }
            values |= _detection_values(self._tasks[name], own)
            if own.confusion is not None:
                values["miou"] = (mean_iou(own.confusion), own.masks)
            rows += [
                {"task": name, "metric": metric, "value": value, "pairs": pairs}
                for metric, (value, pairs) in values.items()
                if np.isfinite(value)
            ]
        return rows


def _detection_values(task: Task, own: _OfTask) -> dict[str, tuple[float, int]]:
    if not own.truths:
        return {}
    names = [known.name for known in task.classes]
    scores = pooled_detection_scores(match_detections(own.found, own.truths, len(names), EVALUATION_DETECTIONS))
    values = {"map50_all": scores.map50, "map50_95_all": scores.map50_95}
    values |= {f"ap50_{name}": float(value) for name, value in zip(names, scores.ap50, strict=True)}
    return {metric: (value, len(own.truths)) for metric, value in values.items()}
