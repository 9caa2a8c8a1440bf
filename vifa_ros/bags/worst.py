"""The pairs on which a task does worst, as pictures beside the report."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.evaluating import Outcome
from vifa_ros.bags.subjects import Subject
from vifa_runtime.bundle import Task
from vifa_runtime.metrics import Detections
from vifa_runtime.render import contact_sheet, draw_detections, draw_mask, render_overlay
from vifa_runtime.thermal import ThermalNormaliser

FOLDER = "worst"
METRICS = ("vif", "ssim", "map50_all", "miou")  # of which less is worse
_TILE = 320  # pixels
_QUALITY = 85  # of JPEG


@dataclass(frozen=True)
class _Place:
    """What one picture shows."""

    index: int
    bundle: str
    task: str

    @property
    def file(self) -> str:
        return f"{self.index:06d}-{self.bundle}-{self.task}.jpg"


class WorstPairs:
    """Keeps, of each task and metric, the pictures of the few pairs with the least values."""

    def __init__(self, count: int) -> None:
        """Keep `count` pairs of each; 0 for none."""
        self._count = count
        self._heaps: dict[tuple[str, str, str], list[tuple[float, int, int, _Place]]] = {}
        self._pictures: dict[_Place, bytes] = {}

    def offer(self, outcome: Outcome, which: int, subject: Subject, task: Task, own: Mapping[str, float]) -> None:
        """Look at one pair of a task.

        Args:
            which: the subject's place in the outcome.
            own: metric -> value of this pair.
        """
        index, stamp = outcome.job.pair.index, outcome.job.pair.visible_stamp
        place = _Place(index, subject.name, task.name)
        is_new = False
        for metric in METRICS:
            if metric not in own or not self._count:
                continue
            heap = self._heaps.setdefault((subject.name, task.name, metric), [])
            entry = (-own[metric], -index, stamp, place)  # the best of the worst is at the top; of equals the later one
            if len(heap) < self._count:
                heapq.heappush(heap, entry)
                is_new = True
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
                is_new = True
        if is_new:
            self._pictures[place] = _picture(outcome, which, task)
            kept = {entry[3] for heap in self._heaps.values() for entry in heap}
            self._pictures = {place: data for place, data in self._pictures.items() if place in kept}

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write the pictures into a new folder in `folder`; rows `{bundle, task, metric, value, stamp, file}`."""
        if self._pictures:
            (folder / FOLDER).mkdir()
        for place, data in self._pictures.items():
            (folder / FOLDER / place.file).write_bytes(data)
        return [
            {"bundle": bundle, "task": task, "metric": metric, "value": -value, "stamp": stamp, "file": place.file}
            for (bundle, task, metric), heap in self._heaps.items()
            for value, _, stamp, place in sorted(heap, reverse=True)
        ]


def _picture(outcome: Outcome, which: int, task: Task) -> bytes:
    """A JPEG: both images, what the task made of them, and the truth where it is known."""
    job, results = outcome.job, outcome.results[which]
    assert job.visible is not None and job.thermal is not None  # of a pair that was measured
    tiles: dict[str, NDArray] = {
        "visible": job.visible,
        "thermal": ThermalNormaliser()(job.thermal),
        "fused" if task.kind == "fusion" else "found": render_overlay(results, task),
    }
    truth = job.truths[which]
    if task.name in truth.boxes:
        boxes = truth.boxes[task.name]
        shown = Detections(boxes.boxes, np.ones(len(boxes.labels), np.float32), boxes.labels)
        tiles["truth"] = draw_detections(results.fused[task.name], shown, task.classes)
    elif task.name in truth.masks:
        tiles["truth"] = draw_mask(results.fused[task.name], truth.masks[task.name], task.classes)
    sheet = contact_sheet([list(tiles.values())], list(tiles), _TILE)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return encoded.tobytes()
