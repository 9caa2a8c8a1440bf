"""The launch files as text, against what they name: programs, files, topics, parameters, and what the node says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from vifa_ros.fusion_node import FusionNode
from vifa_ros.parameters import BY_NAME, to_yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
VIFA, REPLAY = ROOT / "launch/vifa.launch.py", ROOT / "launch/replay.launch.py"
LIMIT = 60.0  # seconds, as the machine may be busy


def calls_of(path: Path, name: str) -> list[ast.Call]:
    """Every call of `name` in a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]


def keywords_of(path: Path, name: str) -> list[dict[str, ast.expr]]:
    """Keyword arguments of every call of `name` in a file."""
    return [{k.arg: k.value for k in call.keywords if k.arg} for call in calls_of(path, name)]


def constants(path: Path) -> dict[str, Any]:
    """The constants of a launch file, which cannot be imported where there is no launch."""
    found: dict[str, Any] = {}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign):
            (target,) = statement.targets
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            value = ast.literal_eval(statement.value)
            found |= {n.id: v for n, v in zip(names, value if len(names) > 1 else [value], strict=True)}
    return found


def arguments_of(path: Path) -> dict[str, str | None]:
    """The launch arguments that a file declares, with their defaults; None where one must be given."""
    found: dict[str, str | None] = {}
    for value in constants(path).values():
        if isinstance(value, dict):
            found |= {name: about[0] for name, about in value.items()}
    for call in calls_of(path, "DeclareLaunchArgument"):
        if isinstance(call.args[0], ast.Constant):
            default = {k.arg: k.value for k in call.keywords}.get("default_value")
            found[call.args[0].value] = None if default is None else ast.literal_eval(default)
    return found


def test_there_are_launch_files() -> None:
    names = [path.name.removesuffix(".launch.py") for path in LAUNCH_FILES]
    assert names == ["demo", "replay", "vifa", "visualize"]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_program_exists(path: Path) -> None:
    programs = set(re.findall(r"^vifa_program\((\S+) ", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE))
    started = [[ast.literal_eval(node[key]) for key in ("package", "executable")] for node in keywords_of(path, "Node")]
    assert started or path == REPLAY
    assert all(package == "vifa" and program in programs for package, program in started if package != "rviz2")


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_file_exists(path: Path) -> None:
    named = re.findall(r"get_package_share_directory\('vifa'\)\}/([\w/.]+)", path.read_text())
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_the_name_of_the_node_is_the_same_everywhere() -> None:
    names = {path.name: arguments_of(path)["name"] for path in LAUNCH_FILES if "name" in arguments_of(path)}
    assert names == dict.fromkeys(["replay.launch.py", "vifa.launch.py", "visualize.launch.py"], "vifa")


@pytest.fixture
def topics_of_node() -> Iterator[set[str]]:
    """The topics that a real, active node subscribes to, without the leading slash."""
    rclpy.init()
    values = {"autostart": False, "points": True}
    node = FusionNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    yield {subscription.topic_name.lstrip("/") for subscription in node.subscriptions}
    node.trigger_deactivate()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def test_every_input_of_the_node_can_be_remapped_and_nothing_else(topics_of_node: set[str]) -> None:
    assert {topic for topic, _ in constants(VIFA)["INPUTS"].values()} == topics_of_node - {"tf", "tf_static"}


def test_every_parameter_named_exists() -> None:
    named = set(re.findall(r'chosen\["(\w+)"\]|chosen: .* = \{"(\w+)"', VIFA.read_text()))
    names = {name for pair in named for name in pair if name}
    assert {"autostart", "bundle"} < names
    assert names <= set(BY_NAME) | {"use_sim_time"}


def test_the_parameter_file_is_the_table() -> None:
    text = (ROOT / "config" / "vifa.yaml").read_text()
    assert text == to_yaml()
    assert set(yaml.safe_load(text)["/**"]["ros__parameters"]) == {name.split(".")[0] for name in BY_NAME}


def what_a_node_says(bundle: str, until: str) -> str:
    """The line with `until` of a real node's log, from there on."""
    command = [sys.executable, "-m", "vifa_ros.fusion_node", "--ros-args", "-p", f"bundle:={bundle}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        found = next((line for line in node.stderr if until in line), "")
        node.terminate()
    return found.partition(until)[2]


def test_the_node_says_what_the_launch_files_wait_for() -> None:
    vifa, replay = constants(VIFA), constants(REPLAY)
    assert vifa["CONFIGURED"] == replay["CONFIGURED"]
    assert what_a_node_says("nano-fusion", vifa["CONFIGURED"]).startswith("nano-fusion on ")
    assert what_a_node_says("nowhere", vifa["CANNOT_CONFIGURE"]).startswith("no bundle at nowhere")
