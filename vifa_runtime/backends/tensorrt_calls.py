"""What calls of TensorRT have in common: versions, and errors, which it logs instead of raising them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.gpu import Gpu, out_of_memory
from vifa_runtime.messages import first_line

MOST_ERRORS = 10


def version_of(trt: Any) -> tuple[int, int]:
    """TensorRT's major and minor version."""
    major, minor, *_ = str(trt.__version__).split(".")
    return int(major), int(minor)


def make_logger(trt: Any) -> Any:
    """A logger that keeps errors as `errors` and says nothing; it must outlive all that is made with it."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors = [*self.errors, msg][:MOST_ERRORS]

    return Logger()


def make(gpu: Gpu, logger: Any, what: str, maker: Callable[[], Any]) -> Any:
    """An object of TensorRT's.

    Raises:
        BackendError: TensorRT cannot; it says so by None, or by the TypeError of a constructor that gives nothing.
    """
    logger.errors = []
    try:
        made = maker()
    except TypeError:
        made = None
    if made is None:
        raise refusal(gpu, logger, f"TensorRT cannot make {what}", what)
    return made


def refusal(gpu: Gpu, logger: Any, problem: str, on: str) -> BackendError:
    """The error of a call that failed: by the first thing that was logged since, of which the rest is a consequence.

    Args:
        on: what the GPU's memory was wanted for, where it is that.
    """
    reason = first_line(logger.errors[0]) if logger.errors else "it gives no reason"
    if "outofmemory" in reason.lower().replace(" ", ""):
        return out_of_memory(gpu, on, reason)
    return BackendError(f"{problem}: {reason}")
