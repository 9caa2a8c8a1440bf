"""New bags, written so that `ros2 bag play`, RViz and Foxglove take them, and that nobody ever sees half of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.messages import types
from vifa_ros.bags.opening import METADATA
from vifa_runtime.files import whole_folder
from vifa_runtime.messages import first_line

STORAGES = ("mcap", "sqlite3")
COMPRESSIONS = {  # what is compressed, by zstd -> how rosbags calls it
    "none": CompressionMode.NONE,
    "chunk": CompressionMode.STORAGE,
    "message": CompressionMode.MESSAGE,
    "file": CompressionMode.FILE,
}
_EVER = QosTime(9223372036, 854775807)  # as rosbag2 writes "no limit"


class BagWriter:
    """A bag that is being written; topics come into being with their first message."""

    def __init__(self, writer: Writer) -> None:
        """Wrap an open writer of rosbags'."""
        self._writer = writer
        self._connections: dict[str, Connection] = {}
        self.counts: dict[str, int] = {}  # messages by topic

    def write(self, topic: str, arrival: int, message: Any, latched: bool = False) -> None:
        """Write one message of `vifa_ros.bags.messages`.

        Args:
            arrival: time of recording, nanoseconds.
            latched: whether who subscribes later is to get the last message too; of the topic's first message.
        """
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=types(), offered_qos_profiles=[make_qos(latched)]
            )
        self._writer.write(self._connections[topic], arrival, types().serialize_cdr(message, kind))
        self.counts[topic] = self.counts.get(topic, 0) + 1


@contextmanager
def new_bag(
    path: Path, storage: str = "mcap", compression: str = "none", overwrite: bool = False
) -> Iterator[BagWriter]:
    """Give a writer of a bag that stands at `path` when the block has ended, and not at all where it raises.

    Args:
        storage: of STORAGES.
        compression: of COMPRESSIONS; `chunk` is MCAP's own.
        overwrite: whether a bag that is there may be replaced.

    Raises:
        BagError: something is there, the settings don't go together, nothing was written, or the disk is full.
    """
    check_target(path, overwrite)
    if storage not in STORAGES:
        raise BagError(f"--storage is {storage!r}; use one of {', '.join(STORAGES)}")
    if compression not in COMPRESSIONS:
        raise BagError(f"--compression is {compression!r}; use one of {', '.join(COMPRESSIONS)}")
    if (storage, compression) == ("sqlite3", "chunk"):
        raise BagError("--compression chunk is of MCAP only; use file or message, or --storage mcap")
    try:
        with whole_folder(path) as beside:
            # rosbags makes the bag's folder itself, and names the files in it after it. Version 9 is Jazzy's.
            writer = Writer(beside / path.resolve().name, version=9, storage_plugin=StoragePlugin[storage.upper()])
            writer.set_compression(COMPRESSIONS[compression], CompressionFormat.ZSTD)
            with writer:
                bag = BagWriter(writer)
                yield bag
                if not bag.counts:
                    raise BagError(f"{path} would hold no messages; nothing is written")
            for file in writer.path.iterdir():
                file.rename(beside / file.name)
            writer.path.rmdir()
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BagError(f"cannot write {path}: {reason}; choose another place") from None


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a place at which something is, unless it is a bag that may be overwritten.

    Raises:
        BagError: it is taken.
    """
    if not path.exists():
        return
    if not (path / METADATA).is_file():
        raise BagError(f"{path} is there already and is no bag; choose another place")
    if not overwrite:
        raise BagError(f"{path} is there already; choose another place, or --overwrite it")


def make_qos(latched: bool) -> Qos:
    """Reliable, which listeners that ask for less take too; the last message is kept for late ones if `latched`."""
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _EVER,
        _EVER,
        QosLiveliness.AUTOMATIC,
        _EVER,
        False,
    )
