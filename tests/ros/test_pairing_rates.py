"""A minute of two cameras at the rates that robots have, simulated: how much is paired, how well, and how soon.

Stamps jitter by up to 5 ms and 1 % of the frames are lost. Frames arrive 8 to 11 ms (visible) and 15 to 18 ms (thermal)
after their stamps; a timer calls `expire` every 10 ms. Times in milliseconds.
"""

import random
from dataclasses import dataclass
from functools import cache

import pytest
from test_pairing_nearest import closest_first, gives_way
from test_pairing_reuse import find_partner

from vifa_ros.pairing import (
    NEAREST,
    REUSE_THERMAL,
    REUSE_VISIBLE,
    STREAMS,
    THERMAL,
    VISIBLE,
    PairingBuffer,
    PairingSettings,
)

MS = 1_000_000
SECONDS, JITTER, LOST, TIMER = 60, 5.0, 0.01, 10
DELAYS = {VISIBLE: 8.0, THERMAL: 15.0}
MAX_LAG, MAX_REUSE_AGE = 40, 300
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Minute:
    """What came in, as stamps, and out, as pairs of stamps; times in nanoseconds."""

    stamps: dict[str, list[int]]
    pairs: list[tuple[int, int]]
    waits: list[float]  # of each pair's visible frame (thermal for reuse_visible) from its arrival, ms
    with_others: int  # pairs that were given in one call with a later one

    @property
    def share(self) -> float:
        """Part of the visible frames that are in a pair."""
        return len({visible for visible, _ in self.pairs}) / len(self.stamps[VISIBLE])

    @property
    def largest_skew(self) -> float:
        return max(abs(visible - thermal) for visible, thermal in self.pairs) / MS


@cache
def simulate(
    visible_hz: int, thermal_hz: int, pairing: str, seed: int, slop: float = 40, lag: float = 0, max_lag: int = MAX_LAG
) -> Minute:
    """A minute; `lag` is added to the thermal camera's delay."""
    choose = random.Random(seed)
    stamps: dict[str, list[int]] = {VISIBLE: [], THERMAL: []}
    events: list[tuple[int, str, int]] = [(now * MS, "", 0) for now in range(1000, 1000 * (SECONDS + 2), TIMER)]
    for stream, rate in ((VISIBLE, visible_hz), (THERMAL, thermal_hz)):
        for i in range(SECONDS * rate):
            stamp = round((1000 + 1000 * i / rate + choose.uniform(-JITTER, JITTER)) * MS)
            delay = DELAYS[stream] + choose.uniform(0, 3) + (lag if stream == THERMAL else 0)
            if choose.random() >= LOST:
                stamps[stream].append(stamp)
                events.append((stamp + round(delay * MS), stream, stamp))
    buffer = PairingBuffer(
        PairingSettings(
            round(slop * MS), pairing=pairing, max_lag=max_lag * MS, max_reuse_age=MAX_REUSE_AGE * MS, capacity=20
        )
    )
    arrivals, pairs, waits, with_others = {}, [], [], 0
    for now, stream, stamp in sorted(events):
        arrivals[stream, stamp] = now
        new = buffer.add(stream, stamp, stamp, now) if stream else buffer.expire(now)
        with_others += len(new[:-1])
        for pair in new:
            pairs.append((pair.visible, pair.thermal))
            since = {VISIBLE: arrivals[VISIBLE, pair.visible], THERMAL: arrivals[THERMAL, pair.thermal]}
            waits.append((now - since[THERMAL if pairing == REUSE_VISIBLE else VISIBLE]) / MS)
    for stream in STREAMS:
        counts = buffer.counts(stream)
        assert counts.received == len(stamps[stream])
        assert counts.received == counts.paired + sum(counts.dropped.values()) + counts.waiting
    return Minute(stamps, pairs, waits, with_others)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("visible_hz", "thermal_hz", "pairing", "visible_share", "thermal_share", "largest_skew"),
    [
        (30, 9, NEAREST, 0.30, 1.00, 34),
        (30, 9, REUSE_THERMAL, 1.00, 1.00, 192),  # a lost thermal frame: two periods, less the slop, and the jitter
        (30, 9, REUSE_VISIBLE, 0.30, 1.00, 60),
        (60, 6, NEAREST, 0.10, 1.00, 17),
        (60, 6, REUSE_THERMAL, 1.00, 1.00, 300),  # as above
        (60, 6, REUSE_VISIBLE, 0.10, 1.00, 17),
        (30, 30, NEAREST, 0.99, 0.99, 34),
        (30, 30, REUSE_THERMAL, 1.00, 0.99, 43),
        (30, 30, REUSE_VISIBLE, 0.99, 1.00, 43),
    ],
)
def test_share_of_frames_in_pairs_and_largest_skew(
    visible_hz, thermal_hz, pairing, visible_share, thermal_share, largest_skew, seed
):
    minute = simulate(visible_hz, thermal_hz, pairing, seed)
    thermal = {thermal for _, thermal in minute.pairs}
    assert minute.share == pytest.approx(visible_share, abs=0.005)
    assert len(thermal) / len(minute.stamps[THERMAL]) == pytest.approx(thermal_share, abs=0.005)
    assert minute.largest_skew <= largest_skew


@pytest.mark.parametrize("pairing", [REUSE_THERMAL, REUSE_VISIBLE])
@pytest.mark.parametrize(("visible_hz", "thermal_hz"), [(30, 9), (60, 6), (30, 30)])
def test_when_frames_are_used_again_nearly_every_frame_has_its_best_partner(visible_hz, thermal_hz, pairing):
    """Jitter hides some partners: a frame due beyond the slop, or no nearer than another one, came a little sooner."""
    minute = simulate(visible_hz, thermal_hz, pairing, seed=1)
    visible, thermal = minute.stamps[VISIBLE], minute.stamps[THERMAL]
    slop, age = 40 * MS, MAX_REUSE_AGE * MS
    if pairing == REUSE_THERMAL:
        best = {(stamp, find_partner(stamp, thermal, slop, age)) for stamp in visible}
    else:
        best = {(find_partner(stamp, visible, slop, age), stamp) for stamp in thermal}
    assert len(best & set(minute.pairs)) >= 0.95 * len(best)


@pytest.mark.parametrize(("visible_hz", "thermal_hz"), [(30, 9), (60, 6), (30, 30)])
def test_nearest_makes_nearly_the_pairs_it_would_make_of_all_frames_at_once(visible_hz, thermal_hz):
    minute = simulate(visible_hz, thermal_hz, NEAREST, seed=1)
    visible, thermal = minute.stamps[VISIBLE], minute.stamps[THERMAL]
    best = {pair for pair in closest_first(visible, thermal, 40 * MS) if not gives_way(pair, visible, thermal)}
    assert len(best & set(minute.pairs)) >= 0.95 * len(best)


@pytest.mark.parametrize("pairing", [REUSE_THERMAL, REUSE_VISIBLE])
@pytest.mark.parametrize(("visible_hz", "thermal_hz"), [(30, 9), (60, 6), (30, 30)])
@pytest.mark.parametrize("slop", [10, 40])
def test_no_leading_frame_waits_longer_than_the_slop_and_the_lag_that_is_allowed(visible_hz, thermal_hz, pairing, slop):
    minute = simulate(visible_hz, thermal_hz, pairing, seed=1, slop=slop)
    assert max(minute.waits) <= slop + MAX_LAG + TIMER


@pytest.mark.parametrize(("visible_hz", "thermal_hz"), [(30, 9), (60, 6), (30, 30)])
def test_with_a_slop_of_half_the_visible_period_pairs_come_one_at_a_time(visible_hz, thermal_hz):
    minute = simulate(visible_hz, thermal_hz, REUSE_THERMAL, seed=1, slop=500 / visible_hz)
    assert minute.with_others <= 0.02 * len(minute.pairs)
    assert minute.share >= 0.99


def test_with_a_larger_slop_some_pairs_come_together():
    """Whoever takes only the newest of them loses the others, about one in eight here."""
    minute = simulate(30, 9, REUSE_THERMAL, seed=1, slop=40)
    assert minute.with_others == pytest.approx(0.125 * len(minute.pairs), rel=0.2)


def test_a_thermal_camera_that_lags_is_paired_well_once_the_lag_is_allowed_for():
    """Its images take 60 ms longer than the visible ones; nobody waits that long unless told to."""
    hasty, patient = (simulate(30, 30, REUSE_THERMAL, 1, slop=16, lag=60, max_lag=limit) for limit in (0, 80))
    skews = [sorted(abs(v - t) / MS for v, t in minute.pairs) for minute in (hasty, patient)]
    assert skews[0][len(skews[0]) // 2] > 30
    assert skews[1][len(skews[1]) // 2] < 5
    assert max(hasty.waits) <= 16 + 16 + TIMER
    assert max(patient.waits) <= 16 + 80 + TIMER
