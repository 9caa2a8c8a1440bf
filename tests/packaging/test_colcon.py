"""A clean checkout builds with colcon, and its install folder alone has everything."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


# This Python's programs first on PATH, as in an activated environment.
VARIABLES = dict(os.environ, VIRTUAL_ENV=sys.prefix, PATH=f"{sys.prefix}/bin:{os.environ['PATH']}")


def shell(command: str, folder: Path) -> str:
    """Run a bash command to its end; return what it prints."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=VARIABLES, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def workspace(checkout) -> Path:
    """The colcon workspace that holds the checkout, built."""
    options = f"-DPython3_EXECUTABLE={sys.executable} -DBUILD_TESTING=OFF"
    shell(f"colcon build --packages-select vifa --cmake-args {options}", checkout.parent)
    return checkout.parent


def test_colcon_sees_one_package(checkout):
    assert shell("colcon list --names-only", checkout.parent).split() == ["vifa"]
    assert shell("colcon list --names-only", checkout).split() == ["vifa"]


def test_messages_and_packages_come_from_the_install_folder(workspace):
    modules = ["vifa.msg", "vifa_ros", "vifa_runtime", "vifa_training"]
    program = f"import {', '.join(modules)}; print({', '.join(f'{name}.__file__' for name in modules)})"
    files = shell(f"source install/setup.bash && python -c '{program}'", workspace).split()
    assert len(files) == len(modules)
    assert all(Path(file).is_relative_to(workspace / "install") for file in files), files


def test_every_data_file_is_installed(checkout, workspace):
    """Schemas and the like of the packages; launch files, configurations and models."""
    site_packages = next((workspace / "install/vifa/lib").glob("python3*/site-packages"))
    for folder, target in [
        ("vifa_runtime", site_packages),
        ("vifa_ros", site_packages),
        ("vifa_training", site_packages),
        ("config", workspace / "install/vifa/share/vifa"),
        ("launch", workspace / "install/vifa/share/vifa"),
        ("models", workspace / "install/vifa/share/vifa"),
    ]:
        files = [path.relative_to(checkout) for path in (checkout / folder).rglob("*") if path.is_file()]
        assert files, f"nothing in {folder}"
        assert [str(file) for file in files if not (target / file).is_file()] == []


@pytest.mark.parametrize("name", ["fusion_node", "vifa", "vifa-train"])
def test_program_is_executable_and_runs_under_the_python_of_the_build(workspace, name):
    program = workspace / "install/vifa/lib/vifa" / name
    assert os.access(program, os.X_OK)
    assert program.read_text().splitlines()[0] == f"#!{sys.executable}"


def test_command_answers_help(workspace):
    assert "Usage" in shell("source install/setup.bash && install/vifa/lib/vifa/vifa --help", workspace)


def test_node_starts_and_stops(workspace):
    """The node takes ROS arguments, finds the shipped bundle, and ends in order on Ctrl-C."""
    script = "source install/setup.bash; exec install/vifa/lib/vifa/fusion_node --ros-args -r __node:=colcon"
    node = subprocess.Popen(["bash", "-c", script], cwd=workspace, env=VARIABLES, stderr=subprocess.PIPE, text=True)
    printed = []
    for line in node.stderr:
        printed.append(line)
        if "configured" in line:
            node.send_signal(signal.SIGINT)
    assert node.wait() == 0, "".join(printed)
    assert "configured" in "".join(printed)
