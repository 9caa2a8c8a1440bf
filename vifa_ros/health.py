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

SILENT_AFTER = 2.0  # seconds without a frame after which a stream's rate counts as zero
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


def stream_status(watch: StreamWatch, counts: StreamCounts, now: float) -> StreamStatus:
    """One stream's part of the status."""
    message = StreamStatus(
        topic=watch.topic,
        received=counts.received,
        paired=counts.paired,
        waiting=counts.waiting,
        dropped=drop_counts(counts.dropped),
        rate_hz=watch.rate(now),
    )
    if watch.last_stamp is not None:
        message.last_stamp = watch.last_stamp
    return message


def fill_pairs(message: FusionStatus, counts: PairCounts, samples: Samples) -> None:
    """The status's counts of pairs and where their time goes."""
    message.formed, message.processed, message.in_flight = counts.formed, counts.processed, counts.in_flight
    message.dropped = drop_counts(counts.dropped)
    message.skew_p50_ms = samples.summary("skew").p50_ms
    message.skew_max_ms = samples.largest("skew")
    message.latency = samples.summary("latency")
    message.stages = [samples.summary(name) for name in samples.names() if name not in ("skew", "latency")]


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
    """The same for the robot's diagnostics aggregator."""
    levels = {
        FusionStatus.OK: DiagnosticStatus.OK,
        FusionStatus.WARN: DiagnosticStatus.WARN,
        FusionStatus.ERROR: DiagnosticStatus.ERROR,
    }
    values = {
        "backend": status.backend,
        "visible rate (Hz)": f"{status.visible.rate_hz:.1f}",
        "thermal rate (Hz)": f"{status.thermal.rate_hz:.1f}",
        "pairs processed": str(status.processed),
        "latency p50 (ms)": f"{status.latency.p50_ms:.1f}",
        "latency p95 (ms)": f"{status.latency.p95_ms:.1f}",
        "skew p50 (ms)": f"{status.skew_p50_ms:.1f}",
    }
    for owner, counts in (
        ("visible", status.visible.dropped),
        ("thermal", status.thermal.dropped),
        ("pairs", status.dropped),
    ):
        values |= {f"{owner} dropped: {entry.reason}": str(entry.count) for entry in counts}
    entry = DiagnosticStatus(
        level=levels[status.level],
        name=f"{node}: fusion",
        message=status.message or "fusing",
        hardware_id=status.bundle,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    array = DiagnosticArray(status=[entry])
    array.header.stamp = status.header.stamp
    return array
