"""What `ros2 bag play` does, for machines that have launch but no rosbag2: real messages of a real bag, by rosbags.

Takes the options of rosbag2 0.26 (Jazzy) that replay.launch.py uses, and refuses every other.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("ros2")
    play = parser.add_subparsers(required=True).add_parser("bag").add_subparsers(required=True).add_parser("play")
    play.add_argument("bag", type=Path)
    play.add_argument("--rate", type=float, default=1.0)
    play.add_argument("--clock", type=float, default=40.0)
    play.add_argument("--delay", type=float, default=0.0)
    play.add_argument("--exclude-regex", default="", dest="left_out")
    return parser.parse_args()


def message_type(name: str) -> type:
    """The class of package/msg/Name."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def main() -> None:
    """Play a bag to its end; a clock message before every other stands for any rate of the clock."""
    given = parse()
    rclpy.init()
    node = Node("rosbag2_player")
    qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    clock = node.create_publisher(Clock, "/clock", 10)
    with AnyReader([given.bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as bag:
        played = [c for c in bag.connections if not re.fullmatch(given.left_out, c.topic)]
        publishers = {c.topic: node.create_publisher(message_type(c.msgtype), c.topic, qos) for c in played}
        time.sleep(given.delay)
        begin = time.monotonic()
        for connection, stamp, raw in bag.messages(played):
            due = begin + (stamp - bag.start_time) * 1e-9 / given.rate
            time.sleep(max(0.0, due - time.monotonic()))
            clock.publish(Clock(clock=Time(nanoseconds=stamp).to_msg()))
            publishers[connection.topic].publish(deserialize_message(bytes(raw), message_type(connection.msgtype)))
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
