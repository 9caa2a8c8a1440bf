"""One evaluation of a bag: what is asked for, what takes part, and what is collected pair by pair."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from vifa_ros.bags.camera_pairs import find_topics
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.evaluating import Chain, Outcome
from vifa_ros.bags.jobs import Aligner, JobMaker, first_name
from vifa_ros.bags.live import LiveNode, LiveSubject
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.output_bag import OutputBag
from vifa_ros.bags.subjects import BundleSubject, Subject
from vifa_ros.bags.tags import AUTO, NIGHT_BELOW, make_tagger
from vifa_ros.bags.tallies import MAP, MIOU, Rows, Scratch, TaskTally
from vifa_ros.bags.thresholds import Threshold
from vifa_ros.bags.truth import FolderTruth, TopicTruth, TruthReader, TruthTopics
from vifa_ros.bags.worst import WorstPairs
from vifa_ros.bags.writing import new_bag
from vifa_ros.camera_alignment import AlignmentSource
from vifa_ros.parameters import engine_options, pairing_settings, thermal_settings
from vifa_runtime.backends import prepare
from vifa_runtime.bundle import Bundle
from vifa_runtime.scoring import EXTENDED_METRICS, FUSION_METRICS, LOWEST_SCORE

BAG = "bag"
METRICS = (*EXTENDED_METRICS, MAP, MIOU)
DEFAULT_METRICS = (*FUSION_METRICS, MAP, MIOU)


@dataclass(frozen=True)
class EvaluateSettings:
    """How a bag is evaluated.

    Attributes:
        values: every parameter of the node by its name.
        visible, thermal, visible_info, thermal_info: topics, as of `find_topics`.
        metrics: of METRICS.
        fusion_every: fused images are measured of every so many pairs; boxes and masks of all.
        labels: folder of labels; None for the bag's own topics.
        detections, mask: topics of ground truth, as of `TruthTopics.find`.
        tags, night_below: as of `make_tagger`.
        smooths: whether thermal limits are smoothed over time, as in the node.
        as_published: whether boxes are measured as the node publishes them, above the bundle's score.
        worst: pictures of each task and metric.
        output_images: `raw` or `jpeg` to write a bag of results too; empty for none.
        thresholds: that the first bundle must keep.
        resamples, seed: of the comparison.
    """

    values: Mapping[str, Any]
    visible: str = ""
    thermal: str = ""
    visible_info: str = ""
    thermal_info: str = ""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    fusion_every: int = 1
    labels: Path | None = None
    detections: str = ""
    mask: str = ""
    tags: str = AUTO
    night_below: float = NIGHT_BELOW
    smooths: bool = True
    as_published: bool = False
    worst: int = 3
    output_images: str = ""
    thresholds: Sequence[Threshold] = ()
    resamples: int = 1000
    seed: int = 0

    @property
    def fusion_metrics(self) -> list[str]:
        """Those of fused images."""
        return [metric for metric in EXTENDED_METRICS if metric in self.metrics]

    def describe_boxes(self) -> str:
        """Which boxes are measured, for the report."""
        if self.as_published:
            return "as published, above the bundle's score"
        return f"of score {LOWEST_SCORE:g} and more, as in vifa-train evaluate"


class Session:
    """One bag, the bundles and all that is collected.

    Attributes:
        subjects: the bundles.
        tallies: of each subject by task.
        live: the node whose results are measured; None where the bundles are run here.
        jobs: what reads the bag.
        frames: a row of every pair, subject and task.
        dropped, problems: reason -> pairs that were dropped, and what was wrong with the last of them.
        times: (subject, stage) -> milliseconds of every pair.
        tags: of every pair, kept for a comparison alone.
        pairs: that were measured.
    """

    def __init__(
        self,
        bag: Bag,
        source: AlignmentSource,
        bundles: Mapping[str, Bundle],
        settings: EvaluateSettings,
        stack: ExitStack,
        live: LiveNode | None = None,
    ) -> None:
        self.bag, self.settings, self.live, self._stack = bag, settings, live, stack
        cameras = find_topics(
            bag, settings.visible, settings.thermal, settings.visible_info, settings.thermal_info
        )  # fmt: skip
        names = TruthTopics.find(bag, settings.detections, settings.mask)
        self.tagger = make_tagger(settings.tags, bag, first_name(bag), settings.night_below)
        truths = [_truth(bag, names, bundle, settings) for bundle in bundles.values()]
        engine = stack.enter_context(ThreadPoolExecutor(1, "engine"))  # the one thread that makes, runs and closes them
        self.subjects: list[Subject] = []
        for named, truth in zip(bundles.items(), truths, strict=True):
            subject = engine.submit(_open, *named, truth, settings, live).result()
            if isinstance(subject, BundleSubject):
                stack.callback(_close, engine, subject)
            self.subjects.append(subject)
        pairing = pairing_settings(settings.values.__getitem__)
        self.jobs = JobMaker(bag, cameras, pairing, Aligner(bag, source), self.tagger, names.reader(), truths)
        self.chain = Chain(
            self.subjects,
            settings.fusion_metrics,
            settings.fusion_every,
            settings.values["thermal.polarity"],
            settings.smooths,
            engine,
        )
        self.worst = WorstPairs(settings.worst)
        self.dropped: Counter[str] = Counter()
        self.problems: dict[str, str] = {}
        self.times: dict[tuple[str, str], array[float]] = {}
        self.tags: list[str] = []
        self.pairs = 0

    def run(self, folder: Path, on_step: Callable[[int, int], None]) -> None:
        """Take in every pair.

        Raises:
            BagError: there was none, or none came through.
        """
        scratch = Scratch(folder)
        self._stack.callback(scratch.close)
        self.frames = Rows(scratch.new())
        keeps = len(self.subjects) > 1
        self.tallies = [
            {task.name: TaskTally(task, scratch, keeps) for task in subject.lenient.tasks} for subject in self.subjects
        ]
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # what overlaps already has every core
        try:
            with ExitStack() as stack:
                output = self._open_output(folder, stack)
                for outcome in stack.enter_context(closing(self.chain.run(self.jobs))):
                    self._take(outcome, output)
                    on_step(self.jobs.reader.read, self.jobs.reader.total)
        finally:
            cv2.setNumThreads(threads)
        for subject in self.subjects:
            subject.truth.finish()
        if not self.pairs:
            raise BagError(f"{self.bag.path}: nothing can be evaluated: {self._explain()}")

    def _open_output(self, folder: Path, stack: ExitStack) -> OutputBag | None:
        if not self.settings.output_images:
            return None
        writer = stack.enter_context(new_bag(folder / BAG))
        return OutputBag(writer, self.subjects[0].bundle.tasks, self.settings.output_images)

    def _take(self, outcome: Outcome, output: OutputBag | None) -> None:
        job = outcome.job
        if job.reason:
            self.dropped[job.reason] += 1
            self.problems[job.reason] = job.problem
            return
        self.pairs += 1
        if len(self.subjects) > 1:
            self.tags.append(job.tag)
        if output is not None:
            output.write(job.pair, outcome.results[0])
        columns = zip(self.subjects, self.tallies, outcome.scores, outcome.milliseconds, strict=True)
        for which, (subject, tallies, scores, milliseconds) in enumerate(columns):
            for stage, taken in milliseconds.items():
                self.times.setdefault((subject.name, stage), array("f")).append(taken)
            for task in subject.bundle.tasks:
                own = tallies[task.name].add(job.tag, scores[task.name])
                head = {"index": job.pair.index, "stamp": job.pair.visible_stamp, "tag": job.tag}
                name = {"name": job.name} if job.name else {}
                self.frames.add({**head, **name, "bundle": subject.name, "task": task.name, **own})
                self.worst.offer(outcome, which, subject, task, own)

    def _explain(self) -> str:
        """Why no pair came through."""
        told = []
        for stream, counts in self.jobs.reader.counts.items():
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.dropped.items())) or "none lost"
            told.append(f"{counts.received} {stream} images ({reasons})")
        if self.dropped:
            told += [f"{count} pairs ({reason}: {self.problems[reason]})" for reason, count in self.dropped.items()]
            return ", ".join(told)
        return f"no pair was formed of {' and '.join(told)}; check the clocks, the offsets and --slop"


def _close(engine: Executor, subject: BundleSubject) -> None:
    engine.submit(subject.close).result()


def _truth(bag: Bag, names: TruthTopics, bundle: Bundle, settings: EvaluateSettings) -> TruthReader:
    wanted = {"detection": MAP in settings.metrics, "segmentation": MIOU in settings.metrics}
    tasks = [task for task in bundle.tasks if wanted.get(task.kind)]
    if settings.labels is not None:
        return FolderTruth(settings.labels, tasks)
    return TopicTruth(bag.path, names, tasks)


def _open(name: str, bundle: Bundle, truth: TruthReader, settings: EvaluateSettings, live: LiveNode | None) -> Subject:
    if live is not None:
        return LiveSubject(name, bundle, truth, live)
    value = settings.values.__getitem__
    backend = prepare(value("backend"), bundle, engine_options(value))
    thermal = thermal_settings(value, bundle.thermal)
    return BundleSubject(name, bundle, backend, thermal, truth, settings.as_published)
