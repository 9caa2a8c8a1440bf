"""What the buffer of transforms takes in, what it refuses by name, and messages as they come."""

import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from vifa_ros.transforms import TransformBuffer, TransformError, TransformSettings, add_message

SECOND = 1_000_000_000
STILL = (0.0, 0.0, 0.0, 1.0)
QUARTER = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))  # a quarter turn around z


@pytest.mark.parametrize(
    ("parent", "child", "translation", "rotation", "message"),
    [
        ("", "arm", (0, 0, 0), STILL, "transform of 'arm' in '': a name is empty; name both frames"),
        ("base", "/", (0, 0, 0), STILL, "transform of '' in 'base': a name is empty"),
        ("/arm", "arm", (0, 0, 0), STILL, "transform of 'arm' in itself; name the parent frame"),
        ("base", "arm", (0, math.nan, 0), STILL, r"transform of 'arm' in 'base' has translation \(0, nan, 0\)"),
        ("base", "arm", (0, 0, math.inf), STILL, "send finite numbers"),
        ("base", "arm", (0, 0, 0), (0, 0, 0, 0), r"quaternion \(0, 0, 0, 0\); send .* a quaternion of length 1"),
        ("base", "arm", (0, 0, 0), (0, 0, 0, 1.02), "a quaternion of length 1"),
        ("base", "arm", (0, 0, 0), (0, 0, 0, math.nan), "a quaternion of length 1"),
        ("base", "arm", (0, 0, 0), (0, 0, 0, math.inf), "a quaternion of length 1"),
    ],
)
def test_what_is_no_transform_is_refused_by_name(parent, child, translation, rotation, message):
    buffer = TransformBuffer()
    buffer.add("base", "arm", 0, (0, 0, 0), STILL)
    with pytest.raises(TransformError, match=message):
        buffer.add(parent, child, 0, translation, rotation)
    assert buffer.lookup("base", "arm", 0).translation == (0, 0, 0)


def test_a_quaternion_that_is_a_little_off_is_made_a_unit_one():
    buffer = TransformBuffer()
    buffer.add("base", "arm", 0, (0, 0, 0), tuple(1.009 * value for value in QUARTER))
    buffer.add("base", "arm", 2 * SECOND, (0, 0, 0), (0, 0, 0, 0.991))
    for stamp, angle in ((0, math.pi / 2), (1, math.pi / 4), (2, 0)):
        found = Rotation.from_matrix(np.reshape(buffer.lookup("base", "arm", stamp * SECOND).rotation, (3, 3)))
        np.testing.assert_allclose(found.as_rotvec(), (0, 0, angle), atol=1e-12)


def test_a_chain_that_leads_too_far_is_refused():
    buffer = TransformBuffer()
    buffer.add("a", "b", 0, (9e8, 0, 0), STILL)
    buffer.add("b", "c", 0, (9e8, 0, 0), STILL)
    with pytest.raises(TransformError, match="no transform from 'c' to 'a': translation: expected numbers of at most"):
        buffer.lookup("a", "c", 0)


@pytest.mark.parametrize("changes", [{"span": -1}, {"capacity": 0}, {"tolerance": -1}, {"jump": 0}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} must be at least"):
        TransformSettings(**changes)


def message(parent, child, stamp, translation=(0.0, 0.0, 0.0), rotation=STILL):
    return TransformStamped(
        header=Header(frame_id=parent, stamp=Time(sec=stamp // SECOND, nanosec=stamp % SECOND)),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(**dict(zip("xyz", translation, strict=True))),
            rotation=Quaternion(**dict(zip("xyzw", rotation, strict=True))),
        ),
    )


def test_messages_are_taken_in_and_bad_ones_told():
    buffer = TransformBuffer(TransformSettings(tolerance=0))
    stamp = 1_700_000_000 * SECOND + 123_456_789
    messages = [
        message("base", "arm", stamp, (1.0, 2.0, 3.0), QUARTER),
        message("base", "base", stamp),
        message("arm", "hand", stamp, (1.0, 0.0, 0.0)),
    ]
    assert add_message(buffer, messages, is_static=False) == ["transform of 'base' in itself; name the parent frame"]
    np.testing.assert_allclose(buffer.lookup("base", "hand", stamp).translation, (1, 3, 3), atol=1e-12)
    assert add_message(buffer, [message("base", "mast", 0)], is_static=True) == []
    assert buffer.lookup("mast", "base", 3).translation == (0, 0, 0)
