"""What the node knows about itself, and how it says so: FusionStatus and diagnostics."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from vifa.msg import DropCount, FusionStatus, StageTime, StreamStatus
from vifa_ros.pairing import StreamCounts
from vifa_ros.worker import PairCounts
from vifa_runtime.backends import Backend
from vifa_runtime.thermal_health import Health

SILENT_AFTER = 2.0  # seconds without a frame after which a stream's rate counts as zero
LONGEST_SHUTTER = 5.0  # seconds that a thermal camera may repeat one frame while it calibrates itself
WINDOW = 300  # samples behind every percentile


class Samples:
    """The last values of named quantities, in milliseconds. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, deque[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Remember one value of each name."""
        with self._lock:
            for name, value in values.items():
                self._values.setdefault(name, deque(maxlen=WINDOW)).append(value)

    def names(self) -> list[str]:
        """Names seen so far, in order of appearance."""
        with self._lock:
            return list(self._values)

    def summary(self, name: str) -> StageTime:
        """Percentiles of one name; zeros where nothing was added yet."""
        with self._lock:
            values = np.array(self._values.get(name, ()))
        message = StageTime(stage=name, count=len(values))
        if len(values):
            message.p50_ms, message.p95_ms, message.p99_ms = (float(v) for v in np.percentile(values, [50, 95, 99]))
        return message

    def largest(self, name: str) -> float:
        """The largest value of one name in the window; 0 where nothing was added yet."""
        with self._lock:
            return max(self._values.get(name, ()), default=0.0)


@dataclass
class StreamWatch:
    """Arrival of one stream's frames, by a monotonic clock in seconds, and the last problem with them."""

    topic: str
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    last_stamp: Any = None
    problem: str = ""

    def rate(self, now: float) -> float:
        """Frames a second over the last arrivals; 0 when silent."""
        if len(self.arrivals) < 2 or now - self.arrivals[-1] > SILENT_AFTER:
            return 0.0
        return (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)

    def silence(self, now: float, since: float) -> float:
        """Seconds without a frame, counted from `since` where none came yet."""
        return now - (self.arrivals[-1] if self.arrivals else since)


def stream_status(watch: StreamWatch, counts: StreamCounts, now: float, problem: str) -> StreamStatus:
    """One stream's part of the status; `problem` says what is wrong with it, if anything is."""
    message = StreamStatus(
        topic=watch.topic,
        received=counts.received,
        paired=counts.paired,
        waiting=counts.waiting,
        reused=counts.reused,
        alone=counts.alone,
        dropped=drop_counts(counts.dropped),
        rate_hz=watch.rate(now),
        problem=problem,
    )
    if watch.last_stamp is not None:
        message.last_stamp = watch.last_stamp
    return message


def fill_pairs(message: FusionStatus, counts: PairCounts, samples: Samples) -> None:
    """The status's counts of pairs and where their time goes."""
    message.formed, message.processed, message.in_flight = counts.formed, counts.processed, counts.in_flight
    message.dropped = drop_counts(counts.dropped)
    skew = samples.summary("skew")
    message.skew_p50_ms, message.skew_p95_ms = skew.p50_ms, skew.p95_ms
    message.skew_max_ms = samples.largest("skew")
    message.latency = samples.summary("latency")
    message.stages = [samples.summary(name) for name in samples.names() if name not in ("skew", "latency")]


def thermal_level(camera: Health) -> int:
    """How bad the state of the thermal camera is: an error where no shutter explains it."""
    if camera.state == "ok":
        return FusionStatus.OK
    is_hopeless = camera.state == "blank" or (camera.state == "frozen" and camera.seconds > LONGEST_SHUTTER)
    return FusionStatus.ERROR if is_hopeless else FusionStatus.WARN


def describe_backend(backend: Backend) -> str:
    """An engine on one line."""
    about = backend.describe()
    engine = (
        f"{about['engine']} {about['version']}, {about['device']}, {about['precision']}, {about['threads']} threads"
    )
    return f"{engine}; fallback, because of {about['fallback']}" if "fallback" in about else engine


def drop_counts(dropped: Mapping[str, int]) -> list[DropCount]:
    """Counts by reason, sorted by reason."""
    return [DropCount(reason=reason, count=count) for reason, count in sorted(dropped.items())]


def to_diagnostics(status: FusionStatus, node: str) -> DiagnosticArray:
    """The same for the robot's diagnostics aggregator: entries for fusion, both cameras and the engine."""
    fusion = {
        "showing": status.showing,
        "pairs formed": str(status.formed),
        "pairs processed": str(status.processed),
        **_times("latency", status.latency),
        "skew p50 (ms)": f"{status.skew_p50_ms:.1f}",
        "skew p95 (ms)": f"{status.skew_p95_ms:.1f}",
        "skew max (ms)": f"{status.skew_max_ms:.1f}",
        **{f"pairs dropped: {entry.reason}": str(entry.count) for entry in status.dropped},
    }
    engine = {"backend": status.backend, "bundle": status.bundle}
    for stage in status.stages:
        engine |= _times(stage.stage, stage)
    engine_level = DiagnosticStatus.WARN if status.fallback else DiagnosticStatus.OK
    array = DiagnosticArray(
        status=[
            _entry(node, "fusion", _LEVELS[status.level], status.message or "fusing", status.bundle, fusion),
            _camera_entry(node, "visible", status.visible),
            _camera_entry(node, "thermal", status.thermal),
            _entry(node, "engine", engine_level, status.fallback or "as wanted", status.bundle, engine),
        ]
    )
    array.header.stamp = status.header.stamp
    return array


_LEVELS = {
    FusionStatus.OK: DiagnosticStatus.OK,
    FusionStatus.WARN: DiagnosticStatus.WARN,
    FusionStatus.ERROR: DiagnosticStatus.ERROR,
}


def _camera_entry(node: str, stream: str, status: StreamStatus) -> DiagnosticStatus:
    values = {
        "topic": status.topic,
        "rate (Hz)": f"{status.rate_hz:.1f}",
        **{name: str(getattr(status, name)) for name in ("received", "paired", "waiting", "reused", "alone")},
        **{f"dropped: {entry.reason}": str(entry.count) for entry in status.dropped},
    }
    level = DiagnosticStatus.OK
    if status.problem:
        level = DiagnosticStatus.ERROR
    elif status.rate_hz == 0:
        level = DiagnosticStatus.WARN
    return _entry(node, stream, level, status.problem or f"{status.rate_hz:.1f} Hz", status.topic, values)


def _times(name: str, stage: StageTime) -> dict[str, str]:
    percentiles = {"p50": stage.p50_ms, "p95": stage.p95_ms, "p99": stage.p99_ms}
    return {f"{name} {percentile} (ms)": f"{value:.1f}" for percentile, value in percentiles.items()}


def _entry(
    node: str, part: str, level: bytes, message: str, hardware: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=f"{node}: {part}",
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
