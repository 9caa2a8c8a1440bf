"""Two played cameras and the fusion node: `ros2 launch vifa demo.launch.py pairs:=/data/street`.

Without `pairs` the synthetic street is played. Look at /vifa/saliency/image and /vifa/texture/image; with a bundle that
finds something, at /vifa/<task>/overlay.
"""

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from vifa_ros.profiles import dds_environment


def start_player(context: LaunchContext) -> list[Node]:
    """Make the player from the launch arguments; the launch ends with it."""
    pairs, rate, frames = (LaunchConfiguration(name).perform(context) for name in ("pairs", "rate", "frames"))
    arguments = ["play", "--rate", rate]
    arguments += ["--frames", frames] if frames else []
    arguments += [pairs] if pairs else []
    return [
        Node(
            package="vifa",
            executable="vifa",
            name="player",
            arguments=arguments,
            additional_env=dds_environment(),
            on_exit=Shutdown(reason="the player has ended"),
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    node = PythonLaunchDescriptionSource(f"{get_package_share_directory('vifa')}/launch/vifa.launch.py")
    return LaunchDescription(
        [
            DeclareLaunchArgument("pairs", default_value="", description="Folder with vi/ and ir/."),
            DeclareLaunchArgument("rate", default_value="15.0", description="Pairs a second."),
            DeclareLaunchArgument("frames", default_value="", description="Stop after so many pairs."),
            DeclareLaunchArgument("bundle", default_value="", description="Folder of a bundle or shipped name."),
            IncludeLaunchDescription(node, launch_arguments={"bundle": LaunchConfiguration("bundle")}.items()),
            OpaqueFunction(function=start_player),
        ]
    )
