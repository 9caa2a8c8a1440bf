"""Pairs through the very chain that the node runs, one after the other, and what each adds to the metrics.

read and decode (who iterates) -> pipeline, in the order of the pairs (one thread) -> metrics (some threads)
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.camera_pairs import BAD_IMAGE
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.extracting import name_of
from vifa_ros.bags.jobs import Job
from vifa_ros.bags.overlapping import overlapped
from vifa_ros.bags.subjects import Subject
from vifa_runtime.geometry import GeometryError
from vifa_runtime.metrics import Detections
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.pipeline import InputError, Results
from vifa_runtime.scoring import Sources, TaskScore, gray_levels, gray_thermal, measure_pair
from vifa_runtime.thermal import ThermalError, ThermalNormaliser, ThermalSettings

NO_RESULT = "no_result"  # the reason by which pairs are counted of which a node that was listened to gave none
MOST_WORKERS = 3  # threads for metrics, each of which holds about 70 MB at 640x480


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
        engine: the one thread that the subjects were made in; None where any may run them.
    """

    subjects: Sequence[Subject]
    metrics: Sequence[str]
    every: int = 1
    polarity: str = "white_hot"
    smooths: bool = True
    engine: Executor | None = None
    workers: int = field(default_factory=lambda: max(1, min(MOST_WORKERS, (os.cpu_count() or 1) - 1)))
    _buffers: deque[Buffers] = field(default_factory=deque)  # of workers that wait; a deque is safe between threads

    def run(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Fuse and measure every job; outcomes come in their order.

        Raises:
            BagError: images too small to be measured, or found and true masks that don't fit together.
            BackendError: the engine failed.
        """
        return overlapped(jobs, self.fuse, self.measure, self.workers, self.engine)

    def fuse(self, job: Job) -> Outcome:
        """Run every subject on one pair."""
        if job.visible is None or job.thermal is None or job.alignment is None:
            return Outcome(job)
        results, everything, times = [], [], []
        for subject in self.subjects:
            start = time.perf_counter()
            try:
                found = subject.process(job, job.pair.stamp * 1e-9 if self.smooths else None)
            except (ThermalError, InputError, GeometryError) as error:
                return Outcome(replace(job, reason=BAD_IMAGE, problem=str(error)))
            if found is None:
                return Outcome(replace(job, reason=NO_RESULT, problem="the node gave no result"))
            taken = 1e3 * (time.perf_counter() - start)
            times.append({"decode": job.decode_ms, **found.milliseconds, "pipeline": taken})
            results.append(_copied(found))
            everything.append(subject.find_all(results[-1], (job.visible.shape[0], job.visible.shape[1])))
        gray = None
        if self._measured(job) and job.alignment.pixels is not None:
            gray = self._see(self.subjects[0], job)
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

    def _see(self, subject: Subject, job: Job) -> NDArray[np.float64]:
        """The thermal image of the pair that was just fused, in visible pixels and whole gray levels.

        Where the thermal camera sees nothing, it is the visible image's luma, as for the network.
        """
        assert job.visible is not None and job.thermal is not None
        heat, covered = subject.see(job, ThermalNormaliser(ThermalSettings(polarity=self.polarity))(job.thermal))
        gray = 255 * heat.astype(np.float64)
        if covered is not None:
            gray = gray_levels(job.visible) + covered * (gray - gray_levels(job.visible))
        return np.rint(gray)


def _copied(results: Results) -> Results:
    """Results that stay when the pipeline goes on."""
    return Results(
        {task: image.copy() for task, image in results.fused.items()},
        results.milliseconds,
        results.detections,
        {task: mask.copy() for task, mask in results.masks.items()},
    )
