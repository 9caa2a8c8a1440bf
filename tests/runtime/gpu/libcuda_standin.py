"""A strict stand-in for the functions of libcuda that capture a stream and launch a graph.

Names and arguments are those of cuda.h since CUDA 11.4 (CUDA Driver API, "Stream Management" and "Graph Management"),
numbers of errors those of `CUresult`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from cuda_standin import Machine

NOT_PERMITTED, INVALIDATED = 800, 901


class LibCuda:
    """What ctypes gives for libcuda.so.1: functions that want their documented argument types set."""

    def __init__(self, machine: Machine) -> None:
        void, out, number, flags = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_ulonglong
        functions = {
            "cuStreamBeginCapture_v2": (self._begin, [void, number]),
            "cuStreamEndCapture": (self._end, [void, out]),
            "cuGraphInstantiateWithFlags": (self._instantiate, [out, void, flags]),
            "cuGraphLaunch": (self._launch, [void, void]),
            "cuGraphExecDestroy": (self._destroy, [void]),
            "cuGraphDestroy": (self._destroy, [void]),
        }
        self._machine = machine
        if machine.has_graphs:
            for name, (work, types_) in functions.items():
                setattr(self, name, _Function(name, work, types_))

    def _begin(self, stream: int, mode: int) -> int:
        assert mode == 1, "other threads must not end the capture"
        self._machine.current("cuStreamBeginCapture")
        if self._machine.refuses_capture:
            return NOT_PERMITTED
        self._machine.streams[stream]._captured = []
        return 0

    def _end(self, stream: int, graph: ctypes.c_void_p) -> int:
        found = self._machine.streams[stream]
        captured, found._captured = found._captured, None
        if found._broken:
            found._broken = False
            return INVALIDATED
        graph.value = self._keep(captured)
        return 0

    def _instantiate(self, executable: ctypes.c_void_p, graph: int, flags: int) -> int:
        assert flags == 0
        if self._machine.refuses_instantiation:
            return NOT_PERMITTED
        executable.value = self._keep(list(self._machine.graphs[graph]))
        return 0

    def _launch(self, executable: int, stream: int) -> int:
        self._machine.current("cuGraphLaunch")
        if self._machine.refuses_launch:
            return NOT_PERMITTED
        for work in self._machine.graphs[executable]:
            self._machine.streams[stream]._put(work)
        return 0

    def _destroy(self, handle: int) -> int:
        del self._machine.graphs[handle]
        return 0

    def _keep(self, work: list[Callable[[], None]]) -> int:
        handle = 0x6000 + next(self._machine.numbers)
        self._machine.graphs[handle] = work
        return handle


class _Function:
    """A function of a C library."""

    def __init__(self, name: str, work: Callable[..., int], documented: list[Any]) -> None:
        self._name, self._work, self._documented = name, work, documented
        self.argtypes: list[Any] | None = None
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> int:
        assert self.argtypes == self._documented and self.restype is ctypes.c_int, self._name
        assert len(arguments) == len(self._documented), self._name
        for kind, argument in zip(self._documented, arguments, strict=True):
            kind.from_param(argument)
        return self._work(*(_plain(argument) for argument in arguments))


def _plain(argument: Any) -> Any:
    """A number, or what a pointer points to."""
    if hasattr(argument, "_obj"):
        return argument._obj
    return argument.value if isinstance(argument, ctypes.c_void_p) else argument
