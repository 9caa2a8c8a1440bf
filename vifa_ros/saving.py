"""One pair and everything made of it as files: what ~/save_frame answers with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Task
from vifa_runtime.files import whole_folder, write_json
from vifa_runtime.pairs import write_image
from vifa_runtime.pipeline import Results
from vifa_runtime.render import render_overlay


@dataclass(frozen=True)
class Snapshot:
    """Copies of one pair and of what became of it.

    Attributes:
        name: of the folder, unique: the stamp.
        images: file name -> pixels, RGB (H,W,3) uint8, or (H,W) of uint8, uint16 or float32.
        about: what goes into frame.json.
    """

    name: str
    images: dict[str, NDArray[Any]]
    about: dict[str, Any]


class SnapshotDesk:
    """Where one thread asks for the next pair, and the one that works on it leaves a snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._is_wanted = False
        self._snapshot: Snapshot | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a snapshot."""
        return self._is_wanted

    def leave(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to who waits."""
        with self._arrived:
            self._snapshot, self._is_wanted = snapshot, False
            self._arrived.notify_all()

    def wait(self, timeout: float) -> Snapshot | None:
        """Ask for a snapshot of the next pair; None where there was no pair for `timeout` seconds."""
        with self._arrived:
            self._snapshot, self._is_wanted = None, True
            self._arrived.wait_for(lambda: self._snapshot is not None, timeout)
            self._is_wanted = False
            return self._snapshot


def take_snapshot(
    visible: NDArray[np.uint8] | None, thermal: NDArray[Any] | None, results: Results, tasks: list[Task], stamp: int
) -> Snapshot:
    """Copy a pair and its results, which are only valid until the next pair.

    Args:
        visible, thermal: as they came from the cameras; None for one that is lost.
        tasks: those that were run.
        stamp: nanoseconds.
    """
    images: dict[str, NDArray[Any]] = {}
    if visible is not None:
        images["visible.png"] = visible.copy()
    if thermal is not None:
        images["thermal.tiff" if thermal.dtype == np.float32 else "thermal.png"] = thermal.copy()
    found = {}
    for task in tasks:
        images[f"{task.name}.png"] = results.fused[task.name].copy()
        if task.kind != "fusion":
            images[f"{task.name}_overlay.png"] = render_overlay(results, task).copy()
        if task.name in results.masks:
            images[f"{task.name}_mask.png"] = results.masks[task.name].copy()
        if task.name in results.detections:
            columns = (np.asarray(column).tolist() for column in results.detections[task.name])
            found[task.name] = [
                {"box": box, "score": score, "class": task.classes[label].name}
                for box, score, label in zip(*columns, strict=True)
            ]
    about = {"stamp_ns": stamp, "detections": found, "milliseconds": dict(results.milliseconds)}
    return Snapshot(f"{stamp // 10**9}.{stamp % 10**9:09d}", images, about)


def write_snapshot(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot into a folder of its own, whole or not at all; one of the same stamp is replaced.

    Returns:
        That folder.

    Raises:
        OSError: it cannot be written; what was there is left.
    """
    target = folder / snapshot.name
    with whole_folder(target) as beside:
        for name, pixels in snapshot.images.items():
            write_image(beside / name, pixels)
        write_json(beside / "frame.json", snapshot.about)
    return target
