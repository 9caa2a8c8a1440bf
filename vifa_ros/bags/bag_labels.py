"""Labels in a bag: boxes and masks on topics of their own, each with the stamp of the visible image it belongs to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.camera_pairs import BagPair
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.opening import Bag
from vifa_ros.conversions import ConversionError, read_stamp, view_image
from vifa_runtime.labels import Labels

DETECTIONS_TYPE = "vision_msgs/msg/Detection2DArray"
LABEL_INFO_TYPE = "vision_msgs/msg/LabelInfo"
MASK_TYPE = "sensor_msgs/msg/Image"
MOST_HELD = 32  # pairs that may wait for their labels
_KEPT = 64  # labels of one kind that may wait for their pair


@dataclass(frozen=True)
class PairLabels:
    """The messages that belong to one pair, not yet read; None where there is none."""

    boxes: Any = None
    mask: Any = None


class LabelReader:
    """Gives the pairs of a bag together with their labels, which may be recorded before or after them.

    A pair waits for those that it lacks until MOST_HELD pairs have come after it.
    """

    def __init__(self, boxes: str = "", mask: str = "") -> None:
        """Make a reader of the topics of boxes and masks; those that are empty are not read."""
        self._waiting: dict[str, dict[int, Any]] = {topic: {} for topic in (boxes, mask) if topic}
        self._boxes, self._mask = boxes, mask

    @property
    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        """What a `PairReader` is to call with the messages of these topics."""
        return {topic: self._keep(waiting) for topic, waiting in self._waiting.items()}

    def join(self, pairs: Iterable[BagPair]) -> Iterator[tuple[BagPair, PairLabels]]:
        """Every pair with its labels, in their order.

        Args:
            pairs: of a `PairReader` that was made with `callbacks`.
        """
        held: deque[BagPair] = deque()
        for pair in pairs:
            held.append(pair)
            while held and (len(held) > MOST_HELD or self._has_all(held[0])):
                first = held.popleft()
                yield first, self._take(first)
        while held:
            first = held.popleft()
            yield first, self._take(first)

    def _keep(self, waiting: dict[int, Any]) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            waiting[read_stamp(message.header)] = message
            if len(waiting) > _KEPT:
                waiting.pop(next(iter(waiting)))

        return keep

    def _has_all(self, pair: BagPair) -> bool:
        return all(pair.visible_stamp in waiting for waiting in self._waiting.values())

    def _take(self, pair: BagPair) -> PairLabels:
        """A pair's labels, which stay for one that uses the same visible image; older ones are forgotten."""
        found = {}
        for topic, waiting in self._waiting.items():
            if pair.visible_stamp in waiting:
                while next(iter(waiting)) != pair.visible_stamp:
                    waiting.pop(next(iter(waiting)))
                found[topic] = waiting[pair.visible_stamp]
        return PairLabels(found.get(self._boxes), found.get(self._mask))


def find_label_topic(bag: Bag, topic: str, kind: str, is_asked_for: bool, option: str) -> str:
    """The topic, or empty where the bag has no messages on it.

    Args:
        topic: name, or empty.
        kind: type that it must have.
        is_asked_for: whether the user named it, so that it must be there.
        option: by which.

    Raises:
        BagError: it is of another type, or asked for and not there.
    """
    found = bag.topics.get(topic)
    if found is not None and found.count:
        if found.type != kind:
            raise BagError(f"{option}: {topic} is {found.type}, not {kind}; name another topic")
        return topic
    if topic and is_asked_for:
        others = [name for name, other in bag.topics.items() if other.type == kind and other.count]
        mend = f"use one of {', '.join(others)}" if others else "it has none of that type"
        raise BagError(f"{option}: {bag.path} holds no messages of {topic} ({kind}); {mend}")
    return ""


def read_class_names(bag: Bag, topic: str) -> tuple[str, ...]:
    """The names of the class ids 0, 1, ... by the first vision_msgs/LabelInfo of a topic; none where there is none.

    An id between others that has no name is named by its number.

    Raises:
        BagError: two classes share a name.
    """
    found = bag.topics.get(topic)
    if found is None or not found.count or found.type != LABEL_INFO_TYPE:
        return ()
    _, _, message = next(bag.messages([topic]))
    known = {int(entry.class_id): entry.class_name.strip() for entry in message.class_map}
    names = tuple(known.get(number, "") or str(number) for number in range(max(known, default=-1) + 1))
    if len(set(names)) < len(names):
        raise BagError(f"{bag.path}, {topic}: two classes of {', '.join(names)} share a name; give other ones")
    return names


def read_boxes(message: Any, names: Sequence[str], size: tuple[int, int], topic: str) -> Labels:
    """The boxes of a vision_msgs/Detection2DArray, clipped to the image; those outside it are left out.

    A rotated box becomes the upright one around it. Of several hypotheses, the one with the best score counts.

    Args:
        names: of the classes; where there are none, class ids are numbers.
        size: (height, width) of the image, pixels.
        topic: for messages.

    Raises:
        BagError: a box without a class, or of one that is not known, or that is none.
    """
    numbers = {name: number for number, name in enumerate(names)}
    height, width = size
    boxes, labels = [], []
    for detection in message.detections:
        centre, theta = detection.bbox.center.position, detection.bbox.center.theta
        sides = detection.bbox.size_x, detection.bbox.size_y
        if not all(map(math.isfinite, (centre.x, centre.y, theta, *sides))) or min(sides) < 0:
            raise BagError(
                f"{topic}: a box at {centre.x}, {centre.y} of {sides[0]} x {sides[1]} pixels is none; mend it"
            )
        cos, sin = abs(math.cos(theta)), abs(math.sin(theta))
        across, down = (cos * sides[0] + sin * sides[1]) / 2, (sin * sides[0] + cos * sides[1]) / 2
        left, right = max(centre.x - across, 0.0), min(centre.x + across, float(width))
        top, bottom = max(centre.y - down, 0.0), min(centre.y + down, float(height))
        if left < right and top < bottom:
            boxes.append((left, top, right, bottom))
            labels.append(_class_number(detection, numbers, topic))
    return Labels(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


def read_mask_image(message: Any, size: tuple[int, int], topic: str) -> NDArray[np.uint8]:
    """The class ids (H,W) of a mask that was sent as mono8.

    Args:
        size: (height, width) of the visible image, pixels.
        topic: for messages.

    Raises:
        BagError: another encoding or size.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise BagError(f"{topic}: a mask is {message.encoding}; send class ids as mono8")
    try:
        mask = view_image(message, "thermal").pixels
    except ConversionError as error:
        raise BagError(f"{topic}: {error}") from None
    if mask.shape != size:
        raise BagError(
            f"{topic}: a mask has {mask.shape[1]}x{mask.shape[0]} pixels, its image {size[1]}x{size[0]}; "
            "send masks in the visible image's pixels"
        )
    return mask


def _class_number(detection: Any, numbers: Mapping[str, int], topic: str) -> int:
    if not len(detection.results):
        raise BagError(f"{topic}: a box has no class; send one result with each")
    name = max(detection.results, key=lambda result: result.hypothesis.score).hypothesis.class_id
    if name in numbers:
        return numbers[name]
    if not numbers and name.isascii() and name.isdigit():
        return int(name)
    known = f"are {', '.join(numbers)}" if numbers else "have no names"
    raise BagError(f"{topic}: a box is of class {name[:40]!r}, but the classes {known}; name them with --classes")
