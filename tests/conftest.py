"""What every test run needs before ROS is first imported; changes nothing where there is no ROS."""

import importlib.util
import os
import random


def pytest_configure() -> None:
    """Give the run a ROS domain of its own on this machine, and DDS settings that do not lose images."""
    if importlib.util.find_spec("rclpy") is None:
        return
    from vifa_ros.profiles import dds_environment

    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.update(dds_environment())
