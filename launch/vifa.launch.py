"""Start one fusion node: `ros2 launch vifa vifa.launch.py visible:=/camera/image_raw thermal:=/flir/image_raw`.

The arguments are what differs from robot to robot; everything else is in the parameter file (config/vifa.yaml).
A node that cannot be configured, because its bundle is missing for one, ends the launch with the cause and exit code 1.
With autostart:=false it waits for a lifecycle manager, which then decides what a failure means.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import Action, LaunchContext, LaunchDescription
from vifa_ros.profiles import dds_environment

INPUTS = {
    "visible": ("visible/image_raw", "Topic of the visible camera's images; also where their /compressed is read."),
    "visible_info": ("visible/camera_info", "Topic of the visible camera's camera_info; optional."),
    "thermal": ("thermal/image_raw", "Topic of the thermal camera's images; likewise."),
    "thermal_info": ("thermal/camera_info", "Topic of the thermal camera's camera_info; optional."),
    "points": ("points", "Topic of a lidar's points; they are coloured where one is given."),
}
OPTIONS = {
    "bundle": ("", "Folder of a bundle or shipped name; the parameter file's by default."),
    "params_file": ("", "Parameter file; config/vifa.yaml of this package by default."),
    "name": ("vifa", "Name of the node; its topics lie below it."),
    "namespace": ("", "Namespace of the node."),
}
SWITCHES = {
    "autostart": ("true", "Configure and activate at start, whatever the parameter file says; false: a manager does."),
    "use_sim_time": ("false", "Take the time from /clock."),
}
YES_OR_NO = ["true", "false", "True", "False"]
CONFIGURED, CANNOT_CONFIGURE = "configured: ", "configure: "  # what the node logs; the cause follows


def start_node(context: LaunchContext) -> list[Action]:
    """Make the node from the launch arguments, and watch what it says."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*INPUTS, *OPTIONS, *SWITCHES)}
    file = given["params_file"] or f"{get_package_share_directory('vifa')}/config/vifa.yaml"
    if not Path(file).is_file():  # launch itself would go on with the defaults
        raise RuntimeError(f"params_file: no file at {file}")
    chosen: dict[str, bool | str] = {"autostart": given["autostart"].lower() == "true"}
    if given["use_sim_time"].lower() == "true":
        chosen["use_sim_time"] = True
    if given["points"] != INPUTS["points"][0]:
        chosen["points"] = True
    if given["bundle"]:
        chosen["bundle"] = given["bundle"]
    node = Node(
        package="vifa",
        executable="fusion_node",
        name=given["name"],
        namespace=given["namespace"],
        parameters=[file, chosen],
        remappings=[(topic, given[name]) for name, (topic, _) in INPUTS.items()],
        additional_env=dds_environment(),
        on_exit=end_when_it_died,
        output="screen",
    )
    return [RegisterEventHandler(watch_bring_up(node)), node] if chosen["autostart"] else [node]


def watch_bring_up(node: Node) -> OnProcessIO:
    """What ends the launch with the cause when the node says that it cannot be configured, until it says that it is.

    The log, and not ~/transition_event: it cannot come before somebody listens, and needs no DDS in the launch, which
    would need keys of its own under SROS 2.
    """
    is_up = False

    def look(event: ProcessIO) -> None:
        nonlocal is_up
        for line in event.text.decode(errors="replace").splitlines():
            is_up = is_up or CONFIGURED in line
            _, found, cause = line.partition(CANNOT_CONFIGURE)
            if found and not is_up:
                raise RuntimeError(f"the fusion node cannot be configured: {cause}")

    return OnProcessIO(target_action=node, on_stdout=look, on_stderr=look)


def end_when_it_died(event: ProcessExited, context: LaunchContext) -> None:
    """End the launch, with an exit code that a supervisor such as systemd sees, when the node died by itself."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f"the fusion node died with exit code {event.returncode}; its last lines above say why")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in {**INPUTS, **OPTIONS}.items()
    ]
    declared += [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=YES_OR_NO)
        for name, (default, description) in SWITCHES.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start_node)])
