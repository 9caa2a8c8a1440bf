"""A launch that cannot do what it is asked to ends by itself, with the cause and an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_pytest", reason="launch_pytest is not on PyPI: launch files are launched only where a ROS 2 provides it"
)

from ament_index_python.packages import get_packages_with_prefixes
from launched import launch_to_its_end


def causes(printed: str) -> list[str]:
    """What launch says that it ends for."""
    return [line.partition("): ")[2] for line in printed.splitlines() if "Caught exception in launch" in line]


@pytest.fixture
def parameters(tmp_path: Path):
    """A function that writes a parameter file for the node /vifa and returns its path."""

    def write(text: str) -> str:
        file = tmp_path / "parameters.yaml"
        file.write_text(f"vifa:\n  ros__parameters:\n    {text}\n")
        return str(file)

    return write


def test_a_missing_bundle() -> None:
    code, printed = launch_to_its_end("vifa.launch.py", bundle="/no/such/bundle")
    (cause,) = causes(printed)
    assert cause.startswith("the fusion node cannot be configured: no bundle at /no/such/bundle")
    assert "nano-fusion" in cause, "it names those that ship"
    assert code == 1


@pytest.mark.parametrize("file", ["demo.launch.py", "vifa.launch.py"])
def test_a_missing_bundle_named_like_a_number(file: str) -> None:
    code, printed = launch_to_its_end(file, bundle="2024")
    assert ["no bundle at 2024" in cause for cause in causes(printed)] == [True]
    assert code == 1


def test_a_missing_bundle_of_the_parameter_file(parameters) -> None:
    code, printed = launch_to_its_end("vifa.launch.py", params_file=parameters("bundle: nowhere"))
    assert ["no bundle at nowhere" in cause for cause in causes(printed)] == [True]
    assert code == 1


def test_a_task_that_the_bundle_does_not_have(parameters) -> None:
    code, printed = launch_to_its_end("vifa.launch.py", params_file=parameters('tasks: ["cooking"]'))
    assert ["cooking" in cause for cause in causes(printed)] == [True]
    assert code == 1


def test_a_parameter_of_the_wrong_type_kills_the_node_and_ends_the_launch(parameters) -> None:
    code, printed = launch_to_its_end("vifa.launch.py", params_file=parameters("threads: many"))
    assert "'threads'" in printed
    assert ["died with exit code 1" in cause for cause in causes(printed)] == [True]
    assert code == 1


def test_a_missing_parameter_file() -> None:
    code, printed = launch_to_its_end("vifa.launch.py", params_file="/no/such/file.yaml")
    assert causes(printed) == ["params_file: no file at /no/such/file.yaml"]
    assert code == 1


def test_a_switch_that_is_neither_true_nor_false() -> None:
    code, printed = launch_to_its_end("vifa.launch.py", autostart="perhaps")
    assert ['"autostart"' in cause for cause in causes(printed)] == [True]
    assert code == 1


def test_a_missing_bag() -> None:
    code, printed = launch_to_its_end("replay.launch.py", bag="/no/such/bag")
    assert causes(printed) == ["bag: nothing at /no/such/bag"]
    assert code == 1


@pytest.mark.parametrize("ros2", [None, "#!/bin/sh\necho 'ros2: error: invalid choice: bag' >&2\nexit 2\n"])
def test_no_player_of_bags(ros2: str | None, tmp_path: Path) -> None:
    """Neither without the ros2 command, nor with one that has no `bag`."""
    if ros2 is not None:
        (tmp_path / "ros2").write_text(ros2)
        (tmp_path / "ros2").chmod(0o755)
    variables = dict(os.environ, PATH=f"{tmp_path}:{Path(sys.executable).parent}:/bin")
    code, printed = launch_to_its_end("replay.launch.py", variables, bag=str(tmp_path))
    (cause,) = causes(printed)
    assert "`ros2 bag play` is not installed" in cause
    assert "process started" not in printed, "nothing is started before"
    assert code == 1


def test_no_rviz() -> None:
    if "rviz2" in get_packages_with_prefixes():
        pytest.skip("rviz2 is installed")
    code, printed = launch_to_its_end("visualize.launch.py")
    assert causes(printed) == ["rviz2 is not installed here: sudo apt install ros-$ROS_DISTRO-rviz2"]
    assert code == 1
