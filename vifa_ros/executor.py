"""Spinning that survives what rclpy's own does not: things destroyed meanwhile, and a shutdown in its midst."""

from __future__ import annotations

from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor
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


def spin_until_interrupted(executor: Executor) -> None:
    """Spin until Ctrl-C or SIGTERM, whatever rclpy was doing when it came."""
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except _rclpy.RCLError:
        if executor.context.ok():
            raise
