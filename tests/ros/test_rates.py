"""The rate limiter: never more than the limit over time, all of it where frames allow, evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_ros.rates import RateLimiter


def taken(stamps, rate):
    limiter = RateLimiter()
    return [stamp for stamp in stamps if limiter.is_due("task", stamp, rate)]


def test_twenty_of_thirty_a_second_are_two_of_three():
    chosen = taken(np.arange(300) / 30, 20)
    assert len(chosen) == 200
    assert np.diff(chosen).max() == pytest.approx(2 / 30)


@pytest.mark.parametrize("rate", [0, 30, 200])
def test_no_limit_or_one_that_is_not_reached_takes_all_although_stamps_jitter(rate):
    stamps = np.arange(300) / 30 + np.random.default_rng(0).uniform(-0.008, 0.008, 300)
    assert len(taken(stamps, rate)) == 300


@given(st.lists(st.floats(0.001, 0.3), min_size=2, max_size=200), st.floats(1, 50))
def test_over_any_stretch_no_more_than_the_limit_and_no_pause_that_frames_do_not_force(steps, rate):
    stamps = 100 + np.cumsum(steps)
    chosen = taken(stamps, rate)
    assert chosen[0] == stamps[0]
    for first in range(len(chosen)):
        for last in range(first + 1, len(chosen)):
            # Half a period late at the beginning, as much early at the end: at most one more than the span holds.
            assert last - first <= (chosen[last] - chosen[first]) * rate + 1 + 1e-6
    longest = max(steps)
    assert np.diff(chosen).max(initial=0) <= 1.5 / rate + longest + 1e-6


def test_tasks_have_limits_of_their_own_and_a_limit_that_is_lifted_is_forgotten():
    limiter = RateLimiter()
    assert limiter.is_due("a", 1.0, 1) and limiter.is_due("b", 1.1, 1)
    assert not limiter.is_due("a", 1.2, 1)
    assert limiter.is_due("a", 1.3, 0)
    assert limiter.is_due("a", 1.4, 1)


@pytest.mark.parametrize("stamp", [0.5, 1e6])
def test_a_clock_that_jumps_begins_anew(stamp):
    limiter = RateLimiter()
    assert limiter.is_due("a", 100.0, 2)
    assert limiter.is_due("a", stamp, 2)
    assert not limiter.is_due("a", stamp + 0.1, 2)
    assert limiter.is_due("a", stamp + 0.5, 2)
