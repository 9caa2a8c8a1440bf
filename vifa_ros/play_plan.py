"""What is played of a folder of pairs or of the synthetic street, and when each frame is. Knows no ROS."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_ros.pairing import THERMAL, VISIBLE
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.street import Street

_CACHED_PAIRS = 64
_RAW_OFFSET, _RAW_GAIN = 20_000, 20  # what an 8-bit thermal image becomes with `mono16`: counts
THERMAL_ENCODINGS = {"uint8": "mono8", "uint16": "mono16", "float32": "32FC1"}


class Source(Protocol):
    """Pairs by index."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray]:
        """Visible RGB (H,W,3) uint8 and thermal (h,w) of pair `index`."""


class FolderSource:
    """The pairs of a folder with `vi/` and `ir/`, in the order of their names, over and over."""

    def __init__(self, folder: Path) -> None:
        self._paths = find_pairs(folder)
        self._read = lru_cache(maxsize=_CACHED_PAIRS)(self._read_pair)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray]:
        return self._read(index % len(self._paths))

    def _read_pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray]:
        return read_visible(self._paths[index].visible), read_thermal(self._paths[index].thermal)


@dataclass(frozen=True)
class PlaySettings:
    """How pairs are played.

    Attributes:
        rate: pairs a second.
        frames: how many pairs; None for no end.
        skew: how much later the thermal image is taken than the visible one, seconds.
        jitter: standard deviation of each stamp, seconds.
        drop: share of frames of each camera that are left out, 0..1.
        mono16: whether 8-bit thermal images are played as 16-bit counts.
        seed: of jitter and drops.
    """

    rate: float = 15.0
    frames: int | None = None
    skew: float = 0.0
    jitter: float = 0.0
    drop: float = 0.0
    mono16: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Shot:
    """One frame to be published: its stream, pair index and time since the start, seconds."""

    stream: str
    index: int
    time: float


def plan(settings: PlaySettings) -> Iterator[Shot]:
    """All frames to publish, in the order of their times; each camera's times rise strictly."""
    streams = [
        _plan_stream(VISIBLE, 0.0, settings, np.random.default_rng([settings.seed, 0])),
        _plan_stream(THERMAL, settings.skew, settings, np.random.default_rng([settings.seed, 1])),
    ]
    return heapq.merge(*streams, key=lambda shot: shot.time)


def _plan_stream(stream: str, skew: float, settings: PlaySettings, rng: np.random.Generator) -> Iterator[Shot]:
    """One camera's frames; jitter is cut at 45 % of the frame period, so that they keep their order."""
    period = 1 / settings.rate
    index = 0
    while settings.frames is None or index < settings.frames:
        jitter = float(np.clip(rng.normal(0, settings.jitter), -0.45 * period, 0.45 * period))
        if rng.random() >= settings.drop:
            yield Shot(stream, index, (index + 0.5) * period + skew + jitter)
        index += 1


def play_thermal(thermal: NDArray[Any], mono16: bool) -> NDArray[Any]:
    """A thermal image (h,w) as it is played: with `mono16` those of 8 bits become 16-bit counts, others stay."""
    if mono16 and thermal.dtype == np.uint8:
        return _RAW_OFFSET + thermal.astype(np.uint16) * _RAW_GAIN
    return thermal


def open_source(folder: Path | None, seed: int = 0) -> Source:
    """The pairs of a folder, or the synthetic street where there is none.

    Raises:
        PairError: the folder holds no pairs, or unpaired names.
    """
    return Street(seed) if folder is None else FolderSource(folder)
