"""vifa.launch.py and demo.launch.py, launched for real: bring-up, names, topics, parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

launch_pytest = pytest.importorskip(
    "launch_pytest", reason="launch_pytest is not on PyPI: launch files are launched only where a ROS 2 provides it"
)

from launch_pytest.actions import ReadyToTest  # noqa: E402  (after the check that there is a launch at all)
from launched import include, launch_to_its_end  # noqa: E402  (likewise)
from lifecycle_msgs.msg import Transition  # noqa: E402  (likewise)
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402  (likewise)
from rcl_interfaces.srv import GetParameters  # noqa: E402  (likewise)
from sensor_msgs.msg import Image  # noqa: E402  (likewise)

from launch import LaunchDescription  # noqa: E402  (likewise)
from vifa.msg import FusionStatus  # noqa: E402  (likewise)

TOPICS = {
    "visible": "/front/rgb",
    "visible_info": "/front/info",
    "thermal": "/nose/ir",
    "thermal_info": "/nose/info",
    "points": "/roof/points",
}


def launched(**arguments: str) -> LaunchDescription:
    """vifa.launch.py, and the test beside it."""
    return LaunchDescription([include("vifa.launch.py", **arguments), ReadyToTest()])


def state_of(listener, node: str) -> str:
    """The lifecycle state of a node."""
    return listener.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label


def value_of(listener, node: str, parameter: str):
    """The value of a parameter of a node, as a rcl_interfaces/ParameterValue."""
    request = GetParameters.Request(names=[parameter])
    return listener.call(GetParameters, f"{node}/get_parameters", request).values[0]


@launch_pytest.fixture
def without_arguments():
    return launched()


@pytest.mark.launch(fixture=without_arguments)
def test_the_node_comes_up_active_with_the_default_bundle(listener) -> None:
    status = listener.collect(FusionStatus, "/vifa/status")
    listener.wait_until(lambda: state_of(listener, "/vifa") == "active", "the state active")
    listener.wait_until(lambda: status and status[-1].bundle == "nano-fusion", "a status with the bundle's name")


@launch_pytest.fixture
def left_to_a_manager():
    return launched(autostart="false", bundle="nano-two-task")


@pytest.mark.launch(fixture=left_to_a_manager)
def test_a_manager_brings_the_node_up(listener) -> None:
    assert state_of(listener, "/vifa") == "unconfigured"
    for transition, state in [("CONFIGURE", "inactive"), ("ACTIVATE", "active")]:
        request = ChangeState.Request(transition=Transition(id=getattr(Transition, f"TRANSITION_{transition}")))
        assert listener.call(ChangeState, "/vifa/change_state", request).success
        assert state_of(listener, "/vifa") == state


@launch_pytest.fixture
def manager_with_a_missing_bundle():
    return launched(autostart="false", bundle="nowhere")


@pytest.mark.launch(fixture=manager_with_a_missing_bundle)
def test_a_failure_is_left_to_the_manager(listener) -> None:
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert not listener.call(ChangeState, "/vifa/change_state", request).success
    status = listener.collect(FusionStatus, "/vifa/status")
    listener.wait_until(lambda: len(status) > 2, "the node's status after its failure")
    assert "no bundle at nowhere" in status[-1].message


@launch_pytest.fixture
def reconfigured_later():
    return launched()


@pytest.mark.launch(fixture=reconfigured_later)
def test_a_later_failure_does_not_end_the_launch(listener, tmp_path: Path) -> None:
    """What was brought up once is in the hands of whoever cleans it up."""
    listener.wait_until(lambda: state_of(listener, "/vifa") == "active", "the state active")
    status = listener.collect(FusionStatus, "/vifa/status")
    for name in ("DEACTIVATE", "CLEANUP"):
        request = ChangeState.Request(transition=Transition(id=getattr(Transition, f"TRANSITION_{name}")))
        assert listener.call(ChangeState, "/vifa/change_state", request).success
    set_bundle(listener, "nowhere")
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert not listener.call(ChangeState, "/vifa/change_state", request).success
    count = len(status)
    listener.wait_until(lambda: len(status) > count + 3, "the node, which goes on")


def set_bundle(listener, name: str) -> None:
    """Set the parameter bundle of the node /vifa."""
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    request = SetParameters.Request(parameters=[Parameter("bundle", value=name).to_parameter_msg()])
    (result,) = listener.call(SetParameters, "/vifa/set_parameters", request).results
    assert result.successful, result.reason


@pytest.fixture
def parameter_file(tmp_path: Path) -> str:
    file = tmp_path / "parameters.yaml"
    file.write_text("/**:\n  ros__parameters:\n    status_rate: 10.0\n    slop: 0.5\n    bundle: nano-two-task\n")
    return str(file)


@launch_pytest.fixture
def named(parameter_file: str):
    return launched(name="eyes", namespace="robot", params_file=parameter_file, use_sim_time="True", **TOPICS)


@pytest.mark.launch(fixture=named)
def test_name_namespace_topics_parameter_file_and_clock(listener) -> None:
    listener.wait_until(lambda: state_of(listener, "/robot/eyes") == "active", "the state active")
    assert value_of(listener, "/robot/eyes", "bundle").string_value == "nano-two-task"
    assert value_of(listener, "/robot/eyes", "slop").double_value == 0.5
    assert value_of(listener, "/robot/eyes", "use_sim_time").bool_value
    subscribed = dict(listener.get_subscriber_names_and_types_by_node("eyes", "/robot"))
    assert set(TOPICS.values()) <= set(subscribed)
    assert not [topic for topic in subscribed if topic.endswith(("image_raw", "camera_info", "robot/points"))]


@launch_pytest.fixture
def chosen_by_argument(parameter_file: str):
    return launched(params_file=parameter_file, bundle="nano-fusion")


@pytest.mark.launch(fixture=chosen_by_argument)
def test_an_argument_wins_over_the_parameter_file(listener) -> None:
    listener.wait_until(lambda: state_of(listener, "/vifa") == "active", "the state active")
    assert value_of(listener, "/vifa", "bundle").string_value == "nano-fusion"


def test_demo_publishes_both_tasks_and_ends_with_the_player(listener) -> None:
    saliency = listener.collect(Image, "/vifa/saliency/image")
    texture = listener.collect(Image, "/vifa/texture/image")
    code, printed = launch_to_its_end("demo.launch.py", rate="5.0", frames="30")
    assert code == 0, printed
    assert saliency and texture
    assert {(image.width, image.height, image.encoding) for image in saliency} == {(640, 480, "rgb8")}
