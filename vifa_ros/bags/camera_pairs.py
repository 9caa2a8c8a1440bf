"""The two cameras of a bag: which topics they are, and their images as the pairs that the node would form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.opening import Bag
from vifa_ros.compressed import CompressedView, view_compressed
from vifa_ros.conversions import ConversionError, ImageView, read_stamp, view_image
from vifa_ros.pairing import STREAMS, THERMAL, VISIBLE, Pair, PairingBuffer, PairingSettings, StreamCounts

BAD_IMAGE = "bad_image"  # the reason by which the node counts such frames
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_VIEWS: dict[str, Callable[[Any, str], ImageView | CompressedView]] = {
    "sensor_msgs/msg/Image": view_image,
    "sensor_msgs/msg/CompressedImage": view_compressed,
}
_COMPRESSED = "/compressed"
_WORDS = {
    **dict.fromkeys(("visible", "vis", "vi", "rgb", "color", "colour", "eo"), VISIBLE),
    **dict.fromkeys(("thermal", "infrared", "ir", "lwir", "mwir", "swir", "nir", "flir", "boson", "lepton"), THERMAL),
    **dict.fromkeys(("truth", "mask", "overlay", "depth", "disparity"), ""),  # images, but no camera's
}
_NEVER = 1 << 62  # nanoseconds after which nobody waits


@dataclass(frozen=True)
class CameraTopics:
    """Names of the cameras' topics; those of their camera_info are empty where the bag has none."""

    visible: str
    thermal: str
    visible_info: str = ""
    thermal_info: str = ""

    @property
    def images(self) -> dict[str, str]:
        """Topic of images -> stream."""
        return {self.visible: VISIBLE, self.thermal: THERMAL}

    @property
    def infos(self) -> dict[str, str]:
        """Topic of camera_info -> stream, for those that there are."""
        both = {self.visible_info: VISIBLE, self.thermal_info: THERMAL}
        return {topic: stream for topic, stream in both.items() if topic}


@dataclass(frozen=True)
class BagFrame:
    """One camera's frame: its header's stamp in nanoseconds, its frame, and its pixels not yet converted."""

    stamp: int
    frame_id: str
    view: ImageView | CompressedView


@dataclass(frozen=True)
class BagPair:
    """Two images that show one moment. They are decoded when they are first asked for, in the thread that asks.

    Attributes:
        index: of the pair, from 0.
        stamp: what the visible image was paired by, after its offset, nanoseconds; see `vifa_ros.streams.Pair`.
        skew: the visible minus the thermal stamp, after offsets, nanoseconds.
        reused: one of the images was in an earlier pair already.
        arrival: when the message that completed the pair was recorded, nanoseconds.
        infos: stream -> that camera's last camera_info before that, as far as there was one.
        visible_frame, thermal_frame: what the node would have in its place of the images.
    """

    index: int
    stamp: int
    skew: int
    reused: bool
    arrival: int
    infos: Mapping[str, Any]
    visible_frame: BagFrame = field(repr=False)
    thermal_frame: BagFrame = field(repr=False)

    @property
    def visible_stamp(self) -> int:
        """Of the visible image's header, nanoseconds."""
        return self.visible_frame.stamp

    @property
    def thermal_stamp(self) -> int:
        """Of the thermal image's header, nanoseconds."""
        return self.thermal_frame.stamp

    @property
    def visible_frame_id(self) -> str:
        """The frame of the visible camera, by the image's header."""
        return self.visible_frame.frame_id

    @property
    def thermal_frame_id(self) -> str:
        """The frame of the thermal camera, by the image's header."""
        return self.thermal_frame.frame_id

    @cached_property
    def visible(self) -> NDArray[np.uint8]:
        """RGB (H,W,3), maybe read-only.

        Raises:
            ConversionError: bytes that no decoder reads. The node counts such a pair as dropped, BAD_IMAGE.
        """
        return self.visible_frame.view.to_rgb()

    @cached_property
    def thermal(self) -> NDArray[Any]:
        """Thermal (h,w) uint8, uint16 or float32, maybe read-only.

        Raises:
            ConversionError: as of `visible`.
        """
        return self.thermal_frame.view.to_thermal()


class PairReader:
    """The pairs of a bag, by the node's own pairing. Iterating begins anew each time.

    The arrival clock is the time of recording. The node looks several times a second for frames that waited too long;
    here that is done before every message, and after the last one.

    Attributes:
        topics: the cameras'.
        read: messages that were read so far, of `total`.
        problems: stream -> why its last bad image was refused.
    """

    def __init__(
        self,
        bag: Bag,
        topics: CameraTopics,
        settings: PairingSettings,
        also: Mapping[str, Callable[[Any], object]] | None = None,
    ) -> None:
        """Make a reader of an open bag.

        Args:
            also: topic -> what is called with each of its messages, in the order of recording, between the pairs.
        """
        self.topics = topics
        self.read = 0
        self.problems: dict[str, str] = {}
        self._bag, self._settings, self._also = bag, settings, dict(also or {})
        self._buffer = PairingBuffer(settings)
        self._infos: dict[str, Any] = {}
        self._formed = 0

    @property
    def total(self) -> int:
        """How many messages a whole iteration reads."""
        return sum(self._bag.topics[topic].count for topic in self._wanted() if topic in self._bag.topics)

    @property
    def counts(self) -> dict[str, StreamCounts]:
        """What became of each stream's frames so far; at the end none waits.

        For each, received = paired + sum of dropped + waiting, and pairs = paired + reused.
        """
        return {stream: self._buffer.counts(stream) for stream in STREAMS}

    def __iter__(self) -> Iterator[BagPair]:
        """Read the bag.

        Raises:
            BagError: as of `Bag.messages`.
        """
        self.read, self._formed, self.problems = 0, 0, {}
        self._buffer, self._infos = PairingBuffer(self._settings), {}
        images, infos = self.topics.images, self.topics.infos
        views = {topic: _VIEWS[self._bag.topics[topic].type] for topic in images}
        arrival = self._bag.start
        for topic, arrival, message in self._bag.messages(self._wanted()):
            self.read += 1
            yield from self._give(self._buffer.expire(arrival), arrival)
            if topic in self._also:
                self._also[topic](message)
            if topic in infos:
                self._infos = {**self._infos, infos[topic]: message}  # pairs keep what they were given
            if topic in images:
                yield from self._give(self._take(images[topic], views[topic], message, arrival), arrival)
        yield from self._give(self._buffer.expire(arrival + _NEVER), arrival)

    def _wanted(self) -> set[str]:
        return {*self.topics.images, *self.topics.infos, *self._also}

    def _take(
        self, stream: str, view: Callable[[Any, str], ImageView | CompressedView], message: Any, arrival: int
    ) -> list[Pair]:
        """Look at an image as the node does when it arrives; the pairs that it completes."""
        try:
            stamp = read_stamp(message.header)
            frame = BagFrame(stamp, message.header.frame_id, view(message, stream))
        except ConversionError as error:
            self.problems[stream] = str(error)
            self._buffer.refuse(stream, BAD_IMAGE)
            return []
        return self._buffer.add(stream, stamp, frame, arrival)

    def _give(self, pairs: list[Pair], arrival: int) -> Iterator[BagPair]:
        for pair in pairs:
            index, self._formed = self._formed, self._formed + 1
            yield BagPair(
                index, pair.stamp, pair.skew, pair.reused, arrival, self._infos, pair.visible, pair.thermal
            )  # fmt: skip


def find_topics(
    bag: Bag, visible: str = "", thermal: str = "", visible_info: str = "", thermal_info: str = ""
) -> CameraTopics:
    """The cameras' topics: those that are given, and for the others the only ones that fit.

    What is seen is told from words in the topics' names (`rgb`, `visible`, `thermal`, `lwir`, ...), of several by the
    last. Of two cameras it is enough that one has such a name. Where a camera's images are there raw and compressed,
    the raw ones are taken. A camera's camera_info lies beside its images: /front/image_raw, /front/camera_info.

    Args:
        bag: open.
        visible, thermal: topics of images, raw or compressed; empty to find them.
        visible_info, thermal_info: topics of camera_info; empty to take those beside the images, if there are some.

    Raises:
        BagError: a given topic is missing, empty or of another type; there are no two cameras; or which topics are
            theirs is not clear. The message lists the images' topics and the options.
    """
    given = {VISIBLE: visible, THERMAL: thermal}
    for stream, topic in given.items():
        if topic:
            _check(bag, topic, tuple(_VIEWS), f"--{stream}")
    if visible and visible == thermal:
        raise BagError(f"--visible and --thermal are both {visible}; name two topics")
    chosen = _choose(bag, given)
    infos = {VISIBLE: visible_info, THERMAL: thermal_info}
    for stream, topic in infos.items():
        beside = f"{chosen[stream].removesuffix(_COMPRESSED).rpartition('/')[0]}/camera_info"
        if topic:
            _check(bag, topic, (INFO_TYPE,), f"--{stream}-info")
        elif (found := bag.topics.get(beside)) is not None and found.type == INFO_TYPE and found.count:
            infos[stream] = beside
    return CameraTopics(chosen[VISIBLE], chosen[THERMAL], infos[VISIBLE], infos[THERMAL])


def _choose(bag: Bag, given: Mapping[str, str]) -> dict[str, str]:
    """Stream -> topic of its images."""
    images = [name for name, topic in bag.topics.items() if topic.type in _VIEWS and topic.count]
    if not images:
        raise BagError(f"{bag.path} holds no images; it has {', '.join(bag.topics)}")
    sees = {name: _sees(name) for name in images if name.removesuffix(_COMPRESSED) not in {*images} - {name}}
    chosen = {stream: topic for stream, topic in given.items() if topic}
    free = [name for name, stream in sees.items() if stream != "" and not _same_camera(name, chosen.values())]
    for stream in (s for s in STREAMS if s not in chosen):
        named = [name for name in free if sees[name] == stream]
        unnamed = [name for name in free if sees[name] is None]
        fitting = named or unnamed
        if len(fitting) == 1:
            chosen[stream] = fitting[0]
    if len(chosen) == len(STREAMS) and len(set(chosen.values())) == len(STREAMS):
        return chosen
    listed = ", ".join(f"{name} ({bag.topics[name].count})" for name in images)
    if len(free) + len([topic for topic in given.values() if topic]) < len(STREAMS):
        raise BagError(
            f"{bag.path} holds images of one camera only, {listed}; a visible and a thermal one are needed"
            if free or any(given.values())
            else f"{bag.path} holds no camera's images, only {listed}; name them with --visible and --thermal"
        )
    raise BagError(
        f"{bag.path}: which image topics are the cameras' is not clear: {listed}; "
        "name them with --visible and --thermal"
    )


def _sees(topic: str) -> str | None:
    """What a topic's images show by the last telling word of its name: a stream, `` for no camera, None: not told."""
    told = [_WORDS[word] for word in re.findall("[a-z]+", topic.lower()) if word in _WORDS]
    if "" in told:
        return ""
    return told[-1] if told else None


def _same_camera(topic: str, others: Any) -> bool:
    return topic.removesuffix(_COMPRESSED) in {other.removesuffix(_COMPRESSED) for other in others}


def _check(bag: Bag, topic: str, types: tuple[str, ...], option: str) -> None:
    """Refuse a topic that is missing, empty, or of none of the types."""
    found = bag.topics.get(topic)
    fitting = [name for name, other in bag.topics.items() if other.type in types and other.count]
    wanted = f"use one of {', '.join(fitting)}" if fitting else f"it has none of {' or '.join(types)}"
    if found is None:
        raise BagError(f"{option}: {bag.path} has no topic {topic}; {wanted}")
    if found.type not in types:
        raise BagError(f"{option}: {topic} is {found.type}, not {' or '.join(types)}; {wanted}")
    if not found.count:
        raise BagError(f"{option}: {bag.path} holds no messages of {topic}; {wanted}")
