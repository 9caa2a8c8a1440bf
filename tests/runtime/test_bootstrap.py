"""The bootstrap against SciPy's, against variances known in closed form, by hand, and its properties."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vifa_runtime.metrics import (
    Detections,
    Estimate,
    Labels,
    bootstrap_estimate,
    bootstrap_interval,
    draw_resamples,
    match_detections,
    paired_bootstrap,
    pooled_map50,
)

pytestmark = pytest.mark.filterwarnings("error")

SEEDS = st.integers(0, 10**6)
NUMBERS = st.lists(st.floats(-100, 100), min_size=1, max_size=12).map(np.array)


def mean_of(values):
    return lambda images: values[images].mean()


def same(estimate, other):
    np.testing.assert_array_equal(estimate, other)


# Independent references


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_interval_of_a_mean_equals_scipy(level):
    values = np.random.default_rng(1).exponential(size=60)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, confidence_level=level, method="percentile",
        random_state=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    low, high = bootstrap_interval(mean_of(values), 60, 9999, level)
    width = expected.high - expected.low
    np.testing.assert_allclose([low, high], expected, atol=0.06 * width)


def test_the_paired_interval_of_a_difference_equals_scipy():
    rng = np.random.default_rng(1)
    first = rng.normal(size=50)
    second = first + rng.normal(0.3, 0.2, 50)
    expected = stats.bootstrap(
        (first, second), lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis), paired=True, n_resamples=9999,
        method="percentile", random_state=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    found = paired_bootstrap({"a": mean_of(first), "b": mean_of(second)}, 50, "a", 9999)["b"].difference
    width = expected.high - expected.low
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.06 * width)
    alone = bootstrap_estimate(mean_of(second), 50, 9999)
    assert found.high - found.low < (alone.high - alone.low) / 2


def test_all_resamples_of_three_are_equally_likely():
    drawn = [tuple(images.tolist()) for images in draw_resamples(3, 27_000)]
    counts = [drawn.count(images) for images in product(range(3), repeat=3)]
    assert sum(counts) == 27_000
    assert stats.chisquare(counts).pvalue > 0.001


def test_moving_blocks_vary_as_the_means_of_blocks_do():
    """Künsch: resamples of b blocks have the variance of the means of all whole blocks, over b."""
    values = np.sin(np.arange(60) / 4) + np.random.default_rng(0).normal(0, 0.1, 60)
    blocks = np.lib.stride_tricks.sliding_window_view(values, 10).mean(axis=1)
    means = np.array([values[images].mean() for images in draw_resamples(60, 20_000, block=10)])
    assert means.std() == pytest.approx(np.sqrt(blocks.var() / 6), rel=0.03)
    assert means.mean() == pytest.approx(blocks.mean(), abs=4 * means.std() / np.sqrt(20_000))
    single = np.array([values[images].mean() for images in draw_resamples(60, 2000)])
    assert single.std() < means.std() / 2  # what blocks are there for


# What is drawn


def test_moving_blocks_are_runs_inside_the_sequence_and_the_last_is_cut():
    seen = np.zeros(10)
    for images in draw_resamples(10, 8000, block=4):
        runs = np.split(images, [4, 8])
        assert [len(run) for run in runs] == [4, 4, 2]
        assert all((np.diff(run) == 1).all() for run in runs)
        assert images.min() >= 0 and images.max() <= 9
        seen += np.bincount(images[:8], minlength=10)
    # Seven blocks fit: image 0 is in the first of them alone, image 3 in four.
    np.testing.assert_allclose(seen / seen.sum() * 28, [1, 2, 3, 4, 4, 4, 4, 3, 2, 1], atol=0.2)


def test_a_block_as_long_as_the_sequence_leaves_no_choice():
    assert all(images.tolist() == [0, 1, 2, 3] for images in draw_resamples(4, 5, block=4))


@pytest.mark.parametrize(
    "groups", [["day", "night", "day", "day", "night"], [1, 0, 1, 1, 0], [True, False] * 2 + [True]]
)
def test_groups_keep_their_sizes(groups):
    names = np.array(groups)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    drawn = np.array(list(draw_resamples(5, 3000, groups=groups)))
    for images in drawn:
        assert sorted(names[images]) == sorted(names)
    for of_group in members:
        assert set(of_group) <= set(drawn.ravel())
    assert len({tuple(np.sort(images)) for images in drawn}) == 30  # 10 multisets of 3 among 3, times 3 of 2 among 2


def test_blocks_stay_in_their_group_and_follow_its_order():
    groups = np.array([0, 1] * 6)
    for images in draw_resamples(12, 200, groups=groups, block=3):
        for run in np.split(images, 4):
            assert (np.diff(run) == 2).all()
        assert groups[images].sum() == 6


@given(seed=SEEDS, count=st.integers(1, 20), resamples=st.integers(1, 5), data=st.data())
def test_seeds_reproduce_and_resamples_fit(seed, count, resamples, data):
    groups = np.sort(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    block = data.draw(st.integers(1, np.unique(groups, return_counts=True)[1].min()))
    first, again = (list(draw_resamples(count, resamples, seed, groups, block)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.shape(first) == (resamples, count)
    assert np.min(first) >= 0 and np.max(first) < count


def test_another_seed_draws_anew_and_nobody_may_write_into_a_resample():
    first, other = (next(draw_resamples(50, seed=seed)) for seed in (0, 1))
    assert first.tolist() != other.tolist()
    with pytest.raises(ValueError, match="read-only"):
        first.sort()


# Estimates


def test_the_interval_by_hand():
    """Resamples that give 0, 1 ... 100 in turn: what lies between the ends is 90 of 100 steps."""
    values = iter([7.0, *np.random.default_rng(0).permutation(101)])
    assert bootstrap_estimate(lambda _: next(values), 3, 101, 0.9) == Estimate(
        7, pytest.approx(5), pytest.approx(95), 0
    )


def test_differences_and_ratios_by_hand():
    base, own = iter([2.0, 1, 2, 4]), iter([3.0, 2, 6, 2])
    found = paired_bootstrap({"own": lambda _: next(own), "base": lambda _: next(base)}, 5, "base", 3, 0.5)
    assert list(found) == ["own", "base"]
    assert found["own"].metric == Estimate(3, 2, 4, 0)  # 2, 2, 6
    assert found["own"].difference == Estimate(1, -0.5, 2.5, 0)  # 1, 4, -2
    assert found["own"].ratio == Estimate(1.5, 1.25, 2.5, 0)  # 2, 3, 0.5
    assert found["base"].metric == Estimate(2, 1.5, 3, 0)


@given(values=NUMBERS, seed=SEEDS, level=st.floats(0.01, 0.99))
def test_the_interval_of_a_mean_lies_within_the_values_and_grows_with_the_level(values, seed, level):
    estimate = bootstrap_estimate(mean_of(values), len(values), 40, level, seed)
    assert estimate.value == values.mean() and estimate.left_out == 0
    slack = 1e-12 * np.abs(values).max()
    assert values.min() - slack <= estimate.low <= estimate.high <= values.max() + slack
    low, high = bootstrap_interval(mean_of(values), len(values), 40, (1 + level) / 2, seed)
    assert low - slack <= estimate.low and estimate.high <= high + slack
    assert bootstrap_interval(mean_of(values), len(values), 40, level, seed) == (estimate.low, estimate.high)


@given(values=NUMBERS, seed=SEEDS)
def test_a_method_compared_with_itself_differs_by_exactly_0(values, seed):
    statistics = {"a": mean_of(values), "b": mean_of(values.copy())}
    found = paired_bootstrap(statistics, len(values), "a", 30, seed=seed)
    for comparison in found.values():
        assert comparison.difference == (0, 0, 0, 0)
        if values.min() > 0:
            assert comparison.ratio == (1, 1, 1, 0)
    same(found["a"].metric, found["b"].metric)
    same(found["a"].metric, bootstrap_estimate(mean_of(values), len(values), 30, seed=seed))


@given(values=NUMBERS, seed=SEEDS)
def test_turning_a_comparison_round_turns_its_interval_round(values, seed):
    statistics = {"a": mean_of(values), "b": mean_of(np.cos(values))}
    forth = paired_bootstrap(statistics, len(values), "a", 30, seed=seed)["b"].difference
    back = paired_bootstrap(statistics, len(values), "b", 30, seed=seed)["a"].difference
    np.testing.assert_allclose([back.value, back.low, back.high], [-forth.value, -forth.high, -forth.low], atol=1e-12)


def test_every_method_sees_the_same_resamples_and_all_images_first():
    seen = {"a": [], "b": []}

    def recorder(name):
        return lambda images: float(seen[name].append(images.tolist()) or 0)

    paired_bootstrap({name: recorder(name) for name in seen}, 6, "b", 20, seed=5)
    assert seen["a"] == seen["b"]
    assert seen["a"] == [list(range(6)), *(images.tolist() for images in draw_resamples(6, 20, 5))]


def test_groups_and_blocks_reach_the_draw():
    groups = [0] * 5 + [1] * 5
    values = np.repeat([0.0, 1], 5)
    assert bootstrap_estimate(mean_of(values), 10, 50, groups=groups) == (0.5, 0.5, 0.5, 0)
    assert bootstrap_estimate(mean_of(np.arange(10.0)), 10, 50, block=10) == (4.5, 4.5, 4.5, 0)
    low, high = bootstrap_interval(mean_of(values), 10, 50)
    assert low < 0.5 < high


def test_one_image_gives_an_interval_without_width():
    assert bootstrap_estimate(lambda images: 0.25 + images.sum(), 1, 10) == (0.25, 0.25, 0.25, 0)


# Without a value


def test_resamples_without_a_value_are_left_out_and_counted():
    values = np.array([np.nan, 2.0, 4.0])
    estimate = bootstrap_estimate(mean_of(values), 3, 2000)
    assert np.isnan(estimate.value)
    assert (estimate.low, estimate.high) == (2, 4)
    assert estimate.left_out / 2000 == pytest.approx(1 - (2 / 3) ** 3, abs=0.04)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_no_value_anywhere_is_nan(nothing):
    same(bootstrap_estimate(lambda _: nothing, 4, 10), (np.nan, np.nan, np.nan, 10))
    found = paired_bootstrap({"a": lambda _: nothing, "b": lambda _: 1.0}, 4, "a", 10)
    same(found["b"].difference, (np.nan, np.nan, np.nan, 10))
    same(found["b"].ratio, (np.nan, np.nan, np.nan, 10))
    assert found["b"].metric == (1, 1, 1, 0)


def test_there_is_no_ratio_to_0():
    base, own = iter([0.0, 0, 1, 2]), iter([1.0, 0, 3, 4])
    found = paired_bootstrap({"base": lambda _: next(base), "own": lambda _: next(own)}, 2, "base", 3)["own"]
    assert np.isnan(found.ratio.value)
    assert (found.ratio.low, found.ratio.high, found.ratio.left_out) == (pytest.approx(2.025), pytest.approx(2.975), 1)
    assert found.difference.left_out == 0


def test_a_rare_class_leaves_out_the_resamples_that_lack_it():
    box = [0, 0, 10, 10]
    detections = [Detections([box], [0.9], [0])] + [Detections([box], [0.5], [0])] * 3
    matches = match_detections(detections, [Labels([box], [0])] + [Labels([], [])] * 3, 1)
    estimate = bootstrap_estimate(lambda images: pooled_map50(matches, images), 4, 1000)
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)
    assert estimate.left_out / 1000 == pytest.approx(0.75**4, abs=0.06)


# Errors


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"resamples": 0}, "resamples must be at least 1, got 0"),
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"block": 5}, "block must be at most 4, the images of the smallest group, got 5"),
        ({"block": 2, "groups": [0, 0, 0, 1]}, "block must be at most 1, the images of the smallest group, got 2"),
        ({"level": 0.0}, "level must be above 0 and below 1, got 0"),
        ({"level": 1.0}, "level must be above 0 and below 1, got 1"),
        ({"level": 95}, "level must be above 0 and below 1, got 95"),
        ({"groups": [0, 1]}, r"groups must be \(4,\) of integers, booleans or strings, got shape \(2,\)"),
        ({"groups": [0.0, 1.0, np.nan, 1]}, r"groups must be \(4,\) .* of float64"),
        ({"groups": [None, 1, 2, 3]}, r"groups must be \(4,\) .* of object"),
    ],
)
def test_numbers_and_groups_that_do_not_fit_are_refused_before_anything_is_computed(wrong, message):
    def never(_):
        raise AssertionError("computed")

    arguments = {"count": 4, **wrong}
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(never, **arguments)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap({"a": never}, reference="a", **arguments)


def test_a_reference_that_is_no_method_is_refused():
    for statistics, message in (({"a": mean_of(np.ones(3))}, "'ref' is not among the methods a"), ({}, r"\(none\)")):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(statistics, 3, "ref")
