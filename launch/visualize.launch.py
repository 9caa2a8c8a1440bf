"""Look at what the fusion node publishes: `ros2 launch vifa visualize.launch.py task:=road_users`.

RViz with config/vifa.rviz, on this or another machine. What is shown is computed for it: close the displays that
nobody looks at.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from vifa_ros.profiles import dds_environment

ARGUMENTS = {
    "task": ("", "Task of the node's bundle to show in every display; those of the shipped bundles by default."),
    "fixed_frame": ("", "Frame that RViz shows; give the visible camera's, or one that tf leads to from there."),
    "name": ("vifa", "Name of the node."),
    "namespace": ("", "Namespace of the node."),
}


def start_rviz(context: LaunchContext) -> list[Node]:
    """Make RViz from the launch arguments; it ends when its window is closed."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz2 is not installed here: sudo apt install ros-$ROS_DISTRO-rviz2") from None
    config = Path(f"{get_package_share_directory('vifa')}/config/vifa.rviz")
    node = f"/{given['namespace']}/{given['name']}".replace("//", "/")
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            name="vifa_rviz",
            arguments=["-d", str(config), *(["-f", given["fixed_frame"]] if given["fixed_frame"] else [])],
            remappings=[(topic, rename(topic, node, given["task"])) for topic in find_topics(config)],
            additional_env=dds_environment(),
            output="screen",
        )
    ]


def find_topics(config: Path) -> list[str]:
    """The topics of the displays of an RViz configuration."""
    displays = yaml.safe_load(config.read_text())["Visualization Manager"]["Displays"]
    return [display["Topic"]["Value"] for display in displays if "Topic" in display]


def rename(topic: str, node: str, task: str) -> str:
    """A topic /vifa/TASK/OUTPUT below another node, of another task where one is given."""
    _, _, shown, output = topic.split("/")
    return f"{node}/{task or shown}/{output}"


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start_rviz)])
