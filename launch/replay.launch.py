"""Play a bag into the fusion node: `ros2 launch vifa replay.launch.py bag:=drive visible:=/rgb thermal:=/lwir`.

`visible`, `thermal` and the other arguments of vifa.launch.py name the bag's topics and the node. The bag gives the
time, and begins when the node is ready. The launch ends with the bag.
What the recorded robot said about itself is not played: topics of a node of this name, /diagnostics, /rosout and
/parameter_events.
`vifa evaluate drive --live /vifa -o report`, started before, measures what the node makes of the bag: docs/bags.md.
"""

import shutil
import subprocess
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import Action, LaunchContext, LaunchDescription
from vifa_ros.profiles import dds_environment

PLAYER = ("ros2", "bag", "play")
CONFIGURED = "configured: "  # what the node logs when its engine is built
CLOCK_RATE = "100"  # messages a second on /clock
# Seconds in which player and node find each other: a best-effort image that comes before is lost. Fast DDS announces
# itself every 3 s, and on a busy machine the first announcements do not come through.
DELAY = "4"
TOLD_ABOUT_ITSELF = ("/diagnostics", "/rosout", "/parameter_events")


def check_player() -> None:
    """Fail where `ros2 bag play` cannot be run, before anything is started."""
    if shutil.which(PLAYER[0]) is not None:
        asked = subprocess.run([*PLAYER, "--help"], capture_output=True, timeout=10.0)
        if asked.returncode == 0:
            return
    raise RuntimeError("`ros2 bag play` is not installed here: sudo apt install ros-$ROS_DISTRO-rosbag2")


def play_bag(context: LaunchContext) -> list[Action]:
    """Make the player from the launch arguments; it starts when the node says that it is ready."""
    bag, rate, namespace, name = (
        LaunchConfiguration(argument).perform(context) for argument in ("bag", "rate", "namespace", "name")
    )
    if not Path(bag).exists():
        raise RuntimeError(f"bag: nothing at {bag}")
    check_player()
    node = f"/{namespace}/{name}".replace("//", "/")
    left_out = "|".join((f"{node}/.*", *TOLD_ABOUT_ITSELF))
    player = ExecuteProcess(
        cmd=[*PLAYER, bag, "--rate", rate, "--clock", CLOCK_RATE, "--delay", DELAY, "--exclude-regex", left_out],
        name="bag",
        additional_env=dds_environment(),
        on_exit=end_with_bag,
        output="screen",
    )
    waiting = [player]

    def start_when_ready(event: ProcessIO) -> list[Action] | None:
        return [waiting.pop()] if waiting and CONFIGURED in event.text.decode(errors="replace") else None

    return [RegisterEventHandler(OnProcessIO(on_stdout=start_when_ready, on_stderr=start_when_ready))]


def end_with_bag(event: ProcessExited, context: LaunchContext) -> list[Action]:
    """The launch ends with the bag, and fails where the player failed."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f"ros2 bag play ended with exit code {event.returncode}; its last lines above say why")
    return [Shutdown(reason="the bag has ended")]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for; the other arguments are those of vifa.launch.py."""
    node = PythonLaunchDescriptionSource(f"{get_package_share_directory('vifa')}/launch/vifa.launch.py")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Bag to play: its folder or file."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed; 2.0 is twice as fast."),
            DeclareLaunchArgument("name", default_value="vifa", description="Name of the node."),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
            OpaqueFunction(function=play_bag),
            IncludeLaunchDescription(node, launch_arguments={"use_sim_time": "true"}.items()),
        ]
    )
