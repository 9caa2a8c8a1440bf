"""The laws of accounting, after every single call, for any sequence of calls, and from several threads.

Frames, per stream: received = paired + sum of dropped + waiting, where `received` is counted by the test.
Pairs: every pair given is the first or a further use of a frame of each stream, or that of the other stream's frame
alone: pairs = paired + reused + alone of the other. The worker's
law, formed = processed + sum of dropped + in flight, is held beside it where the pairs go to a worker.
"""

import random
import sys
import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pairing_strategies import MS, TOLERANCES

from vifa_ros.pairing import (
    ARRIVAL,
    HEADER,
    NEAREST,
    PAIRINGS,
    REUSE_THERMAL,
    REUSE_VISIBLE,
    STAMPS,
    STREAMS,
    THERMAL,
    VISIBLE,
    Pair,
    PairingBuffer,
    PairingSettings,
    StreamCounts,
)
from vifa_ros.worker import Worker

SETTINGS = st.builds(
    PairingSettings,
    **TOLERANCES,
    pairing=st.sampled_from(PAIRINGS),
    max_reuse_age=st.integers(0, 200 * MS),
    stamps=st.sampled_from(STAMPS),
    max_lag=st.integers(0, 50 * MS),
    max_wait=st.integers(0, 200 * MS),
)
STREAM = st.sampled_from(STREAMS)
TICK = st.integers(0, 40 * MS)
LEAP = st.sampled_from([-3_600_000 * MS, -1000 * MS, 1000 * MS, 3_600_000 * MS])
ONCE = {NEAREST: set(STREAMS), REUSE_THERMAL: {VISIBLE}, REUSE_VISIBLE: {THERMAL}}


def check_frames(counts: StreamCounts) -> None:
    assert counts.received == counts.paired + sum(counts.dropped.values()) + counts.waiting
    assert min(counts.paired, counts.reused, counts.waiting, *counts.dropped.values()) >= 0


class Calls(RuleBasedStateMachine):
    """Any calls in any order; a frame's content is its number within its stream and what it is paired by, as given."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = PairingSettings(30 * MS)
        self.buffer = PairingBuffer(self.settings)
        self.now = 10_000_000 * MS
        self.stamps = dict.fromkeys(STREAMS, self.now)
        self.arrived: Counter[str] = Counter()
        self.uses: dict[str, Counter[int]] = {stream: Counter() for stream in STREAMS}
        self.last = dict.fromkeys(STREAMS, -1)
        self.pairs = 0
        self.alone: Counter[str] = Counter()

    @rule(stream=STREAM, step=st.integers(-20 * MS, 60 * MS), tick=TICK)
    def add(self, stream: str, step: int, tick: int) -> None:
        self.now += tick
        self.stamps[stream] += step
        self.add_frame(stream, self.stamps[stream], self.now)

    @rule(stream=STREAM, tick=TICK)
    def add_at_the_moment(self, stream: str, tick: int) -> None:
        self.now += tick
        self.stamps[stream] = max(self.stamps[stream], self.now)
        self.add_frame(stream, self.stamps[stream], self.now)

    @precondition(lambda self: self.settings.stamps == HEADER)
    @rule(stream=STREAM, step=st.integers(0, 60 * MS))
    def add_without_arrival(self, stream: str, step: int) -> None:
        self.stamps[stream] += step
        self.add_frame(stream, self.stamps[stream], None)

    @precondition(lambda self: self.settings.stamps == ARRIVAL)
    @rule(stream=STREAM)
    def add_without_the_arrival_that_is_needed(self, stream: str) -> None:
        with pytest.raises(ValueError, match="no arrival"):
            self.buffer.add(stream, self.stamps[stream], None)

    @rule(stream=STREAM)
    def add_without_a_stamp(self, stream: str) -> None:
        self.add_frame(stream, 0, self.now)

    @rule(stream=STREAM)
    def refuse(self, stream: str) -> None:
        self.arrived[stream] += 1
        self.buffer.refuse(stream, "bad_image")

    @rule(settings=SETTINGS)
    def reconfigure(self, settings: PairingSettings) -> None:
        self.settings = settings
        self.buffer.reconfigure(settings)
        assert all(self.buffer.counts(stream).waiting == 0 for stream in STREAMS)

    @rule(stream=st.sampled_from([*STREAMS, None]))
    def lose_a_camera(self, stream: str | None) -> None:
        self.check(self.buffer.set_alone(stream))
        assert stream is None or self.buffer.counts(stream).waiting == 0

    @rule(tick=TICK)
    def expire(self, tick: int) -> None:
        self.now += tick
        self.check(self.buffer.expire(self.now))

    @rule()
    def expire_all(self) -> None:
        """Whatever came before, no frame outlives the longest wait there is."""
        self.check(self.buffer.expire(self.now))
        self.now += max(self.settings.max_wait, self.settings.max_reuse_age) + self.settings.jump
        self.check(self.buffer.expire(self.now))
        assert all(self.buffer.counts(stream).waiting == 0 for stream in STREAMS)

    @rule(stream=STREAM, leap=LEAP)
    def jump_of_a_camera_s_clock(self, stream: str, leap: int) -> None:
        self.stamps[stream] += leap

    @rule(leap=LEAP)
    def jump_of_the_arrival_clock(self, leap: int) -> None:
        self.now += leap

    @invariant()
    def laws_hold(self) -> None:
        for stream in STREAMS:
            counts = self.buffer.counts(stream)
            check_frames(counts)
            assert counts.received == self.arrived[stream]
            assert counts.waiting <= self.settings.capacity
            assert counts.paired == len(self.uses[stream])
            assert counts.alone == self.alone[stream]
            other = self.buffer.counts(THERMAL if stream == VISIBLE else VISIBLE)
            assert counts.paired + counts.reused + other.alone == self.pairs

    def add_frame(self, stream: str, stamp: int, arrival: int | None) -> None:
        clock = arrival if self.settings.stamps == ARRIVAL else stamp
        content = (self.arrived[stream], clock)
        self.arrived[stream] += 1
        self.check(self.buffer.add(stream, stamp, content, arrival))

    def check(self, pairs: list[Pair]) -> None:
        """No pair is wider than allowed, goes back in either stream, or uses a frame that may be used once again."""
        for pair in pairs:
            self.pairs += 1
            again = False
            frames = {VISIBLE: pair.visible, THERMAL: pair.thermal}
            for stream in [stream for stream, frame in frames.items() if frame is not None]:
                number = frames[stream][0]
                assert number > self.last[stream] - (stream not in ONCE[self.settings.pairing])
                self.last[stream] = number
                again |= number in self.uses[stream]
                self.uses[stream][number] += 1
            assert pair.reused == again
            if None in frames.values():
                self.check_alone(pair)
            else:
                self.check_skew(pair)

    def check_alone(self, pair: Pair) -> None:
        """A frame that is given alone is of the stream that may be, and was in no pair before."""
        stream, frame = (VISIBLE, pair.visible) if pair.thermal is None else (THERMAL, pair.thermal)
        assert self.buffer.alone == stream and not pair.reused and pair.skew == 0
        self.alone[stream] += 1
        if self.settings.stamps == HEADER:
            assert pair.stamp == frame[1] + self.settings.offset(stream)

    def check_skew(self, pair: Pair) -> None:
        settings, reach = self.settings, max(self.settings.slop, self.settings.max_reuse_age)
        oldest = {NEAREST: -settings.slop, REUSE_THERMAL: -settings.slop, REUSE_VISIBLE: -reach}[settings.pairing]
        newest = {NEAREST: settings.slop, REUSE_THERMAL: reach, REUSE_VISIBLE: settings.slop}[settings.pairing]
        assert oldest <= pair.skew <= newest
        if settings.stamps == HEADER:  # arrivals may be moved on to stay in order
            offsets = settings.visible_offset - settings.thermal_offset
            assert pair.skew == pair.visible[1] - pair.thermal[1] + offsets
            assert pair.stamp == pair.visible[1] + settings.visible_offset


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


class Engine:
    def close(self) -> None:
        pass


@pytest.fixture
def threads_take_turns_often():
    """Python hands over every 10 microseconds, so that what is not guarded is seen half done."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_laws_hold_at_any_moment_while_several_threads_call(pairing, threads_take_turns_often):
    """Three threads add, refuse and expire, one changes settings, one watches; a worker takes the pairs."""
    buffer = PairingBuffer(PairingSettings(20 * MS, pairing=pairing, capacity=3))
    worker: Worker[Engine, Pair] = Worker(Engine, lambda engine, pair: None, lambda error: None)
    worker.start(10)
    worker.accept()
    arrived: list[Counter[str]] = [Counter() for _ in range(3)]
    problems: list[BaseException] = []
    done = threading.Event()

    def call(seed: int) -> None:
        choose = random.Random(seed)
        for now in range(1, 4000):
            pairs = buffer.expire(now * MS) if choose.random() < 0.1 else []
            stream = choose.choice(STREAMS)
            arrived[seed][stream] += 1
            if choose.random() < 0.1:
                buffer.refuse(stream, "bad_image")
            elif choose.random() < 0.05:
                pairs += buffer.set_alone(choose.choice([*STREAMS, None]))
                arrived[seed][stream] -= 1
            else:
                stamp = (now + choose.randrange(8)) * MS
                pairs += buffer.add(stream, stamp, stamp, now * MS)
            for pair in pairs:
                worker.submit(pair)

    def change() -> None:
        for slop in range(1, 60):
            buffer.reconfigure(PairingSettings(slop * MS, pairing=pairing, capacity=3))
            done.wait(0.002)

    def watch() -> None:
        while not done.is_set():
            for stream in STREAMS:
                check_frames(buffer.counts(stream))
            counts = worker.counts()
            assert counts.formed == counts.processed + sum(counts.dropped.values()) + counts.in_flight

    def told(target, *arguments: int) -> None:
        try:
            target(*arguments)
        except BaseException as error:
            problems.append(error)

    callers = [threading.Thread(target=told, args=(call, seed)) for seed in range(3)]
    others = [threading.Thread(target=told, args=(target,)) for target in (change, watch)]
    for thread in callers + others:
        thread.start()
    for thread in callers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert worker.stop(10)
    assert problems == []
    assert worker.counts().formed > 50
    for stream in STREAMS:
        counts = buffer.counts(stream)
        check_frames(counts)
        assert counts.received == sum(by_thread[stream] for by_thread in arrived)
        other = buffer.counts(THERMAL if stream == VISIBLE else VISIBLE)
        assert counts.paired + counts.reused + other.alone == worker.counts().formed
