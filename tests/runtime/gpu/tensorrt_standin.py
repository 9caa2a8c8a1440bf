"""A strict stand-in for TensorRT's Python module, of versions 8.5 to 11, on the pretended machine of `cuda_standin`.

Where each version's names, arguments and rules were taken from, all in github:NVIDIA/TensorRT unless said otherwise:

- 8.5: tag 8.5.1; 8.6: tag v8.6.1; 10.0: tag v10.0.0; 10.13: tag v10.13.0; 11: tag v11.0. In each of them
  python/src/infer/pyCore.cpp (logger, builder, settings, runtime, engine, context, progress), pyFoundationalTypes.cpp
  (types, host memory), pyGraph.cpp (network), pyInt8.cpp (calibrators; 11 has none), python/src/parsers/pyOnnx.cpp, and
  the docstrings of the same names in python/docstrings.
- Restrictions of uint8: `DataType` in python/docstrings/infer/pyFoundationalTypesDoc.h, the same from 8.5 to 11.
- What parsers read, refuse and read wrong: builtin_op_importers.cpp (onnxOpImporters.cpp in 10.1) and
  docs/operators.md of github:onnx/onnx-tensorrt, tags release/8.5-GA, release/8.6-GA, release/10.0-GA and 10.1-GA.
- 11: docs.nvidia.com, TensorRT 11.0, "Migrating from TensorRT 10.x to 11.x": strongly typed networks only, without
  flags of precision and calibration.

A version has the members listed for it below, and nothing else: what is not documented for it, and what vifa does not
use, raises AttributeError or TypeError as there. (Host memory has no buffer here, only `bytes()` of it.) An engine is
its ONNX graph, which ONNX Runtime computes on the CPU when the stream is waited for.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import types
from typing import Any

from cuda_standin import Machine, make_driver
from libcuda_standin import LibCuda
from tensorrt_building import Builder, IBuilderConfig, OnnxParser
from tensorrt_objects import VERSIONS, IInt8EntropyCalibrator2, ILogger, IProgressMonitor, Log
from tensorrt_running import Runtime

_TYPES_8 = ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"]
_FLAGS_8 = ["FP16", "INT8", "DEBUG", "TF32", "SPARSE_WEIGHTS", "OBEY_PRECISION_CONSTRAINTS"]
_FLAGS_11 = ["DEBUG", "TF32", "SPARSE_WEIGHTS", "STRIP_PLAN"]
ENUMS: dict[str, dict[str, list[str]]] = {
    "8.5": {"DataType": _TYPES_8, "BuilderFlag": _FLAGS_8, "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH"]},
    "8.6": {"DataType": [*_TYPES_8, "FP8"], "BuilderFlag": [*_FLAGS_8, "FP8"]},
    "10.0": {
        "DataType": [*_TYPES_8, "FP8", "BF16", "INT64", "INT4"],
        "BuilderFlag": [*_FLAGS_8, "BF16", "FP8", "STRIP_PLAN"],
        "NetworkDefinitionCreationFlag": ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    },
    "10.13": {"DataType": [*_TYPES_8, "FP8", "BF16", "INT64", "INT4", "FP4", "E8M0"]},
    "11": {"BuilderFlag": _FLAGS_11, "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"]},
}
ONLY = {  # what not every version has
    "int8_calibrator": ("8.5", "8.6", "10.0", "10.13"),
    "IInt8EntropyCalibrator2": ("8.5", "8.6", "10.0", "10.13"),
    "progress_monitor": ("10.0", "10.13", "11"),
    "IProgressMonitor": ("10.0", "10.13", "11"),
}


def make_tensorrt(version: str, machine: Machine) -> types.ModuleType:
    """The module `tensorrt` of one of VERSIONS on a machine; `machine.trt` keeps what was asked of it."""
    module = types.ModuleType("tensorrt")
    module.__version__ = VERSIONS[version]
    documented: dict[str, list[str]] = {}
    for known, enums in ENUMS.items():
        documented |= enums
        if known == version:
            break
    for name, members in documented.items():
        kind = enum.Enum if name == "DataType" else enum.IntEnum
        setattr(module, name, kind(name, {member: number for number, member in enumerate(members)}))
    module.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    machine.trt = Log()
    for made in (ILogger, IProgressMonitor, IInt8EntropyCalibrator2, Builder, OnnxParser, IBuilderConfig, Runtime):
        if version in ONLY.get(made.__name__, VERSIONS):
            made.bind(machine, module)
    for name in ("int8_calibrator", "progress_monitor"):
        if version not in ONLY[name]:
            setattr(module.IBuilderConfig, name, _Undocumented())
    return module


class _Undocumented:
    """A member that the class has, but not in this version."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        raise AttributeError("not documented for this version")

    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError("not documented for this version")


def install(monkeypatch: Any, version: str, machine: Machine) -> Machine:
    """Have `import tensorrt` and `import pycuda.driver` give the stand-ins, and ctypes their libcuda."""
    package, driver = types.ModuleType("pycuda"), make_driver(machine)
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt(version, machine))
    real = ctypes.CDLL

    def load(name: str, *arguments: Any) -> Any:
        if name != "libcuda.so.1":
            return real(name, *arguments)
        if not machine.has_driver:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return LibCuda(machine)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return machine
