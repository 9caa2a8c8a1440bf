"""The listener on real topics."""

import itertools
import time

import pytest
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from vifa_ros.transform_listener import TF_QOS, TF_STATIC_QOS, TransformListener
from vifa_ros.transforms import TransformBuffer, TransformError

SECOND = 1_000_000_000
STILL = (0.0, 0.0, 0.0, 1.0)
PATIENCE = 60.0  # seconds, which only a failing test waits
_numbers = itertools.count()


@pytest.fixture
def make_node(ros):
    """A function that makes nodes, and `spin_until(condition)`, which lets all of them work."""
    executor, nodes = SingleThreadedExecutor(), []

    def make(**parameters):
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        nodes.append(Node(f"node{next(_numbers)}", parameter_overrides=overrides))
        executor.add_node(nodes[-1])
        return nodes[-1]

    def spin_until(condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
            executor.spin_once(timeout_sec=0.02)

    make.spin_until = spin_until
    yield make
    executor.shutdown()
    for node in nodes:
        node.destroy_node()


def tf_message(parent, child, seconds, x, rotation=STILL):
    header = Header(frame_id=parent)
    header.stamp.sec = seconds
    turn = Quaternion(**dict(zip("xyzw", rotation, strict=True)))
    transform = Transform(translation=Vector3(x=x), rotation=turn)
    return TFMessage(transforms=[TransformStamped(header=header, child_frame_id=child, transform=transform)])


def knows(buffer, target, source, stamp):
    try:
        return bool(buffer.lookup(target, source, stamp))
    except TransformError:
        return False


def test_static_and_moving_frames_are_heard(make_node):
    """The static one was told before anybody listened."""
    friend, listening = make_node(), make_node()
    static = friend.create_publisher(
        TFMessage, "/tf_static", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    moving = friend.create_publisher(TFMessage, "/tf", 100)
    static.publish(tf_message("base", "camera", 0, 1.0))
    buffer = TransformBuffer()
    listener = TransformListener(listening, buffer)
    make_node.spin_until(lambda: moving.get_subscription_count(), "the listener")
    moving.publish(tf_message("map", "base", 10, 5.0))
    moving.publish(tf_message("map", "base", 11, 7.0))
    make_node.spin_until(lambda: knows(buffer, "map", "camera", 11 * SECOND), "both topics")
    assert buffer.lookup("map", "camera", 10 * SECOND + SECOND // 2).translation == (7, 0, 0)
    assert (listener.refused, listener.problem) == (0, "")


def test_what_is_no_transform_is_told_and_the_rest_taken_in(make_node):
    friend, listening = make_node(), make_node()
    moving = friend.create_publisher(TFMessage, "/tf", 100)
    buffer = TransformBuffer()
    listener = TransformListener(listening, buffer)
    make_node.spin_until(lambda: moving.get_subscription_count(), "the listener")
    moving.publish(tf_message("base", "arm", 1, 5.0, rotation=(0.0, 0.0, 0.0, 0.0)))
    moving.publish(tf_message("base", "hand", 1, 6.0))
    make_node.spin_until(lambda: knows(buffer, "base", "hand", SECOND), "the good one")
    assert (listener.refused, knows(buffer, "base", "arm", SECOND)) == (1, False)
    assert listener.problem.startswith("transform of 'arm' in 'base' has translation (5.0, 0.0, 0.0) and quaternion")


def test_after_closing_nothing_is_heard(make_node):
    friend, listening = make_node(), make_node()
    moving = friend.create_publisher(TFMessage, "/tf", 100)
    buffer = TransformBuffer()
    listener = TransformListener(listening, buffer)
    make_node.spin_until(lambda: moving.get_subscription_count(), "the listener")
    listener.close()
    make_node.spin_until(lambda: not moving.get_subscription_count(), "the end of listening")
    listener.close()


def test_profiles_are_those_of_tf2():
    """From tf2_ros: depth 100, reliable; /tf is volatile, /tf_static told again to who comes late."""
    assert (TF_QOS.depth, TF_STATIC_QOS.depth) == (100, 100)
    assert TF_QOS.durability == DurabilityPolicy.VOLATILE
    assert TF_STATIC_QOS.durability == DurabilityPolicy.TRANSIENT_LOCAL


@pytest.fixture
def simulated(make_node):
    """A listener whose node follows /clock, a buffer with a moving and a static frame, and a function that sets it."""
    clock = make_node().create_publisher(Clock, "/clock", 10)
    node = make_node(use_sim_time=True)
    buffer = TransformBuffer()
    listener = TransformListener(node, buffer)
    make_node.spin_until(lambda: clock.get_subscription_count(), "the node's clock")

    def set_clock(seconds):
        message = Clock()
        message.clock.sec = seconds

        def is_set():
            clock.publish(message)
            return node.get_clock().now().nanoseconds == seconds * SECOND

        make_node.spin_until(is_set, "the clock")

    set_clock(100)
    buffer.add("map", "base", 100 * SECOND, (1, 0, 0), STILL)
    buffer.add("base", "camera", 0, (1, 0, 0), STILL, is_static=True)
    yield listener, buffer, set_clock
    listener.close()


def test_a_clock_that_is_set_back_clears_what_moves(simulated):
    _, buffer, set_clock = simulated
    set_clock(101)
    assert knows(buffer, "map", "camera", 100 * SECOND)
    set_clock(50)
    assert not knows(buffer, "map", "camera", 100 * SECOND)
    assert knows(buffer, "base", "camera", 0)


def test_after_closing_the_clock_clears_nothing(simulated):
    listener, buffer, set_clock = simulated
    listener.close()
    set_clock(50)
    assert knows(buffer, "map", "camera", 100 * SECOND)
    listener.close()
