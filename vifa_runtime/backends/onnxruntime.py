"""ONNX Runtime on the CPU: tensors are handed from backbone to heads to task graphs without a copy.

Where every task is wanted, backbone and heads run as one merged graph, which is faster; for some of them, one after the
other, so that nothing is computed that nobody wants. Both give the same bytes.

All tensors of a size are bound once to NumPy arrays that are used again for every pair of that size. How large the
features and the results of task graphs are, the first run of that size tells; `graph_check` has seen to it that
nothing but the size of the image decides it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, Options, RawResults
from vifa_runtime.backends.cheaper_graphs import fuse_slopes, sum_taps
from vifa_runtime.backends.merge import merge_fusion
from vifa_runtime.backends.small_products import products_overflow
from vifa_runtime.backends.wide_convolutions import widen_fusion
from vifa_runtime.bundle import BACKBONE, Bundle, Task
from vifa_runtime.messages import first_line

try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendError(f"ONNX Runtime cannot be loaded ({error}); pip install onnxruntime") from None

MERGED = "fusion"  # a path that no file of a bundle has


@dataclass(frozen=True)
class _Buffers:
    """Tensors of one image size: bindings by path of the graph, features by name, the rest by task.

    Merged and separate heads write into the same fused images.
    """

    size: tuple[int, int]
    bindings: dict[str, ort.IOBinding] = field(default_factory=dict)
    features: dict[str, NDArray] = field(default_factory=dict)
    fused: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    outputs: dict[str, dict[str, NDArray]] = field(default_factory=dict)

    def image(self, task: str) -> NDArray[np.uint8]:
        """The fused image of a task, (1,H,W,3), always at the same place."""
        if task not in self.fused:
            self.fused[task] = np.empty((1, *self.size, 3), np.uint8)
        return self.fused[task]


class OnnxRuntimeBackend:
    """See `vifa_runtime.backends.Backend`.

    One for another device has its own `_engine`, as messages call it, and its own `_tune`, `_make_session` and `_run`.
    """

    _engine = "ONNX Runtime"

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Make a session a graph.

        Raises:
            BackendError: the engine refuses a graph.
        """
        self._name, self._options = bundle.name, options
        self._threads = options.threads or os.cpu_count() or 1
        self._tasks = {task.name: task for task in bundle.tasks}
        self._sessions = self._open_sessions(bundle)
        self._buffers: _Buffers | None = None

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str] = (),
    ) -> RawResults:
        """Run the backbone once, and each task's head and graph; see `Backend.run`."""
        if not tasks:
            return RawResults({}, {})
        try:
            return self._run(visible, thermal, tasks, fused_only)
        except Exception as error:  # as in _open_sessions
            raise BackendError(f"{self._engine} failed on bundle {self._name}: {first_line(error)}") from error

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
        """Drop sessions and buffers, and with them what they hold on a device."""
        self._buffers = None
        self._sessions = {}

    def _open_sessions(self, bundle: Bundle) -> dict[str, ort.InferenceSession]:
        """A session a graph of the bundle, and where that is wanted and can be done, `MERGED` of backbone and heads."""
        graphs = dict(bundle.graphs)
        options = self._options
        if merged := merge_fusion(bundle, bundle.tasks, options.batch_heads) if options.merge else None:
            graphs[MERGED] = merged
        try:
            return {path: self._make_session(graph) for path, graph in self._tune(graphs, bundle).items()}
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime raises a class of its own for every status
            raise BackendError(f"{self._engine} refuses bundle {bundle.name}: {first_line(error)}") from error

    def _tune(self, graphs: dict[str, bytes], bundle: Bundle) -> dict[str, bytes]:
        """The same graphs as this device computes them fastest."""
        return widen_fusion({path: sum_taps(fuse_slopes(graph)) for path, graph in graphs.items()}, bundle)

    def _make_session(self, graph: bytes) -> ort.InferenceSession:
        return make_session(graph, self._threads)

    def _is_merged(self, tasks: Sequence[str]) -> bool:
        """Whether backbone and heads of these tasks run as one graph."""
        return MERGED in self._sessions and len(tasks) == len(self._tasks)

    def _run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str],
    ) -> RawResults:
        size = (visible.shape[1], visible.shape[2])
        if self._buffers is None or self._buffers.size != size:
            self._buffers = _Buffers(size)
        buffers = self._buffers
        image = _ortvalue(visible)
        milliseconds, outputs = {}, {}

        merged = self._is_merged(tasks)
        start = time.perf_counter()
        if merged:
            self._run_merged(image, _ortvalue(thermal), buffers)
        else:
            self._run_backbone(image, _ortvalue(thermal), buffers)
        milliseconds["fusion" if merged else "backbone"] = 1e3 * (time.perf_counter() - start)
        for name in tasks:
            if not merged:
                start = time.perf_counter()
                self._run_head(self._tasks[name], image, buffers)
                milliseconds[f"head.{name}"] = 1e3 * (time.perf_counter() - start)
            graph = self._tasks[name].graph
            if graph is not None and name not in fused_only:
                start = time.perf_counter()
                outputs[name] = self._run_task(name, graph, buffers)
                milliseconds[f"task.{name}"] = 1e3 * (time.perf_counter() - start)
        return RawResults({name: buffers.fused[name] for name in tasks}, milliseconds, outputs)

    def _run_merged(self, visible: ort.OrtValue, thermal: ort.OrtValue, buffers: _Buffers) -> None:
        session = self._sessions[MERGED]
        if MERGED not in buffers.bindings:
            buffers.bindings[MERGED] = session.io_binding()
            for name in self._tasks:
                buffers.bindings[MERGED].bind_ortvalue_output(f"{name}/fused", _ortvalue(buffers.image(name)))
        binding = buffers.bindings[MERGED]
        binding.bind_ortvalue_input("visible", visible)
        binding.bind_ortvalue_input("thermal", thermal)
        session.run_with_iobinding(binding)

    def _run_backbone(self, visible: ort.OrtValue, thermal: ort.OrtValue, buffers: _Buffers) -> None:
        session = self._sessions[BACKBONE]
        if BACKBONE not in buffers.bindings:
            buffers.bindings[BACKBONE] = _bind_unsized_outputs(session)
        binding = buffers.bindings[BACKBONE]
        binding.bind_ortvalue_input("visible", visible)
        binding.bind_ortvalue_input("thermal", thermal)
        session.run_with_iobinding(binding)
        if not buffers.features:
            buffers.features.update(_keep_outputs(session, binding))

    def _run_head(self, task: Task, visible: ort.OrtValue, buffers: _Buffers) -> None:
        session = self._sessions[task.head]
        if task.head not in buffers.bindings:
            binding = session.io_binding()
            for name in {value.name for value in session.get_inputs()} - {"visible"}:
                binding.bind_ortvalue_input(name, _ortvalue(buffers.features[name]))
            binding.bind_ortvalue_output("fused", _ortvalue(buffers.image(task.name)))
            buffers.bindings[task.head] = binding
        binding = buffers.bindings[task.head]
        binding.bind_ortvalue_input("visible", visible)
        session.run_with_iobinding(binding)

    def _run_task(self, name: str, graph: str, buffers: _Buffers) -> dict[str, NDArray]:
        session = self._sessions[graph]
        if graph not in buffers.bindings:
            binding = _bind_unsized_outputs(session)
            binding.bind_ortvalue_input("image", _ortvalue(buffers.fused[name]))
            buffers.bindings[graph] = binding
        binding = buffers.bindings[graph]
        session.run_with_iobinding(binding)
        if name not in buffers.outputs:
            buffers.outputs[name] = _keep_outputs(session, binding)
        return buffers.outputs[name]


def make_session(graph: bytes, threads: int) -> ort.InferenceSession:
    """A session on the CPU, as robots run it: graphs are what was checked, and threads do not spin."""
    options = checked_options()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait gain little on an idle machine and lose most of the speed on a shared one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if b"DequantizeLinear" in graph and products_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")  # kernels that don't, and are slower
    # With the fallback, what it cannot read is told on stdout and tried again.
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=False)


def checked_options() -> ort.SessionOptions:
    """Options of a session on any device: the graph is what was checked, and what fails is raised."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # What was checked is ONNX; without this the bytes of ONNX Runtime's own format would be taken as such.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _ortvalue(array: NDArray) -> ort.OrtValue:
    """The array's own memory, as ONNX Runtime takes it."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _bind_unsized_outputs(session: ort.InferenceSession) -> ort.IOBinding:
    """A binding whose outputs the first run allocates."""
    binding = session.io_binding()
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return binding


def _keep_outputs(session: ort.InferenceSession, binding: ort.IOBinding) -> dict[str, NDArray]:
    """Copy what the first run allocated into arrays, and bind those, so that later runs write into them.

    Copies, because before ONNX Runtime 1.30 what `get_outputs` gives dies with the binding's outputs.
    """
    names = [output.name for output in session.get_outputs()]
    kept = {name: value.numpy().copy() for name, value in zip(names, binding.get_outputs(), strict=True)}
    binding.clear_binding_outputs()
    for name, array in kept.items():
        binding.bind_ortvalue_output(name, _ortvalue(array))
    return kept
