"""What holds for the pairing buffer whatever is added."""

from collections import Counter
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st
from pairing_strategies import MS, TOLERANCES

from vifa_ros.pairing import STREAMS, THERMAL, VISIBLE, PairingBuffer, PairingSettings

PERIOD = 100 * MS

SETTINGS = st.builds(
    PairingSettings,
    **TOLERANCES,
)
FRAME = st.tuples(st.just("add"), st.sampled_from(STREAMS), st.integers(-20 * MS, 60 * MS))
REFUSAL = st.tuples(st.just("refuse"), st.sampled_from(STREAMS), st.none())
CHANGE = st.tuples(st.just("reconfigure"), SETTINGS, st.none())
EVENTS = st.lists(st.one_of(FRAME, FRAME, FRAME, REFUSAL, CHANGE), max_size=80)


class Witness:
    """Drives a buffer and counts by itself; a frame's content is its number within its stream and its stamp."""

    def __init__(self, settings: PairingSettings) -> None:
        self.settings, self.buffer = settings, PairingBuffer(settings)
        self.arrived: Counter[str] = Counter()
        self.stamps = dict.fromkeys(STREAMS, 0)
        self.pairs: list = []

    def add(self, stream: str, step: int) -> None:
        self.stamps[stream] += step
        content = (self.arrived[stream], self.stamps[stream])
        self.arrived[stream] += 1
        for pair in self.buffer.add(stream, self.stamps[stream], content):
            self.check(pair)
            self.pairs.append(pair)

    def refuse(self, stream: str, _: None) -> None:
        self.arrived[stream] += 1
        self.buffer.refuse(stream, "bad_image")

    def reconfigure(self, settings: PairingSettings, _: None) -> None:
        self.settings = settings
        self.buffer.reconfigure(settings)

    def check(self, pair) -> None:
        visible = pair.visible[1] + self.settings.visible_offset
        thermal = pair.thermal[1] + self.settings.thermal_offset
        assert pair.skew == visible - thermal
        assert abs(pair.skew) <= self.settings.slop


def drive(settings: PairingSettings, events: list) -> Witness:
    witness = Witness(settings)
    for name, *arguments in events:
        getattr(witness, name)(*arguments)
    return witness


@given(SETTINGS, EVENTS)
def test_every_frame_that_arrived_is_paired_dropped_or_waiting(settings, events):
    witness = Witness(settings)
    for name, *arguments in events:
        getattr(witness, name)(*arguments)
        for stream in STREAMS:
            counts = witness.buffer.counts(stream)
            assert counts.received == witness.arrived[stream]
            assert counts.paired == len(witness.pairs)
            assert counts.received == counts.paired + sum(counts.dropped.values()) + counts.waiting
            assert counts.waiting <= witness.settings.capacity


@given(SETTINGS, EVENTS)
def test_each_frame_is_used_at_most_once_and_pairs_keep_the_order_of_arrival(settings, events):
    pairs = drive(settings, events).pairs
    for numbers in ([pair.visible[0] for pair in pairs], [pair.thermal[0] for pair in pairs]):
        assert all(earlier < later for earlier, later in pairwise(numbers))


@given(
    st.lists(st.tuples(st.integers(-12 * MS, 12 * MS), st.integers(-12 * MS, 12 * MS)), min_size=1, max_size=25),
    st.integers(-25 * MS, 25 * MS),
    st.integers(0, 45 * MS),
    st.randoms(use_true_random=False),
)
def test_at_equal_rates_the_pairs_are_the_mutually_nearest_frames(jitters, skew, slop, random):
    """Jitter and skew together stay below half a period; the frames arrive in any interleaving of the streams."""
    visible = [i * PERIOD + jitter for i, (jitter, _) in enumerate(jitters)]
    thermal = [i * PERIOD + skew + jitter for i, (_, jitter) in enumerate(jitters)]
    waiting = {VISIBLE: list(visible), THERMAL: list(thermal)}
    buffer, pairs = PairingBuffer(PairingSettings(slop, capacity=1000)), []
    while any(waiting.values()):
        stream = random.choice([stream for stream in STREAMS if waiting[stream]])
        stamp = waiting[stream].pop(0)
        pairs += [(pair.visible, pair.thermal) for pair in buffer.add(stream, stamp, stamp)]
    end = len(jitters) * PERIOD + 10 * PERIOD  # a frame of each stream far behind the others settles all of them
    pairs += [(pair.visible, pair.thermal) for s in STREAMS for pair in buffer.add(s, end, end)]
    assert [pair for pair in pairs if pair != (end, end)] == find_mutually_nearest(visible, thermal, slop)


@given(st.integers(5, 40), st.integers(5, 40), st.integers(0, 100), st.integers(1, 60))
def test_at_any_two_rates_settled_pairs_are_the_mutually_nearest_frames(visible_rate, thermal_rate, phase, slop):
    """Frames arrive in the order of their stamps; the first ones, before the rates are known, are left out."""
    visible = [i * 1000 * MS // visible_rate for i in range(2 * visible_rate)]
    thermal = [phase * MS + i * 1000 * MS // thermal_rate for i in range(2 * thermal_rate)]
    buffer, pairs = PairingBuffer(PairingSettings(slop * MS, capacity=1000)), []
    for stamp, stream in sorted([(s, VISIBLE) for s in visible] + [(s, THERMAL) for s in thermal]):
        pairs += [(pair.visible, pair.thermal) for pair in buffer.add(stream, stamp, stamp)]
    settled = range(1000 * MS, 1700 * MS)
    expected = [pair for pair in find_mutually_nearest(visible, thermal, slop * MS) if pair[0] in settled]
    found = [pair for pair in pairs if pair[0] in settled]
    assume(not has_ties(visible, thermal))
    assert found == expected


def find_mutually_nearest(visible: list[int], thermal: list[int], slop: int) -> list[tuple[int, int]]:
    """By definition: each frame of the pair is the nearest one to the other, and they are within the slop."""
    return [
        (v, t)
        for v in visible
        for t in thermal
        if abs(v - t) <= slop
        and abs(v - t) == min(abs(v - other) for other in thermal)
        and abs(v - t) == min(abs(other - t) for other in visible)
    ]


def has_ties(visible: list[int], thermal: list[int]) -> bool:
    """Whether some frame lies in the middle between two of the other stream, within rounding."""
    for stamps, others in ((visible, thermal), (thermal, visible)):
        for stamp in stamps:
            nearest = sorted(abs(stamp - other) for other in others)
            if len(nearest) > 1 and nearest[1] - nearest[0] < 10:
                return True
    return False
