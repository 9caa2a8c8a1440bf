"""Pairing: which visible and which thermal frame show the same moment. Knows no ROS.

A pair is two frames, one of each stream, nearest to each other in time and no further apart than the slop. Frames are
decided oldest first. Two frames within the slop are paired at once, unless the stream of the older one should soon
deliver a nearer frame, judged by its own frame period; then the decision waits for that frame or until it is overdue.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

VISIBLE = "visible"
THERMAL = "thermal"
STREAMS = (VISIBLE, THERMAL)

NO_PARTNER = "no_partner"
BUFFER_FULL = "buffer_full"
OUT_OF_ORDER = "out_of_order"
REPEATED_STAMP = "repeated_stamp"
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
    """

    slop: int
    visible_offset: int = 0
    thermal_offset: int = 0
    capacity: int = 10
    jump: int = 1_000_000_000


@dataclass(frozen=True)
class Frame:
    """One frame: its stamp after the offset, nanoseconds, and what it carries."""

    stamp: int
    content: Any


@dataclass(frozen=True)
class Pair:
    """Two frames of one moment; `skew` is the visible minus the thermal stamp, nanoseconds."""

    visible: Any
    thermal: Any
    skew: int


@dataclass(frozen=True)
class StreamCounts:
    """What became of one stream's frames: received = paired + sum of dropped + waiting."""

    received: int
    paired: int
    waiting: int
    dropped: Mapping[str, int]


@dataclass
class _Stream:
    offset: int
    queue: deque[Frame] = field(default_factory=deque)
    newest: int | None = None
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_GAPS))
    received: int = 0
    paired: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def period(self) -> float:
        """Time between frames; 0 before it is known, so that nothing waits for it."""
        return median(self.gaps) if self.gaps else 0.0

    def drop_oldest(self, reason: str) -> None:
        self.queue.popleft()
        self.dropped[reason] += 1

    def forget(self, reason: str) -> None:
        """Drop all waiting frames and what was learnt about stamps."""
        while self.queue:
            self.drop_oldest(reason)
        self.newest = None
        self.gaps.clear()


class PairingBuffer:
    """Takes frames of both streams as they arrive and gives pairs. Safe to call from several threads."""

    def __init__(self, settings: PairingSettings) -> None:
        self._lock = threading.Lock()
        self._settings = settings
        self._streams = {VISIBLE: _Stream(settings.visible_offset), THERMAL: _Stream(settings.thermal_offset)}

    def add(self, stream: str, stamp: int, content: Any) -> list[Pair]:
        """Take one frame.

        Args:
            stream: `visible` or `thermal`.
            stamp: the camera's, nanoseconds.
            content: handed through into the pair.

        Returns:
            The pairs that this frame completes or lets go, oldest first.
        """
        with self._lock:
            own = self._streams[stream]
            own.received += 1
            stamp += own.offset
            if not self._accept(own, stamp):
                return []
            own.queue.append(Frame(stamp, content))
            pairs = self._resolve()
            while len(own.queue) > self._settings.capacity:
                own.drop_oldest(BUFFER_FULL)
            return pairs

    def refuse(self, stream: str, reason: str) -> None:
        """Count a frame that arrived but cannot be used."""
        with self._lock:
            self._streams[stream].received += 1
            self._streams[stream].dropped[reason] += 1

    def reconfigure(self, settings: PairingSettings) -> None:
        """Go on with other settings; waiting frames are dropped, counts are kept."""
        with self._lock:
            self._settings = settings
            for stream in self._streams.values():
                stream.forget(RECONFIGURED)
            self._streams[VISIBLE].offset = settings.visible_offset
            self._streams[THERMAL].offset = settings.thermal_offset

    def counts(self, stream: str) -> StreamCounts:
        """What became of a stream's frames so far."""
        with self._lock:
            own = self._streams[stream]
            return StreamCounts(own.received, own.paired, len(own.queue), dict(own.dropped))

    def _accept(self, own: _Stream, stamp: int) -> bool:
        """Count a frame as dropped unless its stamp follows the stream's newest; forget everything on a clock jump."""
        if own.newest is not None and stamp <= own.newest:
            if own.newest - stamp < self._settings.jump:
                own.dropped[REPEATED_STAMP if stamp == own.newest else OUT_OF_ORDER] += 1
                return False
            for stream in self._streams.values():
                stream.forget(CLOCK_JUMP)
        if own.newest is not None:
            own.gaps.append(stamp - own.newest)
        own.newest = stamp
        return True

    def _resolve(self) -> list[Pair]:
        """Decide about the oldest frames as long as a decision can be made."""
        pairs = []
        while all(stream.queue for stream in self._streams.values()):
            early, late = sorted(self._streams.values(), key=lambda stream: stream.queue[0].stamp)
            distance = late.queue[0].stamp - early.queue[0].stamp
            if distance > self._settings.slop or self._has_nearer(early, late.queue[0].stamp, distance):
                early.drop_oldest(NO_PARTNER)
            elif self._nearer_is_due(early, late, distance):
                break
            else:
                pairs.append(self._take_pair())
        return pairs

    def _has_nearer(self, early: _Stream, stamp: int, distance: int) -> bool:
        """Whether the early stream's next frame is nearer to `stamp` than its oldest."""
        return len(early.queue) > 1 and abs(early.queue[1].stamp - stamp) < distance

    def _nearer_is_due(self, early: _Stream, late: _Stream, distance: int) -> bool:
        """Whether the early stream should yet deliver a frame nearer than `distance`, and is not overdue with it."""
        if len(early.queue) > 1 or 2 * distance <= early.period:
            return False
        assert late.newest is not None
        overdue = early.queue[0].stamp + early.period + self._settings.slop
        return early.period > 0 and late.newest <= overdue

    def _take_pair(self) -> Pair:
        frames = {}
        for name, stream in self._streams.items():
            frames[name] = stream.queue.popleft()
            stream.paired += 1
        skew = frames[VISIBLE].stamp - frames[THERMAL].stamp
        return Pair(frames[VISIBLE].content, frames[THERMAL].content, skew)
