"""What a report is split by: a tag of each pair, such as day and night."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from vifa_ros.bags.camera_pairs import BagPair
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.tallies import ALL
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.messages import first_line
from vifa_runtime.plain_yaml import PlainLoader

AUTO, NAME, LUMA, NONE = "auto", "name", "luma", "none"
DAY, NIGHT, OTHER = "day", "night", "other"
NIGHT_BELOW = 52.0  # mean luma; tells the days of MSRS from its nights in 293 of 300 pairs
STRING_TYPE = "std_msgs/msg/String"
_STEP = 4  # every fourth pixel of every fourth row tells the mean


class Tagger:
    """Gives every pair the same tag, that of all; the base of those that tell pairs apart.

    Attributes:
        callbacks: what a `PairReader` is to call with messages.
        describes: what tags are told by, for people.
    """

    describes = "nothing"

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], object]] = {}

    def see(self, pair: BagPair) -> None:
        """To be called when a pair is formed, before later messages are read."""

    def tag(self, pair: BagPair, name: str, visible: NDArray[np.uint8]) -> str:
        """The tag of a pair of this name (empty: none) with this visible image, RGB (H,W,3)."""
        return ALL


class ByBrightness(Tagger):
    """Night where the visible image is dark, else day."""

    def __init__(self, night_below: float = NIGHT_BELOW) -> None:
        super().__init__()
        self.describes = f"night where the mean luma of the visible image is below {night_below:g} of 255, else day"
        self._limit = night_below

    def tag(self, pair: BagPair, name: str, visible: NDArray[np.uint8]) -> str:
        """See `Tagger.tag`."""
        return NIGHT if rgb_to_luma(visible[::_STEP, ::_STEP]).mean() < self._limit else DAY


class ByName(Tagger):
    """Day and night by names that end in a digit and D or N, as those of MSRS do; all others are `other`."""

    describes = "names of pairs that end in D for day, in N for night"

    def tag(self, pair: BagPair, name: str, visible: NDArray[np.uint8]) -> str:
        """See `Tagger.tag`."""
        return tag_of_name(name) or OTHER


class ByTopic(Tagger):
    """The last text on a topic before the pair was complete; `other` before the first one."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.callbacks[topic] = self._take
        self.describes = f"the last message on {topic} before a pair"
        self._topic, self._last = topic, OTHER
        self._of_pairs: dict[int, str] = {}

    def see(self, pair: BagPair) -> None:
        """See `Tagger.see`."""
        self._of_pairs[pair.index] = self._last

    def tag(self, pair: BagPair, name: str, visible: NDArray[np.uint8]) -> str:
        """See `Tagger.tag`; to be called once a pair."""
        return self._of_pairs.pop(pair.index)

    def _take(self, message: Any) -> None:
        self._last = _check(str(message.data).strip(), self._topic)


@dataclass(frozen=True)
class Span:
    """A stretch of a bag, seconds from the stamp of the first pair; `end` is not in it."""

    start: float
    end: float
    tag: str


class ByTime(Tagger):
    """Tags of stretches of time; `other` between them."""

    def __init__(self, spans: Sequence[Span], source: str) -> None:
        """Hold spans that are in order and do not overlap."""
        super().__init__()
        self.describes = f"stretches of time of {source}"
        self._spans = list(spans)
        self._first: int | None = None

    def tag(self, pair: BagPair, name: str, visible: NDArray[np.uint8]) -> str:
        """See `Tagger.tag`."""
        if self._first is None:
            self._first = pair.stamp
        seconds = (pair.stamp - self._first) * 1e-9
        place = bisect_right(self._spans, seconds, key=lambda span: span.start) - 1
        return self._spans[place].tag if place >= 0 and seconds < self._spans[place].end else OTHER


def tag_of_name(name: str) -> str:
    """`day` or `night` by the end of a name, as in 00537D and 00718N; empty for others."""
    found = re.search(r"[0-9]([DN])$", name)
    return {"D": DAY, "N": NIGHT}[found[1]] if found else ""


def make_tagger(what: str, bag: Bag, first_name: str, night_below: float = NIGHT_BELOW) -> Tagger:
    """What gives tags by the option --tags.

    Args:
        what: `auto` (by names if those of the bag end in D or N, else by brightness), `name`, `luma`, `none`, a topic
            of std_msgs/String, or a YAML file (see `read_spans`).
        bag: open.
        first_name: of the bag's first pair; empty where pairs have no names.
        night_below: mean luma, 0..255.

    Raises:
        BagError: no such topic or file, or one that is wrong.
    """
    if what == AUTO:
        what = NAME if tag_of_name(first_name) else LUMA
    if what == LUMA:
        return ByBrightness(night_below)
    if what in (NAME, NONE):
        return ByName() if what == NAME else Tagger()
    if what.startswith("/") and not Path(what).is_file():
        found = bag.topics.get(what)
        if found is None or found.type != STRING_TYPE:
            fitting = ", ".join(name for name, topic in bag.topics.items() if topic.type == STRING_TYPE) or "none"
            raise BagError(f"--tags: {bag.path} has no topic {what} of {STRING_TYPE}; it has {fitting}")
        return ByTopic(what)
    return ByTime(read_spans(Path(what)), what)


def read_spans(path: Path) -> list[Span]:
    """Stretches of time from a YAML file: a list of `{from: 0, to: 12.5, tag: tunnel}`, seconds from the first pair.

    Raises:
        BagError: no such file, or what is in it is no such list, or two stretches overlap.
    """
    try:
        entries = yaml.load(path.read_text(), PlainLoader)
    except OSError as error:
        raise BagError(
            f"--tags: cannot read {path}: {error.strerror}; use {AUTO}, {NAME}, {LUMA}, {NONE}, a topic or a file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BagError(f"{path} is no YAML: {first_line(error)}") from None
    if not isinstance(entries, list) or not entries:
        raise BagError(f"{path} holds no list; write one of {{from: 0, to: 12.5, tag: tunnel}}")
    spans = sorted(
        (_read_span(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)), key=_begin
    )
    for before, after in pairwise(spans):
        if after.start < before.end:
            raise BagError(
                f"{path}: {before.tag} ends at {before.end:g} s, but {after.tag} begins at {after.start:g} s"
            )
    return spans


def _begin(span: Span) -> float:
    return span.start


def _read_span(entry: Any, where: str) -> Span:
    if not isinstance(entry, dict) or set(entry) != {"from", "to", "tag"}:
        raise BagError(f"{where} must be like {{from: 0, to: 12.5, tag: tunnel}}")
    for key in ("from", "to"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], (int, float)) or not np.isfinite(entry[key]):
            raise BagError(f"{where}: {key} must be a number of seconds, got {entry[key]!r:.40}")
    if entry["from"] >= entry["to"]:
        raise BagError(f"{where} ends before it begins")
    return Span(float(entry["from"]), float(entry["to"]), _check(entry["tag"], where))


def _check(tag: Any, where: str) -> str:
    """Refuse a tag that no report could show."""
    if not isinstance(tag, str) or not re.fullmatch(r"[^\W_][\w .+-]{0,39}", tag):
        raise BagError(f"{where}: the tag {tag!r:.60} is none; use up to 40 letters, digits, spaces, and . + - _")
    if tag == ALL:
        raise BagError(f"{where}: the tag {ALL!r} stands for all pairs; use another word")
    return tag
