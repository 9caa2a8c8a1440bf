"""The pairing buffer, one behaviour after another; times in milliseconds."""

import threading

import pytest

from vifa_ros.pairing import (
    BUFFER_FULL,
    CLOCK_JUMP,
    NO_PARTNER,
    OUT_OF_ORDER,
    RECONFIGURED,
    REPEATED_STAMP,
    THERMAL,
    VISIBLE,
    PairingBuffer,
    PairingSettings,
)

MS = 1_000_000


def make_buffer(slop: float = 10, **settings: int) -> PairingBuffer:
    return PairingBuffer(PairingSettings(slop=round(slop * MS), **settings))


def feed(buffer: PairingBuffer, *frames: tuple[str, float]) -> list[tuple[float, float]]:
    """Add frames (stream, stamp in ms) in this order; returns the pairs' stamps (visible, thermal)."""
    pairs = []
    for stream, stamp in frames:
        pairs += [(pair.visible, pair.thermal) for pair in buffer.add(stream, round(stamp * MS), stamp)]
    return pairs


def both(stamps: range) -> list[tuple[str, float]]:
    """Frames of both streams with the same stamps."""
    return [(stream, stamp) for stamp in stamps for stream in (VISIBLE, THERMAL)]


def test_frames_of_one_stamp_are_a_pair_at_once():
    assert feed(make_buffer(), (VISIBLE, 5), (THERMAL, 5)) == [(5, 5)]


def test_either_stream_may_come_first():
    assert feed(make_buffer(), (THERMAL, 5), (VISIBLE, 6)) == [(6, 5)]


def test_skew_is_the_visible_minus_the_thermal_stamp():
    buffer = make_buffer()
    buffer.add(VISIBLE, 3 * MS, None)
    assert [pair.skew for pair in buffer.add(THERMAL, 7 * MS, None)] == [-4 * MS]


@pytest.mark.parametrize(("distance", "is_pair"), [(10, True), (10.000001, False)])
def test_a_pair_is_no_further_apart_than_the_slop(distance, is_pair):
    assert bool(feed(make_buffer(slop=10), (VISIBLE, 0), (THERMAL, distance))) == is_pair


def test_with_no_slop_only_equal_stamps_are_a_pair():
    assert feed(make_buffer(slop=0), (VISIBLE, 0), (THERMAL, 1), (VISIBLE, 1)) == [(1, 1)]


def test_the_older_frame_beyond_the_slop_has_no_partner():
    buffer = make_buffer(slop=10)
    feed(buffer, (VISIBLE, 0), (THERMAL, 50))
    assert buffer.counts(VISIBLE).dropped == {NO_PARTNER: 1}
    assert buffer.counts(THERMAL).waiting == 1


def test_offsets_are_added_before_comparing():
    buffer = make_buffer(slop=1, visible_offset=-20 * MS, thermal_offset=10_000 * MS)
    buffer.add(VISIBLE, 10_025 * MS, "visible")
    (pair,) = buffer.add(THERMAL, 6 * MS, "thermal")
    assert (pair.visible, pair.thermal, pair.skew) == ("visible", "thermal", -1 * MS)


def test_a_nearer_frame_that_is_already_there_wins():
    buffer = make_buffer(slop=30)
    feed(buffer, *both(range(0, 400, 100)))
    assert feed(buffer, (VISIBLE, 400), (VISIBLE, 420), (THERMAL, 422)) == [(420, 422)]
    assert buffer.counts(VISIBLE).dropped == {NO_PARTNER: 1}


def test_the_decision_waits_for_a_nearer_frame_that_is_due():
    buffer = make_buffer(slop=80)
    feed(buffer, *both(range(0, 400, 100)))
    assert feed(buffer, (VISIBLE, 400), (THERMAL, 480)) == []
    assert feed(buffer, (VISIBLE, 500)) == [(500, 480)]


def test_the_decision_does_not_wait_when_no_nearer_frame_is_due():
    buffer = make_buffer(slop=80)
    feed(buffer, *both(range(0, 400, 100)))
    assert feed(buffer, (VISIBLE, 400), (THERMAL, 450)) == [(400, 450)]


def test_an_overdue_frame_is_not_waited_for():
    buffer = make_buffer(slop=80)
    feed(buffer, *both(range(0, 400, 100)))
    assert feed(buffer, (VISIBLE, 400), (THERMAL, 480), (THERMAL, 580)) == []
    assert feed(buffer, (THERMAL, 680)) == [(400, 480)]


def test_late_frames_still_find_their_partners():
    buffer = make_buffer()
    visible = [(VISIBLE, stamp) for stamp in range(0, 500, 100)]
    thermal = [(THERMAL, stamp) for stamp in range(0, 500, 100)]
    assert feed(buffer, *visible, *thermal) == [(stamp, stamp) for stamp in range(0, 500, 100)]


def test_a_lone_camera_fills_its_buffer_and_no_more():
    buffer = make_buffer(capacity=4)
    assert feed(buffer, *((VISIBLE, stamp) for stamp in range(0, 1000, 100))) == []
    counts = buffer.counts(VISIBLE)
    assert (counts.received, counts.waiting, counts.dropped) == (10, 4, {BUFFER_FULL: 6})


def test_the_newest_frames_are_the_ones_that_wait():
    buffer = make_buffer(capacity=2)
    feed(buffer, (VISIBLE, 0), (VISIBLE, 100), (VISIBLE, 200))
    assert feed(buffer, (THERMAL, 100)) == [(100, 100)]


def test_a_frame_older_than_the_newest_is_out_of_order():
    buffer = make_buffer()
    assert feed(buffer, (VISIBLE, 100), (VISIBLE, 60), (THERMAL, 60)) == []
    assert buffer.counts(VISIBLE).dropped == {OUT_OF_ORDER: 1}


def test_a_repeated_stamp_is_counted_by_that_name():
    buffer = make_buffer()
    assert feed(buffer, (VISIBLE, 100), (VISIBLE, 100), (THERMAL, 100)) == [(100, 100)]
    assert buffer.counts(VISIBLE).dropped == {REPEATED_STAMP: 1}


def test_a_clock_jump_forgets_the_waiting_frames_of_both_streams():
    buffer = make_buffer()
    feed(buffer, (VISIBLE, 5000), (VISIBLE, 5100), (THERMAL, 5200))
    assert feed(buffer, (VISIBLE, 100), (THERMAL, 100)) == [(100, 100)]
    assert buffer.counts(VISIBLE).dropped == {NO_PARTNER: 2}
    assert buffer.counts(THERMAL).dropped == {CLOCK_JUMP: 1}


@pytest.mark.parametrize(("back", "reason"), [(999, OUT_OF_ORDER), (1000, CLOCK_JUMP)])
def test_only_a_step_back_of_a_second_is_a_clock_jump(back, reason):
    buffer = make_buffer()
    feed(buffer, (VISIBLE, 5000), (VISIBLE, 5000 - back))
    assert buffer.counts(VISIBLE).dropped == {reason: 1}


def test_one_stamp_from_the_future_costs_no_more_than_the_frames_around_it():
    buffer = make_buffer()
    feed(buffer, *both(range(0, 300, 100)), (VISIBLE, 1_000_000))
    assert feed(buffer, *both(range(400, 700, 100))) == [(400, 400), (500, 500), (600, 600)]


def test_thirty_hertz_with_nine_pairs_every_thermal_frame_with_its_nearest():
    buffer = make_buffer(slop=40)
    visible = [1000 * i / 30 for i in range(90)]
    thermal = [7 + 1000 * i / 9 for i in range(25)]
    frames = sorted([(stamp, VISIBLE) for stamp in visible] + [(stamp, THERMAL) for stamp in thermal])
    pairs = feed(buffer, *((stream, stamp) for stamp, stream in frames))
    nearest = [(min(visible, key=lambda v, t=t: abs(v - t)), t) for t in thermal]
    assert pairs[2:] == nearest[2 : len(pairs)]
    assert len(pairs) >= len(thermal) - 1
    assert set(buffer.counts(THERMAL).dropped) <= {NO_PARTNER}


def test_new_settings_drop_waiting_frames_and_keep_the_counts():
    buffer = make_buffer(slop=1)
    feed(buffer, (VISIBLE, 0), (THERMAL, 0), (VISIBLE, 100))
    buffer.reconfigure(PairingSettings(slop=50 * MS, thermal_offset=500 * MS))
    assert buffer.counts(VISIBLE).dropped == {RECONFIGURED: 1}
    assert feed(buffer, (VISIBLE, 600), (THERMAL, 60)) == [(600, 60)]
    assert (buffer.counts(VISIBLE).received, buffer.counts(VISIBLE).paired) == (3, 2)


def test_a_refused_frame_is_received_and_dropped():
    buffer = make_buffer()
    buffer.refuse(THERMAL, "bad_image")
    counts = buffer.counts(THERMAL)
    assert (counts.received, counts.paired, counts.waiting, counts.dropped) == (1, 0, 0, {"bad_image": 1})


def test_two_threads_may_add_at_the_same_time():
    buffer, pairs = make_buffer(capacity=1000), []

    def add_all(stream: str) -> None:
        for stamp in range(1000):
            pairs.extend(buffer.add(stream, stamp * 100 * MS, stamp))

    threads = [threading.Thread(target=add_all, args=(stream,)) for stream in (VISIBLE, THERMAL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pair.visible for pair in pairs) == list(range(1000))
    assert all(pair.visible == pair.thermal for pair in pairs)
    assert buffer.counts(VISIBLE).paired == buffer.counts(THERMAL).paired == 1000
