"""What an evaluation measures: a bundle that is run here. See live.py for a node that is listened to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.jobs import Job
from vifa_ros.bags.truth import TruthReader
from vifa_runtime.backends import Backend, RawResults
from vifa_runtime.bundle import Bundle
from vifa_runtime.decode import decode_detections, restore_detections
from vifa_runtime.metrics import Detections
from vifa_runtime.pipeline import FusionPipeline, Results
from vifa_runtime.scoring import for_evaluation
from vifa_runtime.thermal import ThermalSettings


class Subject(Protocol):
    """One bundle that is evaluated.

    Attributes:
        name: in the report.
        bundle: as its author made it, with the tasks that are run.
        lenient: the same `for_evaluation`.
        truth: reads ground truth for its tasks.
    """

    name: str
    bundle: Bundle
    lenient: Bundle
    truth: TruthReader

    def describe(self) -> Mapping[str, str]:
        """What the engine runs on."""

    def process(self, job: Job, stamp: float | None) -> Results | None:
        """What the node would publish for a decoded pair, by its stamp in seconds; see `FusionPipeline.process`.

        What is given may be used again for the next pair. None where a node that was listened to gave nothing.

        Raises:
            ThermalError, InputError, GeometryError: as of `FusionPipeline.process`.
        """

    def find_all(self, results: Results, size: tuple[int, int]) -> Mapping[str, Detections]:
        """Detection task -> what is measured of the last pair, whose visible image has this (height, width)."""

    def see(self, job: Job, warm: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The last pair's thermal image 0..1 in visible pixels, and the share (H,W) that it covers; None for all."""


class RawKeeper:
    """A back end that keeps what it gave last, so that boxes can be decoded by other thresholds than the bundle's."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.describe, self.close = backend.describe, backend.close
        self.raw = RawResults({}, {})

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str] = (),
    ) -> RawResults:
        """See `Backend.run`."""
        self.raw = self._backend.run(visible, thermal, tasks, fused_only)
        return self.raw


class BundleSubject:
    """A bundle that is run here, as the node would; see `Subject`."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        backend: Backend,
        thermal: ThermalSettings,
        truth: TruthReader,
        as_published: bool = False,
    ) -> None:
        """Make it; `as_published` looks at those boxes only that the node publishes, above the bundle's score."""
        self.name, self.bundle, self.truth = name, bundle, truth
        self.lenient = for_evaluation(bundle)
        self._as_published = as_published
        self._backend = RawKeeper(backend)
        self.pipeline = FusionPipeline(bundle, self._backend, thermal)

    def describe(self) -> dict[str, str]:
        """See `Subject.describe`."""
        return self.pipeline.backend.describe()

    def process(self, job: Job, stamp: float | None) -> Results | None:
        """See `Subject.process`."""
        assert job.alignment is not None
        self.pipeline.alignment = job.alignment
        return self.pipeline.process(job.visible, job.thermal, stamp)

    def find_all(self, results: Results, size: tuple[int, int]) -> Mapping[str, Detections]:
        """See `Subject.find_all`."""
        if self._as_published:
            return results.detections
        found = {}
        for task in self.lenient.tasks:
            raw = self._backend.raw.outputs.get(task.name, {})
            if "boxes" in raw:
                best = decode_detections(raw["boxes"][0], raw["scores"][0], task.score, task.iou, task.max_detections)
                found[task.name] = restore_detections(best, self.bundle.grid(size))
        return found

    def see(self, job: Job, warm: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """See `Subject.see`."""
        return self.pipeline.thermal_in_visible(warm), self.pipeline.covered

    def close(self) -> None:
        """Give back the engine."""
        self.pipeline.close()
