"""Players: a folder of pairs, or the synthetic street, as two camera topics."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vifa_ros.conversions import make_image
from vifa_ros.pairing import THERMAL, VISIBLE
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.street import Street

SETTLE = 0.5  # seconds
_CACHED_PAIRS = 64
_RAW_OFFSET, _RAW_GAIN = 20_000, 20  # what an 8-bit thermal image becomes with `mono16`: counts


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


class PlayerNode(Node):
    """Publishes a source on `visible/image_raw` and `thermal/image_raw`, best effort, as cameras do."""

    def __init__(self, source: Source, settings: PlaySettings) -> None:
        super().__init__("player")
        self._source, self._settings = source, settings
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images = {s: self.create_publisher(Image, f"{s}/image_raw", qos) for s in (VISIBLE, THERMAL)}
        self._info = self.create_publisher(CameraInfo, "visible/camera_info", qos)
        self.sent: dict[str, list[tuple[int, int]]] = {VISIBLE: [], THERMAL: []}

    def wait_for_listeners(self, timeout: float) -> bool:
        """Wait until somebody listens to both cameras; returns whether that came true.

        A listener is seen before it is ready to hear, so a moment more passes once one is there.
        """
        deadline = time.monotonic() + timeout
        while not all(publisher.get_subscription_count() for publisher in self._images.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        time.sleep(SETTLE)
        return True

    def play(self) -> None:
        """Publish every frame of the plan at its time; `sent` holds (stamp in nanoseconds, pair index) of all."""
        start = time.monotonic()
        epoch = self.get_clock().now().nanoseconds
        for shot in plan(self._settings):
            message = self._make_message(shot, epoch + round(shot.time * 1e9))
            time.sleep(max(0.0, start + shot.time - time.monotonic()))
            self._images[shot.stream].publish(message)
            self.sent[shot.stream].append((Time.from_msg(message.header.stamp).nanoseconds, shot.index))
            if shot.stream == VISIBLE:
                self._info.publish(CameraInfo(header=message.header, width=message.width, height=message.height))

    def _make_message(self, shot: Shot, stamp: int) -> Image:
        visible, thermal = self._source[shot.index]
        header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=f"{shot.stream}_camera")
        if shot.stream == VISIBLE:
            return make_image(visible, "rgb8", header)
        if self._settings.mono16 and thermal.dtype == np.uint8:
            thermal = _RAW_OFFSET + thermal.astype(np.uint16) * _RAW_GAIN
        return make_image(
            thermal, {"uint8": "mono8", "uint16": "mono16", "float32": "32FC1"}[thermal.dtype.name], header
        )


def open_source(folder: Path | None, seed: int = 0) -> Source:
    """The pairs of a folder, or the synthetic street where there is none.

    Raises:
        PairError: the folder holds no pairs, or unpaired names.
    """
    return Street(seed) if folder is None else FolderSource(folder)
