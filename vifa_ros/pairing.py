"""Pairing: which visible and which thermal frame show the same moment. Knows no ROS and no clock.

Frames come in, pairs come out, and what becomes of every frame is counted. Which frames make a pair is the rule's
decision: `nearest` (`vifa_ros.nearest`) uses every frame once, `reuse_thermal` and `reuse_visible` (`vifa_ros.reuse`)
give every frame of one camera a partner.

Two clocks are told apart. Frames are paired by their stamps, whatever clock the cameras have. How long a frame waits is
measured by the arrival clock: the caller's, one for both streams, told with every frame and by `expire`. Take the clock
that frames are replayed by (ROS time): while a simulation is paused it stands, and nothing grows old.
"""

from __future__ import annotations

import threading
from typing import Any

from vifa_ros.nearest import NearestRule
from vifa_ros.reuse import ReuseRule
from vifa_ros.streams import (
    ARRIVAL,
    BUFFER_FULL,
    CLOCK_JUMP,
    HEADER,
    NEAREST,
    NO_PARTNER,
    NO_STAMP,
    OUT_OF_ORDER,
    PAIRINGS,
    RECONFIGURED,
    REPEATED_STAMP,
    REUSE_THERMAL,
    REUSE_VISIBLE,
    STAMPS,
    STREAMS,
    THERMAL,
    TIMED_OUT,
    VISIBLE,
    Frame,
    Pair,
    PairingSettings,
    Stream,
    StreamCounts,
)

__all__ = [
    "ARRIVAL",
    "BUFFER_FULL",
    "CLOCK_JUMP",
    "HEADER",
    "NEAREST",
    "NO_PARTNER",
    "NO_STAMP",
    "OUT_OF_ORDER",
    "PAIRINGS",
    "RECONFIGURED",
    "REPEATED_STAMP",
    "REUSE_THERMAL",
    "REUSE_VISIBLE",
    "STAMPS",
    "STREAMS",
    "THERMAL",
    "TIMED_OUT",
    "VISIBLE",
    "Pair",
    "PairingBuffer",
    "PairingSettings",
    "StreamCounts",
]


class PairingBuffer:
    """Takes frames of both streams as they arrive and gives pairs. Safe to call from several threads.

    After every call, for each stream: received = paired + sum of dropped + waiting, and pairs given = paired + reused +
    alone of the other stream.
    """

    def __init__(self, settings: PairingSettings) -> None:
        self._lock = threading.Lock()
        self._streams = {name: Stream() for name in STREAMS}
        self._now: int | None = None
        self._alone: str | None = None
        self._settings = settings
        self._rule = self._make_rule()

    def add(self, stream: str, stamp: int, content: Any, arrival: int | None = None) -> list[Pair]:
        """Take one frame.

        A stamp of 0 is a driver's way to say that it has none: it is taken as a stream's first, where a simulation
        begins, and dropped after that.

        Args:
            stream: `visible` or `thermal`.
            stamp: the camera's, nanoseconds.
            content: handed through into the pair; into several where it is used again.
            arrival: when it arrived, nanoseconds by the arrival clock. Without it the frame's wait counts from the next
                call that tells the time.

        Returns:
            The pairs that this frame completes or lets go, oldest first.

        Raises:
            ValueError: frames are paired by arrival, and none is given; the frame is not counted.
        """
        with self._lock:
            by_arrival = self._settings.stamps == ARRIVAL
            if by_arrival and arrival is None:
                raise ValueError("frames are paired by arrival (stamps: arrival), but no arrival is given")
            if arrival is not None:
                self._tell_time(arrival)
            own = self._streams[stream]
            own.received += 1
            clock = arrival if by_arrival and arrival is not None else stamp
            accepted = self._accept(own, clock, self._settings.offset(stream))
            if accepted is None:
                return []
            own.queue.append(Frame(accepted, content, None if arrival is None else self._now))
            if self._alone == stream:
                return self._let_go_alone(stream)
            self._alone = None  # the camera that was lost is back
            pairs = self._rule.resolve(self._now)
            while own.waiting > self._settings.capacity:
                own.drop_oldest(BUFFER_FULL)
            return pairs

    def expire(self, now: int) -> list[Pair]:
        """Let frames go that waited too long, so that none waits for a camera that has stopped. Call it from a timer.

        Where a frame waited for a better partner than it has, it is paired; else it is dropped as `timed_out`.

        Args:
            now: the arrival clock, nanoseconds. It may jump: back, and the waits begin anew; forward, and they end.

        Returns:
            The pairs that no longer wait for a better one, oldest first.
        """
        with self._lock:
            self._tell_time(now)
            return self._rule.resolve(self._now)

    def set_alone(self, stream: str | None) -> list[Pair]:
        """Give frames of one stream without a partner from now on, as the other camera is lost; None ends that.

        It ends by itself with the next good frame of the other stream.

        Returns:
            The pairs of those frames that waited for a partner, oldest first.
        """
        with self._lock:
            self._alone = stream
            return [] if stream is None else self._let_go_alone(stream)

    @property
    def alone(self) -> str | None:
        """The stream whose frames are given without a partner, if there is one."""
        return self._alone

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
            self._rule = self._make_rule()

    def counts(self, stream: str) -> StreamCounts:
        """What became of a stream's frames so far."""
        with self._lock:
            return self._streams[stream].counts()

    def _let_go_alone(self, stream: str) -> list[Pair]:
        frames = self._streams[stream].use_alone()
        if stream == VISIBLE:
            return [Pair(frame.content, None, 0, frame.stamp) for frame in frames]
        return [Pair(None, frame.content, 0, frame.stamp) for frame in frames]

    def _make_rule(self) -> NearestRule | ReuseRule:
        if self._settings.pairing == NEAREST:
            return NearestRule(self._settings, self._streams)
        leading = VISIBLE if self._settings.pairing == REUSE_THERMAL else THERMAL
        return ReuseRule(self._settings, self._streams, leading)

    def _accept(self, own: Stream, clock: int, offset: int) -> int | None:
        """The stamp to pair a frame by, or None, counted, if it does not follow the stream's newest.

        Forgets everything on a clock jump.
        """
        if clock == 0 and own.newest is not None:
            own.dropped[NO_STAMP] += 1
            return None
        stamp = clock + offset
        if own.newest is not None and stamp <= own.newest:
            if own.newest - stamp >= self._settings.jump:
                for stream in self._streams.values():
                    stream.forget(CLOCK_JUMP)
            elif self._settings.stamps == ARRIVAL:
                stamp = own.newest + 1  # a coarse clock, or threads: it came later all the same
            else:
                own.dropped[REPEATED_STAMP if stamp == own.newest else OUT_OF_ORDER] += 1
                return None
        if own.newest is not None:
            own.gaps.append(stamp - own.newest)
        own.newest = stamp
        return stamp

    def _tell_time(self, now: int) -> None:
        """Set the arrival clock. A small step back is a caller that was overtaken; a large one is a jump."""
        if self._now is None or now > self._now or self._now - now >= self._settings.jump:
            self._now = now
        for stream in self._streams.values():
            for frame in stream.queue:
                frame.since = self._now if frame.since is None else min(frame.since, self._now)
