"""Who publishes what the node subscribes to, and why nothing of it may arrive."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible


def find_publisher_problem(node: Node, topic: str, qos: QoSProfile, type_name: str) -> str:
    """Why a topic's publishers don't reach a subscription, or disturb each other; empty where all is well.

    Args:
        topic: its full name.
        qos: of the node's subscription.
        type_name: what it takes, such as sensor_msgs/msg/Image.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    fitting = []
    for publisher in publishers:
        who = _name(publisher)
        if publisher.topic_type != type_name:
            return f"{who} publishes {publisher.topic_type}, this node takes {type_name}; check remapping and transport"
        fits, reason = qos_check_compatible(publisher.qos_profile, qos)
        if fits == QoSCompatibility.ERROR:
            return f"the QoS of {who} does not fit this node's ({_plain(reason)}); change qos_overrides of one of both"
        fitting.append(who)
    if len(fitting) > 1:
        return f"{len(fitting)} publishers ({', '.join(sorted(fitting))}) mix their images; remap all but one"
    return ""


def _name(publisher: Any) -> str:
    """The full name of a publisher's node, which is heard of a little later than the publisher itself."""
    if "UNKNOWN" in publisher.node_name:
        return "a publisher"
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"


def _plain(reason: str) -> str:
    """A reason of rclpy's on one line, without its headings."""
    parts = (part.strip().removeprefix("ERROR: ") for part in reason.split(";"))
    return ", ".join(part.lower() for part in parts if part)
