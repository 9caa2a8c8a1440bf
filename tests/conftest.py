"""What every test run needs before ROS is first imported, and the `vifa` command for tests of all folders."""

import importlib.util
import os
import random
import sys
from collections.abc import Callable

import pytest


def pytest_configure() -> None:
    """Give the run a ROS domain of its own on this machine, and DDS settings that do not lose images.

    Changes nothing where there is no ROS.
    """
    if importlib.util.find_spec("rclpy") is None:
        return
    from vifa_ros.profiles import dds_environment

    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.update(dds_environment())


@pytest.fixture
def vifa(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command and returns exit code, output and errors."""

    def run(*arguments):
        from vifa_ros.cli import main

        monkeypatch.setattr(sys, "argv", ["vifa", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
