"""ONNX Runtime on the CPU: one session a graph, features handed from backbone to heads without a copy.

All tensors of a size are bound once to buffers that are used again for every pair of that size: the features to
copies of what the first run gave, the fused images to NumPy arrays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, Options, RawResults
from vifa_runtime.bundle import BACKBONE, Bundle

try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendError(f"ONNX Runtime cannot be loaded ({error}); pip install onnxruntime") from None


@dataclass(frozen=True)
class _Buffers:
    """Tensors of one image size: bindings by graph, and the arrays that the heads write."""

    size: tuple[int, int]
    bindings: dict[str, ort.IOBinding]
    features: dict[str, ort.OrtValue]
    fused: dict[str, NDArray[np.uint8]]


class OnnxRuntimeBackend:
    """See `vifa_runtime.backends.Backend`."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        self._name = bundle.name
        self._threads = options.threads or os.cpu_count() or 1
        try:
            self._backbone = self._session(bundle.graphs[BACKBONE])
            self._heads = {task.name: self._session(bundle.graphs[task.head]) for task in bundle.tasks}
        except Exception as error:  # ONNX Runtime raises a class of its own for every status
            raise BackendError(f"ONNX Runtime refuses bundle {bundle.name}: {_first_line(error)}") from error
        self._buffers: _Buffers | None = None

    def run(self, visible: NDArray[np.uint8], thermal: NDArray[np.float32], tasks: Sequence[str]) -> RawResults:
        """Run the backbone once and the head of each task; see `Backend.run`."""
        if not tasks:
            return RawResults({}, {})
        try:
            return self._run(visible, thermal, tasks)
        except Exception as error:  # as in __init__
            raise BackendError(f"ONNX Runtime failed on bundle {self._name}: {_first_line(error)}") from error

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "device": "CPU",
            "precision": "fp32",
            "threads": str(self._threads),
        }

    def close(self) -> None:
        """Drop sessions and buffers."""
        self._buffers = None
        self._heads = {}
        self._backbone = None

    def _run(self, visible: NDArray[np.uint8], thermal: NDArray[np.float32], tasks: Sequence[str]) -> RawResults:
        size = (visible.shape[1], visible.shape[2])
        if self._buffers is None or self._buffers.size != size:
            self._buffers = self._allocate(size)
        buffers = self._buffers
        image = ort.OrtValue.ortvalue_from_numpy(visible)
        milliseconds = {}

        start = time.perf_counter()
        binding = buffers.bindings[BACKBONE]
        binding.bind_ortvalue_input("visible", image)
        binding.bind_ortvalue_input("thermal", ort.OrtValue.ortvalue_from_numpy(thermal))
        self._backbone.run_with_iobinding(binding)
        if not buffers.features:
            self._keep_features(buffers)
        milliseconds["backbone"] = 1e3 * (time.perf_counter() - start)

        for task in tasks:
            start = time.perf_counter()
            binding = self._bind_head(task, buffers)
            binding.bind_ortvalue_input("visible", image)
            self._heads[task].run_with_iobinding(binding)
            milliseconds[f"head.{task}"] = 1e3 * (time.perf_counter() - start)
        return RawResults({task: buffers.fused[task] for task in tasks}, milliseconds)

    def _session(self, graph: bytes) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Threads that spin while they wait gain little on an idle machine and lose most of the speed on a shared one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # What was checked is ONNX; without this the bytes of ONNX Runtime's own format would be taken as such.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def _allocate(self, size: tuple[int, int]) -> _Buffers:
        binding = self._backbone.io_binding()
        for output in self._backbone.get_outputs():
            binding.bind_output(output.name)
        return _Buffers(size, {BACKBONE: binding}, {}, {})

    def _keep_features(self, buffers: _Buffers) -> None:
        """Bind copies of the features that the first run allocated, so that later runs write into those.

        Copies, because before ONNX Runtime 1.30 what `get_outputs` gives dies with the binding's outputs.
        """
        binding = buffers.bindings[BACKBONE]
        names = [output.name for output in self._backbone.get_outputs()]
        kept = [ort.OrtValue.ortvalue_from_numpy(value.numpy().copy()) for value in binding.get_outputs()]
        buffers.features.update(zip(names, kept, strict=True))
        binding.clear_binding_outputs()
        for name, value in buffers.features.items():
            binding.bind_ortvalue_output(name, value)

    def _bind_head(self, task: str, buffers: _Buffers) -> ort.IOBinding:
        if task not in buffers.bindings:
            session = self._heads[task]
            binding = session.io_binding()
            for name in {value.name for value in session.get_inputs()} - {"visible"}:
                binding.bind_ortvalue_input(name, buffers.features[name])
            buffers.fused[task] = np.empty((1, *buffers.size, 3), np.uint8)
            binding.bind_ortvalue_output("fused", ort.OrtValue.ortvalue_from_numpy(buffers.fused[task]))
            buffers.bindings[task] = binding
        return buffers.bindings[task]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
