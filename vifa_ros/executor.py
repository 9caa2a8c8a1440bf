"""Spinning that no transition delays, and that survives what is destroyed meanwhile and a shutdown in its midst."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.task import Task


class SlowCallbackGroup(ReentrantCallbackGroup):
    """Callbacks that may take seconds: `LifecycleExecutor` gives each of them a thread of its own."""


class LifecycleExecutor(SingleThreadedExecutor):
    """Runs callbacks in the spinning thread, and those of a `SlowCallbackGroup` beside it.

    rclpy's MultiThreadedExecutor hands every callback to a pool, and until a thread of the pool has begun it, submits
    it again and again, holding the interpreter (ros2/rclpy issue 1452). Images then wait until their queue runs over.

    Goes on when something is destroyed in the moment in which it is collected to be waited for; rclpy's own executors
    let that end `spin` (ros2/rclpy issue 1284), and so a transition now and then would end the node.
    """

    def __init__(self) -> None:
        super().__init__()
        self._slow: list[Task] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback that is ready; see `rclpy.executors.Executor.spin_once`."""
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except _rclpy.InvalidHandle:
            self.wake()  # what else was ready is collected again
            return
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        except AttributeError:
            if not self._is_shutdown:
                raise
            return  # another thread took its guard condition while it was collected to be waited for
        if self._is_shutdown:  # the task would only tell so, by a guard condition that is gone
            return
        if entity is not None and isinstance(entity.callback_group, SlowCallbackGroup):
            self._run_beside(task)
        else:
            task()
            self._tell(task)

    def _tell(self, task: Task) -> None:
        """Raise what a callback raised, but not that a shutdown took the executor's guard condition meanwhile."""
        try:
            task.result()
        except _rclpy.InvalidHandle:
            if not self._is_shutdown:
                raise

    def _run_beside(self, task: Task) -> None:
        """Start a thread for a task, once: rclpy offers it again until the thread has begun."""
        for done in [other for other in self._slow if other.done()]:
            self._slow.remove(done)
            done.result()
        if task not in self._slow:
            self._slow.append(task)
            threading.Thread(target=task, name="vifa-transition", daemon=True).start()


@contextmanager
def until_interrupted() -> Iterator[None]:
    """End the block quietly on Ctrl-C or SIGTERM, whatever rclpy is doing when it comes."""
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except _rclpy.RCLError:
        if rclpy.ok():
            raise
