"""What a real fusion node shows to others: topics, QoS, services."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from vifa_ros.fusion_node import FusionNode

PATIENCE = 60.0  # seconds: generous, as the machine may be busy


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
        deadline = time.monotonic() + PATIENCE
        while not is_complete(seen := look_at(observer), node):
            assert time.monotonic() < deadline, "the observer does not see all that the node has"
            time.sleep(0.05)
        node.trigger_deactivate()
    finally:
        node.close()
        node.destroy_node()
        observer.destroy_node()
        del node
        gc.collect()  # rclpy's lifecycle services keep the node in the graph for as long as they live
        rclpy.try_shutdown()
    return seen


def look_at(observer: Node) -> Offer:
    """What an observer sees of the node /vifa; nothing where it does not see the node yet."""
    ways = (
        observer.get_publisher_names_and_types_by_node,
        observer.get_subscriber_names_and_types_by_node,
        observer.get_service_names_and_types_by_node,
    )
    if "vifa" not in observer.get_node_names():
        return Offer({}, {}, {}, {})
    published, subscribed, services = ({name: kind for name, (kind,) in ask("vifa", "/")} for ask in ways)
    infos = {topic: observer.get_publishers_info_by_topic(topic) for topic in published}
    qos = {topic: info.qos_profile for topic, known in infos.items() for info in known if info.node_name == "vifa"}
    return Offer(published, subscribed, qos, services)


def is_complete(seen: Offer, node: FusionNode) -> bool:
    """Whether all that a node knows of itself is seen. What rcl makes for it, which it does not know of, is older."""
    topics = {publisher.topic_name for publisher in node.publishers}
    return (
        topics <= set(seen.published)
        and topics <= set(seen.qos)
        and {subscription.topic_name for subscription in node.subscriptions} <= set(seen.subscribed)
        and {node.resolve_service_name(service.srv_name) for service in node.services} <= set(seen.services)
    )
