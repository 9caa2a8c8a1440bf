"""The pairs of a bag, decoded, with all else that the bag tells of each: its name, tag, alignment and ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags import topics
from vifa_ros.bags.bag_labels import LabelReader, PairLabels
from vifa_ros.bags.camera_pairs import BAD_IMAGE, BagPair, CameraTopics, PairReader
from vifa_ros.bags.extracting import name_of, stamp_of
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.tags import Tagger
from vifa_ros.bags.truth import Truth, TruthReader
from vifa_ros.camera_alignment import AlignmentSource
from vifa_ros.conversions import ConversionError
from vifa_ros.pairing import PairingSettings
from vifa_ros.transforms import TransformBuffer, add_message
from vifa_runtime.alignment import Alignment
from vifa_runtime.camera_model import AlignmentError

NO_CALIBRATION = "no_calibration"  # the reason by which the node counts such pairs
TF_TYPE, NAME_TYPE = "tf2_msgs/msg/TFMessage", "std_msgs/msg/Header"


@dataclass(frozen=True)
class Job:
    """One pair, decoded.

    Attributes:
        name: of the files that it was recorded from; empty where the bag has none.
        visible, thermal: RGB (H,W,3) uint8 and (h,w); None where the pair is dropped.
        alignment: at the pair's time.
        truths: of each subject.
        decode_ms: time that decoding took.
        reason, problem: why the pair is dropped, for the count and for people; empty where it is not.
    """

    pair: BagPair
    name: str = ""
    tag: str = ""
    visible: NDArray[np.uint8] | None = None
    thermal: NDArray[Any] | None = None
    alignment: Alignment | None = None
    truths: Sequence[Truth] = ()
    decode_ms: float = 0.0
    reason: str = ""
    problem: str = ""


class Aligner:
    """Gives the alignment at each pair's time by what the bag tells, as the node does by its topics."""

    def __init__(self, bag: Bag, source: AlignmentSource) -> None:
        """Read the static transforms, which are latched and so known from the start."""
        self._source, self._transforms = source, TransformBuffer()
        self.callbacks: dict[str, Callable[[Any], object]] = {}
        if source.needs_transforms:
            found = {name for name, topic in bag.topics.items() if topic.type == TF_TYPE and topic.count}
            if topics.TF_STATIC in found:
                for _, _, message in bag.messages([topics.TF_STATIC]):
                    add_message(self._transforms, message.transforms, is_static=True)
            if "/tf" in found:
                self.callbacks["/tf"] = lambda message: add_message(self._transforms, message.transforms, False)

    def find(self, pair: BagPair) -> Alignment:
        """The alignment for a pair.

        Raises:
            AlignmentError: what is missing yet, or wrong.
        """
        return self._source.find(pair.infos, self._transforms, pair.stamp)


def first_name(bag: Bag) -> str:
    """The first name of a pair in a bag; empty where it names none."""
    found = bag.topics.get(topics.PAIR_NAME)
    if found is None or found.type != NAME_TYPE or not found.count:
        return ""
    return str(next(bag.messages([topics.PAIR_NAME]))[2].frame_id)


class PairNames:
    """The names of pairs that `vifa record` writes; empty for bags without."""

    def __init__(self, bag: Bag) -> None:
        """Look whether the bag has some."""
        self.callbacks: dict[str, Callable[[Any], object]] = {}
        if first_name(bag):
            self.callbacks[topics.PAIR_NAME] = self._take
        self._names: dict[int, str] = {}

    def find(self, pair: BagPair) -> str:
        """The name of a pair; names of older ones are forgotten."""
        name = self._names.get(pair.visible_stamp, "")
        while name and next(iter(self._names)) != pair.visible_stamp:
            self._names.pop(next(iter(self._names)))
        return name

    def _take(self, message: Any) -> None:
        self._names[message.stamp.sec * 10**9 + message.stamp.nanosec] = message.frame_id


class JobMaker:
    """Decodes pairs, and adds what else the bag tells of them.

    Attributes:
        reader: of the pairs.
    """

    def __init__(
        self,
        bag: Bag,
        cameras: CameraTopics,
        settings: PairingSettings,
        aligner: Aligner,
        tagger: Tagger,
        labels: LabelReader,
        truths: Sequence[TruthReader],
    ) -> None:
        """Make it for an open bag.

        Args:
            labels: brings pairs and messages of ground truth together.
            truths: of each subject.
        """
        self._aligner, self._tagger, self._labels, self._truths = aligner, tagger, labels, truths
        self._settings = settings
        self._names = PairNames(bag)
        also = {**labels.callbacks, **self._names.callbacks, **aligner.callbacks, **tagger.callbacks}
        self.reader = PairReader(bag, cameras, settings, also)
        self._alignments: dict[int, Alignment | AlignmentError] = {}

    def __iter__(self) -> Iterator[Job]:
        """Every pair, in their order.

        Raises:
            BagError, LabelError: the bag is damaged, or ground truth is wrong.
        """
        for pair, messages in _one_behind(self._labels.join(self._witnessed())):
            yield self._make(pair, messages)

    def _witnessed(self) -> Iterator[BagPair]:
        """Pairs as they are formed, when what the node would know of them is noted: labels may come later."""
        for pair in self.reader:
            self._tagger.see(pair)
            try:
                self._alignments[pair.index] = self._aligner.find(pair)
            except AlignmentError as error:
                self._alignments[pair.index] = error
            yield pair

    def _make(self, pair: BagPair, labels: PairLabels) -> Job:
        alignment = self._alignments.pop(pair.index)
        if isinstance(alignment, AlignmentError):
            return Job(pair, reason=NO_CALIBRATION, problem=str(alignment))
        start = time.perf_counter()
        try:
            visible, thermal = pair.visible, pair.thermal
        except ConversionError as error:
            return Job(pair, reason=BAD_IMAGE, problem=str(error))
        taken = 1e3 * (time.perf_counter() - start)
        name = self._names.find(pair)
        names = [*([name] if name else []), name_of(stamp_of(pair, self._settings))]  # recorded, or extracted
        truths = [reader.read(labels, names, (visible.shape[0], visible.shape[1])) for reader in self._truths]
        return Job(pair, name, self._tagger.tag(pair, name, visible), visible, thermal, alignment, truths, taken)


def _one_behind(pairs: Iterable[tuple[BagPair, PairLabels]]) -> Iterator[tuple[BagPair, PairLabels]]:
    """Each when the next one is known: by then the name, which follows a visible image, was read too."""
    held = None
    for pair in pairs:
        if held is not None:
            yield held
        held = pair
    if held is not None:
        yield held
