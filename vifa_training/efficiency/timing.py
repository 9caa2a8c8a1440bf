"""Measured time of K separate networks against one backbone with K heads, in turn in one run.

Time here is processor time of this process. On one thread and a quiet machine that is what a clock shows; on a busy
one it leaves out the time that others had the processor. The ratio by the clock is given beside it.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vifa_runtime.backends import Backend, Options, prepare
from vifa_runtime.bundle import Bundle, Task
from vifa_training.efficiency.costs import padded, task_names
from vifa_training.export import export_bundle
from vifa_training.networks import build_network

ENGINES = ("torch", "onnx")
MOST_ROUNDS = 200
_UNTRAINED = {
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"},
    "provenance": {"data": "none, fresh weights", "seed": 0, "commit": "unknown", "date": "1970-01-01"},
}


class EngineError(RuntimeError):
    """An engine that can't run a network; the message says why."""


@dataclass(frozen=True)
class TimingSettings:
    """How to measure.

    Attributes:
        size: (height, width), rounded up to each network's multiple.
        repeats: fewest rounds that count; one more goes before them to warm up.
        threads: CPU threads.
        least_seconds: fast networks go on with rounds, at most 200, until so much time has passed.
    """

    size: tuple[int, int]
    repeats: int
    threads: int = 1
    least_seconds: float = 5


@dataclass(frozen=True)
class Times:
    """Milliseconds of R rounds by number of tasks, each (R,2): processor time, clock time.

    Attributes:
        separate: of a whole network a task.
        shared: of one backbone with a head a task.
        head_share: a head's part in the clock time of a backbone with one head, of every round.
    """

    separate: dict[int, NDArray[np.float64]]
    shared: dict[int, NDArray[np.float64]]
    head_share: NDArray[np.float64]

    def summary(self, tasks: int) -> dict[str, float]:
        """Medians for a number of tasks: processor times, their ratio with its quartiles, clock ratio, head share."""
        separate, shared = self.separate[tasks], self.shared[tasks]
        ratio, ratio_clock = (separate / shared).T
        return {
            "separate_ms": round(float(np.median(separate[:, 0])), 2),
            "shared_ms": round(float(np.median(shared[:, 0])), 2),
            "ratio": round(float(np.median(ratio)), 3),
            "ratio_low": round(float(np.percentile(ratio, 25)), 3),
            "ratio_high": round(float(np.percentile(ratio, 75)), 3),
            "ratio_clock": round(float(np.median(ratio_clock)), 3),
            "head_percent": round(100 * float(np.median(self.head_share)), 2),
            "rounds": len(ratio),
        }


class Engine(Protocol):
    """Separate networks, one a task, and one network with a head a task, ready to run on a pair of images."""

    def separate(self, tasks: int) -> None:
        """Run a whole network for each of the first tasks."""

    def shared(self, tasks: int) -> None:
        """Run the shared backbone and the first heads."""

    def head_share(self) -> float:
        """A head's part in the time of backbone and one head."""


def measure(engine: Engine, tasks: Sequence[int], settings: TimingSettings) -> Times:
    """Run both for every number of tasks once a round.

    Both take turns, so that each finds the caches as the other left them: networks that run one after the other put
    each other's tensors out of them, as they would on a robot.
    """
    rounds: list[list[tuple[Any, Any]]] = []
    shares: list[float] = []
    end = time.monotonic() + settings.least_seconds
    while len(rounds) <= settings.repeats or (time.monotonic() < end and len(rounds) <= MOST_ROUNDS):
        rounds.append([(_clocked(engine.separate, count), _clocked(engine.shared, count)) for count in tasks])
        shares.append(engine.head_share())
    separate, shared = (
        {count: np.array([turn[index][part] for turn in rounds[1:]]) for index, count in enumerate(tasks)}
        for part in (0, 1)
    )
    return Times(separate, shared, np.array(shares[1:]))


def measure_network(name: str, engine: str, tasks: Sequence[int], settings: TimingSettings) -> Times:
    """Times of one network of the registry with fresh weights, in `torch` (eager) or `onnx` (ONNX Runtime).

    Raises:
        EngineError: ONNX Runtime is asked for, and the network can't be exported to it.
    """
    torch.manual_seed(0)
    size = padded(settings.size, build_network(name, ["any"]).size_multiple)
    make = {"torch": _Torch, "onnx": _OnnxRuntime}[engine]
    return measure(make(name, max(tasks), size, settings.threads), tasks, settings)


def _clocked(run: Callable[[int], None], argument: int) -> tuple[float, float]:
    """(processor ms, clock ms)."""
    start = time.process_time(), time.perf_counter()
    run(argument)
    return 1e3 * (time.process_time() - start[0]), 1e3 * (time.perf_counter() - start[1])


class _Torch:
    """Eager torch on the CPU: luma in, luma out."""

    def __init__(self, name: str, tasks: int, size: tuple[int, int], threads: int) -> None:
        torch.set_num_threads(threads)
        self._alone = [build_network(name, [task]).eval() for task in task_names(tasks)]
        self._together = build_network(name, task_names(tasks)).eval()
        self._images = torch.rand(1, 1, *size), torch.rand(1, 1, *size)

    @torch.inference_mode()
    def separate(self, tasks: int) -> None:
        for network in self._alone[:tasks]:
            network(*self._images)

    @torch.inference_mode()
    def shared(self, tasks: int) -> None:
        features = self._together.backbone(*self._images)
        for head in list(self._together.heads.values())[:tasks]:
            head(features)

    @torch.inference_mode()
    def head_share(self) -> float:
        start = time.perf_counter()
        features = self._together.backbone(*self._images)
        middle = time.perf_counter()
        next(iter(self._together.heads.values()))(features)
        return _share(middle - start, time.perf_counter() - middle)


class _OnnxRuntime:
    """The exported graphs in the runtime's back end: camera images in, colour images out."""

    def __init__(self, name: str, tasks: int, size: tuple[int, int], threads: int) -> None:
        self._tasks = task_names(tasks)
        bundle = _untrained_bundle(name, self._tasks)
        self._bundle, self._options = bundle, Options(threads=threads)
        self._alone = [self._prepare([task]) for task in bundle.tasks]
        self._together: dict[int, Backend] = {}
        apart = dataclasses.replace(self._options, merge=False)
        self._stages = prepare("onnxruntime", bundle.with_tasks(bundle.tasks[:1]), apart)
        generator = np.random.default_rng(0)
        self._visible = generator.integers(0, 256, (1, *size, 3), np.uint8)
        self._thermal = generator.random((1, *size), np.float32)

    def separate(self, tasks: int) -> None:
        for engine, task in zip(self._alone[:tasks], self._tasks, strict=False):
            engine.run(self._visible, self._thermal, [task])

    def shared(self, tasks: int) -> None:
        if tasks not in self._together:  # in the round that warms up
            self._together[tasks] = self._prepare(self._bundle.tasks[:tasks])
        self._together[tasks].run(self._visible, self._thermal, self._tasks[:tasks])

    def head_share(self) -> float:
        [task] = self._tasks[:1]
        found = self._stages.run(self._visible, self._thermal, [task]).milliseconds
        return _share(found["backbone"], found[f"head.{task}"])

    def _prepare(self, tasks: Sequence[Task]) -> Backend:
        return prepare("onnxruntime", self._bundle.with_tasks(tasks), self._options)


def _untrained_bundle(name: str, tasks: Sequence[str]) -> Bundle:
    wanted = [Task(task, "fusion") for task in tasks]
    try:
        with tempfile.TemporaryDirectory() as folder:
            manifest = {"name": name, **_UNTRAINED}
            return export_bundle(build_network(name, tasks), wanted, Path(folder) / name, manifest, f"# {name}\n")
    except Exception as error:  # torch's exporter, ONNX's checker and our own checks raise classes of their own
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(f"{name} can't be exported: {type(error).__name__}: {reason[:200]}") from error


def _share(backbone: float, head: float) -> float:
    return head / (backbone + head)
