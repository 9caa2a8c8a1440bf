"""Pairing when a camera stops: every wait ends. Times in milliseconds."""

import pytest

from vifa_ros.pairing import (
    BUFFER_FULL,
    PAIRINGS,
    REUSE_THERMAL,
    REUSE_VISIBLE,
    STREAMS,
    THERMAL,
    TIMED_OUT,
    VISIBLE,
    PairingBuffer,
    PairingSettings,
)

MS = 1_000_000
OTHER = {VISIBLE: THERMAL, THERMAL: VISIBLE}
pairing_modes = pytest.mark.parametrize("pairing", PAIRINGS)
streams = pytest.mark.parametrize("stream", STREAMS)


class Clocked:
    """A buffer whose times are milliseconds; a frame's content is its stamp."""

    def __init__(self, slop: float = 10, **settings) -> None:
        self.buffer = PairingBuffer(PairingSettings(round(slop * MS), **settings))

    def add(self, stream: str, stamp: float, arrival: float | None = None) -> list[tuple[float, float]]:
        at = None if arrival is None else round(arrival * MS)
        return named(self.buffer.add(stream, round(stamp * MS), stamp, at))

    def add_pairs(self, stamps: range) -> None:
        """A frame of each camera at each of these times, which arrive 7 s later by the clock."""
        for stamp in stamps:
            for stream in STREAMS:
                self.add(stream, stamp, arrival=7000 + stamp)

    def expire(self, now: float) -> list[tuple[float, float]]:
        return named(self.buffer.expire(round(now * MS)))

    def dropped(self, stream: str) -> dict[str, int]:
        return dict(self.buffer.counts(stream).dropped)

    def waiting(self) -> int:
        return sum(self.buffer.counts(stream).waiting for stream in STREAMS)


def named(pairs: list) -> list[tuple[float, float]]:
    return [(pair.visible, pair.thermal) for pair in pairs]


@streams
def test_a_frame_waits_for_a_silent_camera_until_its_time_is_up(stream):
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(stream, 100, arrival=7000)
    assert buffer.expire(7500) == []
    assert buffer.waiting() == 1
    assert buffer.expire(7501) == []
    assert buffer.dropped(stream) == {TIMED_OUT: 1}


def test_a_frame_whose_time_is_not_up_stays():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100, arrival=7000)
    buffer.add(VISIBLE, 300, arrival=7200)
    buffer.expire(7600)
    assert buffer.waiting() == 1
    assert buffer.add(THERMAL, 301, arrival=7610) == [(300, 301)]


def test_frames_that_arrive_let_others_go_too():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100, arrival=7000)
    buffer.add(VISIBLE, 700, arrival=7600)
    assert buffer.dropped(VISIBLE) == {TIMED_OUT: 1}


def test_a_partner_that_comes_just_after_the_time_is_up_still_counts():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100, arrival=7000)
    assert buffer.add(THERMAL, 100, arrival=8000) == [(100, 100)]


def test_a_pair_that_waits_for_a_nearer_frame_is_let_go_when_that_is_overdue():
    buffer = Clocked(slop=80)
    buffer.add_pairs(range(0, 400, 100))
    assert buffer.add(VISIBLE, 400, arrival=7400) + buffer.add(THERMAL, 480, arrival=7480) == []
    assert buffer.expire(7400 + 100 + 80) == []  # the visible period, and a slop
    assert buffer.expire(7400 + 100 + 80.000001) == [(400, 480)]


def test_a_camera_that_lags_is_given_more_time_for_a_nearer_frame():
    buffer = Clocked(slop=80, max_lag=150 * MS)
    buffer.add_pairs(range(0, 400, 100))
    assert buffer.add(VISIBLE, 400, arrival=7400) + buffer.add(THERMAL, 480, arrival=7480) == []
    assert buffer.expire(7400 + 100 + 150) == []
    assert buffer.expire(7400 + 100 + 150.000001) == [(400, 480)]


def test_a_pair_waits_for_a_nearer_frame_no_longer_than_for_any_partner():
    buffer = Clocked(slop=80, max_wait=50 * MS)
    buffer.add_pairs(range(0, 400, 100))
    assert buffer.add(VISIBLE, 400, arrival=7480) + buffer.add(THERMAL, 480, arrival=7481) == []
    assert buffer.expire(7531) == [(400, 480)]


@pytest.mark.parametrize(("pairing", "lead"), [(REUSE_THERMAL, VISIBLE), (REUSE_VISIBLE, THERMAL)])
def test_the_last_frame_before_its_camera_stopped_gets_the_partner_there_is(pairing, lead):
    buffer = Clocked(slop=20, pairing=pairing, max_lag=30 * MS)
    for stamp in (1000, 1100, 1200):
        buffer.add(OTHER[lead], stamp, arrival=7000 + stamp)
    assert buffer.add(lead, 1285, arrival=8285) == []  # 1300 is due, and does not come
    assert buffer.expire(8285 + 20 + 30) == []
    expected = (1285, 1200) if lead == VISIBLE else (1200, 1285)
    assert buffer.expire(8285 + 20 + 30.000001) == [expected]


@pytest.mark.parametrize(("pairing", "lead"), [(REUSE_THERMAL, VISIBLE), (REUSE_VISIBLE, THERMAL)])
def test_a_frame_that_may_be_reused_is_kept_as_long_as_its_age_allows(pairing, lead):
    buffer = Clocked(pairing=pairing, max_wait=100 * MS, max_reuse_age=500 * MS)
    buffer.add(OTHER[lead], 1000, arrival=1000)
    buffer.expire(1500)
    assert buffer.waiting() == 1
    buffer.expire(1501)
    assert buffer.dropped(OTHER[lead]) == {TIMED_OUT: 1}


@pairing_modes
@streams
def test_when_a_camera_stops_every_frame_of_the_other_is_let_go(pairing, stream):
    buffer = Clocked(pairing=pairing, capacity=1000)
    for stamp in range(0, 1000, 100):
        for name in STREAMS:
            buffer.add(name, stamp, arrival=stamp)
    for stamp in range(1000, 5000, 100):
        buffer.add(stream, stamp, arrival=stamp)
        buffer.expire(stamp + 50)
        assert buffer.waiting() <= 11  # a second's frames, and the newest
    buffer.expire(7000)
    assert buffer.waiting() == 0


@pairing_modes
def test_when_both_cameras_stop_nothing_waits_for_ever(pairing):
    buffer = Clocked(pairing=pairing)
    buffer.add(VISIBLE, 100, arrival=100)
    buffer.add(THERMAL, 200, arrival=200)
    buffer.expire(1300)
    assert buffer.waiting() == 0


def test_a_frame_of_unknown_arrival_waits_from_the_next_call_that_tells_the_time():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100)
    buffer.expire(7000)
    buffer.expire(7500)
    assert buffer.waiting() == 1
    buffer.expire(7501)
    assert buffer.waiting() == 0


def test_without_an_arrival_clock_frames_wait_until_the_buffer_is_full():
    buffer = Clocked(max_wait=0, capacity=2)
    for stamp in (0, 100, 200):
        buffer.add(VISIBLE, stamp)
    assert buffer.dropped(VISIBLE) == {BUFFER_FULL: 1}
