"""Make or update an environment: `python3 scripts/environment.py robot|training [--venv FOLDER]`.

robot     rclpy, the messages, the libraries of vifa_runtime and the test tools in .venv; never torch.
          Where a ROS 2 is sourced that ROS is used, else ROS 2 Jazzy comes from PyPI.
training  torch, the libraries of vifa_training with all task networks (YOLOv5's is AGPL-3.0) and the test tools in
          .venv-training; never ROS.

Only steps whose inputs have changed are done again. What a step prints is in FOLDER/log/STEP.log.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from steps import (
    ROOT,
    WHEELS_GUARD,
    Log,
    SetupError,
    Step,
    empty_folder,
    key_of,
    lock,
    path_variable,
    perform,
)

SHARED_FOLDERS = ("config", "launch", "models")
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
OWN_MESSAGES = ("vision_msgs", "tf2_msgs")  # packages that PyPI lacks, in msg/; one of a sourced ROS is preferred
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)  # not that of an activated environment


@dataclass(frozen=True)
class SourcedRos:
    """A ROS 2 that the shell has sourced."""

    rclpy: Path
    messages: frozenset[str]  # those of OWN_MESSAGES that it brings


@dataclass(frozen=True)
class Environment:
    """The virtual environment to make, on top of the sourced ROS 2 or, without one, of nothing."""

    venv: Path
    ros: SourcedRos | None

    @property
    def python(self) -> Path:
        return self.venv / "bin/python"

    @property
    def site_packages(self) -> Path:
        return self.venv / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"

    def variables(self) -> dict[str, str]:
        """The variables that a step's commands run with."""
        variables = dict(os.environ, VIRTUAL_ENV=str(self.venv), PIP_DISABLE_PIP_VERSION_CHECK="1")
        variables.pop(WHEELS_GUARD, None)
        if self.ros is None:
            for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"):
                variables.pop(name, None)
        variables["PATH"] = path_variable(self.venv / "bin", variables.get("PATH"))
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            variables[name] = path_variable(self.venv, variables.get(name))
        return variables


def sourced_ros(venv: Path) -> SourcedRos | None:
    """The ROS 2 that this shell has sourced, or None."""
    variables = {name: value for name, value in os.environ.items() if name != WHEELS_GUARD}
    listed = variables.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes = [Path(entry) for entry in listed if entry and Path(entry).resolve() != venv.resolve()]
    if not prefixes:
        return None
    command = [BASE_PYTHON, "-c", "import rclpy; print(rclpy.__file__)"]
    found = subprocess.run(command, env=variables, capture_output=True, text=True)
    if found.returncode != 0:
        raise SetupError(
            f"AMENT_PREFIX_PATH names a ROS 2 in {prefixes[0]}, but {BASE_PYTHON} cannot import rclpy: use "
            "the Python of that ROS (make PYTHON=/usr/bin/python3 ...) or a shell that has not sourced one"
        )
    listed += variables.get("CMAKE_PREFIX_PATH", "").split(os.pathsep)
    prefixes = [Path(entry) for entry in listed if entry and Path(entry).resolve() != venv.resolve()]
    brought = {
        name for name in OWN_MESSAGES if any((prefix / f"share/{name}/package.xml").is_file() for prefix in prefixes)
    }
    return SourcedRos(Path(found.stdout.strip()), frozenset(brought))


def check_python() -> None:
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise SetupError(
            f"Python {platform.python_version()} is not supported: use 3.10 to 3.13 (make PYTHON=python3.12 ...)"
        )


def check_robot(ros: SourcedRos | None) -> None:
    """Refuse, before anything is downloaded, a machine on which a later step must fail."""
    if ros is None and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"ROS 2 comes from PyPI for Linux x86-64 only, and this is {sys.platform} {platform.machine()}: "
            "source an installed ROS 2 and run it again"
        )
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")):
        raise SetupError("the messages need a C++ compiler: apt install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SetupError(f"the messages need the headers of {BASE_PYTHON}: apt install python3-dev")


def create_step(environment: Environment) -> Step:
    """A fresh virtual environment; the stamps of all steps go with the old one."""
    options = [] if environment.ros is None else ["--system-site-packages"]

    def create(log: Log) -> None:
        log.run(BASE_PYTHON, "-m", "venv", *options, environment.venv)

    key = key_of(sys.version, os.path.realpath(BASE_PYTHON), str(environment.venv), str(ROOT), environment.ros)
    return Step("create", "creating the virtual environment (10 s)", key, (environment.python,), create)


def install_step(environment: Environment, extras: str, title: str) -> Step:
    """Everything from PyPI, and the Python packages of this repository as links to their sources."""

    def install(log: Log) -> None:
        pip = [environment.python, "-m", "pip", "install", *keep_versions(environment)]
        log.run(*pip, "-e", f"{ROOT}[{extras}]")
        if extras.startswith("ros,"):
            mend_wheels(environment)

    key = key_of(extras, project_settings(), ROOT / "setup.py")
    return Step("install", title, key, (environment.venv / "bin/vifa",), install)


def project_settings() -> str:
    """What pip reads in pyproject.toml: all before the settings of the linters and of pytest."""
    return (ROOT / "pyproject.toml").read_text().partition("[tool.ruff]")[0]


def keep_versions(environment: Environment) -> list[str]:
    """The pip options that keep the NumPy and EmPy majors that a sourced ROS was built with."""
    if environment.ros is None:
        return []
    program = (
        "from importlib.metadata import distributions\n"
        "for d in distributions():\n"
        "    if str(d.metadata['Name']).lower() in ('numpy', 'empy'):\n"
        "        print(f\"{d.metadata['Name']}>={d.version},<{int(d.version.split('.')[0]) + 1}\")"
    )
    found = subprocess.run([BASE_PYTHON, "-c", program], capture_output=True, text=True, check=True)
    constraints = environment.venv / "constraints.txt"
    constraints.write_text(found.stdout)
    return ["--constraint", str(constraints)]


def mend_wheels(environment: Environment) -> None:
    """The CMake files of the ROS wheels name folders of the machine that built them: name this one's."""
    builder = r"/opt/python/cp\d+-cp\d+"
    builder_numpy = builder + r"/lib/python3\.\d+/site-packages/numpy/_?core/include"
    numpy_headers = str(environment.site_packages / "numpy/_core/include")
    for path in environment.venv.glob("share/**/*.cmake"):
        text = path.read_text()
        mended = re.sub(builder_numpy, numpy_headers, text)
        mended = re.sub(builder + r"/include/python3\.\d+", sysconfig.get_path("include"), mended)
        if mended != text:
            path.write_text(mended)


def hook_step(environment: Environment, module: str, title: str) -> Step:
    """A start-up hook: a module of scripts/ that the environment's Python imports whenever it starts."""
    source = ROOT / f"scripts/{module}.py"
    hook, start = (environment.site_packages / f"{module}{suffix}" for suffix in (".py", ".pth"))

    def install(log: Log) -> None:
        shutil.copy(source, hook)
        start.write_text(f"import {module}\n")

    return Step("hook", title, key_of(source), (hook, start), install)


def build_step(environment: Environment, source: Path, title: str, *inputs: Path) -> Step:
    """A CMake package of this repository, built and installed into the environment."""
    name = re.search("<name>(.*)</name>", (source / "package.xml").read_text())[1]
    build_folder = environment.venv / "build" / name

    def build(log: Log) -> None:
        shutil.rmtree(build_folder, ignore_errors=True)
        options = [
            f"-DCMAKE_INSTALL_PREFIX={environment.venv}",
            f"-DPython3_EXECUTABLE={environment.python}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        if source == ROOT:
            options.append("-DVIFA_PYTHON_PACKAGES=OFF")  # pip has linked them
        log.run("cmake", "-G", "Ninja", "-S", source, "-B", build_folder, *options)
        log.run("cmake", "--build", build_folder)
        log.run("cmake", "--install", build_folder)

    # The wheels bring the message generators. In a sourced ROS these change only with the whole environment.
    ros_wheels = re.findall(r'"ros-.+"', project_settings())
    key = key_of(*ros_wheels, source / "CMakeLists.txt", source / "package.xml", *inputs)
    results = (environment.venv / "share" / name / "package.xml", environment.site_packages / name)
    return Step(name, title, key, results, build)


def share_step(environment: Environment, install: Step, build: Step) -> Step:
    """The folders that programs read at run time, in share/vifa as an installed package has them."""
    share = environment.venv / "share/vifa"

    def copy(log: Log) -> None:
        for folder in SHARED_FOLDERS:
            shutil.rmtree(share / folder, ignore_errors=True)
        log.run("cmake", "--install", environment.venv / "build/vifa")

    key = key_of(install.key, build.key, *(ROOT / folder for folder in SHARED_FOLDERS))
    results = tuple(share / folder for folder in SHARED_FOLDERS)
    return Step("share", "installing launch files, configurations and models", key, results, copy)


def robot_steps(environment: Environment) -> list[Step]:
    if environment.ros is None:
        title = "installing ROS 2 Jazzy and the libraries from PyPI (1 min, more on a slow network)"
        install = install_step(environment, "ros,dev", title)
    else:
        title = "installing the libraries from PyPI (1 min, more on a slow network)"
        install = install_step(environment, "bags,dev", title)
    hook = hook_step(environment, "vifa_ros_paths", "making messages and libraries findable")
    steps = [create_step(environment), install, hook]
    for name in OWN_MESSAGES:
        if environment.ros is None or name not in environment.ros.messages:
            source = ROOT / "msg" / name
            title = f"building the {name} messages (30 s)"
            steps.append(build_step(environment, source, title, source / "msg"))
    inputs = [*sorted((ROOT / "msg").glob("*.msg")), ROOT / "cmake"]
    build = build_step(environment, ROOT, "building the vifa messages and programs (30 s)", *inputs)
    return [*steps, build, share_step(environment, install, build)]


def training_steps(environment: Environment) -> list[Step]:
    title = "installing torch, the task networks and the libraries from PyPI (3 min, more on a slow network)"
    hook = hook_step(environment, "vifa_torchvision_mend", "making torchvision importable beside a CPU torch")
    extras = "training,detection,segmentation,dev,reference"
    return [create_step(environment), install_step(environment, extras, title), hook]


def pending(environment: Environment, steps: list[Step]) -> list[Step]:
    """The steps to do: all of them where there is no environment, or one whose Python no longer starts."""
    starts = steps[0].is_done(environment.venv) and (
        subprocess.run([environment.python, "-c", "import pip"], capture_output=True).returncode == 0
    )
    return [step for step in steps if not step.is_done(environment.venv)] if starts else steps


def set_up(kind: str, venv: Path) -> None:
    start = time.monotonic()
    check_python()
    ros = None
    if kind == "robot":
        ros = sourced_ros(venv)
        check_robot(ros)
    environment = Environment(venv, ros)
    with lock(venv):
        steps = robot_steps(environment) if kind == "robot" else training_steps(environment)
        to_do = pending(environment, steps)
        if not to_do:
            print(f"environment {venv} is up to date")
            return
        if to_do == steps:
            empty_folder(venv)
        source = "from PyPI alone" if ros is None else f"on the sourced ROS 2 ({ros.rclpy.parent})"
        print(f"setting up the {kind} environment {venv} {source}", flush=True)
        for step in to_do:
            perform(step, venv, environment.variables(), f"{steps.index(step) + 1}/{len(steps)}")
        (venv / "log/done.log").write_text("environment ready\n")
        print(f"environment {venv} is ready after {time.monotonic() - start:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: make environment",
    )
    parser.add_argument("kind", choices=["robot", "training"])
    parser.add_argument("--venv", type=Path, help="folder of the environment (.venv or .venv-training)")
    arguments = parser.parse_args()
    default = ROOT / {"robot": ".venv", "training": ".venv-training"}[arguments.kind]
    try:
        set_up(arguments.kind, (arguments.venv or default).absolute())
    except SetupError as error:
        print(f"\nenvironment: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nenvironment: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
