"""A bag as a folder of pairs that training reads: paired as the node pairs, aligned, thinned out, with their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from vifa_ros.bags.camera_pairs import BAD_IMAGE, BagPair, CameraTopics, PairReader, find_topics
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.motion import Thumbnails, make_thumbnails, measure_motion
from vifa_ros.bags.opening import Bag
from vifa_ros.camera_alignment import CAMERAS, AlignmentSettings, AlignmentSource
from vifa_ros.conversions import ConversionError
from vifa_ros.pairing import REUSE_VISIBLE, STREAMS, PairingSettings
from vifa_ros.transforms import TransformBuffer, add_message
from vifa_runtime.alignment import Alignment, ThermalView
from vifa_runtime.files import whole_folder, write_atomically
from vifa_runtime.label_folder import CLASS_FILE, MASK_CLASS_FILE
from vifa_runtime.labels import format_yolo
from vifa_runtime.pairs import write_image

TF = "/tf"
_TF_TYPE = "tf2_msgs/msg/TFMessage"
# Why a pair that was formed is not written.
EVERY, INTERVAL, MOTION, SAME_STAMP = "every", "interval", "min_motion", "same_stamp"


@dataclass(frozen=True)
class ExtractSettings:
    """What of a bag is extracted, and how.

    Attributes:
        pairing: as the node's.
        alignment: likewise; in mode `cameras` by the bag's camera_infos, and by its /tf_static where no file with the
            extrinsics is named.
        visible, thermal, visible_info, thermal_info: topics, as of `find_topics`.
        detections, mask: topics of boxes and masks; empty for those of `vifa record`, `none` for none.
        every: of the pairs that are formed, every so many is taken, beginning with the first.
        interval: seconds by which the stamps of two pairs must differ at least.
        min_motion: by how much a pair must differ from the one that was written before it; see `measure_motion`.
        classes, mask_classes: names in order; empty for those that the bag tells.
        overwrite: whether a folder of pairs that is there may be replaced.
    """

    pairing: PairingSettings
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    visible: str = ""
    thermal: str = ""
    visible_info: str = ""
    thermal_info: str = ""
    detections: str = ""
    mask: str = ""
    every: int = 1
    interval: float = 0.0
    min_motion: float = 0.0
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    overwrite: bool = False


def extract(
    path: Path, folder: Path, settings: ExtractSettings, on_step: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the pairs of a bag into a folder, all of them or nothing.

    Visible images become `vi/<stamp>.png`, thermal ones in visible pixels `ir/<stamp>.png` in their own depth (`.tiff`
    for floats), boxes `labels/<stamp>.txt` in YOLO's format, masks `masks/<stamp>.png`, and names of classes
    `classes.txt` and `mask_classes.txt`. The stamp is that of the camera whose frames are used once.

    Args:
        on_step: called with the messages that were read, and those there are to read.

    Returns:
        A flat row: pairs that were formed and written, labelled ones, what was left out by reason, frames that were
        dropped by stream and reason, and `notice`, where the bag has one.

    Raises:
        BagError: the bag cannot be read, no pair could be formed or written, `folder` is taken, or a label is wrong.
        AlignmentError: an alignment file that is wrong, or that doesn't fit the images.
    """
    _check_target(folder, settings.overwrite)
    aligner = AlignmentSource(settings.alignment)
    with Bag(path) as bag:
        extractor = _Extractor(bag, aligner, settings)
        try:
            with whole_folder(folder) as beside:
                extractor.write(beside, on_step)
        except OSError as error:
            raise BagError(f"cannot write {folder}: {error.strerror}; choose another place") from None
        row = {"bag": str(path), "folder": str(folder), **extractor.summary()}
        return {**row, "notice": bag.notice} if bag.notice else row


class _Extractor:
    """What is known of a bag, and of the pairs that were written."""

    def __init__(self, bag: Bag, aligner: AlignmentSource, settings: ExtractSettings) -> None:
        self._bag, self._settings = bag, settings
        self._cameras = find_topics(
            bag, settings.visible, settings.thermal, settings.visible_info, settings.thermal_info
        )  # fmt: skip
        self._aligner = _Aligner(bag, self._cameras, aligner, settings.alignment.mode)
        self._boxes = _choose_topic(bag, settings.detections, topics.DETECTIONS, DETECTIONS_TYPE, "--detections")
        self._mask = _choose_topic(bag, settings.mask, topics.MASK, MASK_TYPE, "--mask")
        self._names = settings.classes or read_class_names(bag, topics.LABEL_INFO)
        self._labels = LabelReader(self._boxes, self._mask)
        self._reader = PairReader(
            bag, self._cameras, settings.pairing, {**self._labels.callbacks, **self._aligner.callbacks}
        )  # fmt: skip
        self._left_out: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._last: BagPair | None = None
        self._thumbnails: Thumbnails | None = None
        self._problem = ""

    def write(self, folder: Path, on_step: Callable[[int, int], None]) -> None:
        """Write all pairs."""
        for part in ("vi", "ir", *(["labels"] if self._boxes else []), *(["masks"] if self._mask else [])):
            (folder / part).mkdir()
        total = self._reader.total
        for pair, labels in self._labels.join(self._reader):
            try:
                reason = self._write_pair(folder, pair, labels)
            except ConversionError as error:
                reason, self._problem = BAD_IMAGE, str(error)
            if reason:
                self._left_out[reason] += 1
            on_step(self._reader.read, total)
        if not self._written["pairs"]:
            raise BagError(f"{self._bag.path}: no pair can be written: {self._explain()}")
        self._write_names(folder)

    def summary(self) -> dict[str, Any]:
        """What became of all pairs and frames."""
        counts = self._reader.counts
        return {
            "pairs": sum(self._left_out.values()) + self._written["pairs"],
            "written": self._written["pairs"],
            "boxes": self._written["boxes"],
            "masks": self._written["masks"],
            **{f"left_out.{reason}": count for reason, count in sorted(self._left_out.items())},
            **{
                f"dropped.{stream}.{reason}": count
                for stream in STREAMS
                for reason, count in sorted(counts[stream].dropped.items())
            },
        }

    def _write_pair(self, folder: Path, pair: BagPair, labels: PairLabels) -> str:
        """Write a pair, or give the reason why not."""
        settings = self._settings
        if pair.index % settings.every:
            return EVERY
        stamp = stamp_of(pair, settings.pairing)
        if self._last is not None and 0 <= stamp - stamp_of(self._last, settings.pairing) < settings.interval * 1e9:
            return INTERVAL
        thumbnails = None
        if settings.min_motion:
            thumbnails = make_thumbnails(pair.visible, pair.thermal)
            before = self._thumbnails
            if before is not None and measure_motion(before, thumbnails) < settings.min_motion:
                return MOTION
        name = name_of(stamp)
        if (folder / "vi" / f"{name}.png").exists():
            return SAME_STAMP
        thermal = self._aligner.align(pair)
        size = (pair.visible.shape[0], pair.visible.shape[1])
        write_image(folder / "vi" / f"{name}.png", pair.visible)
        write_image(folder / "ir" / f"{name}{'.tiff' if thermal.dtype == np.float32 else '.png'}", thermal)
        if labels.boxes is not None:
            found = read_boxes(labels.boxes, self._names, size, self._boxes)
            write_atomically(folder / "labels" / f"{name}.txt", format_yolo(found, size).encode())
            self._written["boxes"] += 1
        if labels.mask is not None:
            write_image(folder / "masks" / f"{name}.png", read_mask_image(labels.mask, size, self._mask))
            self._written["masks"] += 1
        self._written["pairs"] += 1
        self._last, self._thumbnails = pair, thumbnails
        return ""

    def _write_names(self, folder: Path) -> None:
        masks = self._settings.mask_classes or read_class_names(self._bag, topics.MASK_LABEL_INFO)
        if self._boxes:
            _write_lines(folder / CLASS_FILE, self._names)
        if self._mask:
            _write_lines(folder / (MASK_CLASS_FILE if self._boxes else CLASS_FILE), masks)

    def _explain(self) -> str:
        """Why there is nothing to write."""
        if self._left_out:
            reasons = ", ".join(f"{count} left out by {reason}" for reason, count in self._left_out.items())
            return f"{reasons} ({self._problem})" if self._problem else reasons
        told = []
        for stream, counts in self._reader.counts.items():
            reasons = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items())
            problem = self._reader.problems.get(stream)
            told.append(f"{counts.received} {stream} images ({reasons}{f': {problem}' if problem else ''})")
        return f"{' and '.join(told)}; check the clocks, the offsets and --slop"


class _Aligner:
    """Brings thermal images into visible pixels, as the node's settings say."""

    def __init__(self, bag: Bag, cameras: CameraTopics, source: AlignmentSource, mode: str) -> None:
        self._source = source
        self._infos: dict[str, Any] = {}
        self._transforms = TransformBuffer()
        self._fitted: tuple[Alignment, tuple[int, ...], tuple[int, ...], ThermalView] | None = None
        self.callbacks: dict[str, Callable[[Any], object]] = {}
        for topic, stream in cameras.infos.items():  # the first ones hold for the pairs before them too
            self._infos[stream] = next(bag.messages([topic]))[2]
        if mode == CAMERAS and (missing := [stream for stream in STREAMS if stream not in self._infos]):
            raise BagError(
                f"{bag.path} has no camera_info beside the {missing[0]} images; name it with --{missing[0]}-info, "
                "or use an alignment file"
            )
        if source.needs_transforms:
            if not (_has(bag, topics.TF_STATIC) or _has(bag, TF)):
                raise BagError(
                    f"{bag.path} has no {topics.TF_STATIC}, so where the cameras are is not known; give --extrinsics"
                )
            if _has(bag, topics.TF_STATIC):
                for _, _, message in bag.messages([topics.TF_STATIC]):
                    add_message(self._transforms, message.transforms, is_static=True)
            if _has(bag, TF):
                self.callbacks[TF] = lambda message: add_message(self._transforms, message.transforms, is_static=False)

    def align(self, pair: BagPair) -> NDArray[Any]:
        """The thermal image of a pair in visible pixels, in its own depth."""
        alignment = self._source.find({**self._infos, **pair.infos}, self._transforms, pair.stamp)
        thermal, visible = pair.thermal.shape, pair.visible.shape[:2]
        if self._fitted is None or self._fitted[0] is not alignment or self._fitted[1:3] != (thermal, visible):
            view = alignment.fit((thermal[0], thermal[1]), (visible[0], visible[1]))
            self._fitted = (alignment, thermal, visible, view)
        return self._fitted[3].warp(pair.thermal)


def name_of(stamp: int) -> str:
    """The name of a pair by its stamp in nanoseconds, such that names and stamps have one order."""
    return f"{stamp // 10**9:010d}.{stamp % 10**9:09d}"


def stamp_of(pair: BagPair, settings: PairingSettings) -> int:
    """When a pair was taken, by the camera whose frames are used once, without its offset; nanoseconds."""
    if settings.pairing == REUSE_VISIBLE:
        return pair.stamp - pair.skew - settings.thermal_offset
    return pair.stamp - settings.visible_offset


def _check_target(folder: Path, overwrite: bool) -> None:
    """Refuse a place at which something is, unless it is a folder of pairs that may be overwritten, or empty."""
    if not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not ((folder / "vi").is_dir() and (folder / "ir").is_dir()):
        raise BagError(f"{folder} is there already and is no folder of pairs; choose another place")
    if not overwrite:
        raise BagError(f"{folder} is there already; choose another place, or --overwrite it")


def _choose_topic(bag: Bag, given: str, default: str, kind: str, option: str) -> str:
    if given == "none":
        return ""
    return find_label_topic(bag, given or default, kind, bool(given), option)


def _has(bag: Bag, topic: str) -> bool:
    found = bag.topics.get(topic)
    return found is not None and found.type == _TF_TYPE and found.count > 0


def _write_lines(path: Path, names: Sequence[str]) -> None:
    """Write names of classes, each with its number before it, so that a name that begins with one stays whole."""
    if names:
        write_atomically(path, "".join(f"{number} {name}\n" for number, name in enumerate(names)).encode())
