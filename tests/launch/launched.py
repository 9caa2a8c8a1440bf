"""Launch files as tests start them; only where launch is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchDescription, LaunchService

FOLDER = Path(__file__).resolve().parents[2] / "launch"
LIMIT = 60.0  # seconds: generous, as the machine may be busy; alone, a launch that fails ends within three


def include(file: str, **arguments: str) -> IncludeLaunchDescription:
    """A launch file with its arguments."""
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(FOLDER / file)), launch_arguments=arguments.items()
    )


def launch_to_its_end(file: str, variables: Mapping[str, str] | None = None, **arguments: str) -> tuple[int, str]:
    """Launch in a process of its own, as `ros2 launch` does; return the exit code and what it printed.

    Raises:
        subprocess.TimeoutExpired: it did not end.
    """
    command = [sys.executable, __file__, file, *(f"{name}:={value}" for name, value in arguments.items())]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Launch the file with the arguments of the command line."""
    file, *arguments = sys.argv[1:]
    service = LaunchService()
    service.include_launch_description(
        LaunchDescription([include(file, **dict(argument.split(":=", 1) for argument in arguments))])
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
