"""Fills a buffer of transforms from what is published on /tf and /tf_static."""

from __future__ import annotations

from functools import partial
from typing import Any

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from vifa_ros.transforms import TransformBuffer, add_message

TF_QOS = QoSProfile(depth=100)  # both as tf2_ros has them
TF_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformListener:
    """Fills a buffer from /tf and /tf_static, and clears it when the node's clock is set back.

    Attributes:
        refused: how many transforms could not be taken in.
        problem: the last reason, empty for none.
    """

    def __init__(self, node: Node, buffer: TransformBuffer, callback_group: Any = None) -> None:
        """Subscribe.

        Args:
            node: whose executor calls back.
            buffer: filled from there, read from anywhere.
            callback_group: of the subscriptions; None for the node's own.
        """
        self.refused, self.problem = 0, ""
        self._node, self._buffer = node, buffer
        self._subscriptions = [
            node.create_subscription(
                TFMessage, topic, partial(self._take, is_static), qos, callback_group=callback_group
            )
            for topic, is_static, qos in (("/tf", False, TF_QOS), ("/tf_static", True, TF_STATIC_QOS))
        ]
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._clock = node.get_clock().create_jump_callback(backwards, post_callback=lambda _: buffer.clear())

    def close(self) -> None:
        """Unsubscribe; the buffer keeps what it has. Safe to call twice."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._clock.unregister()

    def _take(self, is_static: bool, message: Any) -> None:
        for problem in add_message(self._buffer, message.transforms, is_static):
            self.refused, self.problem = self.refused + 1, problem
            topic = "/tf_static" if is_static else "/tf"
            self._node.get_logger().error(f"{topic}: {problem}", throttle_duration_sec=5.0)
