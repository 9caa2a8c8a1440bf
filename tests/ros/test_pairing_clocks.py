"""Pairing when clocks misbehave: they jump, stand still, or give stamps that are no use. Times in milliseconds."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pairing_waits import MS, OTHER, Clocked, pairing_modes, streams

from vifa_ros.pairing import (
    ARRIVAL,
    CLOCK_JUMP,
    HEADER,
    NEAREST,
    NO_PARTNER,
    NO_STAMP,
    PAIRINGS,
    RECONFIGURED,
    STREAMS,
    THERMAL,
    TIMED_OUT,
    VISIBLE,
    PairingBuffer,
    PairingSettings,
)

HOUR = 3_600_000


# Clocks that jump.


@pairing_modes
@streams
@pytest.mark.parametrize("jump", [400, HOUR])
def test_when_one_camera_s_clock_jumps_forward_no_frame_waits_for_ever(pairing, stream, jump):
    """Its stamps stay ahead, so nothing can be paired; every frame is let go, within a second and for a reason."""
    buffer = Clocked(pairing=pairing, max_reuse_age=0, capacity=1000)
    for stamp in range(0, 5000, 100):
        for name in STREAMS:
            ahead = jump if name == stream and stamp >= 1000 else 0
            pairs = buffer.add(name, stamp + ahead, arrival=stamp)
            assert not pairs or stamp < 1000 or jump < 1000
        assert buffer.waiting() <= 22
    buffer.expire(7000)
    assert buffer.waiting() == 0
    assert {reason for name in STREAMS for reason in buffer.dropped(name)} <= {NO_PARTNER, TIMED_OUT}


@pairing_modes
@pytest.mark.parametrize("jump", [HOUR, -HOUR, 1000, -2000])
def test_when_both_clocks_jump_pairing_goes_on_at_once(pairing, jump):
    buffer = Clocked(pairing=pairing)
    start, pairs = 2 * HOUR, []
    for stamp in range(start, start + 2000, 100):
        for name in STREAMS:
            pairs += buffer.add(name, stamp + (jump if stamp >= start + 1000 else 0))
    assert len(pairs) == 20
    assert all(visible == thermal for visible, thermal in pairs)


@pairing_modes
@streams
def test_a_camera_whose_clock_comes_back_is_paired_with_its_next_frames(pairing, stream):
    buffer = Clocked(pairing=pairing)
    for stamp in range(0, 500, 100):
        for name in STREAMS:
            buffer.add(name, stamp + (HOUR if name == stream else 0), arrival=stamp)
    pairs = [pair for stamp in range(500, 1000, 100) for name in STREAMS for pair in buffer.add(name, stamp, stamp)]
    assert pairs[0] in [(500, 500), (600, 600)]
    assert pairs[-3:] == [(700, 700), (800, 800), (900, 900)]
    assert len(pairs) >= 4


@pairing_modes
def test_a_simulation_that_starts_again_at_0_is_paired_from_there(pairing):
    """Stamps and arrival clock both go back to 0; only the frames at 0 itself look like frames without a stamp."""
    buffer = Clocked(pairing=pairing)
    for stamp in range(60_000, 61_000, 100):
        for name in STREAMS:
            buffer.add(name, stamp, arrival=stamp)
    buffer.add(VISIBLE, 61_000, arrival=61_000)
    pairs = []
    for stamp in range(0, 500, 100):
        for name in STREAMS:
            pairs += buffer.add(name, stamp, arrival=stamp)
        pairs += buffer.expire(stamp)
    assert pairs == [(stamp, stamp) for stamp in (100, 200, 300, 400)]
    assert buffer.dropped(VISIBLE) == {NO_STAMP: 1, CLOCK_JUMP: 1}
    assert buffer.waiting() == 0


@pairing_modes
def test_while_a_simulation_is_paused_frames_do_not_grow_old(pairing):
    buffer = Clocked(pairing=pairing)
    buffer.add(VISIBLE, 1000, arrival=1000)
    for _ in range(100):
        assert buffer.expire(1010) == []
    assert buffer.add(THERMAL, 1000, arrival=1011) == [(1000, 1000)]


def test_when_the_arrival_clock_jumps_back_waits_begin_anew():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100, arrival=HOUR)
    buffer.expire(0)
    buffer.expire(500)
    assert buffer.waiting() == 1
    buffer.expire(501)
    assert buffer.waiting() == 0


def test_when_the_arrival_clock_jumps_forward_only_waiting_frames_are_let_go():
    buffer = Clocked()
    buffer.add(VISIBLE, 100, arrival=100)
    assert buffer.add(VISIBLE, 200, arrival=HOUR) + buffer.add(THERMAL, 200, arrival=HOUR) == [(200, 200)]
    assert buffer.dropped(VISIBLE) == {TIMED_OUT: 1}


def test_a_caller_that_was_overtaken_does_not_turn_the_arrival_clock_back():
    buffer = Clocked(max_wait=500 * MS)
    buffer.add(VISIBLE, 100, arrival=7000)
    buffer.expire(7400)
    buffer.add(VISIBLE, 200, arrival=7100)  # counts as 7400
    buffer.expire(7900)
    assert buffer.waiting() == 1
    buffer.expire(7901)
    assert buffer.waiting() == 0


def test_when_offsets_change_frames_of_before_are_not_paired_with_frames_of_after():
    buffer = Clocked(slop=10)
    buffer.add(VISIBLE, 100)
    buffer.buffer.reconfigure(PairingSettings(10 * MS, thermal_offset=-500 * MS))
    assert buffer.add(THERMAL, 100) == []
    assert buffer.add(THERMAL, 700) + buffer.add(VISIBLE, 200) == [(200, 700)]
    assert buffer.dropped(VISIBLE) == {RECONFIGURED: 1}


# Stamps of 0.


@streams
def test_one_frame_without_a_stamp_costs_itself_only(stream):
    buffer = Clocked()
    pairs = []
    for stamp in (5000, 5100, 5200, 5300):
        pairs += buffer.add(VISIBLE, stamp)
        if stamp == 5200:
            pairs += buffer.add(stream, 0)
        pairs += buffer.add(THERMAL, stamp)
    assert pairs == [(stamp, stamp) for stamp in (5000, 5100, 5200, 5300)]
    assert (buffer.dropped(stream), buffer.dropped(OTHER[stream])) == ({NO_STAMP: 1}, {})


def test_a_camera_without_stamps_is_named_by_its_counts():
    buffer = Clocked()
    for stamp in range(5000, 6000, 100):
        assert buffer.add(VISIBLE, stamp) + buffer.add(THERMAL, 0) == []
    assert buffer.dropped(THERMAL) == {NO_PARTNER: 1, NO_STAMP: 9}


def test_the_first_stamp_of_a_simulation_may_be_0():
    assert Clocked().add(VISIBLE, 0) == []
    buffer = Clocked(visible_offset=5 * MS, thermal_offset=-5 * MS)
    assert buffer.add(VISIBLE, 0) + buffer.add(THERMAL, 0) == [(0, 0)]
    buffer.add(VISIBLE, 0)
    assert buffer.dropped(VISIBLE) == {NO_STAMP: 1}


# Pairing by arrival.


@pairing_modes
def test_by_arrival_bad_stamps_do_not_matter(pairing):
    buffer = Clocked(slop=20, pairing=pairing, stamps=ARRIVAL)
    stamps = {VISIBLE: [0, 0, 7, 3], THERMAL: [HOUR, 5, 5, 0]}
    pairs = []
    for i in range(4):
        for after, name in enumerate(STREAMS):
            pairs += buffer.add(name, stamps[name][i], arrival=1000 + 100 * i + 4 * after)
    assert pairs == list(zip(stamps[VISIBLE], stamps[THERMAL], strict=True))


def test_by_arrival_skew_and_stamp_are_those_of_the_arrivals_after_offsets():
    settings = PairingSettings(50 * MS, stamps=ARRIVAL, visible_offset=-5 * MS, thermal_offset=-30 * MS)
    buffer = PairingBuffer(settings)
    buffer.add(VISIBLE, 1, None, arrival=1000 * MS)
    (pair,) = buffer.add(THERMAL, 2, None, arrival=1040 * MS)
    assert (pair.skew, pair.stamp) == (-15 * MS, 995 * MS)


def test_by_arrival_the_time_of_arrival_is_needed_and_nothing_is_counted_without():
    buffer = Clocked(stamps=ARRIVAL)
    with pytest.raises(ValueError, match="no arrival"):
        buffer.add(VISIBLE, 100)
    assert buffer.buffer.counts(VISIBLE).received == 0


def test_by_arrival_frames_of_one_tick_of_a_coarse_clock_are_all_taken():
    buffer = Clocked(slop=1, stamps=ARRIVAL)
    pairs = []
    for stamp in (1, 2, 3):
        pairs += buffer.add(VISIBLE, stamp, arrival=1000)
    for stamp in (4, 5, 6):
        pairs += buffer.add(THERMAL, stamp, arrival=1000)
    assert pairs == [(1, 4), (2, 5), (3, 6)]
    assert buffer.dropped(VISIBLE) == {}


def test_by_arrival_a_clock_that_does_not_run_is_named_by_the_counts():
    buffer = Clocked(stamps=ARRIVAL)
    for stamp in (1000, 1100, 1200):
        buffer.add(VISIBLE, stamp, arrival=0)
    assert buffer.dropped(VISIBLE) == {NO_STAMP: 2}


@pairing_modes
def test_by_arrival_a_jump_back_of_the_clock_begins_anew(pairing):
    buffer = Clocked(pairing=pairing, stamps=ARRIVAL)
    buffer.add(VISIBLE, 1, arrival=HOUR)
    assert buffer.add(VISIBLE, 2, arrival=100) + buffer.add(THERMAL, 3, arrival=100) == [(2, 3)]
    assert buffer.dropped(VISIBLE) == {CLOCK_JUMP: 1}


@given(st.sampled_from(PAIRINGS), st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(1, 80)), max_size=40))
def test_by_arrival_the_pairs_are_those_of_stamps_that_equal_the_arrivals(pairing, frames):
    settings = PairingSettings(20 * MS, pairing=pairing, thermal_offset=-5 * MS)
    by_stamp, by_arrival = PairingBuffer(settings), PairingBuffer(dataclasses.replace(settings, stamps=ARRIVAL))
    now = 0
    for number, (stream, step) in enumerate(frames):
        now += step * MS
        assert by_stamp.add(stream, now, number, now) == by_arrival.add(stream, -number, number, now)


# Settings that cannot be.


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"pairing": "best"}, "pairing is 'best'; use one of nearest, reuse_thermal, reuse_visible"),
        ({"stamps": "none"}, "stamps is 'none'; use one of header, arrival"),
        ({"slop": -1}, "slop is -1; use 0 or more"),
        ({"capacity": 0}, "capacity is 0; use 1 or more"),
        ({"jump": 0}, "jump is 0; use 1 or more"),
        ({"max_reuse_age": -1}, "max_reuse_age is -1"),
        ({"max_lag": -1}, "max_lag is -1"),
        ({"max_wait": -1}, "max_wait is -1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, problem):
    with pytest.raises(ValueError, match=problem):
        PairingSettings(**{"slop": 1, **settings})


def test_by_default_every_frame_is_used_once_by_its_stamp_and_waits_for_a_slop():
    settings = PairingSettings(5)
    assert (settings.pairing, settings.stamps, settings.lateness) == (NEAREST, HEADER, 5)
