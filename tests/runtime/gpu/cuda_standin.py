"""A strict stand-in for PyCUDA's driver module, on a pretended machine.

Where the calls, their arguments and their behaviour were taken from: github:inducer/pycuda, tags v2020.1 to v2026.1,
which are alike in what is here: doc/driver.rst (names, arguments, exceptions), src/wrapper/wrap_cudadrv.cpp (what the
module has), src/cpp/cuda.hpp (contexts and their threads, what is freed when).

What real CUDA leaves to luck is an error here: copies to and from memory that is not page-locked, results that are read
before the stream was waited for, an object that outlives its context or dies without it. What happens in destructors,
which cannot raise, is kept in `Machine.faults`.
"""

from __future__ import annotations

import itertools
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Error(Exception):
    pass


class MemoryError(Error):  # as PyCUDA calls it
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):
    pass


@dataclass
class Machine:
    """The pretended computer.

    Attributes:
        gpus: name and compute capability of each.
        memory: bytes of each GPU, and of page-locked memory.
        has_graphs: whether libcuda has functions for graphs; `refuses_...` lets one of them fail, `breaks_capture` so
            many launches inside a capture.
        fail_at: number of the allocation that finds the memory full, counted from 1; 0 for none.
        fail_run: how often work that is launched fails from now on; `fail_sync`, how often waiting for it does.
        live: what is there, by kind; `faults`, what was done wrong.
        allocations: names of all allocations so far, contexts and TensorRT's objects among them.
    """

    gpus: tuple[tuple[str, tuple[int, int]], ...] = (("Orin", (8, 7)),)
    memory: int = 1 << 30
    has_driver: bool = True
    has_graphs: bool = True
    refuses_capture: bool = False
    refuses_instantiation: bool = False
    refuses_launch: bool = False
    breaks_capture: int = 0
    fail_at: int = 0
    fail_run: int = 0
    fail_sync: int = 0
    live: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    allocations: list[str] = field(default_factory=list)
    blocks: dict[int, np.ndarray] = field(default_factory=dict)
    used: int = 0
    stacks: dict[int, list[Any]] = field(default_factory=dict)
    streams: Any = field(default_factory=weakref.WeakValueDictionary)
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    trt: Any = None  # what was asked of TensorRT, see tensorrt_standin.Log

    def allocate(self, kind: str) -> bool:
        """Count an allocation; returns whether there is memory for it."""
        self.allocations.append(kind)
        return self.fail_at != len(self.allocations)

    def stack(self) -> list[Any]:
        return self.stacks.setdefault(threading.get_ident(), [])

    def current(self, what: str) -> Any:
        """The context that is current in this thread."""
        if not self.stack():
            raise LogicError(f"{what} failed: invalid device context")
        return self.stack()[-1]

    def check_released(self, kind: str, context: Any, needs_current: bool) -> None:
        """Note it where an object dies in the wrong place: PyCUDA's find their context in their thread, TensorRT's do
        not."""
        if not context.valid:
            self.faults.append(f"{kind} died after its context")
        elif threading.get_ident() != context.thread:
            self.faults.append(f"{kind} died in another thread than its context's")
        elif needs_current and (not self.stack() or self.stack()[-1] is not context):
            self.faults.append(f"{kind} died while its context was not current")

    def assert_clean(self) -> None:
        """Nothing is left, and nothing was done wrong."""
        assert not self.faults, self.faults
        assert not +self.live, dict(+self.live)
        assert not any(self.stacks.values()), "a context is still current, with which PyCUDA ends the process"
        assert (self.used, self.blocks, self.graphs) == (0, {}, {})

    def view(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address of the GPU."""
        for start, block in self.blocks.items():
            if start <= address and address + size <= start + block.size:
                return block[address - start : address - start + size]
        raise LaunchError("cuStreamSynchronize failed: an illegal memory access was encountered")


class Bound:
    """A class of a module that stands in for another, of one machine; `_module` has its other classes."""

    _machine: Machine
    _module: Any

    @classmethod
    def bind(cls, machine: Machine, module: types.ModuleType) -> None:
        """Put the class of this machine into a module."""
        setattr(module, cls.__name__, type(cls.__name__, (cls,), {"_machine": machine, "_module": module}))


class Held(Bound):
    """Something that belongs to the context that was current when it was made."""

    NEEDS_CURRENT = False

    def __init__(self) -> None:
        machine, kind = self._machine, type(self).__name__
        self._context = machine.current(kind)
        if not machine.allocate(kind):
            raise MemoryError(f"{kind} failed: out of memory")
        machine.live[kind] += 1
        self._context.held[kind] += 1
        self._alive = True

    def _release(self) -> None:
        if getattr(self, "_alive", False):
            kind = type(self).__name__
            self._alive = False
            self._machine.live[kind] -= 1
            self._context.held[kind] -= 1
            self._machine.check_released(kind, self._context, self.NEEDS_CURRENT)

    def __del__(self) -> None:
        self._release()


class Context(Bound):
    """Made by Device.make_context only."""

    def __init__(self, device: Device) -> None:
        if not self._machine.allocate("Context"):
            raise MemoryError("cuCtxCreate failed: out of memory")
        self.valid, self.thread, self.number = True, threading.get_ident(), device._number
        self.held: Counter[str] = Counter()
        self._machine.live["Context"] += 1
        self._machine.stack().append(self)

    def push(self) -> None:
        if not self.valid:
            raise LogicError("cuCtxPushCurrent failed: invalid device context")
        if any(self in stack for stack in self._machine.stacks.values()):
            raise LogicError("cuCtxPushCurrent failed: the context is current already")
        self._machine.stack().append(self)

    @classmethod
    def pop(cls) -> None:
        if not cls._machine.stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        cls._machine.stack().pop()

    def detach(self) -> None:
        if not self.valid:
            raise LogicError("context::detach failed: invalid device context - cannot detach from invalid context")
        if threading.get_ident() != self.thread:
            self._machine.faults.append("a context was detached in another thread, which leaks it")
            return
        if +self.held:
            self._machine.faults.append(f"a context was detached with {dict(+self.held)} in it")
        self.valid = False
        self._machine.live["Context"] -= 1
        if self in self._machine.stack():
            self._machine.stack().remove(self)


class Device(Bound):
    def __init__(self, number: int) -> None:
        if not 0 <= number < len(self._machine.gpus):
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        self._number = number

    @classmethod
    def count(cls) -> int:
        return len(cls._machine.gpus)

    def name(self) -> str:
        return self._machine.gpus[self._number][0]

    def compute_capability(self) -> tuple[int, int]:
        return self._machine.gpus[self._number][1]

    def make_context(self, flags: int = 0) -> Context:
        return self._module.Context(self)


class Stream(Held):
    """Work is done when it is waited for."""

    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self.handle = 0x5000 + next(self._machine.numbers)
        self._queue: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None
        self._broken = False
        self._machine.streams[self.handle] = self

    def synchronize(self) -> None:
        machine = self._machine
        machine.current("cuStreamSynchronize")
        if self._captured is not None:
            self._broken = True
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        queue, self._queue = self._queue, []
        if machine.fail_sync:
            machine.fail_sync -= 1
            raise LaunchError("cuStreamSynchronize failed: unspecified launch failure")
        for work in queue:
            work()

    def _put(self, work: Callable[[], None]) -> None:
        (self._queue if self._captured is None else self._captured).append(work)


class Event(Held):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self._time: int | None = None

    def record(self, stream: Stream | None = None) -> Event:
        assert stream is not None, "the default stream waits for all others"
        self._time = None
        stream._put(self._mark)
        return self

    def _mark(self) -> None:
        self._time = next(self._machine.numbers)

    def time_since(self, event: Event) -> float:
        if self._time is None or event._time is None:
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return float(self._time - event._time)


class DeviceAllocation(Held):
    def __init__(self, size: int) -> None:
        machine = self._machine
        if machine.used + size > machine.memory:
            raise MemoryError("cuMemAlloc failed: out of memory")
        super().__init__()
        self._address, self._size = 0x7F0000000000 + next(machine.numbers) * (1 << 32), size
        machine.blocks[self._address] = np.full(size, 0xA5, np.uint8)
        machine.used += size

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        if not self._alive:
            raise LogicError("device_allocation::free failed: invalid resource handle")
        self._release()

    def _release(self) -> None:
        if getattr(self, "_alive", False):
            self._machine.used -= self._size
            del self._machine.blocks[self._address]
        super()._release()


class PagelockedHostAllocation(Held):
    """What a page-locked array has as its `base`; who still looks at the array afterwards sees nonsense."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__()
        self._array = np.full(shape, 0xA5, dtype)
        self.__array_interface__ = self._array.__array_interface__

    def _release(self) -> None:
        if getattr(self, "_alive", False):
            self._array[...] = 0x5A
        super()._release()


def make_driver(machine: Machine) -> types.ModuleType:
    """The module `pycuda.driver` of a machine."""
    module = types.ModuleType("pycuda.driver")
    for error in (Error, MemoryError, LogicError, LaunchError, RuntimeError):
        setattr(module, error.__name__, error)
    for kind in (Context, Device, Stream, Event, DeviceAllocation, PagelockedHostAllocation):
        kind.bind(machine, module)
    for function in (*_memory_functions(machine, module), *_copy_functions(machine, module)):
        setattr(module, function.__name__, function)
    return module


def _memory_functions(machine: Machine, module: Any) -> list[Callable[..., Any]]:
    def init(flags: int = 0) -> None:
        if not machine.gpus:
            raise RuntimeError("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(bytes: int) -> DeviceAllocation:
        assert type(bytes) is int and bytes > 0, bytes
        if any(stream._captured is not None for stream in machine.streams.values()):
            raise LogicError("cuMemAlloc failed: operation not permitted when stream is capturing")
        return module.DeviceAllocation(bytes)

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        array = np.asarray(module.PagelockedHostAllocation(shape, dtype))
        assert isinstance(array.base, PagelockedHostAllocation)
        return array

    return [init, mem_alloc, pagelocked_empty]


def _copy_functions(machine: Machine, module: Any) -> list[Callable[..., Any]]:
    def memcpy_htod(dest: Any, src: np.ndarray) -> None:
        machine.current("cuMemcpyHtoD")
        assert src.flags.c_contiguous
        machine.view(int(dest), src.nbytes)[:] = np.frombuffer(src.tobytes(), np.uint8)

    def memcpy_htod_async(dest: Any, src: np.ndarray, stream: Stream | None = None) -> None:
        def copy() -> None:
            machine.view(int(dest), src.nbytes)[:] = src.reshape(-1).view(np.uint8)

        check(src, stream)._put(copy)

    def memcpy_dtoh_async(dest: np.ndarray, src: Any, stream: Stream | None = None) -> None:
        def copy() -> None:
            dest.reshape(-1).view(np.uint8)[:] = machine.view(int(src), dest.nbytes)

        check(dest, stream)._put(copy)

    def check(array: np.ndarray, stream: Stream | None) -> Stream:
        machine.current("cuMemcpyAsync")
        assert stream is not None, "the default stream waits for all others"
        assert array.flags.c_contiguous
        assert isinstance(array.base, PagelockedHostAllocation) and array.base._alive, "this copy is not asynchronous"
        return stream

    return [memcpy_htod, memcpy_htod_async, memcpy_dtoh_async]
