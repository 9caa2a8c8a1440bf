"""The messages that PyPI lacks talk to the real ones: two sides match only if their type hashes are equal."""

import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")
from rclpy.context import Context  # noqa: E402  (after the check that they are there)
from tf2_msgs.msg import TFMessage  # noqa: E402  (likewise)
from vision_msgs import msg  # noqa: E402  (likewise)

# Of vision_msgs 4.1.1 (github.com/ros-perception/vision_msgs, e77fa2d), built with rosidl 4.6.6 (Jazzy).
HASHES = {
    "BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "VisionClass": "1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
}
# As Jazzy announces and records it: `ros2 topic info --verbose /tf`, `type_description_hash` in a bag's metadata.yaml.
HASH_OF_TF = "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"


@pytest.fixture(scope="module")
def node():
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node("vision_msgs_hashes", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


def announced_hash(node, kind: type) -> str:
    """The type hash that the middleware announces for a publisher of this message."""
    name = kind.__name__
    topic = f"/vision_msgs_hashes/{name}"
    publisher = node.create_publisher(kind, topic, 1)
    deadline = time.monotonic() + 10
    while not (endpoints := node.get_publishers_info_by_topic(topic)):
        assert time.monotonic() < deadline, f"the publisher of {name} was not announced"
        time.sleep(0.02)
    node.destroy_publisher(publisher)
    if not hasattr(endpoints[0], "topic_type_hash"):
        pytest.skip("this ROS has no type hashes (they came with Iron)")
    return bytes(endpoints[0].topic_type_hash.value).hex()


@pytest.mark.parametrize("name", HASHES)
def test_type_hash_equals_that_of_vision_msgs_4(node, name):
    assert announced_hash(node, getattr(msg, name)) == HASHES[name]


def test_type_hash_equals_that_of_tf2_msgs(node):
    assert announced_hash(node, TFMessage) == HASH_OF_TF
