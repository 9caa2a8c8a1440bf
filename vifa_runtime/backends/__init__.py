"""Back ends: engines that own the whole chain between raw arrays and raw results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Bundle

BACKENDS = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
_PRECISIONS_OF = {"onnxruntime-tensorrt": ("fp32", "fp16"), "tensorrt": PRECISIONS}  # the others run graphs as they are


class BackendError(RuntimeError):
    """An engine that cannot be had or failed; the message says what is missing and the mend."""


@dataclass(frozen=True)
class Options:
    """What a user chooses about an engine.

    Attributes:
        threads: CPU threads of one operator; 0 for one a core.
        merge: whether backbone and heads run as one graph where all tasks are wanted: faster, and the same bytes.
            Without, every stage is timed by itself.
        batch_heads: whether the merged graph computes the heads' convolutions as one. Faster with several tasks, but
            then an older task's image may change by a gray level when a task is added.
        device: number of the GPU, for back ends that use one.
        precision: of TensorRT, one of `PRECISIONS`; other back ends run a bundle's graphs as they are.
        engines: folder of the engines that `vifa bundle build` made; None for the user's cache.
        build: whether engines that are missing are built at start, which takes minutes.
        fallback: back end to use where the wanted one can't be had; empty to fail instead. What is used then says so in
            `describe()`.
    """

    threads: int = 0
    merge: bool = True
    batch_heads: bool = False
    device: int = 0
    precision: str = "fp32"
    engines: Path | None = None
    build: bool = False
    fallback: str = ""


@dataclass(frozen=True)
class RawResults:
    """What a back end gives for one pair.

    Attributes:
        fused: task -> uint8 (1,H,W,3); valid until the next run.
        milliseconds: stage (`backbone` and `head.<task>`, or both as `fusion`; `task.<task>`) -> time.
        outputs: task whose graph was run -> output -> array: `boxes` float32 (1,A,4) and `scores` float32 (1,A,K), or
            `mask` uint8 (1,H,W) and perhaps `confidence`; valid until the next run.
    """

    fused: Mapping[str, NDArray[np.uint8]]
    milliseconds: Mapping[str, float]
    outputs: Mapping[str, Mapping[str, NDArray]] = field(default_factory=dict)


class Backend(Protocol):
    """One engine for one bundle. Used by one thread at a time."""

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str] = (),
    ) -> RawResults:
        """Run the backbone once, and for each task its head and, where it has one, its task graph on the fused image.

        Args:
            visible: (1,H,W,3) RGB, sides multiples of the bundle's.
            thermal: (1,H,W), 0..1.
            tasks: names of wanted tasks; nothing is computed for others.
            fused_only: those of them whose task graph is not run.
        """

    def describe(self) -> dict[str, str]:
        """Engine, version, device, precision and threads, for logs and status.

        And `fallback`, why another back end is not used, where it was wanted.
        """

    def close(self) -> None:
        """Give back what the engine holds."""


class FallenBack:
    """A back end in the place of another one, which says why."""

    def __init__(self, backend: Backend, reason: str) -> None:
        self._backend, self._reason = backend, reason
        self.run, self.close = backend.run, backend.close

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {**self._backend.describe(), "fallback": self._reason}


def prepare(name: str, bundle: Bundle, options: Options) -> Backend:
    """Build the engine `name` for a bundle, or that of `options.fallback` where it can't be had.

    Raises:
        BackendError: no such engine, it is not installed, or it refuses the bundle; and so does the fallback.
    """
    for wanted in filter(None, (name, options.fallback)):
        if wanted not in BACKENDS:
            raise BackendError(f"back end {wanted!r} is unknown; use one of {', '.join(BACKENDS)}")
    if options.precision not in (known := _PRECISIONS_OF.get(name, PRECISIONS[:1])):
        raise BackendError(f"back end {name} has no precision {options.precision!r}; use {' or '.join(known)}")
    try:
        return _open(name, bundle, options)
    except BackendError as error:
        if options.fallback in ("", name):
            raise
        as_they_are = replace(options, precision=PRECISIONS[0])
        return FallenBack(_open(options.fallback, bundle, as_they_are), f"{name}: {error}")


def _open(name: str, bundle: Bundle, options: Options) -> Backend:
    if name == "tensorrt":
        from vifa_runtime.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(bundle, options)
    if name == "onnxruntime":
        from vifa_runtime.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, options)
    from vifa_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend

    return OnnxRuntimeGpuBackend(bundle, options, name.removeprefix("onnxruntime-"))
