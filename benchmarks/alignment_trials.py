"""Trials for benchmarks/alignment.py: real pairs of one size, warped or shaken, and how far they are off themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vifa_runtime.pairs import find_part, read_thermal, read_visible, spread_evenly, write_image
from vifa_runtime.registration_blocks import collect
from vifa_runtime.registration_frames import Frames
from vifa_runtime.time_offset import Motion

SIZES = {"msrs": (480, 640), "roadscene": (320, 480)}  # roadscene's differ from pair to pair: fitted, then cut
SCALE, ROTATION, SHIFT = (0.7, 1.4), 5.0, 0.15
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Matrix = NDArray[np.float64]
HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from the first pixel's centre


def load(root: Path, data: str, parts: Sequence[str]) -> list[Pair]:
    """Pairs at one size: both images of each are resized and cut alike."""
    pairs = []
    for part in parts:
        for paths in find_part(root, part):
            pairs.append(
                tuple(_fit(image, SIZES[data]) for image in (read_visible(paths.visible), read_thermal(paths.thermal)))
            )
    return pairs


def _fit(image: NDArray, size: tuple[int, int]) -> NDArray:
    factor = max(size[0] / image.shape[0], size[1] / image.shape[1])
    wanted = max(size[1], round(image.shape[1] * factor)), max(size[0], round(image.shape[0] * factor))
    image = cv2.resize(image, wanted, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def draw_warp(rng: np.random.Generator, size: tuple[int, int]) -> Matrix:
    """A random similarity of images of one size, by their middle: what becomes of thermal pixels."""
    height, width = size
    scale, angle = np.exp(rng.uniform(*np.log(SCALE))), np.deg2rad(rng.uniform(-ROTATION, ROTATION))
    shift = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width / 2, height / 2])
    return np.vstack([np.c_[turn, middle + shift - turn @ middle], [0, 0, 1]])


def warp(image: NDArray, matrix: Matrix) -> NDArray:
    """The image as a camera sees it whose pixels are `matrix` times the image's; black outside."""
    scale = float(np.sqrt(np.linalg.det(matrix[:2, :2])))
    if scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * np.sqrt(1 / scale**2 - 1) + 1e-3)
    centred = np.linalg.inv(HALF) @ matrix @ HALF
    return cv2.warpPerspective(image, centred, image.shape[::-1], flags=cv2.INTER_LINEAR)


def as_frames(pairs: Sequence[Pair]) -> Frames:
    """As `vifa align` takes them."""
    frames = Frames()
    for number, pair in enumerate(pairs):
        frames.add(*pair, f"pair {number}")
    return frames


def own_displacements(pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """(rows, columns, 2): how far right and down of its place in the visible image each part of the thermal one is."""
    frames, everything = as_frames(pairs), range(len(pairs))
    level = frames.level(max(frames.visible_size), everything)
    evidence = collect(frames, everything, level, np.eye(3), 10)
    sums = gaussian_filter(evidence.sums.sum(axis=0), (0, 1, 1))
    best = np.array([np.unravel_index(int(surface.argmax()), surface.shape) for surface in sums]) - 10.0
    rows = len(np.unique(evidence.centres[:, 1]))
    return best[:, ::-1].reshape(rows, -1, 2).astype(np.float32)


def take_out(pairs: Sequence[Pair], displacements: NDArray[np.float32]) -> list[Pair]:
    """The pairs after the displacements, interpolated between the parts, were undone in the thermal images."""
    height, width = pairs[0][1].shape
    across, down = cv2.split(cv2.resize(displacements, (width, height), interpolation=cv2.INTER_CUBIC))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return [
        (visible, cv2.remap(thermal, x + across, y + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        for visible, thermal in pairs
    ]


def mutual_information(pair: Pair, bins: int = 32, border: int = 12) -> float:
    """Of the gray levels of both images, equalised and smoothed, without the border; nats."""
    levels = []
    for image in (cv2.cvtColor(pair[0], cv2.COLOR_RGB2GRAY), pair[1]):
        smooth = cv2.GaussianBlur(cv2.equalizeHist(image), (0, 0), 1.5)[border:-border, border:-border]
        levels.append(smooth.ravel().astype(np.intp) * bins // 256)
    share = np.bincount(levels[0] * bins + levels[1], minlength=bins * bins).reshape(bins, bins) / levels[0].size
    product = share.sum(axis=1, keepdims=True) * share.sum(axis=0)
    known = share > 0
    return float(np.sum(share[known] * np.log(share[known] / product[known])))


def shaking(rng: np.random.Generator, reach: float = 0.03) -> Callable[[NDArray], NDArray]:
    """Where cameras look at times (N,), shares of the width (N, 2): waves of 0.2 to 3 Hz."""
    rates, phases = rng.uniform(0.2, 3, (2, 12)), rng.uniform(0, 2 * np.pi, (2, 12))
    sizes = rng.normal(0, 1, (2, 12)) / rates**0.7 * reach / 3
    return lambda t: np.einsum("ak,akn->na", sizes, np.sin(2 * np.pi * rates[:, :, None] * t + phases[:, :, None]))


def times_of(rng: np.random.Generator, rate: float, jitter: float, drop: float, seconds: float = 10.0) -> NDArray:
    times = np.arange(rng.uniform(0, 1 / rate), seconds, 1 / rate)
    times = times + np.clip(rng.normal(0, jitter, len(times)), -0.4 / rate, 0.4 / rate)
    return times[rng.random(len(times)) >= drop]


def record(image: NDArray, place: Callable, times: NDArray, rng: np.random.Generator, late: float = 0.0) -> Motion:
    """The motion of a camera whose stamps are so many seconds above the true times."""
    motion = Motion()
    for moment, where in zip(times, place(times), strict=True):
        seen = look(image, where)
        noisy = np.clip(seen + rng.normal(0, 2, seen.shape), 0, 255).astype(np.uint8)
        motion.add(noisy, round((100 + moment + late) * 1e9))
    return motion


def look(image: NDArray, where: NDArray) -> NDArray:
    """What a camera sees of an image from a place (right, down), shares of its width: three quarters of its sides."""
    height, width = image.shape[:2]
    shift = np.array([[1, 0, where[0] * width], [0, 1, where[1] * width]], np.float32)
    seen = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(seen[height // 8 : -height // 8, width // 8 : -width // 8])


def write_shaken(pairs: Sequence[Pair], folder: Path, rate: float = 30.0, seconds: float = 1.0, seed: int = 0) -> int:
    """Write pairs as cameras record them that are shaken, so many seconds before one scene after the other."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(len(pairs) * seconds * rate)) / rate
    for number, where in enumerate(shaking(rng)(times)):
        visible, thermal = pairs[int(number / (seconds * rate))]
        write_image(folder / "vi" / f"{number:05}.jpg", look(visible, where))
        write_image(folder / "ir" / f"{number:05}.png", look(thermal, where))
    return len(times)


def main() -> None:
    """Write pairs to try `vifa record` and `vifa align` on."""
    parser = argparse.ArgumentParser(description="Write a folder of pairs of cameras that are shaken before scenes.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds msrs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--scenes", type=int, default=10)
    options = parser.parse_args()
    count = write_shaken(spread_evenly(load(options.data, "msrs", ("msrs/test",)), options.scenes), options.output)
    print(f"{options.output}: {count} pairs, 30 a second")


if __name__ == "__main__":
    main()
