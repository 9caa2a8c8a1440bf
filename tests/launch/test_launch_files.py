"""The launch files, really launched where launch is installed, and always checked against what they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from vifa_ros.fusion_node import FusionNode
from vifa_ros.parameters import BY_NAME, to_yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def calls_of(path: Path, name: str) -> list[dict[str, ast.expr]]:
    """Keyword arguments of every call of `name` in a file."""
    return [
        {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def test_there_are_launch_files() -> None:
    assert [path.name for path in LAUNCH_FILES] == ["demo.launch.py", "vifa.launch.py"]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_program_exists(path: Path) -> None:
    programs = set(re.findall(r"^vifa_program\((\S+) ", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE))
    nodes = calls_of(path, "Node")
    assert nodes
    for node in nodes:
        assert ast.literal_eval(node["package"]) == "vifa"
        assert ast.literal_eval(node["executable"]) in programs


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_file_exists(path: Path) -> None:
    named = re.findall(r"get_package_share_directory\('vifa'\)\}/([\w/.]+)", path.read_text())
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


@pytest.fixture
def topics_of_node() -> Iterator[set[str]]:
    """The topics that a real, active node subscribes to, without the leading slash."""
    rclpy.init()
    node = FusionNode(parameter_overrides=[Parameter("autostart", value=False)])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    yield {subscription.topic_name.lstrip("/") for subscription in node.subscriptions}
    node.trigger_deactivate()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def test_every_remapped_topic_is_one_of_the_node(topics_of_node: set[str]) -> None:
    (node,) = calls_of(ROOT / "launch" / "vifa.launch.py", "Node")
    assert isinstance(node["remappings"], ast.List)
    topics = {ast.literal_eval(pair.elts[0]) for pair in node["remappings"].elts if isinstance(pair, ast.Tuple)}
    assert topics
    assert topics <= topics_of_node


def test_every_parameter_named_exists() -> None:
    source = (ROOT / "launch" / "vifa.launch.py").read_text()
    assert set(re.findall(r'chosen = \{"(\w+)"', source)) <= set(BY_NAME)


def test_the_parameter_file_is_the_table() -> None:
    text = (ROOT / "config" / "vifa.yaml").read_text()
    assert text == to_yaml()
    assert set(yaml.safe_load(text)["/**"]["ros__parameters"]) == {name.split(".")[0] for name in BY_NAME}
