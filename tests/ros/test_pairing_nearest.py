"""What pairing `nearest` guarantees, against definitions by brute force; and what it does not.

The definition, for all frames known: take the two closest frames of both streams that are within the slop and cross no
pair taken before, again and again (`closest_first`); leave out each of these pairs whose older frame has a younger
sister nearer to the partner. While frames arrive, decisions are made with the frames known by then, after waiting for
those that are due.
"""

from collections import deque
from itertools import combinations, pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vifa_ros.nearest import NearestRule
from vifa_ros.pairing import NO_PARTNER, STREAMS, THERMAL, VISIBLE, PairingBuffer, PairingSettings
from vifa_ros.streams import Frame, Stream

Pairs = list[tuple[int, int]]
STAMPS = st.lists(st.integers(0, 100), max_size=9, unique=True).map(sorted)
ORDER = st.randoms(use_true_random=False)


def pair_all(visible: list[int], thermal: list[int], slop: int) -> Pairs:
    """What the rule makes of frames that are all there before it decides."""
    streams = {name: Stream(deque(Frame(s, s) for s in stamps)) for name, stamps in both(visible, thermal).items()}
    return [(pair.visible, pair.thermal) for pair in NearestRule(PairingSettings(slop), streams).resolve(None)]


def both(visible: list[int], thermal: list[int]) -> dict[str, list[int]]:
    return {VISIBLE: visible, THERMAL: thermal}


def candidates(visible: list[int], thermal: list[int], slop: int) -> Pairs:
    return [(v, t) for v in visible for t in thermal if abs(v - t) <= slop]


def closest_first(visible: list[int], thermal: list[int], slop: int) -> Pairs:
    """By definition: the closest two frames are a pair, and so on with the frames that cross no pair."""
    pairs, left = [], candidates(visible, thermal, slop)
    while left:
        best = min(left, key=lambda pair: abs(pair[0] - pair[1]))
        pairs.append(best)
        left = [pair for pair in left if in_order(pair, best)]
    return sorted(pairs)


def in_order(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether both frames of one pair are older than those of the other, or both younger."""
    return (one[0] - other[0]) * (one[1] - other[1]) > 0


def gives_way(pair: tuple[int, int], visible: list[int], thermal: list[int]) -> bool:
    """Whether the pair's older frame has a younger sister nearer to the other frame."""
    older, other = sorted(pair)
    sisters = visible if older == pair[0] else thermal
    return any(abs(sister - other) < other - older for sister in sisters if sister > older)


def most_pairs(visible: list[int], thermal: list[int], slop: int) -> Pairs:
    """By brute force: of all ways to pair the frames, most pairs first, then the smallest sum of distances."""
    allowed = candidates(visible, thermal, slop)
    ways = (
        way
        for size in range(min(len(visible), len(thermal)) + 1)
        for way in combinations(allowed, size)
        if len({v for v, _ in way}) == len({t for _, t in way}) == size
    )
    return sorted(min(ways, key=lambda way: (-len(way), sum(abs(v - t) for v, t in way))))


def has_ties(visible: list[int], thermal: list[int], slop: int) -> bool:
    distances = [abs(v - t) for v, t in candidates(visible, thermal, slop)]
    return len(set(distances)) < len(distances)


@settings(max_examples=500)
@given(STAMPS, STAMPS, st.integers(0, 60))
def test_with_all_frames_known_the_pairs_are_the_closest_ones_less_those_that_give_way(visible, thermal, slop):
    assume(not has_ties(visible, thermal, slop))
    expected = [p for p in closest_first(visible, thermal, slop) if not gives_way(p, visible, thermal)]
    assert pair_all(visible, thermal, slop) == expected


@settings(max_examples=500)
@given(STAMPS, STAMPS, st.integers(0, 60))
def test_every_two_frames_that_are_nearest_to_each_other_are_a_pair(visible, thermal, slop):
    assume(not has_ties(visible, thermal, slop))
    mutual = [
        (v, t)
        for v, t in candidates(visible, thermal, slop)
        if abs(v - t) == min(abs(v - other) for other in thermal) == min(abs(other - t) for other in visible)
    ]
    assert set(mutual) <= set(pair_all(visible, thermal, slop))


@given(st.lists(st.tuples(st.integers(21, 60), st.integers(-10, 10), st.sampled_from("vtb")), max_size=6))
def test_where_frames_are_more_than_two_slops_apart_no_other_pairing_has_more_pairs_or_less_distance(moments):
    """Each moment has a visible frame, a thermal one or both; then there is only one way to pair them."""
    slop, now = 10, 0
    visible, thermal = [], []
    for step, skew, kind in moments:
        now += step + 2 * slop
        visible += [now] if kind != "t" else []
        thermal += [now + skew] if kind != "v" else []
    assume(all(b - a > 2 * slop for stamps in (visible, thermal) for a, b in pairwise(stamps)))
    assert pair_all(visible, thermal, slop) == most_pairs(visible, thermal, slop)


def test_of_two_equally_near_frames_the_older_wins():
    assert pair_all([90, 110], [100], slop=10) == [(90, 100)]
    assert pair_all([100], [90, 110], slop=10) == [(100, 90)]


def test_not_guaranteed_as_many_pairs_as_possible():
    visible, thermal = [0, 90], [80, 95]
    assert pair_all(visible, thermal, slop=100) == [(90, 95)]
    assert most_pairs(visible, thermal, slop=100) == [(0, 80), (90, 95)] == closest_first(visible, thermal, slop=100)


def test_not_guaranteed_the_smallest_sum_of_distances():
    visible, thermal = [0, 7], [6, 13]
    assert pair_all(visible, thermal, slop=100) == [(7, 6)]
    assert most_pairs(visible, thermal, slop=100) == [(0, 6), (7, 13)]


@settings(max_examples=500)
@given(STAMPS, STAMPS, st.integers(0, 60), ORDER)
def test_in_any_order_of_arrival_no_frame_that_stays_alone_could_make_a_pair_closer(visible, thermal, slop, random):
    """Checked at every pair, with the frames that have arrived by then."""
    buffer, coming = PairingBuffer(PairingSettings(slop, capacity=100)), both(list(visible), list(thermal))
    known: dict[str, list[int]] = {VISIBLE: [], THERMAL: []}
    pairs: Pairs = []
    while any(coming.values()):
        stream = random.choice([name for name in STREAMS if coming[name]])
        known[stream].append(coming[stream].pop(0))
        new = [(p.visible, p.thermal) for p in buffer.add(stream, known[stream][-1], known[stream][-1])]
        pairs += new
        alone = {
            VISIBLE: set(known[VISIBLE]) - {v for v, _ in pairs},
            THERMAL: set(known[THERMAL]) - {t for _, t in pairs},
        }
        for v, t in new:
            assert abs(v - t) <= slop
            others = [pair for pair in pairs if pair != (v, t)]
            for instead in [(frame, t) for frame in alone[VISIBLE]] + [(v, frame) for frame in alone[THERMAL]]:
                crosses = not all(in_order(instead, pair) for pair in others)
                assert crosses or abs(instead[0] - instead[1]) >= abs(v - t)
    for earlier, later in pairwise(pairs):
        assert earlier[0] < later[0]
        assert earlier[1] < later[1]


@settings(max_examples=500)
@given(STAMPS, STAMPS, st.integers(0, 60), ORDER)
def test_of_two_frames_within_the_slop_that_both_stay_alone_one_gave_way_to_a_nearer_one(
    visible, thermal, slop, random
):
    buffer, coming = PairingBuffer(PairingSettings(slop, capacity=100)), both([*visible, 9999], [*thermal, 9999])
    pairs: Pairs = []
    while any(coming.values()):
        stream = random.choice([name for name in STREAMS if coming[name]])
        stamp = coming[stream].pop(0)
        pairs += [(pair.visible, pair.thermal) for pair in buffer.add(stream, stamp, stamp)]
    alone = candidates(
        [v for v in visible if v not in {p[0] for p in pairs}],
        [t for t in thermal if t not in {p[1] for p in pairs}],
        slop,
    )
    assert all(gives_way(pair, visible, thermal) for pair in alone)
    dropped = sum(buffer.counts(stream).dropped.get(NO_PARTNER, 0) for stream in STREAMS)
    assert dropped == len(visible) + len(thermal) + 2 - 2 * len(pairs)
