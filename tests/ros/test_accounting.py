"""The accounts of one session: three witnesses that agree, then each of them wrong by one."""

import copy

import pytest

from vifa_ros.accounting import find_discrepancies, sum_drops, transport_lost

SENT = {"visible": list(range(0, 2000, 100)), "thermal": list(range(3, 2003, 100))}
FUSED = [0, 100, 200, 400, 500, 700, 800, 900, 1000, 1100, 1200, 1300]
STATUS = {
    "visible": {"received": 19, "paired": 15, "reused": 0, "alone": 2, "waiting": 1, "dropped": [
        {"reason": "bad_image", "count": 1}, {"reason": "no_partner", "count": 2}]},
    "thermal": {"received": 20, "paired": 12, "reused": 1, "alone": 0, "waiting": 5, "dropped": [
        {"reason": "no_partner", "count": 3}]},
    "formed": 15,
    "processed": 12,
    "in_flight": 1,
    "dropped": [{"reason": "failed", "count": 1}, {"reason": "superseded", "count": 1}],
    "tasks": [{"name": "bright", "published": 12}, {"name": "dim", "published": 12}],
}  # fmt: skip
OUTPUTS = ("bright/image", "bright/mask", "dim/image")
COUNTERS = [
    *[(stream, counter) for stream in ("visible", "thermal") for counter in ("received", "paired", "waiting")],
    *[(stream, counter) for stream in ("visible", "thermal") for counter in ("reused", "alone")],
    ("visible", "dropped", 0, "count"),
    ("visible", "dropped", 1, "count"),
    ("thermal", "dropped", 0, "count"),
    ("formed",),
    ("processed",),
    ("in_flight",),
    ("dropped", 0, "count"),
    ("dropped", 1, "count"),
    ("tasks", 0, "published"),
    ("tasks", 1, "published"),
]


@pytest.fixture
def session():
    """A consistent session: sent, results, status; one visible frame was lost in transport."""
    return copy.deepcopy((SENT, dict.fromkeys(OUTPUTS, FUSED), STATUS))


def unaccounted(session) -> int:
    return sum(find_discrepancies(*session).values())


def test_a_consistent_session_has_no_discrepancy(session):
    assert set(find_discrepancies(*session).values()) == {0}


@pytest.mark.parametrize("error", [-1, 1])
@pytest.mark.parametrize("path", COUNTERS, ids=lambda path: ".".join(map(str, path)))
def test_every_counter_that_is_wrong_by_one_shows(session, path, error):
    *parents, name = path
    place = session[2]
    for parent in parents:
        place = place[parent]
    place[name] += error
    assert unaccounted(session) != 0


@pytest.mark.parametrize(
    ("counter", "check"),
    [("in_flight", "pair law"), ("formed", "pairing"), ("processed", "results of dim/image")],
)
def test_each_check_says_what_is_wrong(session, counter, check):
    session[2][counter] -= 1
    assert find_discrepancies(*session)[check] == 1 + (check == "pairing")


def test_the_list_of_counters_is_complete():
    """Every number of the status that a test above changes; a new one must be added there."""

    def paths(value, path=()):
        if isinstance(value, int):
            return [path]
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [found for key, item in items for found in paths(item, (*path, key))]

    assert sorted(map(str, paths(STATUS))) == sorted(map(str, COUNTERS))


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_lost_result_shows(session, output):
    session[1][output] = FUSED[:-1]
    assert find_discrepancies(*session)[f"results of {output}"] == 2, "neither as many as published nor as processed"
    assert unaccounted(session) == 2


def test_a_pair_whose_results_are_all_lost_shows_among_the_visible_frames(session):
    session[1].update(dict.fromkeys(OUTPUTS, FUSED[:-1]))
    assert find_discrepancies(*session)["visible frames"] == 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_result_that_came_twice_shows(session, output):
    session[1][output] = [*FUSED[:-1], FUSED[0]]
    assert find_discrepancies(*session)["unknown results"] == 1


def test_a_result_of_a_frame_that_was_never_sent_shows(session):
    session[1]["bright/mask"] = [*FUSED[:-1], 77]
    assert find_discrepancies(*session)["unknown results"] == 1


def test_a_fused_frame_that_the_player_forgot_shows(session):
    session[0]["visible"].remove(FUSED[3])
    assert unaccounted(session) != 0


@pytest.mark.parametrize("stream", ["visible", "thermal"])
def test_more_frames_received_than_sent_shows(session, stream):
    session[0][stream] = session[0][stream][: session[2][stream]["received"] - 2]
    assert find_discrepancies(*session)[f"{stream} received more than sent"] == 2


def test_frames_that_never_arrived_are_lost_in_transport(session):
    sent, _, status = session
    assert [transport_lost(sent, status, stream) for stream in ("visible", "thermal")] == [1, 0]


def test_drops_are_named_by_owner_and_reason(session):
    assert sum_drops(session[2]) == {
        "visible.bad_image": 1,
        "visible.no_partner": 2,
        "thermal.no_partner": 3,
        "pair.failed": 1,
        "pair.superseded": 1,
    }
