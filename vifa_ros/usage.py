"""How commands begin: what they need that a machine may not have, and how they end when they are told to."""

import signal
import sys


class UsageError(ValueError):
    """A command that cannot run here; the message says what is missing and the mend."""


def need_ros() -> None:
    """Refuse to go on without ROS 2.

    Raises:
        UsageError: rclpy or this package's messages are missing.
    """
    try:
        import rclpy  # noqa: F401  (only whether it is there)

        import vifa.msg  # noqa: F401  (likewise)
    except ImportError as error:
        raise UsageError(
            f"this command needs ROS 2 and the built package ({error}); run `make demo` once, "
            "or source your ROS 2 and its workspace"
        ) from None


def leave_on_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C: what is half-written is removed. Not beside rclpy, whose own handler calls this."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
