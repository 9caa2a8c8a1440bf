"""One thread that owns an engine and works on the newest pairs. Knows no ROS.

Engines are slow to build and, on a GPU, bound to the thread that made them. So the thread builds, runs and closes the
engine, and takes its work from a slot of one: a newer pair replaces one that still waits. Where pairs come in bursts,
the slot may hold a few, in their order.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

SUPERSEDED = "superseded"
FAILED = "failed"
DEACTIVATED = "deactivated"


class Closable(Protocol):
    """Anything with a `close`."""

    def close(self) -> None:
        """Give back what is held."""


E = TypeVar("E", bound=Closable)
P = TypeVar("P")


class WorkerError(RuntimeError):
    """An engine that was not built, or not in time; the message says why."""


@dataclass(frozen=True)
class PairCounts:
    """What became of the pairs: formed = processed + sum of dropped + in_flight."""

    formed: int
    processed: int
    in_flight: int
    dropped: Mapping[str, int]


class Worker(Generic[E, P]):
    """Runs `handle(engine, pair)` for the newest pair in a thread of its own."""

    def __init__(
        self,
        build: Callable[[], E],
        handle: Callable[[E, P], str | None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        """Make a worker that does not run yet.

        Args:
            build: makes the engine, in the worker's thread.
            handle: works on one pair; returns None when it is processed, else the reason why it was dropped.
            on_error: told of an exception of `handle`; the worker goes on with the next pair.
        """
        self._build, self._handle, self._on_error = build, handle, on_error
        self._wake = threading.Condition()
        self._slot: deque[P] = deque()
        self._capacity = 1
        self._busy = self._stopping = self._accepting = False
        self._ready = threading.Event()
        self._engine: E | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="vifa-worker", daemon=True)
        self._formed = self._processed = 0
        self._dropped: Counter[str] = Counter()

    def start(self, timeout: float) -> E:
        """Build the engine and wait for it; what is returned may be looked at, but only the worker runs it.

        Raises:
            WorkerError: the engine failed, or took longer than `timeout` seconds; it is closed once it is there.
        """
        self._thread.start()
        if not self._ready.wait(timeout):
            self._request_stop()
            raise WorkerError(f"the engine was not ready after {timeout:g} s; raise configure_timeout")
        if self._engine is None:
            raise WorkerError(str(self._failure)) from self._failure
        return self._engine

    def accept(self, capacity: int = 1) -> None:
        """Take pairs from now on; counts start at zero.

        Args:
            capacity: pairs that may wait, at least 1.
        """
        with self._wake:
            self._capacity = capacity
            self._formed = int(self._busy)
            self._processed = 0
            self._dropped.clear()
            self._accepting = True

    def resize(self, capacity: int) -> None:
        """Let so many pairs wait from now on, at least 1; what waits already goes on waiting."""
        with self._wake:
            self._capacity = capacity

    def submit(self, pair: P) -> None:
        """Hand over a pair; the oldest one that still waits makes room for it."""
        with self._wake:
            self._formed += 1
            if not self._accepting:
                self._dropped[DEACTIVATED] += 1
                return
            while len(self._slot) >= self._capacity:
                self._slot.popleft()
                self._dropped[SUPERSEDED] += 1
            self._slot.append(pair)
            self._wake.notify()

    def refuse(self, timeout: float) -> None:
        """Take no more pairs; waiting ones are dropped, the running one is given `timeout` seconds to end."""
        with self._wake:
            self._accepting = False
            if self._slot:
                self._dropped[DEACTIVATED] += len(self._slot)
                self._slot.clear()
            self._wake.wait_for(lambda: not self._busy, timeout)

    def stop(self, timeout: float) -> bool:
        """End the thread, closing the engine in it; returns whether it ended in time."""
        self.refuse(timeout)
        self._request_stop()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def counts(self) -> PairCounts:
        """What became of the pairs since `accept`."""
        with self._wake:
            in_flight = len(self._slot) + int(self._busy)
            return PairCounts(self._formed, self._processed, in_flight, dict(self._dropped))

    def _request_stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def _live(self) -> None:
        try:
            engine = self._engine = self._build()
        except Exception as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        try:
            while (pair := self._next()) is not None:
                self._finish(self._try(engine, pair))
        finally:
            engine.close()

    def _next(self) -> P | None:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._slot)
            if self._stopping:
                return None
            self._busy = True
            return self._slot.popleft()

    def _try(self, engine: E, pair: P) -> str | None:
        try:
            return self._handle(engine, pair)
        except Exception as error:
            self._on_error(error)
            return FAILED

    def _finish(self, reason: str | None) -> None:
        with self._wake:
            self._busy = False
            if reason is None:
                self._processed += 1
            else:
                self._dropped[reason] += 1
            self._wake.notify_all()
