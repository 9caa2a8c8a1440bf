"""Work spread over processes of this machine, all of which end with the one that spread it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], count: int
) -> Generator[Result, None, None]:
    """`map`, in order, over so many processes; in this one where `count` or the number of items is 1.

    Ctrl-C, errors and whatever else closes the generator drop the items that have not begun; those that have begun end
    with a KeyboardInterrupt, so that they remove what they have half-written.

    Args:
        function, items: that can be pickled.
        count: of processes.

    Yields:
        What `function` returns for each item.

    Raises:
        Exception: the first that `function` raises.
    """
    count = min(count, len(items))
    if count <= 1:
        yield from map(function, items)
        return
    # Not forked: the caller may have threads, of torch, of an engine or of a progress bar.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, context, initializer=_obey)
    try:
        # Processes inherit what is blocked while they start: Ctrl-C is for this one, even while they still import.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            results = pool.map(partial(_work, function), items)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from results
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---- in the processes: a signal ends the item that is worked on, and all after it; never the wait for one

_is_told = _is_working = False


def _obey() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the first one, and end items when that one says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(*_: Any) -> None:
    global _is_told
    again, _is_told = _is_told, True
    if _is_working and not again:  # else it is cleaning up already
        raise KeyboardInterrupt


def _work(function: Callable[[Item], Result], item: Item) -> Result:
    global _is_working
    _is_working = True
    try:
        if _is_told:
            raise KeyboardInterrupt
        return function(item)
    finally:
        _is_working = False
