"""TensorRT with PyCUDA: engines built from a bundle's graphs, run one after the other on one CUDA stream.

**Not yet run on hardware.** Every call was checked against the published API of TensorRT 8.5, 8.6, 10.0, 10.13 and
11.0 (the sources of its Python bindings, github:NVIDIA/TensorRT) and of PyCUDA 2020.1 to 2026.1 (its sources,
github:inducer/pycuda), and is tested against a strict stand-in of both, which computes by ONNX Runtime; see
tests/runtime/gpu/tensorrt_standin.py.

TensorRT comes with JetPack 5 (8.5, for a Python older than this package's), 6 (8.6 and 10.3) and 7 (10.13), and for
desktop GPUs. The paper's Jetson Nano stops at JetPack 4 and TensorRT 8.2, which has neither named tensor addresses nor
images of uint8.

Engines are built by `vifa bundle build`, and at start only where `Options.build` says so. They lie in a folder that
must be trusted; see `engine_cache`. How graphs are written for TensorRT is in `tensorrt_graphs`, how they are built in
`tensorrt_build`, how they run in `tensorrt_chain`.

This is the only file that imports TensorRT and PyCUDA; the others are handed both.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, Options, RawResults
from vifa_runtime.backends.engine_cache import (
    EngineError,
    EngineKey,
    Size,
    build_command,
    built_sizes,
    default_folder,
    read_engine,
    size_text,
)
from vifa_runtime.backends.gpu import Gpu
from vifa_runtime.backends.tensorrt_build import (
    NO_CALIBRATION,
    Built,
    Order,
    Report,
    build_engines,
    engine_key,
    needs_calibration,
)
from vifa_runtime.backends.tensorrt_calls import version_of
from vifa_runtime.backends.tensorrt_chain import ChainError, EngineChain
from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_runtime.messages import first_line

OLDEST = (8, 5)


class TensorRtBackend:
    """See `vifa_runtime.backends.Backend`. The thread that loads the engines runs and closes them.

    Engines are of one size. Where the size is known, by the bundle or because engines of one size only are there, they
    are loaded at once; else with the first pair, and again with a pair of another size that was built for.
    """

    def __init__(self, bundle: Bundle, options: Options) -> None:
        """Find the GPU and the engines, and load them where the size is known.

        Raises:
            BackendError: no TensorRT, no PyCUDA, no GPU, no engine that fits; names the mend.
        """
        self._bundle, self._options = bundle, options
        self._folder = options.engines or default_folder()
        self._trt, self._cuda = load_modules()
        self._gpu = Gpu(self._cuda, options.device)
        self._chain: EngineChain | None = None
        self._closed = False
        size = self._known_size()
        if size is not None:
            self._load(size)

    def run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str] = (),
    ) -> RawResults:
        """Run the backbone once, and each task's head and graph; see `Backend.run`. Times are the GPU's."""
        if self._closed:
            raise BackendError("this TensorRT engine is closed")
        if not tasks:
            return RawResults({}, {})
        size = (visible.shape[1], visible.shape[2])
        if self._chain is None or self._chain.size != size:
            self._change(size)
        assert self._chain is not None
        with self._gpu.working(f"running bundle {self._bundle.name}"):
            return self._chain.run(visible, thermal, tasks, fused_only)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`; and `size`, and `cuda_graphs`: how many engines are one, and why others are not.

        Any thread may ask.
        """
        chain, loaded = self._chain, {"size": "none", "cuda_graphs": "none"}
        if chain is not None:
            loaded = {"size": size_text(chain.size), "cuda_graphs": chain.describe_graphs()}
        return {
            "engine": "tensorrt",
            "version": str(self._trt.__version__),
            "device": f"GPU {self._gpu.number}, {self._gpu.name}",
            "precision": self._options.precision,
            "threads": "1",
            **loaded,
        }

    def close(self) -> None:
        """Give back engines, memory and the CUDA context; safe to call twice.

        Raises:
            BackendError: another thread asks than the one that loaded the engines.
        """
        self._close_chain()
        self._gpu.close()
        self._closed = True

    def _known_size(self) -> Size | None:
        """The size of all pairs, or that of the only engines that are there; None where the first pair tells."""
        if self._bundle.working_size is not None:
            return self._bundle.grid(self._bundle.working_size).padded
        sizes = self._built_sizes()
        if not sizes and not self._options.build:
            raise BackendError(
                f"there are no {self._options.precision} engines of bundle {self._bundle.name} in {self._folder}; "
                f"run {self._build_command(None)} --size WIDTHxHEIGHT, with the camera's size"
            )
        return sizes[0] if len(sizes) == 1 else None

    def _built_sizes(self) -> list[Size]:
        digest = hashlib.sha256(self._bundle.graphs[BACKBONE]).hexdigest()
        return built_sizes(self._folder, digest, self._options.precision)

    def _change(self, size: Size) -> None:
        """Load the engines of another size."""
        if not self._options.build and not (self._folder / self._key(BACKBONE, size).file_name).exists():
            sizes = ", ".join(map(size_text, self._built_sizes()))
            raise BackendError(
                f"engines of bundle {self._bundle.name} are built for {sizes or 'no size'}, "
                f"not for {size_text(size)}; run {self._build_command(size)}"
            )
        self._load(size)

    def _load(self, size: Size) -> None:
        """Read the engines of a size, building those that do not fit where that is allowed, and load them.

        Engines of another size stay loaded until these are read, or built, which takes the GPU's memory.
        """
        if self._options.build:
            self._close_chain()
            self._build(size)
        engines = {path: self._read(path, size) for path in self._bundle.graphs}
        self._close_chain()
        was_open = self._gpu.is_open
        if not was_open:
            self._gpu.open()
        try:
            self._load_chain(size, engines)
        except BaseException:
            if not was_open:
                self._gpu.close()
            raise

    def _load_chain(self, size: Size, engines: dict[str, bytes]) -> None:
        with self._gpu.working(f"the engines of bundle {self._bundle.name}"):
            chain = EngineChain(self._trt, self._cuda, self._gpu, self._bundle, size)
            try:
                chain.load(engines)
            except ChainError as error:
                chain.close()
                raise BackendError(f"{error}; remove {self._folder} and run {self._build_command(size)}") from None
            except BaseException:
                chain.close()
                raise
        self._chain = chain

    def _close_chain(self) -> None:
        if self._chain is None:
            return
        with self._gpu.working("closing engines"):
            chain, self._chain = self._chain, None
            chain.close()

    def _read(self, path: str, size: Size) -> bytes:
        key = self._key(path, size)
        try:
            return read_engine(self._folder, key)
        except EngineError as error:
            raise BackendError(
                f"engine {self._folder / key.file_name} for {path} {error}; run {self._build_command(size)}"
            ) from None

    def _key(self, path: str, size: Size) -> EngineKey:
        return engine_key(self._trt, self._gpu, self._bundle, path, self._options.precision, size)

    def _build(self, size: Size) -> None:
        order = Order(self._bundle, self._options.precision, size, self._folder)
        with_own_context = Gpu(self._cuda, self._options.device)
        _build_open(self._trt, self._cuda, with_own_context, order, _say)

    def _build_command(self, size: Size | None) -> str:
        """The command that mends a missing engine."""
        if self._bundle.working_size is not None:
            size = None
        options = self._options
        calibrate = version_of(self._trt) < NO_CALIBRATION and needs_calibration(self._bundle, options.precision)
        return build_command(self._bundle.name, options.precision, size, options.engines, options.device, calibrate)


def build(order: Order, device: int, report: Report) -> list[Built]:
    """Build the engines of a bundle that are missing or do not fit this machine, one after the other.

    Raises:
        BackendError: no TensorRT, no PyCUDA, no GPU, a graph that TensorRT refuses; names the mend.
        PairError: there are no pairs to calibrate with.
    """
    trt, cuda = load_modules()
    return _build_open(trt, cuda, Gpu(cuda, device), order, report)


def load_modules() -> tuple[Any, Any]:
    """TensorRT's module, and PyCUDA's of the driver.

    Raises:
        BackendError: one is missing, or TensorRT is older than 8.5.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:  # OSError: its shared libraries
        raise BackendError(
            f"TensorRT cannot be loaded ({first_line(error)}); on a Jetson it comes with JetPack, elsewhere "
            "pip install tensorrt"
        ) from None
    if version_of(trt) < OLDEST:
        raise BackendError(
            f"TensorRT {trt.__version__} is too old: 8.5 or newer is needed, as JetPack 5, 6 and 7 have it. The Jetson "
            "Nano stops at 8.2; use --backend onnxruntime there"
        )
    try:
        import pycuda.driver as cuda
    except (ImportError, OSError) as error:
        raise BackendError(
            f"PyCUDA cannot be loaded ({first_line(error)}); pip install pycuda, where NVIDIA's driver is installed"
        ) from None
    return trt, cuda


def _build_open(trt: Any, cuda: Any, gpu: Gpu, order: Order, report: Report) -> list[Built]:
    gpu.open()
    try:
        return build_engines(trt, cuda, gpu, order, report)
    finally:
        gpu.close()


def _say(path: str, phase: str, done: int, steps: int) -> None:
    """One line a graph, for builds that nobody watches."""
    if not steps:
        print(f"TensorRT: {path}: {phase}; this takes minutes", file=sys.stderr)
