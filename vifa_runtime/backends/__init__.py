"""Back ends: engines that own the whole chain between raw arrays and raw results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.bundle import Bundle

BACKENDS = ("onnxruntime",)


class BackendError(RuntimeError):
    """An engine that cannot be had or failed; the message says what is missing and the mend."""


@dataclass(frozen=True)
class Options:
    """What a user chooses about an engine.

    Attributes:
        threads: CPU threads of one operator; 0 for one a core.
    """

    threads: int = 0


@dataclass(frozen=True)
class RawResults:
    """What a back end gives for one pair.

    Attributes:
        fused: task -> uint8 (1,H,W,3); valid until the next run.
        milliseconds: stage (`backbone`, `head.<task>`, `task.<task>`) -> time.
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
        """Engine, version, device, precision and threads, for logs and status."""

    def close(self) -> None:
        """Give back what the engine holds."""


def prepare(name: str, bundle: Bundle, options: Options) -> Backend:
    """Build the engine `name` for a bundle.

    Raises:
        BackendError: no such engine, it is not installed, or it refuses the bundle.
    """
    if name not in BACKENDS:
        raise BackendError(f"back end {name!r} is unknown; use one of {', '.join(BACKENDS)}")
    from vifa_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, options)
