"""How well `vifa align` gives known warps and time offsets back, beside trivial baselines, on real pairs.

    .venv/bin/python benchmarks/alignment.py --data ../shared/data

A trial draws 20 pairs and one warp of all their thermal images: scale 0.7 to 1.4, rotation to 5 degrees, shift up to
15 % of each side; what falls out of view is black. The error is the median, over the corners of the part of the visible
image that the thermal one covers, of the distance from where they belong, in visible pixels. A refusal is a failure.

The pairs of both data sets are off by themselves, the more the farther from the middle (`own misalignment`): a right
answer is so far from the warp. So each set is tested as it is, and with that taken out: displacements of the parts of
the image, measured on the training pairs where nothing is warped, are undone before the pairs held out are warped. That
they are real is shown by the mutual information of gray levels of the pairs held out, which uses no edges: it grows
where the displacements are undone, and is largest at once what was measured.

Time offsets: a pair is shaken before both cameras. Nothing was tuned on the pairs that are held out.

Takes about 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from alignment_trials import (
    HALF,
    SIZES,
    Matrix,
    Pair,
    as_frames,
    draw_warp,
    load,
    mutual_information,
    own_displacements,
    record,
    shaking,
    take_out,
    times_of,
    warp,
)
from numpy.typing import NDArray
from rich.progress import track
from rows import publish

from vifa_runtime.pairs import spread_evenly
from vifa_runtime.registration import common_corners, refine, register
from vifa_runtime.registration_frames import RegistrationError
from vifa_runtime.registration_search import corners
from vifa_runtime.time_offset import TimeOffsetError, find_offset

TRAINING = {"msrs": ("msrs/train",), "roadscene": ("roadscene@train",)}
HELD_OUT = {"msrs": ("msrs/val", "msrs/test"), "roadscene": ("roadscene@val", "roadscene@test")}
WITHIN_PX, WITHIN_MS = 2.0, 5.0
WRONG = 4  # times that limit: a result that is not refused and so far off is wrong


def corner_error(found: Matrix, truth: Matrix, size: tuple[int, int]) -> float:
    """See above; both thermal to visible."""
    points = common_corners(truth, size, size)
    sources = np.c_[points, np.ones(len(points))] @ np.linalg.inv(truth).T
    mapped = sources @ found.T
    return float(np.median(np.hypot(*(mapped[:, :2] / mapped[:, 2:] - points).T)))


# ---- methods: pairs -> 3x3 thermal to visible


def ours(pairs: Sequence[Pair]) -> Matrix:
    """`vifa align`."""
    return np.array(register(as_frames(pairs)).pixels.matrix).reshape(3, 3)


def identity(pairs: Sequence[Pair]) -> Matrix:
    """Both cameras show the same."""
    return np.eye(3)


def phase_correlation(pairs: Sequence[Pair]) -> Matrix:
    """OpenCV's phase correlation of the gradients of the first pair: a shift."""
    visible, thermal = _gradients(pairs[0])
    (right, down), _ = cv2.phaseCorrelate(thermal, visible, cv2.createHanningWindow(visible.shape[::-1], cv2.CV_32F))
    return np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])


def ecc(pairs: Sequence[Pair]) -> Matrix:
    """OpenCV's ECC of gradients, an affine map from no movement: of each pair, then the median of the corners."""
    size = pairs[0][1].shape
    placed = []
    for pair in pairs:
        visible, thermal = _gradients(pair)
        matrix = np.eye(2, 3, dtype=np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-4)
        try:
            _, matrix = cv2.findTransformECC(visible, thermal, matrix, cv2.MOTION_AFFINE, criteria, None, 5)
        except cv2.error:  # it did not converge
            continue
        centred = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
        placed.append(corners(HALF @ centred @ np.linalg.inv(HALF), size))
    if not placed:
        return np.eye(3)
    target = np.median(placed, axis=0).astype(np.float32)
    return cv2.getPerspectiveTransform(corners(np.eye(3), size).astype(np.float32), target)


def _gradients(pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lengths of the gradients of both images."""
    found = []
    for image in (cv2.cvtColor(pair[0], cv2.COLOR_RGB2GRAY), pair[1]):
        smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
        found.append(np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)))
    return found[0], found[1]


def misalignment_rows(data: str, training: Sequence[Pair], held_out: Sequence[Pair]) -> list[dict[str, Any]]:
    """How far pairs are off that were not warped, on training pairs; and whether undoing that helps those held out."""
    some, test = spread_evenly(training, 60), "own misalignment"
    matrix, _, _ = refine(as_frames(some), range(len(some)), np.eye(3), "similarity")
    error = corner_error(matrix, np.eye(3), some[0][1].shape)
    displacements = own_displacements(spread_evenly(training, 100))
    lengths = np.hypot(displacements[..., 0], displacements[..., 1]).ravel()
    where = f"{data}, training"
    rows = [
        _row(test, where, "corners of the best similarity", len(some), [error], "px"),
        _row(test, where, "parts of the image", min(100, len(training)), lengths.tolist(), "px"),
    ]
    for times in (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0):
        values = [mutual_information(pair) for pair in take_out(held_out, np.float32(times) * displacements)]
        name = f"mutual information with {times:g} times the parts' displacements undone"
        rows.append(_row(test, f"{data}, held out", name, len(values), values, "nat", digits=4))
    return rows


# ---- trials


def warp_trials(
    data: str, pairs: Sequence[Pair], methods: Sequence[Callable], trials: int, count: int = 20, still: bool = False
) -> list[dict[str, Any]]:
    """Errors of each method on the same trials; `still` for no warp at all."""
    size = pairs[0][1].shape
    errors: dict[str, list[float]] = {method.__name__: [] for method in methods}
    seconds: dict[str, list[float]] = {method.__name__: [] for method in methods}
    for seed in track(range(trials), description=f"{data}, {count} pairs{', no warp' if still else ''}"):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(pairs), count, replace=False))
        matrix = np.eye(3) if still else draw_warp(rng, size)
        warped = [(pairs[index][0], warp(pairs[index][1], matrix)) for index in chosen]
        for method in methods:
            start = time.process_time()
            try:
                error = corner_error(method(warped), np.linalg.inv(matrix), size)
            except RegistrationError:
                error = np.nan
            seconds[method.__name__].append(time.process_time() - start)
            errors[method.__name__].append(error)
    test = "no warp" if still else "warp"
    return [
        _row(test, data, NAMES[name], count, errors[name], "px", WITHIN_PX, float(np.median(seconds[name])))
        for name in errors
    ]


NAMES = {
    "ours": "vifa align",
    "identity": "identity",
    "phase_correlation": "phase correlation of one pair",
    "ecc": "ECC of each pair, median",
}


def refusal_trials(data: str, pairs: Sequence[Pair], trials: int) -> list[dict[str, Any]]:
    """Pairs that determine nothing: each must be refused."""
    size = pairs[0][1].shape
    part = size[1] * 45 // 100

    def mixed(some: list[Pair], rng: np.random.Generator) -> list[Pair]:
        return [(visible, some[(index + 7) % len(some)][1]) for index, (visible, _) in enumerate(some)]

    def apart(some: list[Pair], rng: np.random.Generator) -> list[Pair]:
        return [(np.ascontiguousarray(v[:, :part]), np.ascontiguousarray(t[:, -part:])) for v, t in some]

    def moved(some: list[Pair], rng: np.random.Generator) -> list[Pair]:
        length, angle = rng.uniform(0.03, 0.08) * size[1], rng.uniform(0, 2 * np.pi)
        shift = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)], [0, 0, 1]])
        half = len(some) // 2
        return some[:half] + [(visible, warp(thermal, shift)) for visible, thermal in some[half:]]

    rows = []
    for name, spoil in (
        ("visible and thermal of different moments", mixed),
        ("views that do not overlap", apart),
        ("cameras moved by 3 to 8 % after the tenth pair", moved),
    ):
        errors = []
        for seed in track(range(trials), description=f"{data}, {name}"):
            rng = np.random.default_rng(seed)
            chosen = np.sort(rng.choice(len(pairs), 20, replace=False))
            matrix = draw_warp(rng, size) if spoil is not apart else np.eye(3)
            spoiled = spoil([(pairs[index][0], warp(pairs[index][1], matrix)) for index in chosen], rng)
            try:
                ours(spoiled)
                errors.append(np.inf)
            except RegistrationError:
                errors.append(np.nan)
        rows.append(_row("to be refused", data, name, 20, errors, "px", WITHIN_PX))
    return rows


def offset_trials(pairs: Sequence[Pair], trials: int) -> list[dict[str, Any]]:
    """Cameras that are shaken together for 10 s before a pair, and record with clocks that differ by up to 0.5 s."""
    rows = []
    for name, rates, jitter, drop in (
        ("30 Hz both", (30, 30), 0.0, 0.0),
        ("30 and 25 Hz, jitter 4 ms, a tenth lost", (30, 25), 0.004, 0.1),
        ("30 and 9 Hz", (30, 9), 0.0, 0.0),
    ):
        errors, seconds = [], []
        for seed in track(range(trials), description=f"time offset, {name}"):
            rng = np.random.default_rng(seed)
            truth = rng.uniform(-0.5, 0.5)
            pair, place = pairs[rng.integers(len(pairs))], shaking(rng)
            start = time.process_time()
            visible = record(
                cv2.cvtColor(pair[0], cv2.COLOR_RGB2GRAY), place, times_of(rng, rates[0], jitter, drop), rng
            )
            thermal = record(pair[1], place, times_of(rng, rates[1], jitter, drop), rng, -truth)
            try:
                errors.append(abs(find_offset(visible, thermal).seconds - truth) * 1e3)
            except TimeOffsetError:
                errors.append(np.nan)
            seconds.append(time.process_time() - start)
        rows.append(_row("time offset", name, "vifa align", 1, errors, "ms", WITHIN_MS, float(np.median(seconds))))
    return rows


def _row(
    test: str,
    data: str,
    method: str,
    pairs: int,
    values: Sequence[float],
    unit: str,
    limit: float | None = None,
    seconds: float | None = None,
    digits: int = 2,
) -> dict[str, Any]:
    """A row of results; NaN is a refusal, infinity a result that should have been refused."""
    found = np.array(values, np.float64)
    given = found[np.isfinite(found)]
    row = {"test": test, "data": data, "method": method, "pairs": pairs, "trials": len(found), "unit": unit}
    row |= {"median": None, "p90": None, "limit": limit, "within_limit": None, "refused": None, "wrong": None}
    if len(given):
        row |= {"median": round(float(np.median(given)), digits), "p90": round(float(np.percentile(given, 90)), digits)}
    if limit is not None:
        row["within_limit"] = round(float(np.mean(np.nan_to_num(found, nan=np.inf) <= limit)), 3)
        row["refused"] = round(float(np.mean(np.isnan(found))), 3)
        row["wrong"] = round(float(np.mean(np.nan_to_num(found, nan=0.0) > WRONG * limit)), 3)
    return {**row, "cpu_seconds": None if seconds is None else round(seconds, 2)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds msrs and roadscene")
    parser.add_argument("--trials", type=int, default=50, help="of each test of warps and time offsets")
    parser.add_argument("--sets", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--tuning", action="store_true", help="on the training pairs, to tune on")
    parser.add_argument("--output", type=Path, default=Path("docs/results/alignment.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    few = max(2, options.trials * 2 // 5)
    for data in options.sets:
        training = load(options.data, data, TRAINING[data])
        pairs = training if options.tuning else load(options.data, data, HELD_OUT[data])
        rows += warp_trials(data, pairs, (ours, identity, phase_correlation, ecc), options.trials)
        rows += warp_trials(data, pairs, (ours,), few, still=True)
        rows += misalignment_rows(data, training, pairs)
        corrected = take_out(pairs, own_displacements(spread_evenly(training, 100)))
        rows += warp_trials(f"{data}, own misalignment taken out", corrected, (ours, ecc), options.trials)
        rows += warp_trials(f"{data}, own misalignment taken out", corrected, (ours,), few, count=10)
        rows += warp_trials(f"{data}, own misalignment taken out", corrected, (ours,), few, count=5)
        rows += refusal_trials(data, pairs, few)
        if data == "msrs":
            rows += offset_trials(pairs, options.trials)
    publish(rows, options.output)


if __name__ == "__main__":
    main()
