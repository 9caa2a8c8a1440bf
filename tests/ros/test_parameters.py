"""The table of parameters, the file made from it, and what a running node does when one is set."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from images import expected_bright, random_thermal, random_visible
from rcl_interfaces.msg import ParameterType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from robot import drops

from vifa_ros.fusion_node import FusionNode
from vifa_ros.parameters import PARAMETERS, declare_all, engine_options, find_problem, to_markdown, to_yaml
from vifa_runtime.backends import Options

SHIPPED_FILE = Path(__file__).parents[2] / "config" / "vifa.yaml"
TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    list: ParameterType.PARAMETER_STRING_ARRAY,
}
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
TABLE = pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)


@pytest.fixture(scope="module")
def node(ros):
    """A fusion node as it is right after its start."""
    node = FusionNode("declared")
    yield node
    node.close()
    node.destroy_node()


@TABLE
def test_a_parameter_is_declared_with_default_type_and_description(node, parameter):
    descriptor = node.describe_parameter(parameter.name)
    assert node.get_parameter(parameter.name).value == parameter.default
    assert node.get_parameter(parameter.name).type_.value == TYPES[type(parameter.default)]
    assert descriptor.type == TYPES[type(parameter.default)]
    assert descriptor.description == parameter.description
    assert descriptor.additional_constraints == ", ".join(parameter.choices)


@TABLE
def test_a_parameter_is_declared_with_its_range(node, parameter):
    descriptor = node.describe_parameter(parameter.name)
    ranges = [(r.from_value, r.to_value) for r in (*descriptor.integer_range, *descriptor.floating_point_range)]
    assert ranges == ([] if parameter.low is None else [(parameter.low, parameter.high)])


def test_the_node_has_no_parameter_that_the_table_lacks(node):
    of_rclpy = {"use_sim_time", "start_type_description_service"}
    assert set(node._parameters) - of_rclpy == set(BY_NAME)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("slop", -0.01, InvalidParameterValueException),
        ("threads", 257, InvalidParameterValueException),
        ("slop", "wide", InvalidParameterTypeException),
    ],
)
def test_a_wrong_start_value_is_refused(ros, name, value, error):
    with pytest.raises(error, match=name):
        FusionNode("wrong", parameter_overrides=[Parameter(name, value=value)])


def test_the_shipped_file_is_the_one_made_from_the_table():
    assert SHIPPED_FILE.read_text() == to_yaml(), "run: python -m vifa_ros.parameters yaml > config/vifa.yaml"


def test_a_node_started_with_the_shipped_file_has_the_defaults(ros):
    node = Node("from_file", cli_args=["--ros-args", "--params-file", str(SHIPPED_FILE)])
    declare_all(node)
    values = {name: node.get_parameter(name).value for name in BY_NAME}
    node.destroy_node()
    assert values == {name: parameter.default for name, parameter in BY_NAME.items()}


def test_a_node_takes_every_value_from_a_file(ros, tmp_path):
    changed = {name: change(parameter) for name, parameter in BY_NAME.items()}
    lines = yaml.safe_load(to_yaml())
    for name, value in changed.items():
        *parents, leaf = name.split(".")
        section = lines["/**"]["ros__parameters"]
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(lines))
    node = Node("from_file", cli_args=["--ros-args", "--params-file", str(path)])
    declare_all(node)
    values = {name: node.get_parameter(name).value for name in BY_NAME}
    node.destroy_node()
    assert values == changed


def change(parameter):
    """Another allowed value than the default."""
    if parameter.choices:
        return parameter.choices[-1]
    if isinstance(parameter.default, bool):
        return not parameter.default
    if isinstance(parameter.default, (int, float)):
        assert parameter.low is not None and parameter.high is not None
        return type(parameter.default)((parameter.default + parameter.high) / 2)
    return ["a", "b"] if isinstance(parameter.default, list) else "other"


@TABLE
def test_the_page_has_a_line_for_the_parameter(parameter):
    (line,) = [line for line in to_markdown().splitlines() if line.startswith(f"| `{parameter.name}` |")]
    assert parameter.description in line
    assert line.count("|") == 7


@TABLE
def test_only_live_parameters_may_change_while_configured(parameter):
    problem = find_problem({parameter.name: change(parameter)}, configured=True)
    if parameter.live:
        assert problem is None
    else:
        assert problem == f"{parameter.name} is fixed while the node is configured; clean it up first"


@TABLE
def test_every_parameter_may_change_before_it_is_configured(parameter):
    assert find_problem({parameter.name: change(parameter)}, configured=False) is None


def test_the_engines_options_are_the_parameters():
    defaults = {name: parameter.default for name, parameter in BY_NAME.items()}
    assert engine_options(defaults.__getitem__) == Options()
    given = {"threads": 2, "precision": "fp16", "engines": "a/b", "build_engines": True, "fallback": "onnxruntime"}
    wanted = Options(threads=2, precision="fp16", engines=Path("a/b"), build=True, fallback="onnxruntime")
    assert engine_options(given.__getitem__) == wanted


# A running node.


def test_a_running_node_refuses_fixed_parameters_and_keeps_their_values(shared_robot):
    for parameter in PARAMETERS:
        if not parameter.live:
            result = shared_robot.set_parameter(parameter.name, change(parameter))
            assert not result.successful, parameter.name
            assert "fixed while the node is configured" in result.reason
    assert shared_robot.get_parameter("thermal.mode").string_value == "bundle"


@pytest.mark.parametrize(("name", "value"), [("slop", -1.0), ("slop", 10.5), ("queue_size", 0), ("queue_size", 1001)])
def test_a_running_node_refuses_values_out_of_range(shared_robot, name, value):
    assert not shared_robot.set_parameter(name, value).successful


@pytest.mark.parametrize("value", [1, "wide", True])
def test_a_running_node_refuses_another_type(shared_robot, value):
    assert not shared_robot.set_parameter("slop", value).successful


def test_a_running_node_refuses_a_task_that_the_bundle_lacks(shared_robot):
    result = shared_robot.set_parameter("tasks", ["bright", "saliency"])
    assert not result.successful
    assert result.reason == "parameter tasks: bundle tiny has no 'saliency'; it has bright, dim"


def test_a_running_node_refuses_an_undeclared_parameter(shared_robot):
    assert not shared_robot.set_parameter("speed", 1.0).successful


def test_an_unconfigured_node_refuses_what_is_no_choice(start_robot):
    robot = start_robot(autostart=False)
    result = robot.set_parameter("thermal.mode", "guess")
    assert not result.successful
    assert result.reason.startswith("thermal.mode is 'guess'; use one of bundle, auto")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("backend", "abacus", "back end 'abacus' is unknown; use one of"),
        ("thermal.mode", "guess", "thermal mode 'guess' is unknown; use one of"),
        ("thermal.low_percentile", 99.9, "thermal percentiles must satisfy 0 <= low < high <= 100"),
    ],
)
def test_a_start_value_that_no_engine_takes_is_named_by_the_status(start_robot, name, value, reason):
    robot = start_robot(**{"thermal.mode": "percentile", name: value})
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert status.message.startswith(reason)


def test_fixed_parameters_may_change_again_after_cleanup(robot):
    assert robot.change_state("deactivate") and robot.change_state("cleanup")
    assert robot.set_parameter("thermal.mode", "min_max").successful


def test_an_unknown_task_at_the_start_is_a_failure_that_names_it(start_robot):
    robot = start_robot(tasks=["bright", "saliency"])
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert status.message == "parameter tasks: bundle tiny has no 'saliency'; it has bright, dim"
    assert robot.state() == "unconfigured"


def test_a_wider_slop_applies_at_once(robot):
    visible, thermal = random_visible(), random_thermal()
    robot.listen("bright")
    robot.connect_cameras()
    robot.show("visible", visible, 1.0)
    robot.show("thermal", thermal, 1.1)
    robot.wait_for_status(lambda status: drops(status.visible.dropped) == {"no_partner": 1}, "no partner")
    assert robot.set_parameter("slop", 0.2).successful
    robot.show("visible", visible, 2.0)
    robot.show("thermal", thermal, 2.1)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 2.0), expected_bright(visible, thermal))


@pytest.mark.parametrize(("name", "offset"), [("visible_offset", 0.5), ("thermal_offset", -0.5)])
def test_a_new_offset_applies_at_once(robot, name, offset):
    visible, thermal = random_visible(), random_thermal()
    robot.listen("bright")
    robot.connect_cameras()
    assert robot.set_parameter(name, offset).successful
    robot.show("visible", visible, 1.0)
    robot.show("thermal", thermal, 1.5)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 1.0), expected_bright(visible, thermal))


def test_a_smaller_queue_applies_at_once(robot):
    robot.connect_cameras()
    assert robot.set_parameter("queue_size", 2).successful
    for i in range(5):
        robot.show("visible", random_visible(), 1.0 + i)
    status = robot.wait_for_status(lambda status: status.visible.received == 5, "five frames")
    assert (status.visible.waiting, drops(status.visible.dropped)) == (2, {"buffer_full": 3})


def test_chosen_tasks_are_the_only_ones_that_run(robot):
    robot.listen("bright", "dim")
    robot.connect_cameras()
    assert robot.set_parameter("tasks", ["dim"]).successful
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    robot.wait_for_image("dim", 1.0)
    status = robot.wait_for_status(lambda status: status.processed == 1, "a pair")
    tasks = [(task.name, task.wanted, task.published) for task in status.tasks]
    assert tasks == [("bright", False, 0), ("dim", True, 1)]
    assert "head.bright" not in [stage.stage for stage in status.stages]


def test_a_new_status_rate_applies_at_once(start_robot):
    robot = start_robot(status_rate=0.1)
    robot.wait_for_state("active")
    assert robot.set_parameter("status_rate", 50.0).successful
    first = len(robot.statuses)
    robot.wait_for_status(lambda _: len(robot.statuses) > first + 10, "ten messages, which would take 100 s at first")
