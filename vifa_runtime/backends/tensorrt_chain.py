"""A bundle's engines for images of one size, chained on the GPU: what one writes the next one reads, without a copy.

    visible, thermal -> backbone -> features -> head of each wanted task -> fused image -> task graph -> boxes or mask

One stream, one place in memory for every tensor, and each engine's launch recorded as a CUDA graph where that can be
had. TensorRT's and PyCUDA's modules are handed in; every call needs the GPU's context current.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, RawResults
from vifa_runtime.backends.cuda_graphs import GraphDriver, GraphError, RecordedGraph
from vifa_runtime.backends.gpu import Gpu
from vifa_runtime.backends.tensorrt_calls import make, make_logger, refusal
from vifa_runtime.bundle import BACKBONE, IMAGES, Bundle
from vifa_runtime.messages import first_line


class ChainError(BackendError):
    """Engines that do not fit together; building them again mends it."""


@dataclass
class _Stage:
    """One engine with its tensors in place; `outputs` go to the host."""

    context: Any
    engine: Any
    end: Any  # event
    outputs: dict[str, str]  # name of the tensor -> of its buffer
    graph: RecordedGraph | None = None
    plain: str = ""  # why it is launched without a graph


@dataclass
class _Buffer:
    """A tensor's place on the GPU, and on the host where it goes in or out: page-locked, and what the caller gets."""

    device: Any
    shape: tuple[int, ...]
    dtype: type
    locked: Any = None
    result: Any = None


class EngineChain:
    """Owns engines, stream and memory until `close`."""

    def __init__(self, trt: Any, cuda: Any, gpu: Gpu, bundle: Bundle, size: tuple[int, int]) -> None:
        """Make an empty chain for padded images of (height, width); it holds nothing before `load`."""
        self._trt, self._cuda, self._gpu = trt, cuda, gpu
        self.size = size
        self._tasks = {task.name: task for task in bundle.tasks}
        self._heads = {task.graph: task.head for task in bundle.tasks if task.graph}
        self._stages: dict[str, _Stage] = {}
        self._buffers: dict[str, _Buffer] = {}
        self._logger: Any = None
        self._runtime: Any = None
        self._stream: Any = None
        self._start: Any = None

    def load(self, engines: Mapping[str, bytes]) -> None:
        """Load engines, the backbone's first, and run each of them once.

        Args:
            engines: path of the graph -> bytes of the engine, which the caller vouches for.

        Raises:
            BackendError: TensorRT refuses one, or the GPU's memory is full; `close` it then.
            ChainError: they do not fit together.
        """
        self._logger = make_logger(self._trt)
        self._runtime = make(self._gpu, self._logger, "a runtime", lambda: self._trt.Runtime(self._logger))
        self._stream, self._start = self._cuda.Stream(), self._cuda.Event()
        for path, data in engines.items():
            self._load_stage(path, data)
        for name in self._images():
            self._lock(self._buffers[name])
        self._record()

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str],
    ) -> RawResults:
        """Run wanted engines; see `Backend.run`."""
        self._start.record(self._stream)
        images: dict[str, NDArray] = {"visible": visible, "thermal": thermal}
        for name in self._images():
            buffer = self._buffers[name]
            np.copyto(buffer.locked, images[name])
            self._cuda.memcpy_htod_async(buffer.device, buffer.locked, self._stream)
        stages = {"backbone": BACKBONE}
        for name in tasks:
            graph = self._tasks[name].graph
            stages[f"head.{name}"] = self._tasks[name].head
            if graph is not None and name not in fused_only:
                stages[f"task.{name}"] = graph
        for path in stages.values():
            self._launch(path)
        self._stream.synchronize()
        fetched = {path: self._fetch(path) for path in stages.values()}
        milliseconds, last = {}, self._start
        for stage, path in stages.items():
            milliseconds[stage] = self._stages[path].end.time_since(last)
            last = self._stages[path].end
        fused = {name: fetched[self._tasks[name].head]["fused"] for name in tasks}
        outputs = {stage[5:]: fetched[path] for stage, path in stages.items() if stage.startswith("task.")}
        return RawResults(fused, milliseconds, outputs)

    def describe_graphs(self) -> str:
        """How many engines are launched as a CUDA graph, and why others are not."""
        stages = list(self._stages.values())  # the caller may be another thread than the one that closes
        recorded = sum(stage.graph is not None for stage in stages)
        reasons = sorted({stage.plain for stage in stages if stage.plain})
        return f"{recorded} of {len(stages)} engines" + (f" ({'; '.join(reasons)})" if reasons else "")

    def close(self) -> None:
        """Give everything back, by letting go of it: PyCUDA and TensorRT free what nobody has. Safe to call twice."""
        for stage in self._stages.values():
            if stage.graph is not None:
                stage.graph.close()
        self._stages.clear()
        self._buffers.clear()
        self._stream = self._start = None
        self._runtime = None
        self._logger = None  # which must outlive the runtime

    def _load_stage(self, path: str, data: bytes) -> None:
        what = f"the engine of {path}"
        engine = make(self._gpu, self._logger, what, lambda: self._runtime.deserialize_cuda_engine(data))
        context = make(self._gpu, self._logger, f"memory for {what}", engine.create_execution_context)
        stage = _Stage(context, engine, self._cuda.Event(), {})
        self._stages[path] = stage
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        for name in names:
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            key = self._source(path, name) if is_input else f"{path}/{name}"
            buffer = self._place(key, path, name, engine, is_input)
            if not context.set_tensor_address(name, int(buffer.device)):
                raise ChainError(f"the engine of {path} does not take the tensor {name}")
            if not is_input and path != BACKBONE:
                self._lock(buffer)
                stage.outputs[name] = key

    def _images(self) -> list[str]:
        """Which images any engine looks at; TensorRT may drop an input that nothing is computed from."""
        return [name for name in IMAGES if name in self._buffers]

    def _source(self, path: str, name: str) -> str:
        """Which buffer an engine reads for its input `name`."""
        if path in self._heads:
            return f"{self._heads[path]}/fused"
        return name if name in IMAGES else f"{BACKBONE}/{name}"

    def _place(self, key: str, path: str, name: str, engine: Any, is_input: bool) -> _Buffer:
        """The buffer of a tensor; the first engine that has it makes it, later ones must see it alike."""
        shape = tuple(engine.get_tensor_shape(name))
        dtypes = {self._trt.DataType.FLOAT: np.float32, self._trt.DataType.UINT8: np.uint8}
        dtype = dtypes.get(engine.get_tensor_dtype(name))
        known = self._buffers.get(key)
        if known is not None and is_input and (known.shape, known.dtype) == (shape, dtype):
            return known
        if dtype is None or min(shape, default=0) < 1 or (is_input and key not in IMAGES) or known is not None:
            raise ChainError(f"the engine of {path} has the tensor {name} of {shape}, which the others do not fit")
        if is_input and shape[1:3] != self.size:
            raise ChainError(f"the engine of {path} takes images of {shape}, not of {self.size}")
        device = self._cuda.mem_alloc(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        buffer = self._buffers[key] = _Buffer(device, shape, dtype)
        return buffer

    def _lock(self, buffer: _Buffer) -> None:
        """Give a buffer its page-locked half on the host, and one that outlives this chain."""
        buffer.locked = self._cuda.pagelocked_empty(buffer.shape, buffer.dtype)
        buffer.result = np.empty(buffer.shape, buffer.dtype)

    def _record(self) -> None:
        """Run every engine once, as TensorRT wants it before a recording, then record its launch."""
        for path in self._stages:
            self._enqueue(path)
        self._stream.synchronize()
        try:
            driver = GraphDriver()
        except GraphError as error:
            for stage in self._stages.values():
                stage.plain = str(error)
            return
        for path, stage in self._stages.items():
            try:
                stage.graph = driver.record(self._stream.handle, partial(self._enqueue, path))
            except (GraphError, BackendError) as error:
                stage.plain = first_line(error)

    def _launch(self, path: str) -> None:
        """Launch an engine, fetch what the host wants of it, and mark the end."""
        stage = self._stages[path]
        if stage.graph is not None:
            try:
                stage.graph.launch(self._stream.handle)
            except GraphError as error:
                stage.graph.close()
                stage.graph, stage.plain = None, str(error)
        if stage.graph is None:
            self._enqueue(path)
        for key in stage.outputs.values():
            buffer = self._buffers[key]
            self._cuda.memcpy_dtoh_async(buffer.locked, buffer.device, self._stream)
        stage.end.record(self._stream)

    def _enqueue(self, path: str) -> None:
        self._logger.errors = []
        if not self._stages[path].context.execute_async_v3(self._stream.handle):
            raise refusal(self._gpu, self._logger, f"TensorRT failed on {path}", f"the engine of {path}")

    def _fetch(self, path: str) -> dict[str, NDArray]:
        """What an engine wrote for the host, in arrays that stay when page-locked memory goes."""
        found = {}
        for name, key in self._stages[path].outputs.items():
            np.copyto(self._buffers[key].result, self._buffers[key].locked)
            found[name] = self._buffers[key].result
        return found
