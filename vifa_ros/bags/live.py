"""Results of a node into which a bag is played, in the place of those that are made here. Knows no ROS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.extracting import name_of
from vifa_ros.bags.jobs import Job
from vifa_ros.bags.truth import TruthReader
from vifa_runtime.alignment import Alignment, ThermalView
from vifa_runtime.bundle import Bundle, Task
from vifa_runtime.metrics import Detections
from vifa_runtime.pipeline import Results
from vifa_runtime.scoring import for_evaluation

IMAGE, DETECTIONS, MASK = "image", "detections", "mask"
OF_KIND = {"fusion": (IMAGE,), "detection": (IMAGE, DETECTIONS), "segmentation": (IMAGE, MASK)}
NOT_HEARD = "not_heard"  # pairs that the node processed, but whose results did not come here


@dataclass(frozen=True)
class NodeCounts:
    """What a node says of the frames and pairs that it got while it was listened to.

    Attributes:
        frames: rows `{stream, topic, received, paired, rate_hz}`.
        lost: (stream or `pair`, reason) -> how many.
        processed: pairs.
        heard: results that came here whole.
        latency: rows `{stage, p50_ms, p95_ms, p99_ms}`, of the node's last pairs.
        engine: what it runs on.
    """

    frames: Sequence[Mapping[str, Any]] = ()
    lost: Mapping[tuple[str, str], int] = field(default_factory=dict)
    processed: int = 0
    heard: int = 0
    latency: Sequence[Mapping[str, Any]] = ()
    engine: str = ""

    def streams(self) -> list[dict[str, Any]]:
        """As the report has them."""
        return [
            {**row, "dropped": sum(count for (what, _), count in self.lost.items() if what == row["stream"])}
            for row in self.frames
        ]

    def drops(self) -> list[dict[str, Any]]:
        """As the report has them."""
        lost = {**self.lost, ("pair", NOT_HEARD): self.processed - self.heard}
        return [{"what": what, "reason": reason, "count": count} for (what, reason), count in lost.items() if count > 0]


class LiveNode(Protocol):
    """A node that is listened to; `name` is its full name."""

    name: str

    def take(self, stamp: int) -> Results | None:
        """See `ResultQueue.take`."""

    def counts(self) -> NodeCounts:
        """What it says at the end."""


class ResultQueue:
    """Results from topics that come one by one, handed out pair by pair in the order of the bag.

    Pixels wait in files, so that a node that is faster than the metrics takes no memory.
    """

    def __init__(self, tasks: Sequence[Task], folder: Path) -> None:
        """Make one for all outputs of some tasks; `folder` is an empty one for its files."""
        self.outputs = [(task.name, output) for task in tasks for output in OF_KIND[task.kind]]
        self._folder, self._files = folder, 0
        self._waiting: dict[tuple[str, str], deque[tuple[int, Any]]] = {key: deque() for key in self.outputs}
        self._heard = dict.fromkeys(self.outputs, 0)
        self._changed = threading.Condition()
        self._ended = False
        self._error: BagError | None = None

    @property
    def heard(self) -> int:
        """Results that came whole."""
        return min(self._heard.values())

    def add(self, task: str, output: str, stamp: int, found: NDArray[np.uint8] | Detections) -> None:
        """Take in what came on one topic, with the stamp of its header in nanoseconds."""
        kept: Detections | Path
        if isinstance(found, Detections):
            kept = found
        else:
            kept = self._folder / f"{self._files}.npy"
            self._files += 1
            np.save(kept, found)
        with self._changed:
            self._waiting[task, output].append((stamp, kept))
            self._heard[task, output] += 1
            self._changed.notify_all()

    def end(self, error: BagError | None = None) -> None:
        """Say that nothing more comes; an error is raised by who waits, or will wait."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self, stamp: int) -> Results | None:
        """Wait for the results of the pair with this visible stamp, nanoseconds; pairs are asked for in their order.

        Messages of one topic come in order. So a pair of which a topic brought nothing, but something later, was
        dropped by the node, and has None; and so has one that did not come before the end.

        Raises:
            BagError: as given to `end`.
        """
        with self._changed:
            while (complete := self._find(stamp)) is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            found = {key: self._pop(key, stamp) for key in self.outputs}
        loaded = {key: self._load(kept) for key, kept in found.items() if kept is not None}
        if not complete:
            return None
        by_output: dict[str, dict[str, Any]] = {output: {} for output in (IMAGE, DETECTIONS, MASK)}
        for (task, output), value in loaded.items():
            by_output[output][task] = value
        return Results(by_output[IMAGE], {}, by_output[DETECTIONS], by_output[MASK])

    def _find(self, stamp: int) -> bool | None:
        """Whether all of a pair is there; None while that is open."""
        states = [self._state(stamps, stamp) for stamps in self._waiting.values()]
        if all(states):
            return True
        return False if self._ended or False in states else None

    def _state(self, waiting: deque[tuple[int, Any]], stamp: int) -> bool | None:
        others = [other for other, _ in waiting]
        return True if stamp in others else False if any(other > stamp for other in others) else None

    def _pop(self, key: tuple[str, str], stamp: int) -> Any:
        """What one topic brought of a pair; what it brought before belongs to no pair of the bag."""
        waiting = self._waiting[key]
        if not any(other == stamp for other, _ in waiting):
            return None
        while waiting:
            other, kept = waiting.popleft()
            if other == stamp:
                return kept
            self._forget(kept)
        return None

    def _load(self, kept: Any) -> Any:
        if not isinstance(kept, Path):
            return kept
        pixels = np.load(kept)
        self._forget(kept)
        return pixels

    def _forget(self, kept: Any) -> None:
        if isinstance(kept, Path):
            kept.unlink()


class LiveSubject:
    """The bundle that a node runs, measured by what the node published; see `Subject`."""

    def __init__(self, name: str, bundle: Bundle, truth: TruthReader, node: LiveNode) -> None:
        self.name, self.bundle, self.truth, self._node = name, bundle, truth, node
        self.lenient = for_evaluation(bundle)
        self._fitted: tuple[Alignment, tuple[int, ...], tuple[int, ...], ThermalView] | None = None

    def describe(self) -> Mapping[str, str]:
        """See `Subject.describe`."""
        return {"node": self._node.name, "engine": self._node.counts().engine}

    def process(self, job: Job, stamp: float | None) -> Results | None:
        """See `Subject.process`.

        Raises:
            BagError: the node's images have another size than the bag's: it was given another bag.
        """
        assert job.visible is not None
        results = self._node.take(job.pair.visible_stamp)
        for task, image in (results.fused if results is not None else {}).items():
            if image.shape != job.visible.shape:
                raise BagError(
                    f"{self._node.name}: {task} of {name_of(job.pair.visible_stamp)} s is {image.shape[1]}x"
                    f"{image.shape[0]}, the bag's image {job.visible.shape[1]}x{job.visible.shape[0]}; play this bag"
                )
        return results

    def find_all(self, results: Results, size: tuple[int, int]) -> Mapping[str, Detections]:
        """See `Subject.find_all`."""
        return results.detections

    def see(self, job: Job, warm: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """See `Subject.see`."""
        assert job.alignment is not None and job.visible is not None
        thermal, visible = (warm.shape[0], warm.shape[1]), (job.visible.shape[0], job.visible.shape[1])
        if self._fitted is None or self._fitted[0] is not job.alignment or self._fitted[1:3] != (thermal, visible):
            self._fitted = (job.alignment, thermal, visible, job.alignment.fit(thermal, visible))
        view = self._fitted[3]
        return view.warp(warm), None if view.covers_all else view.soft_mask
