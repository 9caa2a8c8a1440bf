"""ONNX Runtime on a GPU, by its CUDA or TensorRT provider: features stay on the device from backbone to heads.

A pair goes up once, and what is asked for comes down once. Not yet run on hardware; tests run it on the device `cpu`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import BackendError, Options, RawResults
from vifa_runtime.backends.engine_cache import default_folder
from vifa_runtime.backends.onnxruntime import MERGED, OnnxRuntimeBackend, checked_options, ort
from vifa_runtime.bundle import BACKBONE, Bundle

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
DEVICE = "cuda"
PACKAGE = "onnxruntime-gpu"


class OnnxRuntimeGpuBackend(OnnxRuntimeBackend):
    """See `vifa_runtime.backends.Backend`. Results are the caller's own."""

    def __init__(self, bundle: Bundle, options: Options, provider: str) -> None:
        """Make a session a graph.

        Args:
            provider: key of `PROVIDERS`. `tensorrt` builds its engines at start, into `options.engines`.

        Raises:
            BackendError: this ONNX Runtime has no such provider, the provider cannot be loaded, or it refuses a graph.
        """
        wanted = PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise BackendError(
                f"this ONNX Runtime has no {wanted}; pip uninstall onnxruntime, pip install {PACKAGE}, or use the back "
                "end onnxruntime"
            )
        self._kind, self._engine = provider, wanted
        self._device = (DEVICE, options.device)
        super().__init__(bundle, options)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "engine": f"onnxruntime {self._engine}",
            "version": ort.__version__,
            "device": f"{self._device[0]} {self._device[1]}",
            "precision": self._options.precision,
            "threads": str(self._options.threads),
        }

    def _tune(self, graphs: dict[str, bytes], bundle: Bundle) -> dict[str, bytes]:
        return graphs

    def _run(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray[np.float32],
        tasks: Sequence[str],
        fused_only: Collection[str],
    ) -> RawResults:
        clock: dict[str, float] = {}
        pair = {"visible": self._up(visible), "thermal": self._up(thermal)}
        fused: dict[str, Any] = {}  # on the device
        if self._is_merged(tasks):
            outputs = self._step(MERGED, pair, clock, "fusion")
            fused = {name: outputs[f"{name}/fused"] for name in tasks}
        else:
            known = pair | self._step(BACKBONE, pair, clock, "backbone")
            for name in tasks:
                fused[name] = self._step(self._tasks[name].head, known, clock, f"head.{name}")["fused"]
        found = {}
        for name in tasks:
            graph = self._tasks[name].graph
            if graph is not None and name not in fused_only:
                outputs = self._step(graph, {"image": fused[name]}, clock, f"task.{name}")
                found[name] = {output: value.numpy() for output, value in outputs.items()}
        return RawResults({name: image.numpy() for name, image in fused.items()}, clock, found)

    def _step(self, path: str, known: Mapping[str, Any], clock: dict[str, float], stage: str) -> dict[str, Any]:
        """Run one graph on what is known, by name; its outputs stay on the device."""
        start = time.perf_counter()
        session = self._sessions[path]
        binding = session.io_binding()
        for value in session.get_inputs():
            binding.bind_ortvalue_input(value.name, known[value.name])
        names = [value.name for value in session.get_outputs()]
        for name in names:
            binding.bind_output(name, *self._device)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        clock[stage] = 1e3 * (time.perf_counter() - start)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def _up(self, array: NDArray) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(array, *self._device)

    def _make_session(self, graph: bytes) -> Any:
        providers = [(self._engine, self._provider_options())]
        session = ort.InferenceSession(graph, checked_options(), providers=providers, enable_fallback=False)
        if session.get_providers()[0] != self._engine:  # it only warns, and would go on with the CPU
            raise BackendError(
                f"{self._engine} cannot be loaded; check the GPU's driver, and that CUDA and cuDNN fit {PACKAGE} "
                f"{ort.__version__}"
            )
        return session

    def _provider_options(self) -> dict[str, str]:
        chosen = {"device_id": str(self._options.device)}
        if self._kind == "tensorrt":
            folder = self._options.engines or default_folder("onnxruntime-tensorrt")
            chosen |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
            chosen |= {"trt_fp16_enable": str(int(self._options.precision == "fp16"))}
        return chosen
