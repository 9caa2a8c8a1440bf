"""Bags for tests, written by rosbags' own writer from messages that are put together field by field."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

JAZZY = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000_000_000_000  # nanoseconds
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
VISIBLE, THERMAL = "/visible/image_raw", "/thermal/image_raw"
Entry = tuple[str, int, Any]  # topic, arrival in nanoseconds, message


def header(stamp: int, frame: str = "", store: Typestore = JAZZY) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def image(pixels: np.ndarray, stamp: int, frame: str = "", store: Typestore = JAZZY, encoding: str = "") -> Any:
    """An Image of (H,W,3) uint8 as rgb8, or of (H,W) as mono8, mono16 or 32FC1."""
    encoding = encoding or ("rgb8" if pixels.ndim == 3 else {1: "mono8", 2: "mono16", 4: "32FC1"}[pixels.itemsize])
    return store.types[IMAGE](
        header=header(stamp, frame, store),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.nbytes // pixels.shape[0],
        data=np.frombuffer(pixels.tobytes(), np.uint8),
    )


def compressed(pixels: np.ndarray, stamp: int, frame: str = "", suffix: str = ".png") -> Any:
    """A CompressedImage of RGB (H,W,3) or of (H,W)."""
    data = cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    return JAZZY.types[COMPRESSED](header=header(stamp, frame), format=suffix[1:], data=data.ravel())


def camera_info(width: int, height: int, stamp: int, frame: str = "", focal: float = 0.0) -> Any:
    """A CameraInfo without distortion; uncalibrated where the focal length, in pixels, is 0."""
    k = [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1] if focal else [0] * 9
    p = [*k[:3], 0, *k[3:6], 0, *k[6:], 0]
    return JAZZY.types[INFO](
        header=header(stamp, frame),
        height=height,
        width=width,
        distortion_model="plumb_bob" if focal else "",
        d=np.zeros(5 if focal else 0),
        k=np.array(k, float),
        r=np.eye(3).ravel(),
        p=np.array(p, float),
        binning_x=0,
        binning_y=0,
        roi=JAZZY.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def write_bag(
    folder: Path,
    entries: Iterable[Entry],
    storage: str = "mcap",
    compression: str = "none",
    store: Typestore = JAZZY,
    version: Literal[8, 9] = 9,
) -> Path:
    """Write a bag; the messages' types are what they are objects of."""
    writer = Writer(folder, version=version, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, arrival, message in entries:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], arrival, bytes(store.serialize_cdr(message, kind)))
    return folder


def frame(index: int, size: tuple[int, int] = (12, 16)) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H,W,3) and thermal (H,W) noise, both uint8."""
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8)


def camera_entries(
    count: int = 5,
    period: int = 100_000_000,
    skew: int = 5_000_000,
    first: int = START,
    size: tuple[int, int] = (12, 16),
) -> list[Entry]:
    """Two cameras' images, `frame(index)`; they arrive as they are stamped."""
    entries: list[Entry] = []
    for index in range(count):
        visible, thermal = frame(index, size)
        stamp = first + index * period
        entries.append((VISIBLE, stamp, image(visible, stamp, "visible_camera")))
        entries.append((THERMAL, stamp + skew, image(thermal, stamp + skew, "thermal_camera")))
    return entries
