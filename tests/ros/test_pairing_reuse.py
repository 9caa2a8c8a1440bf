"""Pairing that uses frames again, one behaviour after another; times in milliseconds.

Every test runs in both modes: `lead` is the stream of which each frame is wanted, `follow` the one that is used again.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_ros.pairing import (
    BUFFER_FULL,
    CLOCK_JUMP,
    NO_PARTNER,
    RECONFIGURED,
    REUSE_THERMAL,
    REUSE_VISIBLE,
    THERMAL,
    TIMED_OUT,
    VISIBLE,
    PairingBuffer,
    PairingSettings,
    StreamCounts,
)

MS = 1_000_000
MODES = {REUSE_THERMAL: (VISIBLE, THERMAL), REUSE_VISIBLE: (THERMAL, VISIBLE)}
LEAD, FOLLOW = "lead", "follow"


class Reuse:
    """A buffer of one mode; frames and pairs are named by their part, lead first, and by their stamps in ms."""

    def __init__(self, mode: str, slop: float = 10, max_reuse_age: float = 200, **settings: int) -> None:
        self.names = dict(zip((LEAD, FOLLOW), MODES[mode], strict=True))
        self.settings = PairingSettings(
            round(slop * MS), pairing=mode, max_reuse_age=round(max_reuse_age * MS), **settings
        )
        self.buffer = PairingBuffer(self.settings)
        self.reused: list[bool] = []

    def feed(self, *frames: tuple[str, float]) -> list[tuple[float, float]]:
        """Add frames (part, stamp) in this order; returns pairs of stamps (lead, follow)."""
        pairs = []
        for part, stamp in frames:
            for pair in self.buffer.add(self.names[part], round(stamp * MS), stamp):
                assert pair.skew == round(pair.visible * MS) - round(pair.thermal * MS)
                self.reused.append(pair.reused)
                pairs.append(tuple(getattr(pair, self.names[part]) for part in (LEAD, FOLLOW)))
        return pairs

    def counts(self, part: str) -> StreamCounts:
        return self.buffer.counts(self.names[part])


@pytest.fixture(params=list(MODES))
def make(request):
    """Makes a `Reuse` of either mode."""
    return lambda **settings: Reuse(request.param, **settings)


def leads(*stamps: float) -> list[tuple[str, float]]:
    return [(LEAD, stamp) for stamp in stamps]


def follows(*stamps: float) -> list[tuple[str, float]]:
    return [(FOLLOW, stamp) for stamp in stamps]


def test_every_leading_frame_is_paired_with_the_newest_following_one(make):
    reuse = make()
    assert reuse.feed(*follows(0, 100), *leads(120, 150, 180)) == [(120, 100), (150, 100), (180, 100)]
    assert reuse.reused == [False, True, True]


def test_a_frame_counts_as_paired_once_and_then_as_reused(make):
    reuse = make()
    reuse.feed(*follows(0, 100), *leads(120, 150, 180))
    assert reuse.counts(FOLLOW) == StreamCounts(received=2, paired=1, waiting=0, dropped={NO_PARTNER: 1}, reused=2)
    assert reuse.counts(LEAD) == StreamCounts(received=3, paired=3, waiting=0, dropped={}, reused=0)


@pytest.mark.parametrize(("age", "is_pair"), [(200, True), (200.000001, False)])
def test_a_frame_is_used_until_it_is_too_old(make, age, is_pair):
    reuse = make(max_reuse_age=200)
    later = 100 + age + 1000  # so that nobody waits for a partner of the frame any more
    assert bool(reuse.feed((FOLLOW, 100), (LEAD, 100 + age), (LEAD, later))) == is_pair


@pytest.mark.parametrize(("ahead", "partner"), [(10, 110), (10.000001, 50)])
def test_a_newer_frame_is_used_within_the_slop_only(make, ahead, partner):
    assert make(slop=10).feed(*follows(50, 100 + ahead), (LEAD, 100)) == [(100, partner if ahead > 10 else 100 + ahead)]


def test_within_the_slop_the_nearest_frame_wins_whether_older_or_newer(make):
    assert make(slop=10).feed(*follows(92, 107), (LEAD, 100)) == [(100, 107)]
    assert make(slop=10).feed(*follows(94, 107), (LEAD, 100)) == [(100, 94)]


def test_of_two_equally_near_frames_the_older_wins(make):
    assert make(slop=10).feed(*follows(93, 107), (LEAD, 100)) == [(100, 93)]


def test_a_newer_frame_within_the_slop_wins_over_an_older_one_beyond(make):
    assert make(slop=10).feed(*follows(89, 109), (LEAD, 100)) == [(100, 109)]


def test_a_frame_that_was_never_used_is_dropped_when_a_newer_one_is(make):
    reuse = make()
    assert reuse.feed(*follows(10, 20, 30), *leads(33, 34)) == [(33, 30), (34, 30)]
    assert reuse.counts(FOLLOW).dropped == {NO_PARTNER: 2}


def test_with_a_reuse_age_of_nothing_the_slop_decides_alone(make):
    reuse = make(slop=10, max_reuse_age=0)
    assert reuse.feed((FOLLOW, 100), *leads(105, 110, 111, 200)) == [(105, 100), (110, 100)]
    assert reuse.counts(LEAD).dropped == {TIMED_OUT: 1}


def test_a_leading_frame_that_the_other_stream_has_passed_by_has_no_partner(make):
    reuse = make()
    assert reuse.feed((FOLLOW, 500), (LEAD, 100)) == []
    assert reuse.counts(LEAD).dropped == {NO_PARTNER: 1}
    assert reuse.counts(FOLLOW).waiting == 1


def test_following_frames_too_old_for_any_leading_frame_to_come_are_let_go(make):
    reuse = make(slop=10, max_reuse_age=200)
    reuse.feed(*follows(100, 150, 799.999999, 800), (LEAD, 1000))
    assert reuse.counts(FOLLOW).dropped == {NO_PARTNER: 3}
    assert reuse.counts(FOLLOW).waiting + reuse.counts(FOLLOW).paired == 1


# How long a leading frame waits.


def test_a_frame_that_is_due_within_the_slop_is_waited_for(make):
    reuse = make(slop=20)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed((LEAD, 285)) == []
    assert reuse.feed((FOLLOW, 301)) == [(285, 301)]


def test_a_frame_that_is_due_beyond_the_slop_is_not_waited_for(make):
    reuse = make(slop=20)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed((LEAD, 279)) == [(279, 200)]


def test_a_frame_that_is_due_but_no_nearer_is_not_waited_for(make):
    reuse = make(slop=80)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed((LEAD, 250)) == [(250, 200)]
    assert reuse.feed((LEAD, 251)) == []


def test_an_overdue_frame_is_not_waited_for(make):
    reuse = make(slop=20)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed(*leads(285, 320)) == []
    assert reuse.feed((LEAD, 321)) == [(285, 200), (320, 200), (321, 200)]


def test_a_camera_that_lags_is_given_more_time(make):
    reuse = make(slop=20, max_lag=60 * MS)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed(*leads(285, 320, 360)) == []
    assert reuse.feed((LEAD, 361)) == [(285, 200), (320, 200), (360, 200), (361, 200)]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_after_lost_frames_the_next_ones_are_still_expected(make, lost):
    reuse = make(slop=20, max_reuse_age=500)
    reuse.feed(*follows(0, 100, 200))
    due = 300 + 100 * lost
    assert reuse.feed((LEAD, due - 15)) == []
    assert reuse.feed((FOLLOW, due)) == [(due - 15, due)]


def test_before_the_rate_is_known_a_frame_of_the_same_stamp_is_taken_to_be_due(make):
    reuse = make(slop=20)
    assert reuse.feed((FOLLOW, 0), *leads(90, 110)) == []
    assert reuse.feed((LEAD, 110.000001)) == [(90, 0)]
    assert reuse.feed((FOLLOW, 100)) == [(110, 100), (110.000001, 100)]


def test_a_frame_without_any_partner_waits_twice_the_slop_and_no_longer(make):
    reuse = make(slop=10)
    assert reuse.feed(*leads(100, 120)) == []
    assert reuse.counts(LEAD).waiting == 2
    reuse.feed((LEAD, 120.000001))
    assert reuse.counts(LEAD).dropped == {TIMED_OUT: 1}
    assert reuse.feed((FOLLOW, 110), (LEAD, 131)) == [(120, 110), (120.000001, 110)]


def test_a_full_buffer_takes_the_older_partner_rather_than_none(make):
    reuse = make(slop=40, capacity=2)
    reuse.feed(*follows(0, 100, 200))
    assert reuse.feed(*leads(261, 271)) == []
    assert reuse.feed((LEAD, 281)) == [(261, 200)]
    assert reuse.counts(LEAD).dropped == {}


def test_a_full_buffer_without_any_partner_drops_the_oldest(make):
    reuse = make(slop=1000, capacity=2)
    reuse.feed(*leads(261, 271, 281))
    assert reuse.counts(LEAD).dropped == {BUFFER_FULL: 1}


def test_a_lone_following_camera_fills_its_buffer_and_no_more(make):
    reuse = make(capacity=3)
    reuse.feed((FOLLOW, 0), (LEAD, 0), *follows(*range(100, 1000, 100)))
    counts = reuse.counts(FOLLOW)
    assert (counts.paired, counts.waiting, counts.dropped) == (1, 3, {BUFFER_FULL: 6})


# What ends the use of a frame.


def test_a_clock_jump_ends_the_use_of_a_frame(make):
    reuse = make()
    reuse.feed((FOLLOW, 5000), (LEAD, 5000))
    assert reuse.feed(*leads(100, 150)) == []
    assert reuse.counts(FOLLOW) == StreamCounts(received=1, paired=1, waiting=0, dropped={}, reused=0)


def test_waiting_frames_are_dropped_at_a_clock_jump(make):
    reuse = make()
    reuse.feed((LEAD, 5000), (FOLLOW, 5100), (FOLLOW, 100))
    assert reuse.counts(FOLLOW).dropped == {CLOCK_JUMP: 1}


def test_new_settings_end_the_use_of_a_frame_and_keep_the_counts(make):
    reuse = make()
    reuse.feed((FOLLOW, 100), (LEAD, 100), (FOLLOW, 150))
    reuse.buffer.reconfigure(reuse.settings)
    assert reuse.feed((LEAD, 160)) == []
    counts = reuse.counts(FOLLOW)
    assert (counts.paired, counts.reused, counts.dropped) == (1, 0, {RECONFIGURED: 1})


def test_the_mode_may_change_at_run_time():
    buffer = PairingBuffer(PairingSettings(10 * MS))

    def use_twice(once: str, twice: str) -> list[bool]:
        frames = [(twice, 100), (once, 92), (once, 96)]
        return [pair.reused for stream, stamp in frames for pair in buffer.add(stream, stamp * MS, None)]

    assert use_twice(VISIBLE, THERMAL) == [False]
    buffer.reconfigure(PairingSettings(10 * MS, pairing=REUSE_THERMAL))
    assert use_twice(VISIBLE, THERMAL) == [False, True]
    buffer.reconfigure(PairingSettings(10 * MS, pairing=REUSE_VISIBLE))
    assert use_twice(THERMAL, VISIBLE) == [False, True]
    buffer.reconfigure(PairingSettings(10 * MS))
    assert use_twice(THERMAL, VISIBLE) == [False]


# Against the definition, by brute force.

STEPS = st.lists(st.integers(1, 60), min_size=1, max_size=25)
TIMES = st.tuples(st.integers(0, 40), st.integers(0, 150))  # slop, max_reuse_age


def find_partner(stamp: int, following: list[int], slop: int, max_reuse_age: int) -> int | None:
    """The definition: the nearest frame within the slop, else the newest that is older, but not too old."""
    if near := [f for f in following if abs(f - stamp) <= slop]:
        return min(near, key=lambda f: (abs(f - stamp), f))
    return max((f for f in following if f <= stamp and stamp - f <= max_reuse_age), default=None)


def stamps_of(steps: list[int]) -> list[int]:
    return [sum(steps[: i + 1]) for i in range(len(steps))]


@given(st.sampled_from(list(MODES)), TIMES, STEPS, STEPS)
def test_every_frame_has_the_best_partner_where_partners_come_first(mode, times, lead_steps, follow_steps):
    """Each following frame arrives before the leading frames that it could be the partner of."""
    (slop, age), leading, following = times, stamps_of(lead_steps), stamps_of(follow_steps)
    reuse = Reuse(mode, slop, age, capacity=1000)
    frames = sorted([(stamp, 1, LEAD, stamp) for stamp in leading] + [(f - slop, 0, FOLLOW, f) for f in following])
    pairs = reuse.feed(*((part, stamp) for _, _, part, stamp in frames))
    pairs += [pair for pair in reuse.feed((LEAD, 100_000)) if pair[0] != 100_000]  # frees those that still wait
    best = [(stamp, find_partner(stamp, following, slop, age)) for stamp in leading]
    assert pairs == [pair for pair in best if pair[1] is not None]
    used = {pair[1] for pair in pairs}
    assert (reuse.counts(FOLLOW).paired, reuse.counts(FOLLOW).reused) == (len(used), len(pairs) - len(used))


@given(st.sampled_from(list(MODES)), TIMES, STEPS, STEPS, st.integers(0, 60), st.randoms(use_true_random=False))
def test_in_any_order_of_arrival_each_decision_is_the_best_of_what_is_known(
    mode, times, lead_steps, follow_steps, max_lag, random
):
    """A pair is the best of what has arrived, no frame that had a partner is dropped, and waits are bounded."""
    slop, age = times
    reuse = Reuse(mode, slop, age, capacity=1000, max_lag=max_lag * MS)
    coming = {LEAD: stamps_of(lead_steps), FOLLOW: stamps_of(follow_steps)}
    known: dict[str, list[int]] = {LEAD: [], FOLLOW: []}
    decided = 0
    while any(coming.values()):
        part = random.choice([part for part, stamps in coming.items() if stamps])
        known[part].append(coming[part].pop(0))
        pairs = reuse.feed((part, known[part][-1]))
        still = len(known[LEAD]) - reuse.counts(LEAD).waiting
        best = [(stamp, find_partner(stamp, known[FOLLOW], slop, age)) for stamp in known[LEAD][decided:still]]
        assert pairs == [pair for pair in best if pair[1] is not None]
        decided = still
        assert all(known[LEAD][-1] - stamp <= slop + max(slop, max_lag) for stamp in known[LEAD][decided:])
        passed = max(known[FOLLOW], default=-1)
        assert all(stamp > passed for stamp in known[LEAD][decided:])
