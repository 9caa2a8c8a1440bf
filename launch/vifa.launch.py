"""Start one fusion node: `ros2 launch vifa vifa.launch.py visible:=/camera/image_raw thermal:=/flir/image_raw`.

The arguments are what differs from robot to robot; everything else is in the parameter file (config/vifa.yaml).
"""

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from vifa_ros.profiles import dds_environment

ARGUMENTS = {
    "visible": ("visible/image_raw", "Topic of the visible camera's images."),
    "visible_info": ("visible/camera_info", "Topic of the visible camera's camera_info; optional."),
    "thermal": ("thermal/image_raw", "Topic of the thermal camera's images."),
    "bundle": ("", "Folder of a bundle or shipped name; the parameter file's by default."),
    "params_file": ("", "Parameter file; config/vifa.yaml of this package by default."),
    "name": ("vifa", "Name of the node; its topics lie below it."),
    "namespace": ("", "Namespace of the node."),
}


def start_node(context: LaunchContext) -> list[Node]:
    """Make the node from the launch arguments."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    default_file = f"{get_package_share_directory('vifa')}/config/vifa.yaml"
    chosen = {"bundle": given["bundle"]} if given["bundle"] else {}
    return [
        Node(
            package="vifa",
            executable="fusion_node",
            name=given["name"],
            namespace=given["namespace"],
            parameters=[given["params_file"] or default_file, chosen],
            remappings=[
                ("visible/image_raw", given["visible"]),
                ("visible/camera_info", given["visible_info"]),
                ("thermal/image_raw", given["thermal"]),
            ],
            additional_env=dds_environment(),
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start_node)])
