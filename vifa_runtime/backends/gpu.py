"""A GPU, and the CUDA context of the one thread that uses it, by PyCUDA, which is handed in as `cuda`.

The context is the back end's own, made by `Device.make_context`. PyCUDA offers the device's primary context too, but
leaves it on the thread's stack when it is given back (src/cpp/cuda.hpp, `primary_context::detach_internal`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vifa_runtime.backends import BackendError
from vifa_runtime.messages import first_line


class Gpu:
    """One GPU; its context is made by `open`, and current only inside `working`."""

    def __init__(self, cuda: Any, number: int) -> None:
        """Look at a GPU; takes no memory of it.

        Raises:
            BackendError: there is no GPU of this number, or no driver.
        """
        self._cuda, self.number = cuda, number
        self._context: Any = None
        self._thread = 0
        try:
            cuda.init()
            count = cuda.Device.count()
            if number not in range(count):
                raise BackendError(f"there is no GPU {number}; this machine has {count}, counted from 0")
            self._device = cuda.Device(number)
            self.name = str(self._device.name())
            self.capability = "{}.{}".format(*self._device.compute_capability())
        except cuda.Error as error:
            raise BackendError(
                f"there is no GPU to use ({first_line(error)}); see what nvidia-smi says, or use --backend onnxruntime"
            ) from None

    @property
    def is_open(self) -> bool:
        """Whether it has a context."""
        return self._context is not None

    def open(self) -> None:
        """Make the context, which this thread alone may use.

        Raises:
            BackendError: the GPU has no memory left for it.
        """
        with self._explained("a CUDA context"):
            context = self._device.make_context()  # which is current then
            self._cuda.Context.pop()
        self._context, self._thread = context, threading.get_ident()

    @contextmanager
    def working(self, on: str) -> Iterator[None]:
        """Have the context current.

        Args:
            on: what the GPU's memory is for, for messages.

        Raises:
            BackendError: another thread asks, or CUDA failed inside.
        """
        self._check_thread()
        with self._explained(on):
            self._context.push()
            try:
                yield
            except BaseException as error:
                forget_frames(error)  # else they would keep engines and streams beyond their context
                raise
            finally:
                self._cuda.Context.pop()

    def close(self) -> None:
        """Destroy the context; everything in it must have been given back.

        Raises:
            BackendError: another thread asks.
        """
        if self._context is None:
            return
        self._check_thread()
        context, self._context = self._context, None
        context.detach()

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise BackendError(
                "this TensorRT engine belongs to the thread that made it, as its CUDA context does; "
                "make, run and close it in one thread"
            )

    @contextmanager
    def _explained(self, on: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as error:
            raise out_of_memory(self, on, error) from None
        except self._cuda.Error as error:
            raise BackendError(
                f"CUDA failed on {on}: {first_line(error)}; start again, and see what nvidia-smi says"
            ) from None


def out_of_memory(gpu: Gpu, on: str, error: object) -> BackendError:
    """The error of a full GPU."""
    return BackendError(
        f"GPU {gpu.number} ({gpu.name}) has no memory left for {on} ({first_line(error)}); "
        "close what else uses it, or choose a smaller size or fewer tasks"
    )


def forget_frames(error: BaseException | None) -> None:
    """Drop the local variables of the functions that an error came through, which it would keep alive."""
    while error is not None:
        step = error.__traceback__
        while step is not None:
            frame: FrameType | None = step.tb_frame
            while frame is not None:  # whose callers it keeps, too, if not the error itself came through them
                try:
                    frame.clear()
                except RuntimeError:  # it is still running, and so are all that called it
                    break
                frame = frame.f_back
            step = step.tb_next
        error = error.__cause__ or error.__context__
