"""mAP of more images than memory holds: what they add lies in a file, and only true positives are read all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.metrics.detection import DetectionScores, detection_scores, interpolate
from vifa_runtime.metrics.matching import IOU_THRESHOLDS, DetectionMatches, ImageMatches, pool_matches

_RECORD = np.dtype([("image", "<u4"), ("label", "<u2"), ("score", "<f4"), ("hits", "<u2")])
_CHUNK = 1 << 16  # records that are read at once
_BITS = 1 << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


class DetectionFile:
    """The matches of images of K classes, one after the other: 12 bytes a detection in the file."""

    def __init__(self, classes: int, file: BinaryIO) -> None:
        """Begin in an empty file that is open for writing and reading, such as a temporary one."""
        self.classes = classes
        self._file = file
        self._truths: list[NDArray[np.uint16]] = []

    def __len__(self) -> int:
        """The number of images."""
        return len(self._truths)

    def add(self, image: ImageMatches) -> None:
        """Add an image; its scores are float32, as detectors give them, 0 and above."""
        records = np.empty(len(image.labels), _RECORD)
        records["image"], records["label"], records["score"] = len(self), image.labels, image.scores
        records["hits"] = _BITS @ image.hits
        self._truths.append(image.ground_truths.astype(np.uint16))
        self._file.write(records.tobytes())

    def scores(self, chosen: NDArray[np.bool_] | None = None) -> DetectionScores:
        """mAP over the images (n,) that are `chosen`, or all; equals `pooled_detection_scores` to the bit."""
        chosen = np.ones(len(self), bool) if chosen is None else chosen
        positives = self._ground_truths()[chosen].sum(axis=0)
        keys, hits = self._hits(chosen)
        before = [np.zeros(len(own) + 1, np.int64) for own in keys]
        for records, order in self._chunks(chosen):
            ranked = _keys(records, order)
            for label in np.unique(records["label"]):
                places = np.searchsorted(keys[label], ranked[records["label"] == label])
                before[label] += np.bincount(places, minlength=len(before[label]))
        precision = np.full((self.classes, len(IOU_THRESHOLDS)), np.nan)
        for label in np.flatnonzero(positives):
            ranks = np.cumsum(before[label])[:-1]
            for threshold, bit in enumerate(_BITS):
                own = ranks[(hits[label] & bit) != 0]
                precision[label, threshold] = interpolate(np.arange(1, len(own) + 1), own, int(positives[label]))
        return detection_scores(precision)

    def load(self) -> DetectionMatches:
        """Everything in memory, for the bootstrap: about 40 bytes a detection."""
        ends = np.zeros(len(self) + 1, np.int64)
        parts = [records for records, _ in self._chunks(np.ones(len(self), bool))]
        records = np.concatenate([*parts, np.zeros(0, _RECORD)])
        np.cumsum(np.bincount(records["image"], minlength=len(self)), out=ends[1:])
        images = []
        for number, truths in enumerate(self._truths):
            own = records[ends[number] : ends[number + 1]]
            hits = (own["hits"] & _BITS[:, None]) != 0
            images.append(
                ImageMatches(own["label"].astype(np.int64), own["score"].astype(float), hits, truths.astype(np.int64))
            )
        return pool_matches(images, self.classes)

    def dump(self) -> tuple[bytes, NDArray[np.uint16]]:
        """Everything as plain data, for `extend`: the file's bytes, and the ground truths of each image (n,K)."""
        self._file.seek(0)
        try:
            return self._file.read(), np.array(self._truths, np.uint16).reshape(-1, self.classes)
        finally:
            self._file.seek(0, 2)

    def extend(self, other: tuple[bytes, NDArray[np.uint16]]) -> None:
        """Add the images of another file of the same classes, as `dump` gives them."""
        records = np.frombuffer(other[0], _RECORD).copy()
        records["image"] += len(self)
        self._file.write(records.tobytes())
        self._truths.extend(other[1])

    @property
    def detections(self) -> int:
        """How many detections there are of all images."""
        self._file.seek(0, 2)
        return self._file.tell() // _RECORD.itemsize

    def _ground_truths(self) -> NDArray[np.int64]:
        return np.array(self._truths, np.int64).reshape(-1, self.classes)

    def _hits(self, chosen: NDArray[np.bool_]) -> tuple[list[NDArray[np.uint64]], list[NDArray[np.uint16]]]:
        """Sorted keys and thresholds, by class, of the detections that hit a true box at some threshold."""
        found: list[list[tuple[NDArray[np.uint64], NDArray[np.uint16]]]] = [[] for _ in range(self.classes)]
        for records, order in self._chunks(chosen):
            hit = records["hits"] != 0
            records, ranked = records[hit], _keys(records[hit], order[hit])
            for label in np.unique(records["label"]):
                own = records["label"] == label
                found[label].append((ranked[own], records["hits"][own]))
        keys, hits = [], []
        for parts in found:
            joined = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
            ascending = np.argsort(joined)
            keys.append(joined[ascending])
            hits.append(np.concatenate([np.zeros(0, np.uint16), *(part[1] for part in parts)])[ascending])
        return keys, hits

    def _chunks(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray, NDArray[np.uint64]]]:
        """Records of chosen images, and the place of each in the file."""
        self._file.seek(0)
        first = 0
        while data := self._file.read(_CHUNK * _RECORD.itemsize):
            records = np.frombuffer(data, _RECORD)
            order = np.arange(first, first + len(records), dtype=np.uint64)
            first += len(records)
            kept = chosen[records["image"]]
            yield records[kept], order[kept]


def _keys(records: NDArray, order: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that rise where scores fall, and among equal ones with the place in the file.

    The bits of positive float32 numbers, read as integers, are in the order of the numbers.
    """
    bits = np.ascontiguousarray(records["score"]).view("<u4").astype(np.uint64)
    return ((np.uint64(0xFFFFFFFF) - bits) << np.uint64(32)) | order
