"""Three kinds of work on one item after the other, each in threads of its own, so that they overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


def overlapped(
    items: Iterable[A], first: Callable[[A], B], second: Callable[[B], C], workers: int, ahead: Executor | None = None
) -> Generator[C, None, None]:
    """Give `second(first(item))` of every item, in their order.

    Items are drawn by whoever iterates; `first` runs in one thread, on one item after the other in their order, and
    `second` in `workers` threads. At most `workers` + 2 items are on their way, so that memory stays bounded. What any
    of them raises, the iterating raises in the item's turn; what has not begun then is never done.

    Args:
        ahead: an executor of one thread for `first`, which has made what that works with; None for one of its own.
    """
    waiting: deque[Future[Future[C]]] = deque()
    with ExitStack() as stack:
        behind = stack.enter_context(ThreadPoolExecutor(workers, "second"))
        one = stack.enter_context(ThreadPoolExecutor(1, "first")) if ahead is None else ahead

        def step(item: A) -> Future[C]:
            return behind.submit(second, first(item))

        try:
            for item in items:
                waiting.append(one.submit(step, item))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result().result()
            while waiting:
                yield waiting.popleft().result().result()
        finally:
            wait([future for future in waiting if not future.cancel()])
            behind.shutdown(cancel_futures=True)
