"""visualize.launch.py: RViz gets the configuration, and the topics of the node and the task that are asked for."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip(
    "launch_pytest", reason="launch_pytest is not on PyPI: launch files are launched only where a ROS 2 provides it"
)

from launched import launch_to_its_end

CONFIG = Path(__file__).resolve().parents[2] / "config" / "vifa.rviz"


@pytest.fixture
def command_of_rviz(tmp_path: Path):
    """A function that launches with arguments and returns the words that RViz was called with.

    A program that writes them down stands for RViz, which needs a screen.
    """
    index = tmp_path / "share/ament_index/resource_index/packages/rviz2"
    program, words = tmp_path / "lib/rviz2/rviz2", tmp_path / "words"
    index.parent.mkdir(parents=True)
    index.touch()
    program.parent.mkdir(parents=True)
    program.write_text(f'#!{shutil.which("sh")}\nprintf "%s\\n" "$@" > {words}\n')
    program.chmod(0o755)
    variables = dict(os.environ, AMENT_PREFIX_PATH=f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}")

    def launch(**arguments: str) -> list[str]:
        code, printed = launch_to_its_end("visualize.launch.py", variables, **arguments)
        assert code == 0, printed
        return words.read_text().splitlines()

    return launch


def remapped(words: list[str]) -> dict[str, str]:
    """The rules among the words of a command, but for that of the node's name."""
    rules = [after for word, after in itertools.pairwise(words) if word == "-r"]
    return {old: new for old, new in (rule.split(":=") for rule in rules) if not old.startswith("__")}


def topics() -> list[str]:
    shown = yaml.safe_load(CONFIG.read_text())["Visualization Manager"]["Displays"]
    return [display["Topic"]["Value"] for display in shown if "Topic" in display]


def test_without_arguments_it_shows_the_configuration_as_it_is(command_of_rviz) -> None:
    words = command_of_rviz()
    assert Path(words[words.index("-d") + 1]).read_text() == CONFIG.read_text()
    assert "-f" not in words
    assert remapped(words) == {topic: topic for topic in topics()}


def test_another_node_task_and_frame(command_of_rviz) -> None:
    words = command_of_rviz(name="eyes", namespace="robot", task="weeds", fixed_frame="base_link")
    assert words[words.index("-f") + 1] == "base_link"
    rules = remapped(words)
    assert sorted(rules) == sorted(topics())
    for topic, shown in rules.items():
        assert shown == f"/robot/eyes/weeds/{topic.split('/')[-1]}"


def test_another_node_with_the_shipped_tasks(command_of_rviz) -> None:
    rules = remapped(command_of_rviz(namespace="/robot"))
    assert rules == {topic: f"/robot{topic}" for topic in topics()}
