"""What a real fusion node shows to others: topics, QoS, services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from vifa_ros.fusion_node import FusionNode


@dataclass(frozen=True)
class Offer:
    """What a fusion node shows to others, by full names.

    Attributes:
        published, subscribed: topic -> its type, such as sensor_msgs/msg/Image.
        qos: published topic -> the publisher's QoS.
        services: service -> its type.
    """

    published: dict[str, str]
    subscribed: dict[str, str]
    qos: dict[str, Any]
    services: dict[str, str]


def offer(bundle: str, **parameters: Any) -> Offer:
    """What a real node /vifa shows when it is active with a bundle and parameters; ROS is initialised for it alone."""
    rclpy.init()
    values = {"autostart": False, "bundle": bundle, **parameters}
    node = FusionNode("vifa", parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
    observer = Node("observer")
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        published, subscribed, services = (
            {name: kind for name, (kind,) in ask("vifa", "/")}
            for ask in (
                observer.get_publisher_names_and_types_by_node,
                observer.get_subscriber_names_and_types_by_node,
                observer.get_service_names_and_types_by_node,
            )
        )
        qos = {
            topic: info.qos_profile
            for topic in published
            for info in observer.get_publishers_info_by_topic(topic)
            if info.node_name == "vifa"
        }
        node.trigger_deactivate()
    finally:
        node.close()
        node.destroy_node()
        observer.destroy_node()
        rclpy.try_shutdown()
    return Offer(published, subscribed, qos, services)
