"""The set-up of the environments: what is redone, what is not, and what a failure says."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import environment  # noqa: E402  (scripts/ must be on the path first)
import steps  # noqa: E402


@pytest.fixture
def venv(tmp_path) -> Path:
    return tmp_path / "venv"


def writing_step(venv: Path, key: str = "key", command: str = "pass") -> steps.Step:
    """A step that runs a line of Python and then writes its result file."""

    def run(log):
        log.run(sys.executable, "-c", command)
        (venv / "result").write_text("made")

    return steps.Step("write", "writing", key, (venv / "result",), run)


def perform(step: steps.Step, venv: Path) -> None:
    steps.perform(step, venv, {}, "1/1")


def test_a_step_is_done_only_after_it_ran_with_this_key(venv):
    step = writing_step(venv)
    assert not step.is_done(venv)
    perform(step, venv)
    assert step.is_done(venv)
    assert not writing_step(venv, "another key").is_done(venv)


def test_a_step_whose_result_is_gone_is_not_done(venv):
    step = writing_step(venv)
    perform(step, venv)
    (venv / "result").unlink()
    assert not step.is_done(venv)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_step_that_was_interrupted_is_not_done(venv, error):
    step = writing_step(venv)
    perform(step, venv)

    def interrupted(log):
        raise error

    with pytest.raises((error, steps.SetupError)):
        perform(steps.Step(step.name, step.title, step.key, step.results, interrupted), venv)
    assert not step.is_done(venv)


@pytest.mark.parametrize(
    ("printed", "mend"),
    [
        ("The virtual environment was not created because ensurepip is not available.", "python3-venv"),
        ("fatal error: Python.h: No such file or directory", "python3-dev"),
        ("CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage", "g++"),
        ("Failed to establish: NewConnectionError(... [Errno -3] Temporary failure in name resolution", "PyPI"),
        ("ERROR: No matching distribution found for ros-jazzy-rclpy==7.1.6", "source an installed ROS 2"),
        ("OSError: [Errno 28] No space left on device", "disk space"),
        ("something nobody foresaw", "end of the log"),
    ],
)
def test_a_failure_names_the_step_the_log_and_the_mend(venv, printed, mend):
    step = writing_step(venv, command=f"print({printed!r}); raise SystemExit(3)")
    with pytest.raises(steps.SetupError) as failure:
        perform(step, venv)
    message = str(failure.value)
    assert "\n" not in message
    assert "'write'" in message
    assert mend in message
    assert str(venv / "log/write.log") in message
    assert printed in (venv / "log/write.log").read_text()


def test_key_follows_the_contents_of_files():
    folder = ROOT / "msg"
    assert steps.key_of(folder) == steps.key_of(folder)
    assert steps.key_of(folder) != steps.key_of(folder / "vision_msgs")
    assert steps.key_of("a", "b") != steps.key_of("ab")


def test_emptying_refuses_a_folder_of_somebody_else(venv):
    venv.mkdir()
    (venv / "thesis.tex").write_text("years of work")
    with pytest.raises(steps.SetupError, match="--venv"):
        steps.empty_folder(venv)
    assert (venv / "thesis.tex").exists()
    (venv / "pyvenv.cfg").touch()
    steps.empty_folder(venv)
    assert not venv.exists()


def test_everything_is_redone_where_python_does_not_start(venv):
    made = environment.Environment(venv, None)
    step = environment.create_step(made)
    broken = steps.Step(step.name, step.title, step.key, step.results, lambda log: None)
    venv.mkdir()
    perform(broken, venv)
    (venv / "bin").mkdir()
    (venv / "bin/python").write_text("#!/bin/false\n")
    (venv / "bin/python").chmod(0o755)
    assert step.is_done(venv)
    assert environment.pending(made, [step]) == [step]


def test_a_ros_that_this_python_cannot_import_is_refused(venv, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/elsewhere")
    monkeypatch.setattr(environment, "BASE_PYTHON", "/bin/false")
    with pytest.raises(steps.SetupError, match=r"/opt/ros/elsewhere.*PYTHON="):
        environment.sourced_ros(venv)


def test_the_environment_itself_is_no_sourced_ros(venv, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(venv))
    assert environment.sourced_ros(venv) is None


def test_unsupported_machines_are_refused(monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 18))
    with pytest.raises(steps.SetupError, match=r"3\.10 to 3\.13"):
        environment.check_python()
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    with pytest.raises(steps.SetupError, match="x86-64"):
        environment.check_robot(None)


def test_hook_finds_what_is_built_into_the_environment():
    program = "import os; print(os.environ['AMENT_PREFIX_PATH'], os.environ['LD_LIBRARY_PATH'])"
    variables = {"PATH": "/usr/bin:/bin", "AMENT_PREFIX_PATH": "/opt/ros/overlay"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    prefixes, libraries = done.stdout.split()
    assert prefixes == f"/opt/ros/overlay:{sys.prefix}"
    assert f"{sys.prefix}/lib" in libraries.split(":")


def test_training_brings_every_task_network():
    step = next(s for s in environment.training_steps(environment.Environment(ROOT, None)) if s.name == "install")
    commands = []
    step.run(SimpleNamespace(run=lambda *words: commands.append(words)))
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    asked = re.search(r"\[(.+)\]$", str(commands[-1][-1]))[1].split(",")
    assert {"training", "detection", "segmentation"} <= set(asked) <= set(extras)


def test_training_hook_is_imported_when_python_starts(venv):
    hook = environment.training_steps(environment.Environment(venv, None))[-1]
    hook.results[0].parent.mkdir(parents=True)
    perform(hook, venv)
    module, start = hook.results
    assert start.suffix == ".pth"
    assert start.read_text() == f"import {module.stem}\n"
    assert module.read_text() == (ROOT / f"scripts/{module.name}").read_text()


def test_no_torch_in_the_robots_environment():
    """Torch may come from a ROS that was sourced, never from the set-up."""
    site_packages = Path(sys.prefix, f"lib/python3.{sys.version_info[1]}/site-packages")
    assert (site_packages / "vifa").is_dir()
    assert not (site_packages / "torch").exists()
