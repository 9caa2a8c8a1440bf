"""Pairing `nearest` beside message_filters' ApproximateTimeSynchronizer, the one for Python, of Jazzy.

Both define the same pairs where each frame has at most one possible partner. They differ elsewhere:
- A frame with several possible partners. The synchronizer pairs each frame as it arrives with the nearest one there is;
  `nearest` waits for a nearer one that is due: a pair of the same moment is worth a part of a frame's period.
- Two frames exactly the slop apart. The synchronizer makes no pair of them; here a slop of 0 must pair equal stamps.
- Order. The synchronizer may go back in time with its next pair, and keeps frames that newer ones have passed until its
  queue is full; here pairs keep the order of both streams, so that smoothing over time can follow them.
- Repeated stamps. The synchronizer replaces the frame that waits without a word; here the second is dropped, counted.
"""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vifa_ros.pairing import REPEATED_STAMP, STREAMS, THERMAL, VISIBLE, PairingBuffer, PairingSettings

message_filters = pytest.importorskip(
    "message_filters", reason="message_filters is not installed here (there is none on PyPI)"
)
rclpy_time = pytest.importorskip("rclpy.time", reason="no ROS 2 here")

MS = 1_000_000
SLOP = 10
Pairs = list[tuple[int, int]]
STEPS = st.lists(st.integers(1, 60), max_size=20)
ORDER = st.randoms(use_true_random=False)


class Message:
    """What the synchronizer wants of a message; its stamp in ms, within its stream."""

    def __init__(self, stamp: int) -> None:
        self.name = stamp
        self.header = self
        self.stamp = rclpy_time.Time(nanoseconds=stamp * MS)


def synchronize(frames: list[tuple[str, int]], queue_size: int = 1000) -> Pairs:
    """What the synchronizer makes of frames (stream, stamp in ms) that arrive in this order."""
    inputs = {stream: message_filters.SimpleFilter() for stream in STREAMS}
    synchronizer = message_filters.ApproximateTimeSynchronizer(list(inputs.values()), queue_size, SLOP / 1000)
    pairs: Pairs = []
    synchronizer.registerCallback(lambda visible, thermal: pairs.append((visible.name, thermal.name)))
    for stream, stamp in frames:
        inputs[stream].signalMessage(Message(stamp))
    return pairs


def pair(frames: list[tuple[str, int]], slop: int = SLOP) -> Pairs:
    """What the buffer makes of the same; at the end everything that still waits is let go."""
    buffer = PairingBuffer(PairingSettings(slop * MS, capacity=1000))
    pairs = [pair for stream, stamp in frames for pair in buffer.add(stream, stamp * MS, stamp)]
    pairs += buffer.expire(0) + buffer.expire(3600_000 * MS)
    return [(pair.visible, pair.thermal) for pair in pairs]


def interleave(visible: list[int], thermal: list[int], random) -> list[tuple[str, int]]:
    """The frames in some order of arrival that keeps each stream's own."""
    coming, frames = {VISIBLE: list(visible), THERMAL: list(thermal)}, []
    while any(coming.values()):
        stream = random.choice([name for name in STREAMS if coming[name]])
        frames.append((stream, coming[stream].pop(0)))
    return frames


def stamps_of(steps: list[int]) -> list[int]:
    return [1000 + sum(steps[: i + 1]) for i in range(len(steps))]


def has_a_choice(visible: list[int], thermal: list[int]) -> bool:
    """Whether some frame has two possible partners, or one exactly a slop away."""
    counts = [sum(abs(one - other) <= SLOP for other in thermal) for one in visible]
    counts += [sum(abs(one - other) <= SLOP for one in visible) for other in thermal]
    return max(counts, default=0) > 1 or any(abs(v - t) == SLOP for v in visible for t in thermal)


@given(STEPS, STEPS, ORDER)
def test_where_no_frame_has_a_choice_both_make_the_same_pairs(visible_steps, thermal_steps, random):
    """In any order of arrival. The order in which pairs come may differ, so they are compared sorted."""
    visible, thermal = stamps_of(visible_steps), stamps_of(thermal_steps)
    thermal = [t for t in thermal if not has_a_choice(visible, [t])]
    visible = [v for v in visible if not has_a_choice([v], thermal)]
    assume(not has_a_choice(visible, thermal))
    frames = interleave(visible, thermal, random)
    assert pair(frames) == sorted(synchronize(frames))


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=40), ORDER)
def test_two_cameras_of_one_rate_with_jitter_give_the_same_pairs(jitters, random):
    """30 Hz: periods of 33 ms, a slop of less than half; frames arrive in the order of their stamps."""
    visible = [1000 + 33 * i + jitter for i, (jitter, _) in enumerate(jitters) if random.random() > 0.05]
    thermal = [1001 + 33 * i + jitter for i, (_, jitter) in enumerate(jitters) if random.random() > 0.05]
    frames = sorted([(VISIBLE, v) for v in visible] + [(THERMAL, t) for t in thermal], key=lambda frame: frame[1])
    assert pair(frames) == synchronize(frames)


def test_differs_a_nearer_frame_that_is_due_is_waited_for():
    """Visible frames every 12 ms; the thermal one at 1045 lies 9 ms after 1036 and 3 ms before 1048."""
    frames = [*((VISIBLE, stamp) for stamp in (1000, 1012, 1024, 1036)), (THERMAL, 1045), (VISIBLE, 1048)]
    assert synchronize(frames) == [(1036, 1045)]
    assert pair(frames) == [(1048, 1045)]


def test_differs_two_frames_exactly_the_slop_apart_are_a_pair_here_only():
    frames = [(VISIBLE, 1000), (THERMAL, 1000 + SLOP)]
    assert synchronize(frames) == []
    assert pair(frames) == [(1000, 1000 + SLOP)]


def test_differs_pairs_never_go_back_in_time_here():
    frames = [(VISIBLE, 1000), (VISIBLE, 1006), (THERMAL, 1008), (THERMAL, 1009)]
    assert synchronize(frames) == [(1006, 1008), (1000, 1009)]
    assert pair(frames) == [(1006, 1008)]


def test_differs_a_repeated_stamp_is_counted_here_and_replaces_there():
    frames = [(VISIBLE, 1000), (VISIBLE, 1000), (THERMAL, 1000)]
    assert synchronize(frames) == pair(frames) == [(1000, 1000)]
    buffer = PairingBuffer(PairingSettings(SLOP * MS))
    for stream, stamp in frames:
        buffer.add(stream, stamp * MS, None)
    assert buffer.counts(VISIBLE).dropped == {REPEATED_STAMP: 1}
