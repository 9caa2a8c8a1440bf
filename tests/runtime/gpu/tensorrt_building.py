"""Parser, settings and builder of TensorRT's stand-in; see `tensorrt_standin`."""

from __future__ import annotations

import json
import threading
from typing import Any

import onnx
from onnx import TensorProto
from tensorrt_objects import PLAN, VERSIONS, Constructed, Owned, is_old, made_for, or_none, say
from tensorrt_rules import BuildError, calibrate, check_build, infos, parser_problems


class INetworkDefinition(Owned):
    _model: onnx.ModelProto
    _strong = False


class ParserError:
    def __init__(self, node: int, desc: str) -> None:
        self._node, self._desc = node, desc

    def node(self) -> int:
        return self._node

    def desc(self) -> str:
        return self._desc


class OnnxParser(Constructed):
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        assert isinstance(network, INetworkDefinition)
        super().__init__((network, logger), logger)
        self._network: Any = network
        self._errors: list[ParserError] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        self._check()
        assert isinstance(model, bytes)
        self._network._model = onnx.load_model_from_string(model)
        problems = parser_problems(self._network._model, is_old(self._module))
        self._errors = [ParserError(*problem) for problem in problems]
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data


class ITimingCache:
    def __init__(self, name: str, kernels: set[str]) -> None:
        self._name, self._kernels = name, kernels

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps([self._name, sorted(self._kernels)]).encode())


class IBuilderConfig(Owned):
    def __init__(self, keeps: Any) -> None:
        super().__init__(keeps)
        self._flags = {self._module.BuilderFlag.TF32}
        self._cache = self._calibrator = self._monitor = None

    def set_flag(self, flag: Any) -> None:
        assert isinstance(flag, self._module.BuilderFlag)
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        assert isinstance(flag, self._module.BuilderFlag)
        self._flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        assert isinstance(serialized_timing_cache, bytes)
        try:
            name, kernels = json.loads(serialized_timing_cache or json.dumps([self._name(), []]))
        except ValueError:
            return None
        return ITimingCache(name, set(kernels))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        is_foreign = cache._name != self._name() or (self._machine.trt.times_are_foreign and cache._kernels)
        if is_foreign and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    @property
    def int8_calibrator(self) -> Any:
        return self._calibrator

    @int8_calibrator.setter
    def int8_calibrator(self, value: Any) -> None:
        assert isinstance(value, self._module.IInt8EntropyCalibrator2) and value._ready
        self._calibrator = value

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, value: Any) -> None:
        assert isinstance(value, self._module.IProgressMonitor) and value._ready
        self._monitor = value

    def _name(self) -> str:
        return f"{self._module.__version__} {self._machine.gpus[self._context.number]}"


class Builder(Constructed):
    def __init__(self, logger: Any) -> None:
        super().__init__(logger, logger)

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        self._check()
        names = self._module.NetworkDefinitionCreationFlag
        if is_old(self._module):
            assert flags == 1 << int(names.EXPLICIT_BATCH), "the ONNX parser wants an explicit batch"
        else:
            assert flags in (0, 1 << int(names.STRONGLY_TYPED))
        network = or_none(self._logger, lambda: self._make(INetworkDefinition))
        if network is not None:
            is_11 = self._module.__version__ == VERSIONS["11"]
            network._strong = is_11 or (flags != 0 and not is_old(self._module))
        return network

    def create_builder_config(self) -> IBuilderConfig | None:
        self._check()
        return or_none(self._logger, lambda: self._module.IBuilderConfig(self))

    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
        self._check()
        assert isinstance(network, INetworkDefinition) and isinstance(config, IBuilderConfig)
        try:
            return IHostMemory(self._build(network, config))
        except BuildError as error:
            say(self._logger, str(error))
            return None

    def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
        model, log = network._model, self._machine.trt
        flags = {flag.name for flag in config._flags}
        check_build(model, network._strong, flags, config._calibrator is not None)
        if log.refuse_builds:
            raise BuildError(log.refuse_builds)
        if config._monitor is not None:
            _watch(config._monitor)
        calibrated = calibrate(self._machine, config._calibrator, model) if config._calibrator else []
        kernels = {f"{node.op_type} {len(node.input)}" for node in model.graph.node}
        known = config._cache._kernels if config._cache is not None else set()
        kinds = [value.type.tensor_type.elem_type for value in infos(model)]
        log.builds.append(
            {
                "flags": sorted(flags & {"FP16", "INT8"}),
                "strong": network._strong,
                "exact": "TF32" not in flags,
                "opset": model.opset_import[0].version,
                "halves": kinds.count(TensorProto.FLOAT16),
                "timed": len(kernels - known),
                "calibrated": calibrated,
                "running": self._machine.live["IExecutionContext"],
            }
        )
        known |= kernels
        head = json.dumps(made_for(self)).encode()
        return PLAN + len(head).to_bytes(4, "big") + head + model.SerializeToString()


def _watch(monitor: Any) -> None:
    """Two phases, one inside the other; the inner one comes from another thread, as TensorRT's may."""
    go_on: list[bool] = []
    monitor.phase_start("Building Engine", None, 2)
    monitor.phase_start("Timing tactics", "Building Engine", 1)
    worker = threading.Thread(target=lambda: go_on.append(monitor.step_complete("Timing tactics", 0)))
    worker.start()
    worker.join()
    monitor.phase_finish("Timing tactics")
    go_on += [monitor.step_complete("Building Engine", step) for step in range(2)]
    monitor.phase_finish("Building Engine")
    if not all(go_on):
        raise BuildError("Build was cancelled by the progress monitor")
