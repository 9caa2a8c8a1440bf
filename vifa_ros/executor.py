"""Spinning that survives what rclpy's own does not: things destroyed meanwhile, and a shutdown in its midst."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy


class LifecycleExecutor(MultiThreadedExecutor):
    """Goes on when something is destroyed in the moment in which it is collected to be waited for.

    rclpy's own lets that end `spin` (ros2/rclpy issue 1284), and so a transition now and then would end the node.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run what is ready; see `rclpy.executors.Executor.spin_once`."""
        try:
            super().spin_once(timeout_sec)
        except _rclpy.InvalidHandle:
            self.wake()  # what else was ready is collected again


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
