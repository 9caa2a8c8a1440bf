"""Three kinds of work on one item after the other, each in threads of its own, so that they overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


def overlapped(
    items: Iterable[A], first: Callable[[A], B], second: Callable[[B], C], workers: int
) -> Generator[C, None, None]:
    """Give `second(first(item))` of every item, in their order.

    Items are drawn by whoever iterates; `first` runs in one thread, on one item after the other in their order, and
    `second` in `workers` threads. At most `workers` + 2 items are on their way, so that memory stays bounded. What any
    of them raises, the iterating raises in the item's turn; what has not begun then is never done.
    """
    waiting: deque[Future[Future[C]]] = deque()
    with ThreadPoolExecutor(workers, "second") as behind, ThreadPoolExecutor(1, "first") as ahead:

        def step(item: A) -> Future[C]:
            return behind.submit(second, first(item))

        try:
            for item in items:
                waiting.append(ahead.submit(step, item))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result().result()
            while waiting:
                yield waiting.popleft().result().result()
        finally:
            ahead.shutdown(cancel_futures=True)
            behind.shutdown(cancel_futures=True)
