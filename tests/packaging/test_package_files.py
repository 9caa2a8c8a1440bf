"""package.xml, CMakeLists.txt, pyproject.toml and CHANGELOG.rst say the same."""

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from zipfile import ZipFile

import pytest
from catkin_pkg.package import parse_package

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT, ROOT / "msg/vision_msgs", ROOT / "msg/tf2_msgs"]
PROGRAMS = {"vifa": "vifa_ros.cli:main", "vifa-train": "vifa_training.cli:main"}


@pytest.mark.parametrize("folder", PACKAGES, ids=["vifa", "vision_msgs", "tf2_msgs"])
def test_package_xml_is_valid(folder):
    warnings: list[str] = []
    package = parse_package(folder / "package.xml", warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    assert package.package_format == 3
    assert package.get_build_type() == "ament_cmake"
    assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]


@pytest.mark.parametrize("folder", PACKAGES, ids=["vifa", "vision_msgs", "tf2_msgs"])
def test_cmake_lists_every_message(folder):
    listed = set(re.findall(r"^\s+msg/(\w+)\.msg$", (folder / "CMakeLists.txt").read_text(), re.MULTILINE))
    assert listed == {path.stem for path in (folder / "msg").glob("*.msg")}


@pytest.mark.parametrize("folder", PACKAGES, ids=["vifa", "vision_msgs", "tf2_msgs"])
def test_packages_used_by_cmake_are_declared(folder):
    used = set(re.findall(r"find_package\((\w+) REQUIRED\)", (folder / "CMakeLists.txt").read_text()))
    package = parse_package(folder / "package.xml")
    declared = {dependency.name for dependency in package.buildtool_depends + package.build_depends}
    assert used <= declared


def test_one_version_everywhere():
    version = parse_package(ROOT / "package.xml").version
    assert re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1] == version
    newest = re.search(r"^(Forthcoming|[\d.]+).*\n-+\n((?:.+\n?)*)", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert version in (newest[1] if newest[1] != "Forthcoming" else newest[2])


def test_programs_are_the_same_for_pip_and_cmake():
    installed = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert {name: installed.get(name) for name in PROGRAMS} == PROGRAMS
    listed = dict(
        re.findall(r"^vifa_program\(([\w-]+) ([\w.]+)\)$", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    )
    assert {name: f"{module}:main" for name, module in listed.items() if name in PROGRAMS} == PROGRAMS
    assert listed["fusion_node"] == "vifa_ros.fusion_node"


@pytest.mark.parametrize("module", ["vifa_ros.cli", "vifa_ros.fusion_node", "vifa_training.cli"])
def test_main_of_every_program_is_callable(module):
    if module.startswith("vifa_training"):
        pytest.importorskip("torch", reason="torch is not in the robot's environment")
    assert callable(importlib.import_module(module).main)


def test_no_setup_cfg():
    assert not (ROOT / "setup.cfg").exists(), "ament copies a root setup.cfg into the egg of every Python package"


def test_ci_run_is_executable():
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_wheel_holds_every_data_file(checkout, tmp_path):
    """A plain `pip install` brings the schemas of the packages, and share/vifa."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, checkout], check=True, capture_output=True)
    with ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = "\n".join(wheel.namelist())
    folders = ("vifa_runtime", "vifa_ros", "vifa_training", "config", "launch", "models")
    files = [path for folder in folders for path in (checkout / folder).rglob("*") if path.is_file()]
    missing = [path for path in files if f"{path.relative_to(checkout)}\n" not in f"{packed}\n"]
    assert missing == []
