"""Ground truth for the pairs of a bag, by task: from topics of the bag, or from a folder of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags import topics
from vifa_ros.bags.bag_labels import (
    DETECTIONS_TYPE,
    MASK_TYPE,
    LabelReader,
    PairLabels,
    find_label_topic,
    read_boxes,
    read_class_names,
    read_mask_image,
)
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.opening import Bag
from vifa_runtime.bundle import Task
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.labels import Labels, check_mask
from vifa_runtime.pairs import PairError


@dataclass(frozen=True)
class Truth:
    """What is known of one pair.

    Attributes:
        boxes, masks: task -> labels in visible pixels, of tasks that have some for this pair.
    """

    boxes: Mapping[str, Labels] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class TruthReader(Protocol):
    """Reads the ground truth of pairs for the tasks of one bundle.

    Attributes:
        missing: task that labels could measure -> why it has none.
        foreign: class_id -> boxes of classes that no task has.
    """

    missing: dict[str, str]
    foreign: dict[str, int]

    def read(self, messages: PairLabels, names: Sequence[str], size: tuple[int, int]) -> Truth:
        """What is known of a pair.

        Args:
            messages: of the pair.
            names: that its files may have, of which the first goes before the others.
            size: (height, width) of its visible image, pixels.

        Raises:
            BagError, LabelError: labels that are wrong; names the topic or file.
        """

    def finish(self) -> None:
        """To be called after the last pair: tells in `missing` where no labels belonged to any."""


@dataclass(frozen=True)
class TruthTopics:
    """The topics of ground truth, and the names of classes that the bag gives; empty where there are none."""

    boxes: str = ""
    mask: str = ""
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()

    @classmethod
    def find(cls, bag: Bag, boxes: str = "", mask: str = "") -> TruthTopics:
        """The given topics, and for the others those of `vifa record` as far as the bag has them.

        Raises:
            BagError: a given topic is missing or of another type.
        """
        boxes = find_label_topic(bag, boxes or topics.DETECTIONS, DETECTIONS_TYPE, bool(boxes), "--detections")
        mask = find_label_topic(bag, mask or topics.MASK, MASK_TYPE, bool(mask), "--mask")
        return cls(
            boxes,
            mask,
            read_class_names(bag, topics.LABEL_INFO) if boxes else (),
            read_class_names(bag, topics.MASK_LABEL_INFO) if mask else (),
        )

    def reader(self) -> LabelReader:
        """What brings pairs and the messages of these topics together."""
        return LabelReader(self.boxes, self.mask)


class TopicTruth:
    """Ground truth from topics of a bag; see `TruthReader`.

    A box belongs to a task by the name of its class, or by its number where that is no name; boxes of classes that a
    task does not have are none of its. A mask's ids are the task's own, unless the bag names them otherwise.
    """

    def __init__(self, path: Path, names: TruthTopics, tasks: Sequence[Task]) -> None:
        """Look which tasks the topics have labels for; `path` is the bag's, for messages."""
        self.missing: dict[str, str] = {}
        self.foreign: dict[str, int] = {}
        self._path, self._names = path, names
        self._box_tasks = [task for task in tasks if task.kind == "detection"]
        self._mask_tasks = [task for task in tasks if task.kind == "segmentation"]
        self._has_boxes = self._has_masks = False
        for task in self._box_tasks:
            shares = not names.classes or {*names.classes} & {known.name for known in task.classes}
            self._look(task, names.boxes, topics.DETECTIONS, "--detections", names.classes, bool(shares))
        for task in self._mask_tasks:
            same = not names.mask_classes or list(names.mask_classes) == [known.name for known in task.classes]
            self._look(task, names.mask, topics.MASK, "--mask", names.mask_classes, same)

    def read(self, messages: PairLabels, names: Sequence[str], size: tuple[int, int]) -> Truth:
        """See `TruthReader.read`; names are not looked at."""
        return Truth(self._read_boxes(messages.boxes, size), self._read_masks(messages.mask, size))

    def finish(self) -> None:
        """See `TruthReader.finish`."""
        for tasks, topic, has_some in (
            (self._box_tasks, self._names.boxes, self._has_boxes),
            (self._mask_tasks, self._names.mask, self._has_masks),
        ):
            for task in tasks:
                if not has_some:
                    reason = f"no message of {topic} has the stamp of a visible image that was paired"
                    self.missing.setdefault(task.name, reason)

    def _look(self, task: Task, topic: str, usual: str, option: str, classes: Sequence[str], fits: bool) -> None:
        """Note why a task has no labels: there is no topic, or its classes are others."""
        if not topic:
            self.missing[task.name] = f"the bag has no topic {usual}; name one with {option}, or give --labels"
        elif not fits:
            own = ", ".join(known.name for known in task.classes)
            self.missing[task.name] = f"the bag's labels name {', '.join(classes)}, but the task finds {own}"

    def _read_boxes(self, message: Any, size: tuple[int, int]) -> dict[str, Labels]:
        tasks = [task for task in self._box_tasks if task.name not in self.missing]
        if message is None or not tasks:
            return {}
        ids = tuple(dict.fromkeys(map(_class_id, message.detections)))
        boxes, places = read_boxes(message, ids, size, f"{self._path}, {self._names.boxes}")
        found, used = {}, np.zeros(len(boxes), bool)
        for task in tasks:
            numbers = {known.name: number for number, known in enumerate(task.classes)}
            labels = np.array([_class_number(ids[place], numbers) for place in places], np.int64)
            used |= labels >= 0
            found[task.name] = Labels(boxes[labels >= 0], labels[labels >= 0])
        for place in places[~used]:
            self.foreign[ids[place]] = self.foreign.get(ids[place], 0) + 1
        self._has_boxes = True
        return found

    def _read_masks(self, message: Any, size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
        tasks = [task for task in self._mask_tasks if task.name not in self.missing]
        if message is None or not tasks:
            return {}
        where = f"{self._path}, {self._names.mask}"
        mask = read_mask_image(message, size, where)
        self._has_masks = True
        try:
            return {task.name: check_mask(mask, len(task.classes), where) for task in tasks}
        except PairError as error:
            raise BagError(str(error)) from None


class FolderTruth:
    """Ground truth from a folder, by the names of pairs: `labels/<name>.txt`, `masks/<name>.png`; see `TruthReader`."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        """Look which tasks the folder has labels for.

        Raises:
            BagError: there is no such folder.
        """
        if not folder.is_dir():
            raise BagError(f"--labels: {folder} is no folder; give one that holds labels/ or masks/")
        self._folder, self._labels = folder, LabelFolder(folder, tasks)
        self._kinds = {task.name: task.kind for task in tasks if task.kind != "fusion"}
        self._read: set[str] = set()
        self.missing = self._labels.missing
        self.foreign: dict[str, int] = {}

    def read(self, messages: PairLabels, names: Sequence[str], size: tuple[int, int]) -> Truth:
        """See `TruthReader.read`; `messages` are not looked at."""
        for name in names:
            boxes, masks = self._labels.read(name, size)
            for mask in masks.values():
                self._check(name, mask.shape, size)
            if boxes or masks:
                self._read |= {*boxes, *masks}
                return Truth(boxes, masks)
        return Truth()

    def finish(self) -> None:
        """See `TruthReader.finish`."""
        for task, kind in self._kinds.items():
            if task not in self._read:
                files = self._folder / ("labels" if kind == "detection" else "masks")
                self.missing.setdefault(task, f"no file in {files} has the name of a pair of the bag")

    def _check(self, name: str, mask: tuple[int, ...], size: tuple[int, int]) -> None:
        if mask != size:
            path = self._folder / "masks" / f"{name}.png"
            raise BagError(
                f"{path} has {mask[1]}x{mask[0]} pixels, but the visible image of that name {size[1]}x{size[0]}; "
                "align them"
            )


def _class_id(detection: Any) -> str:
    """Of the best hypothesis; empty where there is none."""
    best = max(detection.results, key=lambda result: result.hypothesis.score, default=None)
    return "" if best is None else str(best.hypothesis.class_id)


def _class_number(class_id: str, numbers: Mapping[str, int]) -> int:
    """The label of a class by its name, or else by its number; -1 for a class that there is not."""
    if class_id in numbers:
        return numbers[class_id]
    number = int(class_id[:9]) if class_id.isascii() and class_id.isdigit() else -1
    return number if number < len(numbers) else -1
