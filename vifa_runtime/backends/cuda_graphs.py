"""CUDA graphs: work of a stream recorded once and launched again as one, by the CUDA driver itself.

No PyCUDA has them (searched: 2019.1 to 2026.1), so the six functions are called in libcuda by ctypes, with the stream's
handle that PyCUDA gives. Their names and arguments are those of cuda.h since CUDA 11.4, the first with
`cuGraphInstantiateWithFlags`; JetPack 5 has it. Not yet run on hardware.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

LIBRARY = "libcuda.so.1"
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not end the capture

_HANDLE = ctypes.c_void_p
_OUT = ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS: dict[str, list[Any]] = {
    "cuStreamBeginCapture_v2": [_HANDLE, ctypes.c_int],  # stream, mode
    "cuStreamEndCapture": [_HANDLE, _OUT],  # stream -> graph
    "cuGraphInstantiateWithFlags": [_OUT, _HANDLE, ctypes.c_ulonglong],  # -> executable, graph, flags
    "cuGraphLaunch": [_HANDLE, _HANDLE],  # executable, stream
    "cuGraphExecDestroy": [_HANDLE],
    "cuGraphDestroy": [_HANDLE],
}


class GraphError(RuntimeError):
    """No CUDA graph can be had; the message is the reason. Launching as usual works all the same."""


class GraphDriver:
    """The functions of libcuda that make graphs."""

    def __init__(self) -> None:
        """Find the functions.

        Raises:
            GraphError: the driver is not there, or older than CUDA 11.4.
        """
        try:
            library = ctypes.CDLL(LIBRARY)
            self._functions = {name: getattr(library, name) for name in _FUNCTIONS}
        except (OSError, AttributeError) as error:
            raise GraphError(f"the CUDA driver has no graphs: {error}") from None
        for name, function in self._functions.items():
            function.argtypes, function.restype = _FUNCTIONS[name], ctypes.c_int

    def record(self, stream: int, launch: Callable[[], None]) -> RecordedGraph:
        """Record what `launch` puts on a stream, which does not run it.

        Args:
            stream: handle of a stream that is not the default one; a context must be current.

        Raises:
            GraphError: the driver refuses it. Also what `launch` raises, with the recording ended.
        """
        self._call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
        try:
            launch()
        except BaseException:
            self._destroy("cuGraphDestroy", self._end(stream)[1])
            raise
        status, graph = self._end(stream)
        if status or not graph.value:
            raise GraphError(f"cuStreamEndCapture gives {status}")
        executable = _HANDLE()
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._destroy("cuGraphDestroy", graph)
        return RecordedGraph(self, executable)

    def _end(self, stream: int) -> tuple[int, ctypes.c_void_p]:
        graph = _HANDLE()
        return self._functions["cuStreamEndCapture"](stream, ctypes.byref(graph)), graph

    def _destroy(self, name: str, handle: ctypes.c_void_p) -> None:
        if handle.value:
            self._functions[name](handle)

    def _call(self, name: str, *arguments: Any) -> None:
        if status := self._functions[name](*arguments):
            raise GraphError(f"{name} gives {status}")


class RecordedGraph:
    """A recorded graph, to be launched by the thread and in the context that recorded it."""

    def __init__(self, driver: GraphDriver, executable: ctypes.c_void_p) -> None:
        self._driver, self._executable = driver, executable

    def launch(self, stream: int) -> None:
        """Put the recorded work on a stream.

        Raises:
            GraphError: the driver refuses it.
        """
        self._driver._call("cuGraphLaunch", self._executable, stream)

    def close(self) -> None:
        """Destroy it; safe to call twice."""
        self._driver._destroy("cuGraphExecDestroy", self._executable)
        self._executable = _HANDLE()
