"""Thermal-to-visible calibration without a target: the one map that many pairs of images share.

What agrees between the images are the directions of their edges (`edge_fields`). A search over scales, rotations and
shifts finds the place on small images, by the sum over all frames (`registration_search`); a refinement then follows it
to larger ones (`registration_blocks`). A richer model than a similarity is taken where it foretells the edges of frames
that it was not fitted to better. What the frames do not determine is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import AlignmentError, Size
from vifa_runtime.edge_fields import Matrix
from vifa_runtime.pixel_maps import HomographyMap
from vifa_runtime.registration_blocks import MODELS, Evidence, Fit, collect, moved
from vifa_runtime.registration_frames import Frames, Level, RegistrationError
from vifa_runtime.registration_search import SearchRange, corners, search

FEWEST = 5  # pairs
_FOLDS = 5  # of the frames, to foretell each by the others
_WORTH = 0.01  # by how much better a richer model must foretell; and by twice the standard error of that
_RESAMPLES, _SHARE = 100, 90  # of the bootstrap; percentile
_NEAR = 0.01  # of the visible image's longer side: frames whose own best place is so near agree
_ALONE = 8  # pixels on images of `STEPS[0]`: where a frame's own best place is looked for
_LEAST_AGREEING = 0.6
_LEAST_RATIO = 1.1
_CHECK = (
    "check that both cameras see the same, at the same time, within the scales and rotations that are tried, that "
    "edges show in both, and that the cameras were not moved"
)
_LARGEST_SPREAD, _LARGEST_HALVES = 0.01, 0.015  # of the visible image's longer side


@dataclass(frozen=True)
class Step:
    """One size at which a place is refined.

    Attributes:
        longest: pixels of the visible images' longer side.
        reach: pixels by which a block may move.
        tolerance: how far off a block still counts, standard deviation, pixels.
        rounds: how often this is done.
    """

    longest: int
    reach: int
    tolerance: float
    rounds: int


# Wide tolerances: lenses and depth leave blocks off any homography, and they shall pull at it, not be given up.
STEPS = (Step(160, 6, 0.7, 3), Step(320, 6, 1.5, 2), Step(640, 8, 2.5, 2))


@dataclass(frozen=True)
class Confidence:
    """How sure a registration is.

    Attributes:
        frames: how many pairs it was made from.
        agreeing: share of them whose own edges fit best there, within a hundredth of the image's longer side.
        peak_ratio: how much better the place fits than the best one elsewhere; 1 where it is one of many.
        spread: visible pixels within which 90 % of the results from resampled frames (bootstrap) have every corner of
            the part of the visible image that the thermal one covers.
        halves: visible pixels between the results of the first and of the second half of the frames, at the worst of
            those corners.
        overlap: share of the visible image that the thermal one covers.
        correlation: of the edges, 0..1; between two cameras 0.05 to 0.2 is usual.
    """

    frames: int
    agreeing: float
    peak_ratio: float
    spread: float
    halves: float
    overlap: float
    correlation: float


@dataclass(frozen=True)
class Registration:
    """A map from thermal to visible pixels, the model it was fitted by, and how sure it is."""

    pixels: HomographyMap
    model: str
    confidence: Confidence


def register(
    frames: Frames,
    limits: SearchRange | None = None,
    seed: int = 0,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Registration:
    """Find the map from thermal to visible pixels that pairs share.

    Args:
        frames: the pairs, five or more that show different scenes, in their order.
        limits: scales and rotations to look at.
        seed: of the bootstrap.
        report: called with what is being done and the share of it that is done, 0..1.

    Raises:
        RegistrationError: the frames do not determine it; the message says why.
    """
    _check_frames(frames)
    place, ratio = search(frames, limits or SearchRange(), lambda share: report("searching", share))
    if ratio < _LEAST_RATIO:
        raise RegistrationError(
            f"no place where the images fit: the best fits {ratio:.2f} times as well as another ({_LEAST_RATIO} are "
            f"needed); {_CHECK}"
        )
    everything = range(len(frames))
    matrix, model, level = refine(frames, everything, place.matrix, report=lambda share: report("refining", share))
    pixels = _as_map(matrix, frames)
    points = common_corners(matrix, frames.thermal_size, frames.visible_size)
    sources = pixels.to_thermal(points)
    halves = _compare_halves(frames, place.matrix, model, sources)
    report("comparing", 0.5)
    agreeing = find_agreeing(frames, matrix)
    _check_place(frames, agreeing, halves)
    evidence = collect(frames, everything, level, matrix, STEPS[-1].reach)
    fit = Fit(evidence, STEPS[-1].tolerance)
    confidence = Confidence(
        len(frames),
        float(np.mean(agreeing)),
        ratio,
        _spread(evidence, fit, matrix, level, model, sources, seed),
        halves.apart,
        _area(points) / (frames.visible_size[0] * frames.visible_size[1]),
        fit.score(np.zeros(4)),
    )
    report("comparing", 1.0)
    _check_spread(confidence.spread, _LARGEST_SPREAD * max(frames.visible_size))
    return Registration(pixels, model, confidence)


def refine(
    frames: Frames,
    chosen: Sequence[int],
    matrix: Matrix,
    model: str = "",
    report: Callable[[float], None] = lambda share: None,
) -> tuple[Matrix, str, Level]:
    """Follow a place that is known to a few hundredths of the image to a fraction of a pixel.

    Args:
        frames: the pairs, of which those with the numbers `chosen` are used.
        matrix: 3x3, thermal to visible pixels.
        model: of `MODELS`; empty for the simplest that the frames do not contradict.
        report: called with the share that is done, 0..1.

    Returns:
        The better matrix, its model, and the visible images at the size of the last step.
    """
    richest = model or MODELS[0]
    for number, step in enumerate(STEPS):
        level = frames.level(step.longest, chosen)
        for _ in range(step.rounds):
            evidence = collect(frames, chosen, level, matrix, step.reach)
            matrix = moved(matrix, level, Fit(evidence, step.tolerance).solve(richest, far=True))
        if not model:
            evidence = collect(frames, chosen, level, matrix, step.reach)
            chosen_model = choose_model(evidence, step.tolerance, richest)
            if chosen_model != richest:
                richest = chosen_model
                matrix = moved(matrix, level, Fit(evidence, step.tolerance).solve(richest, far=True))
        report((number + 1) / len(STEPS))
    return matrix, richest, level


def choose_model(evidence: Evidence, tolerance: float, least: str = MODELS[0]) -> str:
    """The simplest model, of `least` and richer ones, to which none is better on frames that it was not fitted to."""
    count = len(evidence.sums)
    folds = np.arange(count) * min(_FOLDS, count) // count
    chosen = least
    for richer in MODELS[MODELS.index(least) + 1 :]:
        gains = []
        for fold in np.unique(folds):
            fitted, other = Fit(evidence, tolerance, folds != fold), Fit(evidence, tolerance, folds == fold)
            simple = fitted.solve(chosen)
            before, after = other.score(simple), other.score(fitted.solve(richer, simple))
            gains.append((after - before) / max(abs(before), 1e-6))
        error = np.std(gains, ddof=1) / np.sqrt(len(gains))
        if np.mean(gains) > max(_WORTH, 2 * error):
            chosen = richer
    return chosen


def find_agreeing(frames: Frames, matrix: Matrix) -> NDArray[np.bool_]:
    """(frames,): whether each pair's own edges fit best where a matrix, thermal to visible, puts the thermal image.

    Shifts of up to a twentieth of the image are tried; of pairs that don't belong together about one in twelve agrees.
    """
    everything = range(len(frames))
    level = frames.level(STEPS[0].longest, everything)
    evidence = collect(frames, everything, level, matrix, _ALONE)
    sums = [cv2.GaussianBlur(surface, (0, 0), STEPS[0].tolerance) for surface in evidence.sums.sum(axis=1)]
    best = np.array([np.unravel_index(int(surface.argmax()), surface.shape) for surface in sums]) - _ALONE
    near: NDArray[np.bool_] = np.hypot(best[:, 0], best[:, 1]) <= _NEAR * max(level.size)
    return near


def common_corners(matrix: Matrix, thermal: Size, visible: Size) -> NDArray[np.float64]:
    """Corners (N, 2) of the part of the visible image that a thermal one, placed by a matrix, covers; none if none."""
    theirs, ours = corners(matrix, thermal).astype(np.float32), corners(np.eye(3), visible).astype(np.float32)
    area, polygon = cv2.intersectConvexConvex(theirs, ours)
    return polygon.reshape(-1, 2).astype(np.float64) if area > 0 else np.empty((0, 2))


def _check_frames(frames: Frames) -> None:
    if len(frames) >= FEWEST:
        return
    left_out = []
    if frames.blank:
        left_out.append(f"{len(frames.blank)} show nothing in one of the images ({frames.blank[0]} is the first)")
    if frames.repeated:
        left_out.append(f"{len(frames.repeated)} show the same scene as the one before")
    raise RegistrationError(
        f"too few pairs to align: {len(frames)} of {len(frames) + len(frames.blank) + len(frames.repeated)} can be used"
        f"{', ' if left_out else ''}{', '.join(left_out)}; give {FEWEST} or more of different scenes, 20 are good"
    )


class _Halves(NamedTuple):
    """How far apart the results of the first and the second half of the frames are, at the worst corner, in visible
    pixels; and the share of each half's frames that agree with its result."""

    apart: float
    agreeing: tuple[float, float]


def _compare_halves(frames: Frames, start: Matrix, model: str, sources: NDArray) -> _Halves:
    """Register each half by itself.

    Args:
        start: matrix from the search.
        sources: (N, 2), thermal points that are compared.
    """
    half = len(frames) // 2
    places, agreeing = [], []
    for part in (range(half), range(half, len(frames))):
        matrix, _, _ = refine(frames, part, start, model)
        places.append(_map(matrix, sources))
        agreeing.append(float(np.mean(find_agreeing(frames, matrix)[part.start : part.stop])))
    return _Halves(_worst(*places), (agreeing[0], agreeing[1]))


def _check_place(frames: Frames, agreeing: NDArray[np.bool_], halves: _Halves) -> None:
    share, half, most = float(np.mean(agreeing)), len(frames) // 2, _LARGEST_HALVES * max(frames.visible_size)
    first, second = float(np.mean(agreeing[:half])), float(np.mean(agreeing[half:]))
    moved = "the cameras were moved, align each part by itself"
    if halves.apart > most and min(halves.agreeing) >= _LEAST_AGREEING:
        raise RegistrationError(
            f"the pairs disagree: the second half (from {frames.names[half]} on) places the thermal image "
            f"{halves.apart:.1f} pixels from where the first does ({most:.1f} are allowed); {moved}"
        )
    if abs(first - second) >= _LEAST_AGREEING:
        raise RegistrationError(
            f"the pairs disagree: {first:.0%} of the first half fit one place, {second:.0%} of the second half "
            f"(from {frames.names[half]} on); {moved}"
        )
    if share < _LEAST_AGREEING:
        raise RegistrationError(
            f"no place where the images fit: {share:.0%} of the pairs agree on the best one ({_LEAST_AGREEING:.0%} are "
            f"needed); {_CHECK}"
        )
    if halves.apart > most:
        raise RegistrationError(
            f"the pairs disagree: the first and the second half place the thermal image {halves.apart:.1f} pixels "
            f"apart ({most:.1f} are allowed); give more pairs, of scenes with edges all over the image"
        )


def _check_spread(spread: float, most: float) -> None:
    if spread > most:
        raise RegistrationError(
            f"too little texture: the corners are known to {spread:.1f} pixels only ({most:.1f} are allowed); give "
            "more pairs, of scenes with edges all over the image"
        )


def _as_map(matrix: Matrix, frames: Frames) -> HomographyMap:
    try:
        return HomographyMap(tuple(matrix.ravel().tolist()), frames.thermal_size, frames.visible_size)
    except AlignmentError as error:
        raise RegistrationError(f"what fits best is no map between two cameras: {error}") from None


def _spread(
    evidence: Evidence, fit: Fit, matrix: Matrix, level: Level, model: str, sources: NDArray, seed: int
) -> float:
    """Visible pixels within which most results from resampled frames have all of some thermal points."""
    rng, count = np.random.default_rng(seed), len(evidence.sums)
    start = fit.solve(model)
    best = _map(moved(matrix, level, start), sources)
    apart = []
    for _ in range(_RESAMPLES):
        counts = np.bincount(rng.integers(0, count, count), minlength=count)
        numbers = Fit(evidence, STEPS[-1].tolerance, counts).solve(model, start)
        apart.append(_worst(_map(moved(matrix, level, numbers), sources), best))
    return float(np.percentile(apart, _SHARE))


def _map(matrix: Matrix, points: NDArray) -> NDArray[np.float64]:
    mapped = np.c_[points, np.ones(len(points))] @ matrix.T
    places: NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
    return places


def _worst(one: NDArray, other: NDArray) -> float:
    """The largest distance between points (N, 2); infinite where there are none."""
    return float(np.hypot(*(one - other).T).max()) if len(one) else np.inf


def _area(polygon: NDArray) -> float:
    return float(cv2.contourArea(polygon.astype(np.float32))) if len(polygon) else 0.0
