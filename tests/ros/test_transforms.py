"""Transforms between frames, against SciPy's rotations and interpolation, and by hand for what trees do over time."""

import math
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from vifa_ros.transforms import TransformBuffer, TransformError, TransformSettings

SECOND = 1_000_000_000
STILL = (0.0, 0.0, 0.0, 1.0)
QUARTER = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))  # a quarter turn around z
METRES = st.tuples(*[st.floats(-50, 50)] * 3)
QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: tuple(np.array(q) / math.hypot(*q)))
)


def square(extrinsics):
    """The 4x4 matrix of an answer."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.reshape(extrinsics.rotation, (3, 3)), extrinsics.translation
    return matrix


def scipy_square(translation, rotation):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), translation
    return matrix


def moving(*stamps, parent="base", child="arm", **settings):
    """A buffer in which a frame was seen at stamps in seconds, as many metres along x."""
    buffer = TransformBuffer(TransformSettings(**settings))
    for stamp in stamps:
        buffer.add(parent, child, round(stamp * SECOND), (float(stamp), 0.0, 0.0), STILL)
    return buffer


def along_x(buffer, stamp, target="base", source="arm"):
    return buffer.lookup(target, source, round(stamp * SECOND)).translation[0]


def test_by_hand_a_point_of_the_source_is_given_in_the_target():
    """The arm is 1 m ahead of the base and turned to the left: 1 m along its x is 1 m to the left of that."""
    buffer = TransformBuffer()
    buffer.add("base", "arm", 0, (1.0, 0.0, 0.0), QUARTER, is_static=True)
    np.testing.assert_allclose(square(buffer.lookup("base", "arm", 5)) @ (1, 0, 0, 1), (1, 1, 0, 1), atol=1e-12)
    np.testing.assert_allclose(square(buffer.lookup("arm", "base", 5)) @ (1, 1, 0, 1), (1, 0, 0, 1), atol=1e-12)


@given(METRES, METRES, QUATERNIONS, QUATERNIONS, st.integers(1, 10**10), st.floats(0, 1))
def test_between_two_stamps_it_is_what_scipy_interpolates(first, second, turn, end, gap, share):
    angle = (Rotation.from_quat(turn).inv() * Rotation.from_quat(end)).magnitude()
    assume(angle < math.pi - 1e-3)  # at half a turn there are two shortest arcs
    start, stamp = 1_700_000_000 * SECOND, round(share * gap)
    buffer = TransformBuffer()
    buffer.add("base", "arm", start, first, turn)
    buffer.add("base", "arm", start + gap, second, end)
    wanted = Slerp([0, 1], Rotation.from_quat([turn, end]))(stamp / gap)
    translation = np.array(first) + stamp / gap * (np.array(second) - first)
    found = square(buffer.lookup("base", "arm", start + stamp))
    np.testing.assert_allclose(found, scipy_square(translation, wanted), atol=1e-9)


@given(QUATERNIONS, st.floats(0, 1), st.floats(1e-9, 1e-4))
def test_rotations_that_hardly_differ_are_interpolated_too(turn, share, angle):
    end = (Rotation.from_quat(turn) * Rotation.from_rotvec([angle, 0, 0])).as_quat()
    buffer = TransformBuffer()
    buffer.add("base", "arm", 0, (0, 0, 0), turn)
    buffer.add("base", "arm", SECOND, (0, 0, 0), tuple(end))
    found = Rotation.from_matrix(square(buffer.lookup("base", "arm", round(share * SECOND)))[:3, :3])
    turned = (Rotation.from_quat(turn).inv() * found).magnitude()
    assert turned == pytest.approx(share * angle, abs=1e-7 * angle + 1e-15 + angle / SECOND)


def test_the_way_round_is_the_short_one_whatever_the_signs():
    buffer = TransformBuffer()
    buffer.add("base", "arm", 0, (0, 0, 0), STILL)
    buffer.add("base", "arm", 2 * SECOND, (0, 0, 0), tuple(-value for value in QUARTER))
    found = Rotation.from_matrix(square(buffer.lookup("base", "arm", SECOND))[:3, :3])
    np.testing.assert_allclose(found.as_rotvec(), (0, 0, math.pi / 4), atol=1e-12)


@st.composite
def trees(draw):
    """A tree of frames: per frame its parent (None for the root) and where it is at 0 s and at 1 s."""
    count = draw(st.integers(2, 8))
    tree = {"0": (None, None, None)}
    for index in range(1, count):
        places = [(draw(METRES), draw(QUATERNIONS)) for _ in range(2)]
        is_static = draw(st.booleans())
        tree[str(index)] = (str(draw(st.integers(0, index - 1))), places[0], None if is_static else places[1])
    return tree


@given(trees(), st.data())
def test_any_two_frames_of_a_tree_are_linked_as_scipy_multiplies(tree, data):
    share = data.draw(st.integers(0, SECOND))
    buffer = TransformBuffer(TransformSettings(jump=2 * SECOND))  # they come in any order
    to_root, links = {"0": np.eye(4)}, []
    for child, (parent, first, second) in tree.items():
        if parent is None:
            continue
        shift, turn = first
        rotation = Rotation.from_quat(turn)
        links.append((parent, child, 0, shift, turn, second is None))
        if second is not None:
            links.append((parent, child, SECOND, *second, False))
            end = Rotation.from_quat(second[1])
            assume((rotation.inv() * end).magnitude() < math.pi - 1e-3)
            rotation = Slerp([0, SECOND], Rotation.concatenate([rotation, end]))(share)
            shift = np.array(shift) + share / SECOND * (np.array(second[0]) - shift)
        to_root[child] = to_root[parent] @ scipy_square(shift, rotation)
    for link in data.draw(st.permutations(links)):
        buffer.add(*link)
    target, source = data.draw(st.sampled_from(sorted(tree))), data.draw(st.sampled_from(sorted(tree)))
    found = square(buffer.lookup(target, source, share))
    np.testing.assert_allclose(found, np.linalg.inv(to_root[target]) @ to_root[source], atol=1e-7)


def test_a_static_transform_holds_at_all_times():
    buffer = TransformBuffer(TransformSettings(tolerance=0))
    buffer.add("base", "camera", 7 * SECOND, (1, 2, 3), STILL, is_static=True)
    for stamp in (-(10**18), 0, 7 * SECOND, 10**18):
        assert buffer.lookup("base", "camera", stamp).translation == (1, 2, 3)


def test_of_two_static_ones_the_last_counts():
    buffer = TransformBuffer()
    buffer.add("base", "camera", 9, (1, 2, 3), STILL, is_static=True)
    buffer.add("base", "camera", 5, (4, 5, 6), STILL, is_static=True)
    assert buffer.lookup("base", "camera", 0).translation == (4, 5, 6)


def test_a_frame_that_is_static_and_moving_is_what_was_heard_last():
    buffer = moving(0, 1)
    buffer.add("base", "arm", 0, (9, 0, 0), STILL, is_static=True)
    assert along_x(buffer, 0.5) == 9
    buffer.add("base", "arm", SECOND, (1, 0, 0), STILL)
    assert along_x(buffer, 1) == 1
    with pytest.raises(TransformError, match=r"oldest transform is 0\.5 s younger"):
        along_x(buffer, 0.5)
    assert buffer.jumps == 0


@given(st.permutations([0.0, 0.2, 0.3, 0.7, 0.9]), st.floats(0, 0.9))
def test_late_transforms_take_their_place(stamps, stamp):
    assert along_x(moving(*stamps), stamp) == pytest.approx(stamp, abs=1e-8)


def test_a_second_transform_of_one_stamp_replaces_the_first():
    buffer = moving(0, 1)
    buffer.add("base", "arm", SECOND, (5, 0, 0), STILL)
    assert along_x(buffer, 1) == 5
    assert along_x(buffer, 0.5) == 2.5


@pytest.mark.parametrize(("stamp", "wanted"), [(0.9, 1), (1.0, 1), (2.5, 2.5), (3.0, 3), (3.1, 3)])
def test_within_the_tolerance_the_nearest_transform_is_taken_as_it_is(stamp, wanted):
    assert along_x(moving(1, 2, 3), stamp) == wanted


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        (0.899, "of 'arm', its oldest transform is 0.101 s younger than asked for, more than the 0.1 s allowed"),
        (3.101, "of 'arm', its newest transform is 0.101 s older than asked for, more than the 0.1 s allowed"),
    ],
)
def test_beyond_the_tolerance_nothing_is_made_up(stamp, message):
    with pytest.raises(TransformError, match=f"^no transform from 'arm' to 'base': {message}$"):
        along_x(moving(1, 2, 3), stamp)


def test_without_tolerance_a_single_transform_holds_at_its_stamp_only():
    buffer = moving(1, tolerance=0)
    assert along_x(buffer, 1) == 1
    for stamp in (SECOND - 1, SECOND + 1):
        with pytest.raises(TransformError, match="than asked for"):
            buffer.lookup("base", "arm", stamp)


def test_old_transforms_are_forgotten():
    buffer = moving(*range(30), span=10 * SECOND, tolerance=0)
    assert along_x(buffer, 19) == 19
    with pytest.raises(TransformError, match=r"its oldest transform is 0\.5 s younger than asked for"):
        along_x(buffer, 18.5)


def test_no_frame_takes_more_room_than_it_is_given():
    buffer = moving(*np.arange(0, 1, 0.01), capacity=20)
    assert along_x(buffer, 0.80) == pytest.approx(0.80)
    with pytest.raises(TransformError, match="its oldest transform is"):
        along_x(buffer, 0.69)
    assert max(len(history.stamps) for history in buffer._histories.values()) == 20


def test_a_frame_may_change_its_parent():
    """A box is carried from a table to a robot: each stamp belongs to the parent it was seen under."""
    buffer = moving(0, 1, parent="table", child="box")
    buffer.add("robot", "box", 2 * SECOND, (7, 0, 0), STILL)
    buffer.add("robot", "box", 3 * SECOND, (9, 0, 0), STILL)
    assert along_x(buffer, 0.5, "table", "box") == 0.5
    assert along_x(buffer, 2.5, "robot", "box") == 8
    assert along_x(buffer, 1.1, "table", "box") == 1  # within the tolerance, as it was last
    assert along_x(buffer, 1.9, "robot", "box") == 7
    with pytest.raises(TransformError, match=r"of 'box', it changes its parent about then, more than the 0\.1 s"):
        along_x(buffer, 1.5, "table", "box")
    with pytest.raises(TransformError, match="nothing links 'robot' and 'table'; publish where one is in the other"):
        buffer.lookup("table", "robot", 0)


def test_between_two_parents_close_by_the_one_before_counts():
    buffer = moving(0, 1, parent="table", child="box")
    buffer.add("robot", "box", round(1.05 * SECOND), (7, 0, 0), STILL)
    assert along_x(buffer, 1.049, "table", "box") == 1
    assert along_x(buffer, 1.05, "robot", "box") == 7


def test_frames_that_meet_below_what_is_too_old_are_linked():
    """Where the robot is on the map was last told 5 s ago; that does not matter between its own parts."""
    buffer = moving(0, parent="map", child="base")
    buffer.add("base", "camera", 0, (1, 0, 0), STILL, is_static=True)
    buffer.add("base", "lidar", 0, (3, 0, 0), STILL, is_static=True)
    assert along_x(buffer, 5, "camera", "lidar") == 2
    with pytest.raises(TransformError, match=r"from 'camera' to 'map': of 'base', its newest .* 5 s older"):
        along_x(buffer, 5, "map", "camera")


def test_what_is_missing_is_named():
    buffer = moving(0)
    buffer.add("rig", "camera", 0, (0, 0, 0), STILL, is_static=True)
    with pytest.raises(TransformError) as caught:
        buffer.lookup("camera", "arm", 0)
    assert str(caught.value) == (
        "no transform from 'arm' to 'camera': nothing links 'base' and 'rig'; publish where one is in the other"
    )
    with pytest.raises(TransformError, match="frame 'lidar' is unknown on /tf and /tf_static; check its name"):
        buffer.lookup("camera", "lidar", 0)
    with pytest.raises(TransformError, match=r"frame 'a' is unknown .*; frame 'b' is unknown"):
        buffer.lookup("b", "a", 0)


def test_a_frame_is_where_it_is_even_if_nothing_is_known_of_it():
    assert square(TransformBuffer().lookup("lidar", "lidar", 3)).tolist() == np.eye(4).tolist()


def test_a_slash_before_a_name_is_ignored():
    buffer = moving(0, parent="/base", child="/arm")
    assert along_x(buffer, 0, "base", "/arm") == 0


def test_a_loop_is_refused_by_name():
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        buffer.add(parent, child, 0, (1, 0, 0), STILL)
    for target, source in (("d", "a"), ("x", "d"), ("d", "x"), ("a", "b")):
        with pytest.raises(TransformError, match=r"the frames form a loop, ('\w' in ){3}'\w'; stop one of their"):
            buffer.lookup(target, source, 0)
    with pytest.raises(TransformError, match="form a loop, 'c' in 'b' in 'a' in 'c'; stop"):
        buffer.lookup("x", "d", 0)


def test_a_tree_may_be_turned_over():
    """A loop is one only where it is at one time: first the arm in the base, later the base in the arm."""
    buffer = moving(0, 1)
    buffer.add("arm", "base", 2 * SECOND, (-5, 0, 0), STILL)
    assert along_x(buffer, 0.5) == 0.5
    assert along_x(buffer, 2) == 5
    buffer.add("arm", "base", round(1.05 * SECOND), (-5, 0, 0), STILL)  # both hold within the tolerance
    with pytest.raises(TransformError, match="form a loop"):
        along_x(buffer, 1.02)


def test_a_jump_back_in_time_clears_all_but_what_is_static():
    buffer = moving(10, 11)
    buffer.add("map", "base", 11 * SECOND, (0, 0, 0), STILL)
    buffer.add("base", "camera", 0, (1, 0, 0), STILL, is_static=True)
    buffer.add("base", "arm", 10 * SECOND + 1, (2, 0, 0), STILL)  # late by less than a second
    assert (buffer.jumps, along_x(buffer, 11)) == (0, 11)
    buffer.add("base", "arm", 10 * SECOND, (3, 0, 0), STILL)  # a second: the bag started again
    assert (buffer.jumps, along_x(buffer, 10)) == (1, 3)
    for stamp, target, source in ((11, "base", "arm"), (11, "map", "base")):
        with pytest.raises(TransformError):
            along_x(buffer, stamp, target, source)
    assert along_x(buffer, 0, "base", "camera") == 1


def test_clearing_by_hand_keeps_what_is_static():
    buffer = moving(0)
    buffer.add("base", "camera", 0, (1, 0, 0), STILL, is_static=True)
    buffer.clear()
    assert (buffer.jumps, along_x(buffer, 0, "base", "camera")) == (1, 1)
    with pytest.raises(TransformError, match="frame 'arm' is unknown"):
        along_x(buffer, 0)


def test_threads_may_add_and_look_up_at_once():
    """A frame moves as many metres as nanoseconds: whatever is added and forgotten meanwhile, that is what is found."""
    buffer, wrong, found = TransformBuffer(TransformSettings(span=20, tolerance=0)), [], []
    newest, done = [0], threading.Event()

    def look_up():
        while not done.is_set():
            stamp = newest[0]
            try:
                place = along_x(buffer, stamp / SECOND)
            except TransformError:  # forgotten already
                continue
            except Exception as error:
                wrong.append(error)
                return
            (found if abs(place - stamp) < 1e-6 else wrong).append((stamp, place))

    buffer.add("base", "arm", 0, (0, 0, 0), STILL)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        readers = [threading.Thread(target=look_up) for _ in range(2)]
        for reader in readers:
            reader.start()
        while not found and not wrong:
            time.sleep(0.001)
        for stamp in range(2, 40_000, 2):
            for added in (stamp, stamp - 1):  # the second one late
                buffer.add("base", "arm", added, (added, 0, 0), STILL)
            newest[0] = stamp
        done.set()
        for reader in readers:
            reader.join()
    finally:
        sys.setswitchinterval(interval)
    assert found and not wrong
