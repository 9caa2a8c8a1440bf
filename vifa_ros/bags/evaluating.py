"""Pairs through the very chain that the node runs, one after the other, and what each adds to the metrics.

read and decode (who iterates) -> pipeline, in the order of the pairs (one thread) -> metrics (some threads)
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.camera_pairs import BAD_IMAGE
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.extracting import name_of
from vifa_ros.bags.jobs import Job
from vifa_ros.bags.overlapping import overlapped
from vifa_ros.bags.truth import TruthReader
from vifa_runtime.backends import Backend, RawResults
from vifa_runtime.bundle import Bundle
from vifa_runtime.decode import decode_detections, restore_detections
from vifa_runtime.geometry import GeometryError
from vifa_runtime.metrics import Detections
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.pipeline import FusionPipeline, InputError, Results
from vifa_runtime.scoring import Sources, TaskScore, for_evaluation, gray_levels, gray_thermal, measure_pair
from vifa_runtime.thermal import ThermalError, ThermalNormaliser, ThermalSettings

MOST_WORKERS = 3  # threads for metrics, each of which holds about 70 MB at 640x480


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


class Subject:
    """One bundle that is evaluated.

    Attributes:
        name: in the report.
        bundle: as its author made it, with the tasks that are run.
        lenient: the same `for_evaluation`.
        pipeline: that the node would run.
        truth: reads ground truth for its tasks.
    """

    def __init__(
        self, name: str, bundle: Bundle, backend: Backend, thermal: ThermalSettings, truth: TruthReader
    ) -> None:
        self.name, self.bundle, self.truth = name, bundle, truth
        self.lenient = for_evaluation(bundle)
        self._backend = RawKeeper(backend)
        self.pipeline = FusionPipeline(bundle, self._backend, thermal)

    def find_all(self, size: tuple[int, int]) -> dict[str, Detections]:
        """Detection task -> all that was found in the last pair, whose visible image has this (height, width)."""
        found = {}
        for task in self.lenient.tasks:
            raw = self._backend.raw.outputs.get(task.name, {})
            if "boxes" in raw:
                best = decode_detections(raw["boxes"][0], raw["scores"][0], task.score, task.iou, task.max_detections)
                found[task.name] = restore_detections(best, self.bundle.grid(size))
        return found


@dataclass(frozen=True)
class Outcome:
    """What became of one pair; sequences have one entry a subject, and none where the pair was dropped.

    Attributes:
        results: what the node would publish; copies that stay.
        found: detection task -> all that evaluation looks at.
        milliseconds: stage -> time.
        gray: the thermal image (H,W) that metrics see, where an alignment has to bring it there.
        scores: task -> what the pair adds.
    """

    job: Job
    results: Sequence[Results] = ()
    found: Sequence[Mapping[str, Detections]] = ()
    milliseconds: Sequence[Mapping[str, float]] = ()
    gray: NDArray[np.float64] | None = None
    scores: Sequence[Mapping[str, TaskScore]] = ()


@dataclass
class Chain:
    """Pipelines and metrics.

    Attributes:
        subjects: bundles.
        metrics: of fused images.
        every: of the pairs, the fused images of every so many are measured, beginning with the first.
        polarity: of the thermal camera.
        smooths: whether thermal limits are smoothed over time, as in the node; else each image is taken by itself.
    """

    subjects: Sequence[Subject]
    metrics: Sequence[str]
    every: int = 1
    polarity: str = "white_hot"
    smooths: bool = True
    workers: int = field(default_factory=lambda: max(1, min(MOST_WORKERS, (os.cpu_count() or 1) - 1)))
    _buffers: deque[Buffers] = field(default_factory=deque)  # of workers that wait; a deque is safe between threads

    def run(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Fuse and measure every job; outcomes come in their order.

        Raises:
            BagError: images too small to be measured, or found and true masks that don't fit together.
            BackendError: the engine failed.
        """
        return overlapped(jobs, self.fuse, self.measure, self.workers)

    def fuse(self, job: Job) -> Outcome:
        """Run every subject on one pair."""
        if job.visible is None or job.thermal is None or job.alignment is None:
            return Outcome(job)
        results, everything, times = [], [], []
        for subject in self.subjects:
            start = time.perf_counter()
            subject.pipeline.alignment = job.alignment
            try:
                stamp = job.pair.stamp * 1e-9 if self.smooths else None
                found = subject.pipeline.process(job.visible, job.thermal, stamp)
            except (ThermalError, InputError, GeometryError) as error:
                return Outcome(replace(job, reason=BAD_IMAGE, problem=str(error)))
            taken = 1e3 * (time.perf_counter() - start)
            times.append({"decode": job.decode_ms, **found.milliseconds, "pipeline": taken})
            results.append(_copied(found))
            everything.append(subject.find_all((job.visible.shape[0], job.visible.shape[1])))
        gray = None
        if self._measured(job) and job.alignment.pixels is not None:
            gray = self._see(self.subjects[0].pipeline, job.visible, job.thermal)
        return Outcome(job, results, everything, times, gray)

    def measure(self, outcome: Outcome) -> Outcome:
        """Add the metrics of one pair."""
        job = outcome.job
        if job.reason or job.visible is None or job.thermal is None:
            return outcome
        buffers = self._buffers.pop() if self._buffers else Buffers()
        try:
            sources, metrics = None, self._measured(job)
            if metrics:
                gray = outcome.gray
                if gray is None:
                    gray = gray_thermal(job.thermal, job.visible.shape[:2], self.polarity)
                sources = Sources(gray_levels(job.visible), gray, buffers)
            columns = zip(self.subjects, outcome.results, outcome.found, job.truths, strict=True)
            scores = [
                measure_pair(
                    subject.lenient, sources, replace(results, detections=found), truth.boxes, truth.masks, metrics
                )
                for subject, results, found, truth in columns
            ]
        except ValueError as error:
            raise BagError(f"the pair of {name_of(job.pair.visible_stamp)} s cannot be measured: {error}") from None
        finally:
            self._buffers.append(buffers)
        return replace(outcome, scores=scores)

    def _measured(self, job: Job) -> Sequence[str]:
        """The metrics of fused images that are wanted of this pair."""
        return () if job.pair.index % self.every else self.metrics

    def _see(self, pipeline: FusionPipeline, visible: NDArray[np.uint8], thermal: NDArray[Any]) -> NDArray[np.float64]:
        """The thermal image of the pair that was just fused, in visible pixels and whole gray levels.

        Where the thermal camera sees nothing, it is the visible image's luma, as for the network.
        """
        warm = ThermalNormaliser(ThermalSettings(polarity=self.polarity))(thermal)
        gray = 255 * pipeline.thermal_in_visible(warm).astype(np.float64)
        if pipeline.covered is not None:
            gray = gray_levels(visible) + pipeline.covered * (gray - gray_levels(visible))
        return np.rint(gray)


def _copied(results: Results) -> Results:
    """Results that stay when the pipeline goes on."""
    return Results(
        {task: image.copy() for task, image in results.fused.items()},
        results.milliseconds,
        results.detections,
        {task: mask.copy() for task, mask in results.masks.items()},
    )
