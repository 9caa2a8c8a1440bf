"""`vifa replay`. Without postponed annotations, which Typer 0.9 does not read."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vifa_ros.bags.errors import need_rosbags
from vifa_ros.usage import need_ros


def replay(
    bag: Annotated[Path, typer.Argument(help="Folder of a bag, or one .mcap or .db3 file.")],
    rate: Annotated[float, typer.Option(help="Speed; 0.5 takes twice as long.", min=0.001, max=1000)] = 1.0,
    node: Annotated[str, typer.Option(help="What a node of this name published then is left out.")] = "/vifa",
    wait: Annotated[float, typer.Option(help="Seconds to wait for a listener before starting.", min=0)] = 30.0,
) -> None:
    """Play a bag under its own topics, with /clock: `ros2 bag play` for machines without it.

    Example: vifa replay street --rate 0.5
    """
    need_rosbags()
    need_ros()
    import rclpy

    from vifa_ros.bag_player import BagPlayer
    from vifa_ros.bags.opening import Bag
    from vifa_ros.executor import until_interrupted
    from vifa_ros.profiles import dds_environment

    os.environ.update(dds_environment())
    with Bag(bag) as opened:
        rclpy.init()
        player = BagPlayer(opened, rate, [f"/{node.strip('/')}/"])
        try:
            for topic, reason in player.left_out.items():
                print(f"{topic} is not played: {reason}", file=sys.stderr)
            with until_interrupted():
                if not player.wait_for_listeners(wait):
                    print(f"nobody listens to its images after {wait:g} s; playing all the same", file=sys.stderr)
                player.play()
        finally:
            print(f"played {sum(player.sent.values())} of {opened.message_count} messages of {bag}")
            player.destroy_node()
            rclpy.try_shutdown()
