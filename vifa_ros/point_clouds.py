"""Between sensor_msgs/PointCloud2 and NumPy: x, y and z of any cloud, and clouds with what the cameras see.

A coloured cloud's fields lie at `LAYOUT`: x, y, z in metres (float32), `rgb` (the float32 whose bits are
0x00RRGGBB, as PCL packs it and RViz reads it), `class_id` (uint8, 255 where unknown) and `temperature` (float32, NaN
where there is none; degrees Celsius where the thermal image is radiometric, else its normalised value 0..1: the
publisher says which).
"""

from __future__ import annotations

import array
import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from vifa_ros.conversions import ConversionError
from vifa_runtime.coloured_points import ColouredPoints

_FIELDS = (  # name, format, offset: every float lies at a multiple of 4
    ("x", "f4", 0),
    ("y", "f4", 4),
    ("z", "f4", 8),
    ("rgb", "f4", 12),
    ("class_id", "u1", 16),
    ("temperature", "f4", 20),
)
LAYOUT = np.dtype(
    {
        "names": [name for name, _, _ in _FIELDS],
        "formats": [code for _, code, _ in _FIELDS],
        "offsets": [offset for _, _, offset in _FIELDS],
    }
)
_FLOATS = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
_NUMBERS = {"f4": PointField.FLOAT32, "u1": PointField.UINT8}
_NAMES = {
    getattr(PointField, name): name
    for name in ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "FLOAT32", "FLOAT64")
}


def read_points(message: PointCloud2) -> NDArray[np.float64]:
    """The points (N, 3) of a cloud, metres, float64, row by row; a copy. Points that are NaN stay.

    `sensor_msgs_py` is not asked even where it is installed: it takes rows to be without padding, and swaps the bytes
    of a big-endian message in place.

    Raises:
        ConversionError: x, y or z are missing or no floats, or the sizes do not fit; the message names the field.
    """
    height, width, step = message.height, message.width, message.point_step
    if height == 0 or width == 0:
        return np.empty((0, 3), np.float64)
    order = ">" if message.is_bigendian else "<"
    fields = {field.name: field for field in reversed(message.fields)}  # of two of one name the first counts
    dtypes = {axis: np.dtype(order + _find_float(fields, axis, step)) for axis in "xyz"}
    if height > 1 and message.row_step < width * step:
        raise ConversionError(
            f"row_step {message.row_step} is too small for {width} points of point_step {step}; check the driver"
        )
    needed = (height - 1) * message.row_step + width * step
    if len(message.data) < needed:
        raise ConversionError(
            f"data has {len(message.data)} bytes, but {width}x{height} points take {needed}; check the driver"
        )
    points = np.empty((height, width, 3), np.float64)
    for column, axis in enumerate("xyz"):
        points[:, :, column] = np.ndarray(
            (height, width),
            dtypes[axis],
            buffer=memoryview(message.data),
            offset=fields[axis].offset,
            strides=(message.row_step, step),
        )
    return points.reshape(-1, 3)


def make_cloud(coloured: ColouredPoints, header: Any) -> PointCloud2:
    """A cloud in one row, with the fields of `LAYOUT`, by `sensor_msgs_py` where that is installed.

    Without it the message is the same to the byte. It is never said to be dense: temperatures may be NaN.

    Args:
        coloured: points with what the cameras see there; coordinates are kept as float32.
        header: of the cloud that the points are from.
    """
    table = pack_points(coloured)
    create = _their_create_cloud()
    return _create_cloud(header, table) if create is None else create(header, make_fields(), table)


def pack_points(coloured: ColouredPoints) -> NDArray[np.void]:
    """Points as they lie in a cloud, (N,) of `LAYOUT`; bytes between fields are 0."""
    table = np.zeros(len(coloured.points), LAYOUT)
    with np.errstate(over="ignore"):  # what no float32 can hold is infinite
        table["x"], table["y"], table["z"] = coloured.points.T
    red, green, blue = coloured.colours.astype(np.uint32).T
    table["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
    table["class_id"], table["temperature"] = coloured.class_ids, coloured.temperatures
    return table


def make_fields() -> list[PointField]:
    """The fields of `LAYOUT`, as a message tells them."""
    return [PointField(name=name, offset=offset, datatype=_NUMBERS[code], count=1) for name, code, offset in _FIELDS]


def _find_float(fields: dict[str, PointField], axis: str, step: int) -> str:
    """The dtype of a coordinate, without byte order."""
    field = fields.get(axis)
    if field is None:
        known = ", ".join(sorted(fields)) or "none"
        raise ConversionError(f"field {axis} is missing; the cloud has {known}; publish a cloud with x, y and z")
    code = _FLOATS.get(field.datatype)
    if code is None:
        kind = _NAMES.get(field.datatype, f"datatype {field.datatype}")
        raise ConversionError(f"field {axis} is {kind}; publish metres as FLOAT32 or FLOAT64")
    if field.count > 1:  # 0 is left by drivers that never set it, and means 1
        raise ConversionError(f"field {axis} has {field.count} values a point; publish one")
    if field.offset + np.dtype(code).itemsize > step:
        raise ConversionError(
            f"field {axis} at offset {field.offset} does not fit into point_step {step}; check the driver"
        )
    return code


def _create_cloud(header: Any, table: NDArray[np.void]) -> PointCloud2:
    message = PointCloud2(
        header=header,
        height=1,
        width=len(table),
        fields=make_fields(),
        is_bigendian=sys.byteorder == "big",
        point_step=table.itemsize,
        row_step=table.nbytes,
        is_dense=False,
    )
    data = array.array("B")
    data.frombytes(table.view(np.uint8).data)
    message.data = data
    return message


@cache
def _their_create_cloud() -> Callable[..., PointCloud2] | None:
    """`create_cloud` of sensor_msgs_py, which is not on PyPI."""
    try:
        return importlib.import_module("sensor_msgs_py.point_cloud2").create_cloud
    except ImportError:
        return None
