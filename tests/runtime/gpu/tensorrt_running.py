"""Runtime, engine and context of TensorRT's stand-in; see `tensorrt_standin`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import helper
from tensorrt_objects import PLAN, Constructed, Owned, made_for, or_none, say
from tensorrt_rules import open_session


class IExecutionContext(Owned):
    def __init__(self, engine: ICudaEngine) -> None:
        super().__init__(engine)
        self._engine, self._has_run = engine, False
        self._addresses: dict[str, int] = {}
        self._session = open_session(engine._model)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._check()
        assert type(memory) is int
        if name not in self._engine._tensors or memory % 256:
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._check()
        machine, logger = self._machine, self._engine._keeps._logger
        stream = machine.streams.get(stream_handle)
        assert stream is not None, "this is the default stream, or none"
        if machine.fail_run:
            machine.fail_run -= 1
            say(logger, "Error Code 1: Cuda Runtime (an illegal memory access was encountered)\nmore of it")
            return False
        if self._addresses.keys() != self._engine._tensors.keys():
            say(logger, "Error Code 3: API Usage Error (address is not set)")
            return False
        if stream._captured is not None and (machine.breaks_capture or not self._has_run):
            machine.breaks_capture = max(0, machine.breaks_capture - 1)
            stream._broken = True
            say(logger, "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
            return False
        self._has_run = True
        stream._put(self._compute)
        return True

    def _compute(self) -> None:
        machine, tensors, fed = self._machine, self._engine._tensors, {}
        for name, (is_input, dtype, shape) in tensors.items():
            if is_input:
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                fed[name] = machine.view(self._addresses[name], size).view(dtype).reshape(shape)
        names = [name for name, (is_input, _, _) in tensors.items() if not is_input]
        for name, array in zip(names, self._session.run(names, fed), strict=True):
            machine.view(self._addresses[name], array.nbytes)[:] = array.reshape(-1).view(np.uint8)


class ICudaEngine(Owned):
    def __init__(self, runtime: Runtime, model: onnx.ModelProto) -> None:
        super().__init__(runtime)
        self._model = model
        self._tensors: dict[str, tuple[bool, Any, tuple[int, ...]]] = {}
        used = {name for node in model.graph.node for name in node.input}
        for value in [value for value in model.graph.input if value.name not in used]:
            model.graph.input.remove(value)
        for is_input, values in ((True, model.graph.input), (False, model.graph.output)):
            for value in values:
                tensor = value.type.tensor_type
                dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                self._tensors[value.name] = is_input, dtype, tuple(dim.dim_value for dim in tensor.shape.dim)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._module.TensorIOMode
        return modes.INPUT if self._tensors[name][0] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][2]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {np.dtype(np.float32): "FLOAT", np.dtype(np.uint8): "UINT8", np.dtype(np.float16): "HALF"}
        return self._module.DataType[kinds[np.dtype(self._tensors[name][1])]]

    def create_execution_context(self) -> IExecutionContext | None:
        self._check()
        return or_none(self._keeps._logger, lambda: self._make(IExecutionContext))


class Runtime(Constructed):
    def __init__(self, logger: Any) -> None:
        super().__init__(logger, logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self._check()
        self._machine.trt.deserialised.append(serialized_engine)
        assert serialized_engine[:4] == PLAN, "TensorRT was shown what is no engine"
        end = 8 + int.from_bytes(serialized_engine[4:8], "big")
        assert json.loads(serialized_engine[8:end]) == made_for(self)
        model = onnx.load_model_from_string(serialized_engine[end:])
        return or_none(self._logger, lambda: self._make(ICudaEngine, model))
