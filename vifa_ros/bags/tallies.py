"""What is kept of the pairs of a bag of any length: sums, and files that are read again in the end."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Task
from vifa_runtime.metrics.detection_file import DetectionFile
from vifa_runtime.scoring import TaskScore, detection_values, name_scores, segmentation_values

ALL = "all"
MAP, MIOU = "map", "miou"  # as a user chooses them; each is several metrics


class Scratch:
    """Files without a name in one folder, which are gone when it is closed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()

    def new(self) -> BinaryIO:
        """An empty file to write and to read."""
        return self._stack.enter_context(TemporaryFile(dir=self._folder))

    def close(self) -> None:
        """Let go of all files."""
        self._stack.close()


class Rows:
    """Rows for a JSON file, one a line, kept in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.count = file, 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self.count += 1

    def lines(self) -> Iterator[str]:
        """Every row as JSON, in the order added."""
        self._file.seek(0)
        for line in self._file:
            yield line.decode().rstrip("\n")
        self._file.seek(0, 2)


class _OfTag:
    """Sums over the pairs of one tag."""

    def __init__(self, classes: int) -> None:
        self.images = self.masks = 0  # that were measured
        self.totals: dict[str, float] = {}
        self.confusion = np.zeros((classes, classes), np.int64)

    def add(self, score: TaskScore) -> None:
        self.images += bool(score.fusion)
        for metric, value in score.fusion.items():
            self.totals[metric] = self.totals.get(metric, 0.0) + value
        if score.confusion is not None:
            self.masks += 1
            self.confusion += score.confusion

    def absorb(self, other: _OfTag) -> None:
        """Add the sums over other pairs."""
        self.images += other.images
        self.masks += other.masks
        self.confusion += other.confusion
        for metric, total in other.totals.items():
            self.totals[metric] = self.totals.get(metric, 0.0) + total


@dataclass(frozen=True)
class TallySums:
    """What a `TaskTally` knows, as plain data that goes from process to process.

    Attributes:
        tags: tag -> sums over its pairs.
        tag_of_labelled: of each pair with boxes.
        detections: of these pairs, see `DetectionFile.dump`; None of a task that detects nothing.
    """

    tags: Mapping[str, _OfTag]
    tag_of_labelled: Sequence[str]
    detections: tuple[bytes, NDArray[np.uint16]] | None


class TaskTally:
    """What the pairs so far add to the metrics of one task of one bundle.

    Attributes:
        values: metric -> its value of every pair, NaN where it has none; filled only where `keeps` is set.
        confusions: of every pair with a mask, (K,K); likewise.
        labelled, masked: the numbers, from 0, of the pairs with boxes and with a mask.
        detections: what pairs with boxes add.
    """

    def __init__(self, task: Task, scratch: Scratch, keeps: bool) -> None:
        """Begin; `keeps` is for a comparison, which needs what each pair adds: a few hundred bytes a pair."""
        self.task = task
        self.names = [known.name for known in task.classes]
        self.keeps = keeps
        self.values: dict[str, array[float]] = {}
        self.confusions: list[NDArray[np.int64]] = []
        self.labelled, self.masked = array("Q"), array("Q")
        self.detections = DetectionFile(len(self.names), scratch.new()) if task.kind == "detection" else None
        self._tags: dict[str, _OfTag] = {}
        self._tag_of_labelled: array[int] = array("H")
        self._pairs = 0

    def add(self, tag: str, score: TaskScore) -> dict[str, float]:
        """Take in a pair, and give its own metrics, as far as they are defined."""
        for name in dict.fromkeys((ALL, tag)):
            self._tags.setdefault(name, _OfTag(len(self.names))).add(score)
        own = dict(score.fusion)
        if score.matches is not None and self.detections is not None:
            self.detections.add(score.matches)
            self.labelled.append(self._pairs)
            self._tag_of_labelled.append([*self._tags].index(tag))
            own["map50_all"] = detection_values(self.names, [score.matches])["map50_all"]
        if score.confusion is not None:
            self.masked.append(self._pairs)
            own["miou"] = segmentation_values(self.names, score.confusion)["miou"]
        own = {metric: value for metric, value in own.items() if math.isfinite(value)}
        if self.keeps:
            self._keep(own, score)
        self._pairs += 1
        return own

    def sums(self) -> TallySums:
        """All that `rows` needs."""
        names = [*self._tags]
        detections = None if self.detections is None else self.detections.dump()
        return TallySums(self._tags, [names[number] for number in self._tag_of_labelled], detections)

    def absorb(self, sums: TallySums) -> None:
        """Take in the pairs of another bag; not for a tally that keeps what single pairs add."""
        for name, other in sums.tags.items():
            self._tags.setdefault(name, _OfTag(len(self.names))).absorb(other)
        names = [*self._tags]
        self._tag_of_labelled.extend(names.index(name) for name in sums.tag_of_labelled)
        if self.detections is not None and sums.detections is not None:
            self.detections.extend(sums.detections)

    def rows(self) -> list[dict[str, Any]]:
        """Rows `{tag, task, metric, value, pairs}`, those of all pairs first; what is not defined has none."""
        return [
            {"tag": tag, "task": self.task.name, "metric": metric, "value": value, "pairs": pairs}
            for tag in self._tags
            for metric, (value, pairs) in self._measure(tag).items()
            if math.isfinite(value)
        ]

    def undefined(self) -> dict[str, str]:
        """Metric of all pairs that the labels there are leave without a value -> why."""
        reasons = {}
        for metric, (value, _) in self._measure(ALL).items() if self._tags else ():
            if not math.isfinite(value):
                name = metric.partition("_")[2]
                reasons[metric] = (
                    f"there is no {name} in the ground truth, and none was found"
                    if metric.startswith("iou_")
                    else f"there is no {name} in the ground truth"
                    if metric.startswith("ap50_")
                    else "there is nothing in the ground truth"
                )
        return reasons

    def _keep(self, own: Mapping[str, float], score: TaskScore) -> None:
        for metric in own:
            if metric not in self.values:
                self.values[metric] = array("d", [math.nan] * self._pairs)
        for metric, values in self.values.items():
            values.append(own.get(metric, math.nan))
        if score.confusion is not None:
            self.confusions.append(score.confusion)

    def _measure(self, tag: str) -> dict[str, tuple[float, int]]:
        """Metric -> its value over the pairs of a tag, and of how many pairs it is."""
        of_tag = self._tags[tag]
        found = {metric: (total / of_tag.images, of_tag.images) for metric, total in of_tag.totals.items()}
        if self.detections is not None and len(self.detections):
            tags = np.frombuffer(self._tag_of_labelled, np.uint16)
            chosen = np.ones(len(tags), bool) if tag == ALL else tags == [*self._tags].index(tag)
            if chosen.any():
                values = name_scores(self.names, self.detections.scores(chosen))
                found |= {metric: (value, int(chosen.sum())) for metric, value in values.items()}
        if of_tag.masks:
            values = segmentation_values(self.names, of_tag.confusion)
            found |= {metric: (value, of_tag.masks) for metric, value in values.items()}
        return found
