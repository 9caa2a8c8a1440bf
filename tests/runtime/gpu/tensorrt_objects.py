"""What all objects of TensorRT's stand-in have in common; see `tensorrt_standin`."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from cuda_standin import Bound, Held
from cuda_standin import MemoryError as OutOfMemory

VERSIONS = {"8.5": "8.5.2.2", "8.6": "8.6.1", "10.0": "10.0.1", "10.13": "10.13.0.35", "11": "11.0.0.114"}
PLAN = b"PLAN"  # how an engine begins


class Log:
    """What was asked of TensorRT.

    Attributes:
        builds: for each engine built: flags, whether strongly typed, exact (without TF32), opset, number of float16
            tensors, kernels that were timed anew, arrays that it was calibrated with, engines that ran beside it.
        deserialised: bytes of every engine that TensorRT was shown.
        refuse_builds: what TensorRT logs when it gives no engine; empty where it does.
        times_are_foreign: whether no timing cache is taken.
    """

    def __init__(self) -> None:
        self.builds: list[dict[str, Any]] = []
        self.deserialised: list[bytes] = []
        self.refuse_builds = ""
        self.times_are_foreign = False


class Extended(Bound):
    """Something that the user extends; subclasses must call its `__init__`, as the docstrings say."""

    def __init__(self) -> None:
        self._ready = True


class ILogger(Extended):
    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor(Extended):
    pass


class IInt8EntropyCalibrator2(Extended):
    pass


class Owned(Held):
    """An object of TensorRT's: it needs its context whenever it is touched, and when it dies."""

    NEEDS_CURRENT = True

    def __init__(self, keeps: Any) -> None:
        self._keeps = keeps  # as the bindings do, by py::keep_alive
        super().__init__()

    def _check(self) -> None:
        if self._machine.current(type(self).__name__) is not self._context:
            raise AssertionError(f"{type(self).__name__} is used while another context is current")

    def _make(self, kind: Any, *arguments: Any) -> Any:
        """An object of a class that the module does not have."""
        bound = type(kind.__name__, (kind,), {"_machine": self._machine, "_module": self._module})
        return bound(self, *arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        super().__setattr__(name, value)


def say(logger: Any, text: str) -> None:
    logger.log(type(logger).Severity.ERROR, text)


def or_none(logger: Any, make: Callable[[], Any]) -> Any:
    """An object, or None with a word in the log where the memory is full, as the bindings give a null pointer."""
    try:
        return make()
    except OutOfMemory:
        say(logger, "Error Code 2: OutOfMemory (no further information)")
        return None


class Constructed(Owned):
    """An object with a constructor, which the bindings let fail where they get a null pointer."""

    def __init__(self, keeps: Any, logger: Any) -> None:
        assert isinstance(logger, self._module.ILogger) and logger._ready
        try:
            super().__init__(keeps)
        except OutOfMemory:
            say(logger, "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)")
            raise TypeError("pybind11::init(): factory function returned nullptr") from None
        self._logger = logger


def is_old(module: Any) -> bool:
    return module.__version__.startswith("8.")


def made_for(thing: Any) -> list[Any]:
    """TensorRT and GPU of an engine, as JSON gives them back."""
    name, capability = thing._machine.gpus[thing._context.number]
    return [thing._module.__version__, name, list(capability)]
