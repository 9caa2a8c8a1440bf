"""What is shown of the node: RViz and Foxglove know every class, and the node publishes every topic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from offers import Offer
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

CONFIG = Path(__file__).resolve().parents[2] / "config"

# What RViz 14 (Jazzy) brings: ros2/rviz 14.3.1, rviz_default_plugins/plugins_description.xml, and for panels
# rviz_common/src/rviz_common/panel_factory.cpp. Displays: with the type of their messages.
RVIZ_DISPLAYS = {
    "rviz_default_plugins/Grid": None,
    "rviz_default_plugins/TF": None,
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
}
RVIZ_TOOLS = {
    f"rviz_default_plugins/{name}"
    for name in ("FocusCamera", "Interact", "Measure", "MoveCamera", "PublishPoint", "Select", "SetGoal")
}
RVIZ_VIEWS = {
    f"rviz_default_plugins/{name}"
    for name in ("FPS", "FrameAligned", "Orbit", "ThirdPersonFollower", "TopDownOrtho", "XYOrbit")
}
RVIZ_PANELS = {
    f"rviz_common/{name}"
    for name in ("Displays", "Help", "Selection", "Time", "Tool Properties", "Transformation", "Views")
}
RVIZ_POINT_COLOURS = {"RGB8", "RGBF32", "Intensity", "AxisColor", "FlatColor"}

# The panels of Foxglove that are used here, as Lichtblick, Foxglove's open successor, calls them in
# packages/suite-base/src/panels: type -> (where a panel of it holds its topic, types of the topic; none for any).
FOXGLOVE_PANELS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "Image": (("imageMode", "imageTopic"), {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}),
    "DiagnosticSummary": (("topicToRender",), {"diagnostic_msgs/msg/DiagnosticArray"}),
    "RawMessages": (("topicPath",), set()),
}


@pytest.fixture(scope="module")
def rviz() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "vifa.rviz").read_text())


def displays(rviz: dict[str, Any]) -> list[dict[str, Any]]:
    return rviz["Visualization Manager"]["Displays"]


def test_rviz_knows_every_class(rviz: dict[str, Any]) -> None:
    manager = rviz["Visualization Manager"]
    assert {panel["Class"] for panel in rviz["Panels"]} <= RVIZ_PANELS
    assert {tool["Class"] for tool in manager["Tools"]} <= RVIZ_TOOLS
    assert manager["Views"]["Current"]["Class"] in RVIZ_VIEWS
    assert {display["Class"] for display in displays(rviz)} <= set(RVIZ_DISPLAYS)
    names = [display["Name"] for display in displays(rviz)]
    assert {"Grid", "Points", "Fused", "Overlay", "Mask"} == set(names)
    assert len(names) == len(set(names))
    assert all(display["Enabled"] == display["Value"] for display in displays(rviz))
    (points,) = (display for display in displays(rviz) if display["Name"] == "Points")
    assert points["Color Transformer"] in RVIZ_POINT_COLOURS


def test_the_node_publishes_what_rviz_shows_and_the_qos_fits(rviz: dict[str, Any], offered: Offer) -> None:
    shown = [display for display in displays(rviz) if RVIZ_DISPLAYS[display["Class"]] is not None]
    assert len(shown) == 4
    for display in shown:
        topic = display["Topic"]["Value"]
        assert offered.published.get(topic) == RVIZ_DISPLAYS[display["Class"]], topic
        fits, reason = qos_check_compatible(offered.qos[topic], qos_of(display["Topic"]))
        assert fits == QoSCompatibility.OK, f"{topic}: {reason}"


def qos_of(topic: dict[str, Any]) -> QoSProfile:
    """The QoS of a display, in RViz's words."""

    def policy(kind: Any, name: str) -> Any:
        return kind[topic[name].upper().replace(" ", "_")]

    return QoSProfile(
        depth=topic["Depth"],
        history=policy(HistoryPolicy, "History Policy"),
        reliability=policy(ReliabilityPolicy, "Reliability Policy"),
        durability=policy(DurabilityPolicy, "Durability Policy"),
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


def test_rviz_shows_the_frame_of_the_demos_camera(rviz: dict[str, Any]) -> None:
    """From behind the camera, looking along its z axis, with its y axis down: as in its image."""
    from vifa_ros import players

    assert 'frame_id=f"{shot.stream}_camera"' in Path(players.__file__).read_text()
    assert rviz["Visualization Manager"]["Global Options"]["Fixed Frame"] == f"{players.VISIBLE}_camera"
    view = rviz["Visualization Manager"]["Views"]["Current"]
    focus = np.array([view["Focal Point"][axis] for axis in "XYZ"])
    yaw, pitch = view["Yaw"], view["Pitch"]
    outward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])  # as RViz's Orbit
    eye, ahead = focus + view["Distance"] * outward, -outward
    assert eye[2] < 0, "behind the camera"
    assert ahead[2] > 0.99
    up = np.array([0.0, 0.0, 1.0]) - ahead[2] * ahead
    assert up[1] / np.linalg.norm(up) < -0.99


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    return json.loads((CONFIG / "foxglove.json").read_text())


def panels_in(layout: Any) -> Iterator[str]:
    """The panels of a layout, which halves an area again and again."""
    if isinstance(layout, str):
        yield layout
        return
    assert set(layout) == {"direction", "splitPercentage", "first", "second"}
    assert layout["direction"] in ("row", "column")
    assert 0 < layout["splitPercentage"] < 100
    yield from panels_in(layout["first"])
    yield from panels_in(layout["second"])


def test_foxglove_lays_out_every_panel_once(foxglove: dict[str, Any]) -> None:
    assert sorted(panels_in(foxglove["layout"])) == sorted(foxglove["configById"])


def test_the_node_publishes_what_foxglove_shows(foxglove: dict[str, Any], offered: Offer) -> None:
    for name, config in foxglove["configById"].items():
        keys, types = FOXGLOVE_PANELS[name.split("!")[0]]
        topic: Any = config
        for key in keys:
            topic = topic[key]
        assert topic in offered.published, name
        assert not types or offered.published[topic] in types, name


def test_foxglove_is_sent_compressed_images(foxglove: dict[str, Any], offered: Offer) -> None:
    """It is there for other machines."""
    topics = [c["imageMode"]["imageTopic"] for name, c in foxglove["configById"].items() if name.startswith("Image!")]
    assert {offered.published[topic] for topic in topics} == {"sensor_msgs/msg/CompressedImage"}
