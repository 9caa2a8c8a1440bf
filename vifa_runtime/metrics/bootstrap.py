"""Percentile bootstrap over images: how far a metric of pooled predictions moves with the choice of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices: TypeAlias = NDArray[np.int64]
Statistic: TypeAlias = Callable[[Indices], float]


class Estimate(NamedTuple):
    """A metric with its bootstrap interval.

    Attributes:
        value: of all images, each once; NaN where it is not defined.
        low, high: the ends of the interval; NaN where no resample has a value. The value itself may lie outside.
        left_out: the number of resamples without a value.
    """

    value: float
    low: float
    high: float
    left_out: int


class Comparison(NamedTuple):
    """One method beside the reference, on the same resamples.

    Attributes:
        metric: of the method itself.
        difference: the method's metric minus the reference's.
        ratio: the method's metric over the reference's; without a value where the reference's is 0.
    """

    metric: Estimate
    difference: Estimate
    ratio: Estimate


def bootstrap_interval(
    statistic: Statistic,
    count: int,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
    block: int = 1,
) -> tuple[float, float]:
    """The percentile interval (low, high) of a metric; arguments, errors and source as of `bootstrap_estimate`."""
    estimate = bootstrap_estimate(statistic, count, resamples, level, seed, groups, block)
    return estimate.low, estimate.high


def bootstrap_estimate(
    statistic: Statistic,
    count: int,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
    block: int = 1,
) -> Estimate:
    """A metric of `count` images and its percentile interval over resamples of them.

    A resample in which the metric is not defined (NaN or infinite: no ground truth was drawn, say) is left out and
    counted. One image gives an interval without width, as does any metric that is the same for every choice.

    Args:
        statistic: the metric of a multiset of images, given as a read-only array (count,) of indices 0..count-1.
        count: the number of images, at least 1.
        resamples, seed, groups, block: see `draw_resamples`.
        level: the part of the resamples' values that the interval spans, above 0 and below 1; as much is cut off
            below as above, with linear interpolation between neighbouring values.

    Raises:
        ValueError: a number out of range, or groups that do not fit; names it.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    return paired_bootstrap({"": statistic}, count, "", resamples, level, seed, groups, block)[""].metric


def paired_bootstrap(
    statistics: Mapping[str, Statistic],
    count: int,
    reference: str,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
    block: int = 1,
) -> dict[str, Comparison]:
    """Metrics of several methods on the same images, each compared with one of them resample by resample.

    A resample that is hard is hard for every method: as a rule the interval of a difference is narrower than those
    of the two metrics, and it is the one to judge the difference by. A resample counts in a difference or a ratio
    only where both metrics are defined.

    Args:
        statistics: by the method's name, each as in `bootstrap_estimate`.
        reference: the name of the method that the others are compared with; its own difference is exactly 0.
        count, resamples, level, seed, groups, block: as in `bootstrap_estimate`.

    Returns:
        A comparison of each method, in the order given.

    Raises:
        ValueError: a reference that is not among the methods, and what `bootstrap_estimate` refuses.
    """
    if reference not in statistics:
        raise ValueError(f"reference {reference!r} is not among the methods {', '.join(statistics) or '(none)'}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    draws = draw_resamples(count, resamples, seed, groups, block)
    values = _values(statistics.values(), count, draws)
    base = values[list(statistics).index(reference)]
    return {name: _compared(own, base, level) for name, own in zip(statistics, values, strict=True)}


def draw_resamples(
    count: int, resamples: int = 1000, seed: int = 0, groups: ArrayLike | None = None, block: int = 1
) -> Iterator[Indices]:
    """Draw resamples of images: read-only arrays (count,) of indices 0..count-1, drawn with replacement.

    Args:
        count: the number of images, at least 1.
        resamples: how many to draw, at least 1.
        seed: of the draw; one seed gives one sequence.
        groups: shape (count,), integers, booleans or strings. Images of one group replace each other alone, so that
            every resample holds as many images of day and of night as there are (the stratified bootstrap).
        block: the length in images of the moving-block bootstrap, for frames of a video, which resemble their
            neighbours and of which single draws would give too narrow an interval. Blocks of this many consecutive
            images, in the order given and within a group, are drawn in place of single images. Every block lies
            inside the sequence and nothing wraps round: the first and last `block` - 1 images stand in fewer blocks
            and are drawn less often. The last block drawn is cut where the group is full. A block should span the
            frames that resemble each other and be a small part of a group; as long as it, it leaves no choice.

    Raises:
        ValueError: a number out of range, a block longer than a group, or groups that do not fit.

    Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 8.6; Künsch, "The jackknife and
    the bootstrap for general stationary observations", Annals of Statistics 17(3), 1989.
    """
    for name, number in (("count", count), ("resamples", resamples), ("block", block)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    strata = _strata(count, groups)
    smallest = min(len(members) for members in strata)
    if block > smallest:
        raise ValueError(f"block must be at most {smallest}, the images of the smallest group, got {block}")
    # The checks above are made at the call, and only the draw waits until it is asked for.
    return _draws(strata, resamples, block, np.random.default_rng(seed))


def _strata(count: int, groups: ArrayLike | None) -> list[Indices]:
    """The images of each group, in the order given."""
    if groups is None:
        return [np.arange(count)]
    names = np.asarray(groups)
    if names.shape != (count,) or names.dtype.kind not in "biuUS":
        raise ValueError(
            f"groups must be ({count},) of integers, booleans or strings, got shape {names.shape} of {names.dtype}"
        )
    return [np.flatnonzero(names == name) for name in np.unique(names)]


def _draws(strata: list[Indices], resamples: int, block: int, rng: np.random.Generator) -> Iterator[Indices]:
    for _ in range(resamples):
        images = np.concatenate([_moving_blocks(members, block, rng) for members in strata])
        images.flags.writeable = False  # several statistics read it, one after the other
        yield images


def _moving_blocks(members: Indices, block: int, rng: np.random.Generator) -> Indices:
    """As many of `members` (N,) as there are, in random runs of `block` consecutive ones; single ones for 1."""
    starts = rng.integers(len(members) - block + 1, size=math.ceil(len(members) / block))
    return members[(starts[:, None] + np.arange(block)).ravel()[: len(members)]]


def _values(statistics: Iterable[Statistic], count: int, draws: Iterable[Indices]) -> NDArray[np.float64]:
    """Each statistic (methods, 1 + resamples) of all images and then of each draw; NaN where it is not finite."""
    methods = list(statistics)
    everything = np.arange(count)
    everything.flags.writeable = False
    rows = [[statistic(images) for statistic in methods] for images in chain([everything], draws)]
    values = np.array(rows, np.float64).T
    return np.where(np.isfinite(values), values, np.nan)


def _compared(own: NDArray[np.float64], base: NDArray[np.float64], level: float) -> Comparison:
    ratio = np.divide(own, base, out=np.full_like(own, np.nan), where=base != 0)
    return Comparison(_estimate(own, level), _estimate(own - base, level), _estimate(ratio, level))


def _estimate(values: NDArray[np.float64], level: float) -> Estimate:
    """The estimate of values (1 + resamples,): the first of all images, the others of resamples."""
    value, drawn = float(values[0]), values[1:]
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if defined.size else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), drawn.size - defined.size)
