"""What each graph of a bundle is given for real pairs: whoever learns the ranges of its tensors must see the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, RawResults
from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_runtime.messages import first_line
from vifa_runtime.pipeline import FusionPipeline

Pair = tuple[NDArray[np.uint8], NDArray]  # visible RGB (H,W,3), thermal (h,w) of any depth


def graph_inputs(bundle: Bundle, path: str, pairs: Iterable[Pair]) -> Iterator[dict[str, NDArray]]:
    """For each pair the inputs of the graph at `path`, by name, each contiguous and the caller's own.

    What comes before that graph is computed by ONNX Runtime on the CPU as the bundle has it.

    Args:
        path: of the backbone, or of a head or a graph of a task.
        pairs: each taken by itself.

    Raises:
        BackendError: ONNX Runtime is missing, or fails.
        InputError, ThermalError, GeometryError: as of `FusionPipeline.process`.
    """
    from vifa_runtime.backends.onnxruntime import make_session

    task = next((task for task in bundle.tasks if path in (task.head, task.graph)), None)
    earlier: list[str] = []
    if task is not None:
        earlier = [BACKBONE] if path == task.head else [BACKBONE, task.head]
    sessions = [make_session(bundle.graphs[before], threads=0) for before in earlier]
    wanted = [value.name for value in onnx.load_model_from_string(bundle.graphs[path]).graph.input]
    for visible, thermal in aligned_pairs(bundle, pairs):
        known: dict[str, NDArray] = {"visible": visible, "thermal": thermal}
        for before, session in zip(earlier, sessions, strict=True):
            try:
                outputs = session.run(None, {value.name: known[value.name] for value in session.get_inputs()})
            except Exception as error:  # ONNX Runtime raises a class of its own for every status
                raise BackendError(
                    f"ONNX Runtime failed on {before} of bundle {bundle.name}: {first_line(error)}"
                ) from error
            known |= {value.name: array for value, array in zip(session.get_outputs(), outputs, strict=True)}
        if "fused" in known:
            known["image"] = known["fused"]
        yield {name: known[name] for name in wanted}


def aligned_pairs(bundle: Bundle, pairs: Iterable[Pair]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Every pair as the pipeline hands it to an engine: visible (1,H,W,3) and thermal (1,H,W), the caller's own.

    Raises:
        InputError, ThermalError, GeometryError: as of `FusionPipeline.process`.
    """
    recorder = _Recorder()
    pipeline = FusionPipeline(bundle, recorder)
    for visible, thermal in pairs:
        pipeline.process(visible, thermal)
        yield recorder.visible.copy(), recorder.thermal.copy()


class _Recorder:
    """A back end that computes nothing and remembers what it was given."""

    visible: NDArray[np.uint8]
    thermal: NDArray[np.float32]

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str] = (),
    ) -> RawResults:
        self.visible, self.thermal = visible, thermal
        return RawResults({}, {})

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass
