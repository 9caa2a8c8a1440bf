"""Engines from a bundle's graphs, by TensorRT 8.5 to 11, whose module is handed in as `trt`.

- 8.5 and 8.6 choose types themselves, within what flags allow: none for FP32, FP16 for FP16, FP16 and INT8 for INT8,
  which is calibrated where the graph brings no scales of its own.
- 10 takes them from the graph (strongly typed): for FP16 its convolutions are written in float16, for INT8 it has
  scales of its own. Without those it is calibrated, weakly typed, with the flags of 8; deprecated since 10.1.
- 11 takes them from the graph, and has neither those flags nor calibration.

In a bundle that brings scales for some of its graphs, the others are built in FP16. FP32 is without TF32, whose
products have the 10 bits of FP16's: who wants that speed asks for FP16. Not yet run on hardware.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.calibration import CalibrationPairs
from vifa_runtime.backends.engine_cache import (
    EngineError,
    EngineKey,
    make_folder,
    read_engine,
    seal,
    size_text,
    unseal,
    write_engine,
)
from vifa_runtime.backends.gpu import Gpu
from vifa_runtime.backends.tensorrt_calls import make, make_logger, refusal, version_of
from vifa_runtime.backends.tensorrt_graphs import Rewritten, is_quantised, rewrite
from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_runtime.files import write_atomically
from vifa_runtime.graph_tools import Shape, image_shapes
from vifa_runtime.messages import first_line

NO_CALIBRATION = (11, 0)  # the first version without

Report = Callable[[str, str, int, int], None]  # path of the graph, what is done, steps done, of how many (0: unknown)


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        size: (height, width) of the padded images.
        folder: of the engines.
        calibration: folder of pairs for INT8.
    """

    bundle: Bundle
    precision: str
    size: tuple[int, int]
    folder: Path
    calibration: Path | None = None


@dataclass(frozen=True)
class Built:
    """One engine: the path of its graph in the bundle, its file, whether it was there already, seconds and bytes."""

    graph: str
    file: Path
    kept: bool
    seconds: float
    bytes: int


@dataclass(frozen=True)
class _Plan:
    """How one graph is built: flags of the builder by name, how the network is typed, and what precision is within."""

    flags: tuple[str, ...] = ()
    strong: bool = False
    half: bool = False
    calibrate: bool = False
    exact: bool = False


def engine_key(trt: Any, gpu: Gpu, bundle: Bundle, path: str, precision: str, size: tuple[int, int]) -> EngineKey:
    """What an engine of this machine for the graph at `path` is known by."""
    return EngineKey(
        graph=hashlib.sha256(bundle.graphs[path]).hexdigest(),
        tensorrt=str(trt.__version__),
        gpu=gpu.name,
        capability=gpu.capability,
        precision=precision,
        size=size_text(size),
    )


def needs_calibration(bundle: Bundle, precision: str) -> bool:
    """Whether INT8 is to be had by calibration alone."""
    return precision == "int8" and not any(map(is_quantised, bundle.graphs.values()))


def build_engines(trt: Any, cuda: Any, gpu: Gpu, order: Order, report: Report) -> list[Built]:
    """Build the engines that are missing or do not fit; the GPU must be open.

    Raises:
        BackendError: TensorRT refuses a graph, or INT8 cannot be had like this; names the mend.
        PairError: there are no pairs to calibrate with.
    """
    pairs = _calibration(trt, order)
    make_folder(order.folder)
    built: list[Built] = []
    features: dict[str, Shape] = {}
    for path, graph in order.bundle.graphs.items():
        start = time.perf_counter()
        plan = _plan(version_of(trt)[0], order.precision, is_quantised(graph), pairs is not None)
        rewritten = _rewrite(trt, order, path, features, plan)
        if path == BACKBONE:
            features = rewritten.outputs
        key = engine_key(trt, gpu, order.bundle, path, order.precision, order.size)
        key = replace(key, calibration=pairs.digest if pairs else "")
        try:
            engine = read_engine(order.folder, key, compare_calibration=True)
            built.append(Built(path, order.folder / key.file_name, True, 0.0, len(engine)))
            continue
        except EngineError:
            pass
        report(path, f"building for {key.size} in {key.precision}", 0, 0)
        with gpu.working(f"building {path}"), ExitStack() as stack:
            calibrator = _make_calibrator(trt, cuda, pairs.inputs(path), stack) if plan.calibrate and pairs else None
            engine = _build(trt, gpu, plan, rewritten, calibrator, order.folder, _Progress(path, report))
        file = write_engine(order.folder, key, engine)
        built.append(Built(path, file, False, time.perf_counter() - start, len(engine)))
    return built


def _calibration(trt: Any, order: Order) -> CalibrationPairs | None:
    """The pairs, where they are needed."""
    if not needs_calibration(order.bundle, order.precision):
        return None
    if version_of(trt) >= NO_CALIBRATION:
        raise BackendError(
            f"TensorRT {trt.__version__} does not calibrate any more: INT8 needs a bundle whose graphs have their own "
            f"scales (QuantizeLinear and DequantizeLinear), and {order.bundle.name} has none; run vifa bundle quantize "
            "first, or use --precision fp16"
        )
    if order.calibration is None:
        raise BackendError(
            f"INT8 needs pairs like those the robot sees, to measure the range of every tensor of {order.bundle.name}; "
            "run vifa bundle build with --calibration FOLDER, which holds vi/ and ir/"
        )
    return CalibrationPairs(order.bundle, order.calibration, order.size)


def _plan(major: int, precision: str, quantised: bool, calibrate: bool) -> _Plan:
    """See the module. A graph with scales of its own is built with them, whatever the precision of the rest."""
    if calibrate:
        return _Plan(flags=("FP16", "INT8"), calibrate=True)
    wide = precision == "fp32"
    if major >= 10:
        return _Plan(strong=True, half=not wide, exact=wide)
    flags = (() if wide else ("FP16",)) + (("INT8",) if quantised else ())
    return _Plan(flags=flags, exact=wide)


def _rewrite(trt: Any, order: Order, path: str, features: Mapping[str, Shape], plan: _Plan) -> Rewritten:
    shapes = {**features, **image_shapes(order.size)}
    try:
        return rewrite(order.bundle.graphs[path], shapes, old=version_of(trt)[0] < 10, half=plan.half)
    except Exception as error:  # onnx raises bare C++ exceptions of several types
        raise BackendError(f"{path} of bundle {order.bundle.name}: {first_line(error)}") from None


def _build(
    trt: Any, gpu: Gpu, plan: _Plan, graph: Rewritten, calibrator: Any, folder: Path, progress: _Progress
) -> bytes:
    """Bytes of the engine of one graph; keeps the times of kernels that it measured."""
    logger = make_logger(trt)
    builder = make(gpu, logger, "a builder", lambda: trt.Builder(logger))
    network = make(gpu, logger, "a network", lambda: builder.create_network(*_creation_flags(trt, plan)))
    parser = make(gpu, logger, "a parser", lambda: trt.OnnxParser(network, logger))
    if not parser.parse(graph.data):
        raise BackendError(f"TensorRT {trt.__version__} refuses {progress.path}: {_parser_error(parser, graph)}")
    config = make(gpu, logger, "a builder's settings", builder.create_builder_config)
    for flag in plan.flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if plan.exact:
        config.clear_flag(trt.BuilderFlag.TF32)
    if calibrator is not None:
        config.int8_calibrator = calibrator
    monitor = _make_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    times = _TimingCache(trt, gpu, folder)
    times.give_to(config)
    logger.errors = []
    engine = builder.build_serialized_network(network, config)
    if progress.interruption is not None:
        raise progress.interruption
    if calibrator is not None and calibrator.failure is not None:
        raise calibrator.failure
    if engine is None:
        raise refusal(
            gpu, logger, f"TensorRT {trt.__version__} cannot build {progress.path}", f"building {progress.path}"
        )
    times.take_from(config)
    return bytes(engine)


def _creation_flags(trt: Any, plan: _Plan) -> tuple[int, ...]:
    """How a network is typed: a choice in 10 only, and before it an explicit batch was one."""
    major = version_of(trt)[0]
    if major < 10:
        return (1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),)
    if major == 10 and plan.strong:
        return (1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)
    return ()


def _parser_error(parser: Any, graph: Rewritten) -> str:
    """The parser's first complaint, with the operator that it is about."""
    if not parser.num_errors:
        return "it gives no reason"
    error = parser.get_error(0)
    nodes = onnx.load_model_from_string(graph.data).graph.node
    where = f"operator {nodes[error.node()].op_type}: " if 0 <= error.node() < len(nodes) else ""
    return where + first_line(error.desc())


class _Progress:
    """Where a build stands; called by TensorRT's threads."""

    def __init__(self, path: str, report: Report) -> None:
        self.path, self._report = path, report
        self._lock = threading.Lock()
        self._steps: dict[str, tuple[int, int]] = {}  # phase -> steps done, of how many; the outermost first
        self.interruption: BaseException | None = None

    def start(self, phase: str, steps: int) -> None:
        """A phase begins."""
        self._change(phase, (0, steps))

    def step(self, phase: str, done: int) -> bool:
        """Steps of a phase are done; returns whether to go on."""
        with self._lock:
            steps = self._steps.get(phase, (0, 0))[1]
        self._change(phase, (done, steps))
        return self.interruption is None

    def finish(self, phase: str) -> None:
        """A phase ends."""
        self._change(phase, None)

    def _change(self, phase: str, steps: tuple[int, int] | None) -> None:
        """TensorRT swallows what is raised here; an interruption is kept for whoever waits for the build."""
        try:
            with self._lock:
                if steps is None:
                    self._steps.pop(phase, None)
                else:
                    self._steps[phase] = steps
                shown = next(iter(self._steps.items()), None)
            if shown is not None:
                self._report(self.path, shown[0], *shown[1])
        except BaseException as error:
            self.interruption = error


def _make_monitor(trt: Any, progress: _Progress) -> Any:
    """What TensorRT tells its progress to; None before 9, which told nothing."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step + 1)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def _make_calibrator(trt: Any, cuda: Any, batches: Iterator[Mapping[str, NDArray]], stack: ExitStack) -> Any:
    """What TensorRT asks for pairs; keeps what went wrong as `failure`, for TensorRT would swallow it."""

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.failure: BaseException | None = None
            self._memory: dict[str, Any] = {}

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            try:
                batch = next(batches, None)
                return None if batch is None else [self._upload(name, batch[name]) for name in names]
            except BaseException as error:
                self.failure = error
                return None

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: Any) -> None:
            pass  # scales are of one graph and one set of pairs, and so is the engine that is kept

        def _upload(self, name: str, array: NDArray) -> int:
            if name not in self._memory:
                self._memory[name] = cuda.mem_alloc(array.nbytes)
                stack.callback(self._memory[name].free)
            cuda.memcpy_htod(self._memory[name], array)
            return int(self._memory[name])

    return Calibrator()


class _TimingCache:
    """How long kernels took on this GPU, kept beside the engines so that the next build measures only what is new."""

    def __init__(self, trt: Any, gpu: Gpu, folder: Path) -> None:
        self._head = {"tensorrt": str(trt.__version__), "gpu": gpu.name, "capability": gpu.capability}
        name = hashlib.sha256(repr(sorted(self._head.items())).encode()).hexdigest()[:16]
        self._file = folder / f"timing-{name}.cache"
        self._cache: Any = None

    def give_to(self, config: Any) -> None:
        """Have a build use it; an empty one where the file is missing, damaged or of no use to TensorRT."""
        for data in (self._read(), b""):
            self._cache = config.create_timing_cache(data)
            if self._cache is not None and config.set_timing_cache(self._cache, False):
                return

    def take_from(self, config: Any) -> None:
        """Keep what a build measured."""
        cache = config.get_timing_cache()
        data = None if cache is None else cache.serialize()
        if data is None:
            return
        try:
            write_atomically(self._file, seal(self._head, bytes(data)))
        except OSError as error:
            raise BackendError(f"cannot write {self._file}: {error.strerror}; choose another folder") from None

    def _read(self) -> bytes:
        try:
            return unseal(self._file.read_bytes())[1]
        except (OSError, EngineError):
            return b""
