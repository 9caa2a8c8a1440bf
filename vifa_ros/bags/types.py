"""The messages of vision_msgs that VIFA sends, for machines where that package is not: rosbags does not bring them.

The same as in msg/vision_msgs, which a test compares. Comments in a definition don't change a type's hash.
"""

from __future__ import annotations

from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

VISION_TYPES = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y\n",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id\n"
    ),
    "vision_msgs/msg/Detection2DArray": "std_msgs/Header header\nDetection2D[] detections\n",
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    "vision_msgs/msg/LabelInfo": ("std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"),
}


def add_vision_types(store: Typestore) -> None:
    """Register VISION_TYPES in a store that has the types of ROS 2 itself."""
    for name, text in VISION_TYPES.items():
        store.register(get_types_from_msg(text, name))
