"""The labels that a folder of pairs has for the tasks of a bundle: `labels/<name>.txt`, `masks/<name>.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Task
from vifa_runtime.labels import Labels, read_mask, read_text, read_yolo

CLASS_FILE, MASK_CLASS_FILE = "classes.txt", "mask_classes.txt"


class LabelFolder:
    """Reads boxes and masks by the name of a pair.

    Where class names lie beside the labels (see `read_classes`), a task of other classes has no labels here.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        """Look which of the tasks the folder has labels for.

        Attributes:
            missing: task that labels could be measured by -> why it has none here.

        Raises:
            LabelError: a file of class names that cannot be read.
        """
        self._folder = folder
        self._boxes: list[Task] = []
        self._masks: list[Task] = []
        self.missing: dict[str, str] = {}
        labelled = (folder / "labels").is_dir()
        for task in tasks:
            if task.kind == "detection":
                self._sort_in(task, self._boxes, labelled, "labels", CLASS_FILE)
            elif task.kind == "segmentation":
                names = MASK_CLASS_FILE if labelled else CLASS_FILE
                self._sort_in(task, self._masks, (folder / "masks").is_dir(), "masks", names)

    def read(self, name: str, size: tuple[int, ...]) -> tuple[dict[str, Labels], dict[str, NDArray[np.uint8]]]:
        """The boxes and masks of a pair by task; none of a task whose file is not there.

        Args:
            name: of the pair, the name of its files without suffix.
            size: (height, width) of the visible image, pixels.

        Raises:
            LabelError: a file that is wrong, or a class that its task does not have; names file, line and mend.
        """
        boxes, masks = {}, {}
        for task in self._boxes:
            if (path := self._folder / "labels" / f"{name}.txt").exists():
                boxes[task.name] = read_yolo(path, (size[0], size[1]), len(task.classes))
        for task in self._masks:
            if (path := self._folder / "masks" / f"{name}.png").exists():
                masks[task.name] = read_mask(path, len(task.classes))
        return boxes, masks

    def _sort_in(self, task: Task, into: list[Task], is_there: bool, folder: str, names: str) -> None:
        wanted = [known.name for known in task.classes]
        if not is_there:
            self.missing[task.name] = f"{self._folder} has no folder {folder}/"
        elif (found := read_classes(self._folder, names)) and found != wanted:
            self.missing[task.name] = (
                f"{names} of {self._folder} names {', '.join(found)}, but the task finds {', '.join(wanted)}"
            )
        else:
            into.append(task)


def read_classes(folder: Path, name: str) -> list[str]:
    """Class names of a file in `folder` or the one above, one a line, as `person` or `0 person`; none without it."""
    for path in (folder / name, folder.parent / name):
        if path.is_file():
            lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
            return [line.removeprefix(f"{number} ").strip() for number, line in enumerate(lines)]
    return []
