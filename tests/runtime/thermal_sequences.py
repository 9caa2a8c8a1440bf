"""Thermal cameras before real or synthetic scenes, with the noise that they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.street import COUNTS_PER_KELVIN, Street

NOISE = 0.05  # kelvin, what makers of uncooled cameras state (NETD)
HEIGHT, WIDTH = 128, 176


def street_scene(seed: int = 0) -> NDArray[np.float32]:
    """Kelvin above its coldest pixel, (H,W), of a synthetic street without its noise."""
    kelvin = cv2.medianBlur(Street(seed, size=(210, 290))[5][1].astype(np.float32) / COUNTS_PER_KELVIN, 5)
    return kelvin - kelvin.min()


def photographed_scenes(folder: Path, count: int) -> list[NDArray[np.float32]]:
    """Kelvin above the coldest pixel of real 8-bit thermal images, evenly chosen from a folder: 30 for white."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths[:: max(1, len(paths) // count)]]
    return [cv2.resize(image, (290, 210), interpolation=cv2.INTER_AREA) * np.float32(30 / 255) for image in images]


def look(scene: NDArray[np.float32], frames: int, moving: bool) -> Iterator[NDArray[np.float32]]:
    """Views (HEIGHT,WIDTH) of a scene, from a camera that stays or that turns to and fro by up to 2 pixels a frame."""
    for frame in range(frames):
        left = (1 + np.sin(frame / 25) * moving) * (scene.shape[1] - WIDTH - 1) / 2
        top = (1 + np.sin(frame / 17) * moving) * (scene.shape[0] - HEIGHT - 1) / 2
        shift = np.array([[1, 0, -left], [0, 1, -top]])
        yield cv2.warpAffine(scene, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def counts(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Radiometric, 0.01 K a count."""
    return np.rint(29_315 + 100 * (kelvin + _noise(kelvin, rng))).astype(np.uint16)


def coarse_counts(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Radiometric, 0.4 K a count: the noise is below a count."""
    return np.rint(733 + 2.5 * (kelvin + _noise(kelvin, rng))).astype(np.uint16)


def celsius(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Degrees as floats."""
    return np.float32(20) + kelvin + _noise(kelvin, rng)


def gray(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """8 bits with a fixed gain: one level of noise."""
    return np.clip(np.rint(10 + 7 * kelvin + 20 * _noise(kelvin, rng)), 0, 255).astype(np.uint8)


def smoothed_gray(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """8 bits after a filter over time: a seventh of a level of noise."""
    return np.clip(np.rint(10 + 7 * kelvin + 3 * _noise(kelvin, rng)), 0, 255).astype(np.uint8)


def stretched_gray(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """8 bits with the camera's own gain, which clips 2 % at both ends."""
    noisy = kelvin + _noise(kelvin, rng)
    low, high = np.percentile(noisy, [2, 98])
    return np.clip(np.rint((noisy - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


CAMERAS = {camera.__name__: camera for camera in (counts, coarse_counts, celsius, gray, smoothed_gray, stretched_gray)}


def _noise(kelvin: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return NOISE * rng.standard_normal(kelvin.shape, np.float32)
