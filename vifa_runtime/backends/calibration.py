"""Real pairs for INT8: what each graph of a bundle sees of them, so that an engine learns the range of every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, RawResults
from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.pipeline import FusionPipeline

MOST_PAIRS = 256  # evenly spread over the folder's


class CalibrationPairs:
    """The pairs of a folder, as the graphs of one bundle see them at one size."""

    def __init__(self, bundle: Bundle, folder: Path, size: tuple[int, int]) -> None:
        """List the pairs.

        Args:
            folder: holds `vi/` and `ir/`.
            size: (height, width) of the padded images; pairs of another size are brought to it by the bundle's aspect.

        Raises:
            PairError: there are none.
        """
        found = find_pairs(folder)
        picked = np.unique(np.linspace(0, len(found) - 1, MOST_PAIRS).round().astype(int))
        self._pairs = [found[index] for index in picked]
        self._bundle = bundle if bundle.working_size else replace(bundle, working_size=size)
        self._sessions: dict[str, Any] = {}
        digest = hashlib.sha256()
        for pair in self._pairs:
            for path in (pair.visible, pair.thermal):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        self.digest = digest.hexdigest()

    def inputs(self, path: str) -> Iterator[dict[str, NDArray]]:
        """For each pair the inputs of the graph at `path` in the bundle, by name, each contiguous.

        What comes before that graph is computed by ONNX Runtime on the CPU, in float32.
        """
        task = next((task for task in self._bundle.tasks if path in (task.head, task.graph)), None)
        for visible, thermal in self._aligned():
            images: dict[str, NDArray] = {"visible": visible, "thermal": thermal}
            if task is None:
                yield images
                continue
            head_inputs = {"visible": visible, **self._run(BACKBONE, images)}
            yield head_inputs if path == task.head else {"image": self._run(task.head, head_inputs)["fused"]}

    def _aligned(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Every pair as the pipeline hands it to an engine, by itself."""
        recorder = _Recorder()
        pipeline = FusionPipeline(self._bundle, recorder)
        for pair in self._pairs:
            pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal))
            yield recorder.visible, recorder.thermal

    def _run(self, path: str, inputs: dict[str, NDArray]) -> dict[str, NDArray]:
        session = self._sessions.get(path)
        if session is None:
            session = self._sessions[path] = _open_session(self._bundle.graphs[path])
        names = [output.name for output in session.get_outputs()]
        fed = {value.name: inputs[value.name] for value in session.get_inputs()}
        return dict(zip(names, session.run(names, fed), strict=True))


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


def _open_session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"calibration needs ONNX Runtime ({error}); pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
