"""What pairing works with: its settings, frames, the two streams and the counts of what became of their frames."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

VISIBLE = "visible"
THERMAL = "thermal"
STREAMS = (VISIBLE, THERMAL)

NEAREST = "nearest"
REUSE_THERMAL = "reuse_thermal"
REUSE_VISIBLE = "reuse_visible"
PAIRINGS = (NEAREST, REUSE_THERMAL, REUSE_VISIBLE)

HEADER = "header"
ARRIVAL = "arrival"
STAMPS = (HEADER, ARRIVAL)

NO_PARTNER = "no_partner"
TIMED_OUT = "timed_out"
BUFFER_FULL = "buffer_full"
OUT_OF_ORDER = "out_of_order"
REPEATED_STAMP = "repeated_stamp"
NO_STAMP = "no_stamp"
CLOCK_JUMP = "clock_jump"
RECONFIGURED = "reconfigured"

_REMEMBERED_GAPS = 5


@dataclass(frozen=True)
class PairingSettings:
    """How frames are paired; all times in nanoseconds.

    Attributes:
        slop: largest distance of two frames' stamps, after offsets.
        visible_offset, thermal_offset: added to a stream's stamps before comparing.
        capacity: frames of one stream that may wait for a partner.
        jump: a stamp this much older than the stream's newest is a clock jump, not a late frame.
        pairing: `nearest` uses every frame once; `reuse_thermal` pairs every visible frame, with a thermal frame that
            may have been used before; `reuse_visible` the other way round.
        max_reuse_age: how much older than its partner a frame may be that is used for want of one within the slop.
        stamps: `header` compares the cameras' stamps, `arrival` the times of arrival, for drivers with bad stamps.
        max_lag: how much later than due, beside the other stream, a frame may come; at least the slop is allowed.
            Raise it for a camera whose images take longer to arrive than the other's.
        max_wait: a frame that waited this long by the arrival clock is let go.

    Raises:
        ValueError: a mode that does not exist, a negative time, or no room for a frame.
    """

    slop: int
    visible_offset: int = 0
    thermal_offset: int = 0
    capacity: int = 10
    jump: int = 1_000_000_000
    pairing: str = NEAREST
    max_reuse_age: int = 300_000_000
    stamps: str = HEADER
    max_lag: int = 0
    max_wait: int = 1_000_000_000

    def __post_init__(self) -> None:
        """Refuse what no buffer could work with."""
        for name, choices in (("pairing", PAIRINGS), ("stamps", STAMPS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}; use one of {', '.join(choices)}")
        lowest = {"slop": 0, "capacity": 1, "jump": 1, "max_reuse_age": 0, "max_lag": 0, "max_wait": 0}
        for name, least in lowest.items():
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}; use {least} or more")

    @property
    def lateness(self) -> int:
        """How much later than due a frame may come before nobody waits for it."""
        return max(self.slop, self.max_lag)

    def offset(self, stream: str) -> int:
        """What is added to a stream's stamps."""
        return {VISIBLE: self.visible_offset, THERMAL: self.thermal_offset}[stream]


@dataclass
class Frame:
    """One frame.

    Attributes:
        stamp: what it is paired by, after the offset, nanoseconds.
        content: handed through into its pairs.
        since: arrival clock's time since which it waits, nanoseconds; None before that is known.
        used: it is in a pair already and kept for further ones.
    """

    stamp: int
    content: Any
    since: int | None = None
    used: bool = False

    def waited(self, now: int | None) -> int:
        """How long it waits, nanoseconds; 0 where the arrival clock was never told."""
        return 0 if now is None or self.since is None else now - self.since


@dataclass(frozen=True)
class Pair:
    """Two frames of one moment.

    Attributes:
        visible, thermal: what the frames carry; None for the camera that is lost, see `PairingBuffer.set_alone`.
        skew: the visible minus the thermal stamp, after offsets, nanoseconds; 0 where one of them is alone.
        stamp: what the visible frame, or the one that is alone, was paired by, after the offset, nanoseconds; good also
            where headers are not.
        reused: one of the frames was in an earlier pair already.
    """

    visible: Any
    thermal: Any
    skew: int
    stamp: int
    reused: bool = False


@dataclass(frozen=True)
class StreamCounts:
    """What became of one stream's frames.

    received = paired + sum of dropped + waiting. A frame counts as paired when it is used first, and each further use
    counts as reused. One that was used without a partner, because the other camera is lost, counts as paired and as
    alone. So for either stream, pairs formed = paired + reused + alone of the other stream.
    """

    received: int
    paired: int
    waiting: int
    dropped: Mapping[str, int]
    reused: int = 0
    alone: int = 0


@dataclass
class Stream:
    """One camera's frames that are not decided yet, oldest first, and what became of the others.

    Only the oldest may be a used one: it is kept for further pairs and no longer waits.
    """

    queue: deque[Frame] = field(default_factory=deque)
    newest: int | None = None
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_GAPS))
    received: int = 0
    paired: int = 0
    reused: int = 0
    alone: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def period(self) -> float:
        """Time between frames; 0 before it is known, so that nothing waits for it."""
        return median(self.gaps) if self.gaps else 0.0

    @property
    def waiting(self) -> int:
        """Frames that are in no pair yet."""
        return len(self.queue) - int(bool(self.queue) and self.queue[0].used)

    def counts(self) -> StreamCounts:
        """What became of its frames so far."""
        return StreamCounts(self.received, self.paired, self.waiting, dict(self.dropped), self.reused, self.alone)

    def use_oldest(self, keep: bool = False) -> Frame:
        """The oldest frame, counted as used once more; it leaves the queue unless it is kept."""
        frame = self.queue[0]
        if frame.used:
            self.reused += 1
        else:
            self.paired += 1
        frame.used = True
        if not keep:
            self.queue.popleft()
        return frame

    def use_alone(self) -> list[Frame]:
        """All waiting frames, oldest first, counted as used without a partner."""
        frames = [frame for frame in self.queue if not frame.used]
        self.queue.clear()
        self.paired += len(frames)
        self.alone += len(frames)
        return frames

    def drop_oldest(self, reason: str) -> None:
        """Forget the oldest frame, counted unless it was used before."""
        if not self.queue.popleft().used:
            self.dropped[reason] += 1

    def forget(self, reason: str) -> None:
        """Drop all waiting frames and what was learnt about stamps."""
        while self.queue:
            self.drop_oldest(reason)
        self.newest = None
        self.gaps.clear()


def make_pair(frames: Mapping[str, Frame], reused: bool = False) -> Pair:
    """The pair of one frame of each stream."""
    visible, thermal = frames[VISIBLE], frames[THERMAL]
    return Pair(visible.content, thermal.content, visible.stamp - thermal.stamp, visible.stamp, reused)
