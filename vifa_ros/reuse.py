"""Pairing rules `reuse_thermal` and `reuse_visible`: every frame of one stream gets a partner. Knows no ROS.

The stream of which every frame is wanted leads, the other follows: in `reuse_thermal` the visible stream leads. A
leading frame is paired with the nearest following one within the slop if there is one, else with the newest one that is
at most `max_reuse_age` older. In one sentence: with the nearest of those from max(slop, max_reuse_age) before it to the
slop after it, the older of two equally near. Pairs keep the order of both streams. A following frame may be used again;
one that newer ones have replaced before it was used is dropped.

How long a leading frame waits: not at all once the following stream has passed its stamp, and otherwise only while a
better partner is due, judged by the following stream's own period, and not overdue by more than max(slop, max_lag). A
better partner lies at most the slop behind it, so no frame waits longer than slop + max(slop, max_lag), both by the
stamps of its own stream and by the arrival clock (nor longer than max_wait by that one). A frame without any partner
waits that long for one; before the period is known, one is taken to be due with the same stamp.

So the slop sets the latency. With a slop of half the leading stream's period, and cameras that lag less than that, no
two frames wait for one partner, and pairs come one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

from vifa_ros.streams import NO_PARTNER, TIMED_OUT, Frame, Pair, PairingSettings, Stream, make_pair


class ReuseRule:
    """Gives every frame of the leading stream its partner, oldest first, as long as a decision can be made."""

    def __init__(self, settings: PairingSettings, streams: Mapping[str, Stream], leading: str) -> None:
        self._settings, self._streams = settings, streams
        self._lead = streams[leading]
        (self._follow,) = (stream for name, stream in streams.items() if name != leading)
        self._reach = max(settings.slop, settings.max_reuse_age)

    def resolve(self, now: int | None) -> list[Pair]:
        """Take the pairs that can be made; drop frames that can have no partner, or waited too long.

        Args:
            now: the arrival clock, nanoseconds; None if it was never told.
        """
        pairs: list[Pair] = []
        while self._lead.queue:
            frame = self._lead.queue[0]
            partner = self._find_partner(frame.stamp)
            if self._better_is_due(frame, partner, now):
                break
            if partner is None:
                self._lead.drop_oldest(NO_PARTNER if self._has_passed(frame.stamp) else TIMED_OUT)
            else:
                pairs.append(self._take_pair(partner))
        self._let_go(now)
        return pairs

    def _find_partner(self, stamp: int) -> Frame | None:
        """The known frame that a leading frame of this stamp should have."""
        allowed = (f for f in self._follow.queue if stamp - self._reach <= f.stamp <= stamp + self._settings.slop)
        return min(allowed, key=lambda frame: abs(frame.stamp - stamp), default=None)

    def _has_passed(self, stamp: int) -> bool:
        """Whether the following stream will deliver nothing nearer to `stamp` than it has."""
        return self._follow.newest is not None and self._follow.newest >= stamp

    def _better_is_due(self, frame: Frame, partner: Frame | None, now: int | None) -> bool:
        """Whether the following stream should yet deliver a better partner, and is not overdue with it."""
        if self._has_passed(frame.stamp):
            return False
        limit = self._settings.slop + self._settings.lateness
        newest = self._lead.newest
        assert newest is not None
        if newest > frame.stamp + limit or frame.waited(now) > min(limit, self._settings.max_wait):
            return False
        if partner is None:
            return True
        if len(self._lead.queue) > self._settings.capacity:  # an older partner is better than none
            return False
        return any(
            abs(due - frame.stamp) < abs(partner.stamp - frame.stamp)
            and due <= frame.stamp + self._settings.slop
            and newest <= due + self._settings.lateness
            for due in self._due_around(frame.stamp)
        )

    def _due_around(self, stamp: int) -> list[float]:
        """The following stream's next two frames about `stamp` by its period; frames before them may be lost.

        Before the period is known, one may come any time.
        """
        period, newest = self._follow.period, self._follow.newest
        if newest is None or not period:
            return [stamp]
        steps = max(1, (stamp - newest) // period)
        return [newest + steps * period, newest + (steps + 1) * period]

    def _take_pair(self, partner: Frame) -> Pair:
        """Pair the oldest leading frame; what is older than its partner can be of no use to the next ones either."""
        while self._follow.queue[0] is not partner:
            self._follow.drop_oldest(NO_PARTNER)
        reused = partner.used
        frames = {name: stream.use_oldest(keep=stream is self._follow) for name, stream in self._streams.items()}
        return make_pair(frames, reused)

    def _let_go(self, now: int | None) -> None:
        """Forget following frames that are too old for the leading frames to come, or waited too long."""
        lead, follow = self._lead, self._follow
        next_stamp = lead.queue[0].stamp if lead.queue else lead.newest
        while next_stamp is not None and follow.queue and follow.queue[0].stamp < next_stamp - self._reach:
            follow.drop_oldest(NO_PARTNER)
        longest = max(self._settings.max_wait, self._settings.max_reuse_age)
        while follow.queue and follow.queue[0].waited(now) > longest:
            follow.drop_oldest(TIMED_OUT)
