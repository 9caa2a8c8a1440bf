"""Pairing rule `nearest`: every frame is used once at most. Knows no ROS.

Frames are decided oldest first. Two frames within the slop are paired at once, unless the stream of the older one has
delivered, or should soon deliver, a nearer one, judged by its own frame period; then the decision waits for that frame
until it is overdue.

What it guarantees: no pair is further apart than the slop, no frame is in two pairs, pairs keep the order of both
streams, and no known frame that stays alone is nearer to a frame of a pair than its partner is, unless it lies beyond a
neighbouring pair. With all frames known, the pairs are those of closest first (again and again the two closest frames
that are left and cross no pair), less those whose older frame has a younger sister nearer to the partner.
What it does not: as many pairs as possible, or the smallest sum of distances. Of visible 0 and 9 and thermal 8 and 9.5
it makes one pair, (9, 9.5): 0 gave way to 9, which then found a nearer partner than 8.
"""

from __future__ import annotations

from collections.abc import Mapping

from vifa_ros.streams import NO_PARTNER, TIMED_OUT, Pair, PairingSettings, Stream, make_pair


class NearestRule:
    """Decides about the oldest frames of two streams as long as a decision can be made."""

    def __init__(self, settings: PairingSettings, streams: Mapping[str, Stream]) -> None:
        self._settings, self._streams = settings, streams

    def resolve(self, now: int | None) -> list[Pair]:
        """Take the pairs that can be made; drop frames that can have no partner, or waited too long.

        Args:
            now: the arrival clock, nanoseconds; None if it was never told.
        """
        pairs: list[Pair] = []
        streams = self._streams.values()
        while all(stream.queue for stream in streams):
            early, late = sorted(streams, key=lambda stream: stream.queue[0].stamp)
            distance = late.queue[0].stamp - early.queue[0].stamp
            if distance > self._settings.slop or self._has_nearer(early, late.queue[0].stamp, distance):
                early.drop_oldest(NO_PARTNER)
            elif self._nearer_is_due(early, late, distance, now):
                return pairs  # neither has waited too long
            else:
                pairs.append(make_pair({name: stream.use_oldest() for name, stream in self._streams.items()}))
        for stream in streams:
            while stream.queue and stream.queue[0].waited(now) > self._settings.max_wait:
                stream.drop_oldest(TIMED_OUT)
        return pairs

    def _has_nearer(self, early: Stream, stamp: int, distance: int) -> bool:
        """Whether the early stream's next frame is nearer to `stamp` than its oldest."""
        return len(early.queue) > 1 and abs(early.queue[1].stamp - stamp) < distance

    def _nearer_is_due(self, early: Stream, late: Stream, distance: int, now: int | None) -> bool:
        """Whether the early stream should yet deliver a frame nearer than `distance`, and is not overdue with it."""
        if len(early.queue) > 1 or 2 * distance <= early.period or not early.period:
            return False
        limit = early.period + self._settings.lateness
        assert late.newest is not None
        if late.newest > early.queue[0].stamp + limit or early.queue[0].waited(now) > limit:
            return False
        return max(stream.queue[0].waited(now) for stream in (early, late)) <= self._settings.max_wait
