"""Fixtures of the ROS tests: tiny bundles whose results can be computed by hand, and a running fusion node."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import write_finding_bundle, write_tiny_bundle
from hypothesis import settings

settings.register_profile("no_timing", deadline=None)  # the machine may be busy
settings.load_profile("no_timing")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """A bundle that fuses: see `write_tiny_bundle`."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def finding_bundle(tmp_path_factory) -> Path:
    """A bundle that detects and segments too: see `write_finding_bundle`."""
    return write_finding_bundle(tmp_path_factory.mktemp("bundles") / "finding")


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """ROS, initialised once for all tests of a module."""
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def start_robot(ros, tiny_bundle) -> Iterator[Callable]:
    """A function that starts a fusion node with the given parameters, and its friend."""
    from robot import robots

    with robots(tiny_bundle) as start:
        yield start


@pytest.fixture
def robot(start_robot):
    """An active fusion node with nobody listening yet."""
    robot = start_robot()
    robot.wait_for_state("active")
    return robot


@pytest.fixture(scope="module")
def start_for_module(ros, tiny_bundle) -> Iterator[Callable]:
    """As `start_robot`, for a node that all tests of a module use."""
    from robot import robots

    with robots(tiny_bundle) as start:
        yield start


@pytest.fixture(scope="module")
def shared_robot(start_for_module):
    """An active fusion node for all tests of a module that leave it as it is."""
    robot = start_for_module()
    robot.wait_for_state("active")
    return robot
