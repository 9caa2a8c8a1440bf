"""Point clouds to arrays and back, against messages packed value by value, and against sensor_msgs_py where it is."""

import array
import importlib.util
import math
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from vifa_ros import point_clouds
from vifa_ros.conversions import ConversionError
from vifa_ros.point_clouds import LAYOUT, make_cloud, read_points
from vifa_runtime.coloured_points import ColouredPoints

HAS_SENSOR_MSGS_PY = importlib.util.find_spec("sensor_msgs_py") is not None
needs_sensor_msgs_py = pytest.mark.skipif(
    not HAS_SENSOR_MSGS_PY, reason="sensor_msgs_py is not installed here (there is none on PyPI)"
)
CODES = {  # datatype -> how struct packs it
    PointField.INT8: "b",
    PointField.UINT8: "B",
    PointField.INT16: "h",
    PointField.UINT16: "H",
    PointField.INT32: "i",
    PointField.UINT32: "I",
    PointField.FLOAT32: "f",
    PointField.FLOAT64: "d",
}
WIDE = st.floats(width=32, allow_subnormal=False)


def build_cloud(points, fields, step, row_padding=0, big_endian=False, width=None):
    """A message packed value by value into bytes of rubbish.

    Args:
        points: rows of values, one per field.
        fields: (name, datatype, offset) each.
        width: points in a row; None for all.
    """
    width = len(points) if width is None else width
    height = len(points) // width if width else 1
    row_step = width * step + row_padding
    data = bytearray(b"\xa5" * (row_step * height))
    for index, values in enumerate(points):
        start = index // width * row_step + index % width * step
        for value, (_, datatype, offset) in zip(values, fields, strict=True):
            struct.pack_into((">" if big_endian else "<") + CODES[datatype], data, start + offset, value)
    return PointCloud2(
        height=height,
        width=width,
        fields=[PointField(name=name, datatype=kind, offset=offset, count=1) for name, kind, offset in fields],
        is_bigendian=big_endian,
        point_step=step,
        row_step=row_step,
        data=array.array("B", data),
    )


XYZ = [(name, PointField.FLOAT32, 4 * index) for index, name in enumerate("xyz")]


@st.composite
def clouds(draw):
    """Points and a message that holds them, among other fields, in any order, with gaps, in any byte order."""
    kinds = draw(st.lists(st.sampled_from(sorted(CODES)), max_size=3))
    wanted = [(axis, draw(st.sampled_from([PointField.FLOAT32, PointField.FLOAT64]))) for axis in "xyz"]
    order = draw(st.permutations([*wanted, *[(f"other{i}", kind) for i, kind in enumerate(kinds)]]))
    fields, offset = [], draw(st.integers(0, 3))
    for name, kind in order:
        fields.append((name, kind, offset))
        offset += struct.calcsize(CODES[kind]) + draw(st.integers(0, 3))
    width, height = draw(st.integers(0, 5)), draw(st.integers(1, 4))
    points = draw(st.lists(st.tuples(WIDE, WIDE, WIDE), min_size=width * height, max_size=width * height))
    values = [[dict(zip("xyz", point, strict=True)).get(name, 7) for name, _, _ in fields] for point in points]
    message = build_cloud(
        values, fields, offset, row_padding=draw(st.integers(0, 5)), big_endian=draw(st.booleans()), width=width
    )
    return points, message


@given(clouds())
def test_points_are_read_from_any_layout(cloud):
    points, message = cloud
    before = bytes(message.data)
    found = read_points(message)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.reshape(points, (-1, 3)))
    assert bytes(message.data) == before


def test_doubles_keep_all_their_digits():
    points = [(math.pi, 1e200, -0.1), (math.nan, math.inf, 5e-324)]
    fields = [(name, PointField.FLOAT64, 8 * index) for index, name in enumerate("xyz")]
    np.testing.assert_array_equal(read_points(build_cloud(points, fields, 24)), points)


@pytest.mark.parametrize(("height", "width"), [(0, 0), (0, 4), (1, 0), (4, 0)])
@pytest.mark.parametrize("fields", [XYZ, []])
def test_a_cloud_without_points_is_one(height, width, fields):
    message = build_cloud([], fields, 12)
    message.height, message.width, message.row_step = height, width, 12 * width
    assert read_points(message).shape == (0, 3)


def test_a_single_row_may_leave_its_step_out_as_drivers_do():
    message = build_cloud([(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)], XYZ, 12)
    message.row_step = 0
    np.testing.assert_array_equal(read_points(message), [(1, 2, 3), (4, 5, 6)])


def test_a_count_that_was_never_set_is_one():
    message = build_cloud([(1.0, 2.0, 3.0)], XYZ, 12)
    for field in message.fields:
        field.count = 0
    np.testing.assert_array_equal(read_points(message), [(1, 2, 3)])


def test_the_last_row_needs_no_padding_behind_it():
    message = build_cloud([(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)], XYZ, 12, row_padding=5, width=1)
    message.data = message.data[:-5]
    np.testing.assert_array_equal(read_points(message), [(1, 2, 3), (4, 5, 6)])


def changed(**changes):
    message = build_cloud([(1.0, 2.0, 3.0)] * 4, XYZ, 12, width=2)
    for name, value in changes.items():
        if name[0] in "xyz":
            setattr(message.fields["xyz".index(name[0])], name[2:], value)
        else:
            setattr(message, name, value)
    return message


REFUSED = {
    "no z": ({"z_name": "w"}, "field z is missing; the cloud has w, x, y; publish a cloud with x, y and z"),
    "no field": ({"fields": []}, "field x is missing; the cloud has none"),
    "whole numbers": ({"y_datatype": PointField.INT32}, "field y is INT32; publish metres as FLOAT32 or FLOAT64"),
    "no type": ({"y_datatype": 9}, "field y is datatype 9; publish"),
    "three values": ({"x_count": 3}, "field x has 3 values a point; publish one"),
    "beyond the point": ({"z_offset": 9}, "field z at offset 9 does not fit into point_step 12"),
    "far beyond the point": ({"z_offset": 4294967295}, "field z at offset 4294967295 does not fit"),
    "no point step": ({"point_step": 0}, "field x at offset 0 does not fit into point_step 0"),
    "short rows": ({"row_step": 23}, "row_step 23 is too small for 2 points of point_step 12"),
    "short data": ({"data": array.array("B", bytes(47))}, "data has 47 bytes, but 2x2 points take 48"),
    "too high": ({"height": 4294967295}, "data has 48 bytes, but 2x4294967295 points take 103079215080"),
    "too wide": ({"width": 4294967295, "height": 1}, "data has 48 bytes, but 4294967295x1 points take 51539607540"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name(changes, message):
    with pytest.raises(ConversionError, match=message) as caught:
        read_points(changed(**changes))
    assert "\n" not in str(caught.value)


def coloured(count=5, seed=0):
    rng = np.random.default_rng(seed)
    temperatures = rng.normal(20, 9, count).astype(np.float32)
    temperatures[::2] = np.nan
    points = rng.normal(0, 9, (count, 3))
    points[1::4] = np.nan
    return ColouredPoints(
        points, rng.integers(0, 256, (count, 3), np.uint8), rng.integers(0, 256, count, np.uint8), temperatures
    )


@pytest.fixture
def own_path(monkeypatch):
    """Our own making of messages, wherever the tests run."""
    monkeypatch.setattr(point_clouds, "_their_create_cloud", lambda: None)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_made_cloud_holds_value_for_value_what_the_fields_say(own_path, count):
    """Read as any listener reads it: by the fields of the message, one value after the other."""
    given_points = coloured(count)
    message = make_cloud(given_points, Header(frame_id="lidar"))
    assert (message.height, message.width, message.header.frame_id) == (1, count, "lidar")
    assert (message.point_step, message.row_step, len(message.data)) == (24, 24 * count, 24 * count)
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "class_id", "temperature"]
    assert not message.is_dense and message.is_bigendian == (sys.byteorder == "big")
    data, order = bytes(message.data), ">" if message.is_bigendian else "<"
    for index in range(count):
        values, colour = {}, 0
        for field in message.fields:
            assert field.count == 1
            start = message.point_step * index + field.offset
            (values[field.name],) = struct.unpack_from(order + CODES[field.datatype], data, start)
            if field.name == "rgb":
                (colour,) = struct.unpack_from(order + "I", data, start)
        np.testing.assert_array_equal([values[axis] for axis in "xyz"], given_points.points[index].astype(np.float32))
        assert [colour >> 16, colour >> 8 & 255, colour & 255] == given_points.colours[index].tolist()
        assert values["class_id"] == given_points.class_ids[index]
        np.testing.assert_array_equal(values["temperature"], given_points.temperatures[index])


def test_bytes_that_belong_to_no_field_are_zero(own_path):
    """So that equal points make equal messages, whatever lay in memory before."""
    for _ in range(20):
        np.full(5 * LAYOUT.itemsize, 0xA5, np.uint8)  # its memory is used again
        table = np.frombuffer(make_cloud(coloured(5), Header()).data, np.uint8).reshape(5, -1)
        assert not table[:, 17:20].any()


def test_every_colour_is_a_number():
    """RViz and PCL hand `rgb` on as a float; a NaN would lose its bits on the way."""
    shades = np.array([(r, g, b) for r in (0, 127, 128, 255) for g in (0, 255) for b in (0, 128, 255)], np.uint8)
    count = len(shades)
    message = make_cloud(
        ColouredPoints(np.zeros((count, 3)), shades, np.zeros(count, np.uint8), np.zeros(count, np.float32)), Header()
    )
    packed = np.ndarray(count, LAYOUT, buffer=memoryview(message.data))["rgb"]
    assert np.isfinite(packed).all()
    assert len(set(packed.tolist())) == count


@given(st.integers(0, 40), st.integers(0, 99))
def test_points_survive_the_way_into_a_cloud_and_out_again(count, seed):
    points = coloured(count, seed)
    np.testing.assert_array_equal(read_points(make_cloud(points, Header())), points.points.astype(np.float32))


def test_a_point_that_no_float32_holds_is_infinite(own_path):
    points = replace(coloured(1), points=np.full((1, 3), 1e300))
    assert np.isinf(read_points(make_cloud(points, Header()))).all()


def test_a_message_keeps_its_bytes_when_the_next_one_is_made(own_path):
    first = make_cloud(coloured(seed=1), Header())
    before = bytes(first.data)
    make_cloud(coloured(seed=2), Header())
    assert bytes(first.data) == before


@needs_sensor_msgs_py
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_both_ways_to_make_a_cloud_give_the_same_message_to_the_byte(count, monkeypatch):
    from rclpy.serialization import serialize_message

    points, header = coloured(count), Header(frame_id="lidar")
    header.stamp.sec = 17
    theirs = make_cloud(points, header)
    assert point_clouds._their_create_cloud().__module__ == "sensor_msgs_py.point_cloud2"
    monkeypatch.setattr(point_clouds, "_their_create_cloud", lambda: None)
    ours = make_cloud(points, header)
    assert ours == theirs
    assert serialize_message(ours) == serialize_message(theirs)


@needs_sensor_msgs_py
@given(clouds())
def test_points_are_those_that_sensor_msgs_py_reads(cloud):
    """For rows without padding, which it does not know. Ours first: theirs swaps the message's bytes in place."""
    from sensor_msgs_py import point_cloud2

    _, message = cloud
    message.row_step = message.point_step * message.width
    found = read_points(message)
    theirs = point_cloud2.read_points(message, ["x", "y", "z"])
    np.testing.assert_array_equal(found, np.stack([theirs[axis].astype(np.float64) for axis in "xyz"], axis=1))


@needs_sensor_msgs_py
def test_sensor_msgs_py_reads_our_clouds(own_path):
    from sensor_msgs_py import point_cloud2

    points = coloured(50)
    found = point_cloud2.read_points(make_cloud(points, Header()))
    np.testing.assert_array_equal(found["class_id"], points.class_ids)
    np.testing.assert_array_equal(found["temperature"], points.temperatures)
    red, green, blue = points.colours.astype(np.uint32).T
    np.testing.assert_array_equal(found["rgb"].view(np.uint32), red << 16 | green << 8 | blue)
