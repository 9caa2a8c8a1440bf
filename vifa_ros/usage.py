"""What commands need that a machine may not have."""


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
