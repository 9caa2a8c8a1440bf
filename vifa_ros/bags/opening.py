"""Bags opened for reading, without ROS: what is in them, and their messages in the order of recording.

The files are trusted, metadata.yaml is not: after a crash it lists no topics, or fewer messages than there are. It only
tells which files there are, in which order, and how they are compressed. An MCAP file that was cut off is read up to
its last whole record; a sqlite3 file that was cut off is refused, since nothing says which of its pages are missing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple

import yaml
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vifa_ros.bags.cut_off import CutOffMcap, is_cut_off, missing_pages
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.types import add_vision_types
from vifa_runtime.messages import first_line
from vifa_runtime.plain_yaml import PlainLoader

__all__ = ["Bag", "BagError", "Topic"]

METADATA = "metadata.yaml"
STORAGES = (".mcap", ".db3")
_BLOCK = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
_IDL_SECTION = re.compile(r"^={80}\nIDL: .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: its type, such as sensor_msgs/msg/Image, and how many messages there are of it."""

    type: str
    count: int


class _Contents(NamedTuple):
    """The files of a bag in their order; how they are compressed: ``, `file` or `message`; and what to tell of it."""

    files: list[Path]
    compression: str = ""
    notice: str = ""


class Bag:
    """A bag of ROS 2 (sqlite3 or MCAP, split, compressed), open while its `with` block lasts.

    Attributes:
        path: a folder with metadata.yaml, a folder of storage files alone, or one .mcap or .db3 file.
        files: its storage files, in the order of recording.
        topics: name -> type and number of messages, sorted by name.
        start: arrival of the first message, nanoseconds.
        duration: from the first to the last message, seconds.
        notice: one line that says what of it is not read, or could be wrong; empty where all is well.
    """

    def __init__(self, path: Path) -> None:
        """Name a bag; it is opened by `with`."""
        self.path = path
        self.files: list[Path] = []
        self.topics: dict[str, Topic] = {}
        self.start = 0
        self.duration = 0.0
        self.notice = ""
        self._stack = ExitStack()
        self._parts: list[Reader] = []
        self._stores: dict[tuple[str, MessageDefinition], Typestore] = {}

    def __enter__(self) -> Bag:
        """Open it.

        Raises:
            BagError: it is missing, empty, damaged, of ROS 1, or compressed by what rosbags does not know.
        """
        contents = _find_contents(self.path)
        self.files, notices = contents.files, [contents.notice]
        try:
            for path in [self.path] if contents.compression else contents.files:
                reader, notice = _open(path)
                notices.append(notice)
                self._parts.append(reader)
                self._stack.callback(reader.close)
            self.notice = "; ".join(filter(None, notices))
            self._summarise()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._parts.clear()
        self._stack.close()

    @property
    def message_count(self) -> int:
        """How many messages it holds, of all topics."""
        return sum(topic.count for topic in self.topics.values())

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """The messages of some topics in the order of recording, one at a time.

        End one iteration before the next begins: a file without an index is read at one place.

        Args:
            topics: names, all of this bag.

        Yields:
            Topic, arrival in nanoseconds, and the message: an object with the fields of its type, whose arrays of
            numbers are read-only and not copied.

        Raises:
            BagError: no such topic, a type that is not known, or a damaged message or file.
        """
        for connection, arrival, raw in self._read(topics):
            yield connection.topic, arrival, self._deserialize(connection, arrival, raw)

    def raw_messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, bytes]]:
        """As `messages`, but each as it was serialized (CDR), whatever its type."""
        for connection, arrival, raw in self._read(topics):
            yield connection.topic, arrival, raw

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the bytes of all storage files one after the other."""
        total = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    total.update(block)
        return total.hexdigest()

    def _summarise(self) -> None:
        found: dict[str, Topic] = {}
        for part in self._parts:
            for connection in part.connections:
                before = found.get(connection.topic, Topic(connection.msgtype, 0))
                if before.type != connection.msgtype:
                    raise BagError(
                        f"{self.path}: {connection.topic} has messages of two types, {before.type} and "
                        f"{connection.msgtype}; record it again, or leave one of them out with `ros2 bag convert`"
                    )
                found[connection.topic] = Topic(before.type, before.count + connection.msgcount)
        self.topics = dict(sorted(found.items()))
        full = [part for part in self._parts if part.message_count]
        if not full:
            hint = f" ({self.notice})" if self.notice else ""
            raise BagError(f"{self.path} holds no messages; check what was recorded{hint}")
        self.start = min(part.start_time for part in full)
        self.duration = (max(part.end_time for part in full) - 1 - self.start) * 1e-9  # rosbags' end is after the last

    def _read(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        for name in topics:
            if name not in self.topics:
                raise BagError(f"{self.path} has no topic {name}; it has {', '.join(self.topics)}")
        for part in self._parts:
            wanted = [connection for connection in part.connections if connection.topic in topics]
            if not wanted:
                continue
            messages = _messages(part, wanted)
            while True:
                try:
                    found = next(messages, None)
                except Exception as error:  # rosbags lets errors of a dozen types through where a file is damaged
                    raise BagError(f"{self.path} is damaged: {_reason(error)}; copy it again, or record anew") from None
                if found is None:
                    break
                yield found

    def _deserialize(self, connection: Connection, arrival: int, raw: bytes) -> Any:
        where = f"{self.path}, {connection.topic}"
        if raw[:4] == _ZSTD:
            raise BagError(f"{where}: the messages are compressed; open the folder whose {METADATA} says so")
        store = self._find_store(connection)
        try:
            return store.deserialize_cdr(memoryview(raw), connection.msgtype)  # of bytes, a slice would be a copy
        except Exception as error:  # likewise
            at = f"{arrival // 10**9}.{arrival % 10**9:09d}"
            raise BagError(f"{where}: the message of {at} s is damaged: {_reason(error)}; record anew") from None

    def _find_store(self, connection: Connection) -> Typestore:
        """The types that a topic's messages are made of: those that came with it, or else those of ROS 2 and VIFA."""
        key = connection.msgtype, connection.msgdef
        if key not in self._stores:
            self._stores[key] = self._make_store(connection)
        return self._stores[key]

    def _make_store(self, connection: Connection) -> Typestore:
        kind, definition = connection.msgtype, connection.msgdef
        where = f"{self.path}, {connection.topic}"
        assert isinstance(connection.ext, ConnectionExtRosbag2)  # rosbags has no other reader for bags of ROS 2
        if (coding := connection.ext.serialization_format) != "cdr":
            raise BagError(f"{where}: the messages are serialized as {coding!r}; record them as cdr")
        if definition.format == MessageDefinitionFormat.NONE:
            store = get_typestore(Stores.ROS2_HUMBLE)  # as of the last distribution whose bags hold no definitions
            add_vision_types(store)
            if kind not in store.fielddefs:
                raise BagError(f"{where}: the bag does not define the type {kind}; record it as MCAP")
            return store
        store = get_typestore(Stores.EMPTY)
        try:
            if definition.format == MessageDefinitionFormat.MSG:
                store.register(get_types_from_msg(definition.data, kind))
            else:
                for text in filter(str.strip, _IDL_SECTION.split(definition.data)):
                    store.register(get_types_from_idl(text))
            store.get_msgdef(kind)
        except Exception as error:  # likewise
            raise BagError(f"{where}: the definition of {kind} is not understood: {_reason(error)}") from None
        return store


def _find_contents(path: Path) -> _Contents:
    """What a path names, as far as that can be told without opening a storage file."""
    if path.is_file():
        if path.name == METADATA:
            return _find_contents(path.parent)
        if path.suffix == ".bag":
            raise BagError(f"{path} is a bag of ROS 1; convert it with `rosbags-convert --src {path} --dst FOLDER`")
        if path.suffix not in STORAGES:
            raise BagError(f"{path} is no bag; name a folder, or a file that ends in {' or '.join(STORAGES)}")
        return _Contents([path])
    if not path.is_dir():
        raise BagError(f"no bag at {path}; check the path")
    if (path / METADATA).is_file():
        return _read_metadata(path)
    files = sorted((file for file in path.iterdir() if file.suffix in STORAGES), key=_natural)
    if not files:
        raise BagError(f"{path} is no bag: it holds neither {METADATA} nor files that end in {' or '.join(STORAGES)}")
    if len({file.suffix for file in files}) > 1:
        raise BagError(f"{path} holds files of both {' and '.join(STORAGES)} and no {METADATA}; name one of the files")
    return _Contents(
        files, notice=f"{path} has no {METADATA}, so its files are taken in the order of their names; "
        f"`ros2 bag reindex {path}` writes one"
    )  # fmt: skip


def _read_metadata(folder: Path) -> _Contents:
    path = folder / METADATA
    try:
        content = yaml.load(path.read_text(), PlainLoader)["rosbag2_bagfile_information"]
        names, compression = content["relative_file_paths"], content.get("compression_mode") or ""
        files = [folder / PurePath(name).name for name in names]  # old ones have the folder's name before them
    except Exception as error:  # PyYAML lets built-in errors of half a dozen types through
        raise BagError(f"{path} cannot be read: {_reason(error)}; `ros2 bag reindex {folder}` writes it anew") from None
    if missing := [file.name for file in files if not file.is_file()]:
        raise BagError(f"{path} lists {', '.join(missing)}, which {folder} does not hold; copy it there")
    if not files:
        raise BagError(f"{path} lists no files; `ros2 bag reindex {folder}` writes it anew")
    compression = compression.lower()
    return _Contents(files, "" if compression == "none" else compression)


def _open(path: Path) -> tuple[Reader, str]:
    """An open reader of a storage file, or of a folder with compressed files or messages; and what to tell of it."""
    notice = ""
    try:
        if path.suffix == ".mcap" and path.is_file() and is_cut_off(path):
            whole = CutOffMcap(path)
            reader = Reader(whole)
            reader.open()
            return reader, (
                f"{path} is cut off: the {reader.message_count} messages in the first {whole.end} of "
                f"{path.stat().st_size} bytes are read"
            )
        if path.suffix == ".db3" and path.is_file():
            if missing := missing_pages(path):
                raise BagError(f"{path} is cut off: {missing} bytes of it are missing; copy it again")
            if (log := path.with_name(f"{path.name}-wal")).is_file() and log.stat().st_size:
                notice = (
                    f"{log} holds messages that are not read; "
                    f"`sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'` moves them into the bag"
                )
        reader = Reader(path)
        reader.open()
        return reader, notice
    except BagError:
        raise
    except Exception as error:  # likewise
        hint = f" ({notice})" if notice else ""
        raise BagError(f"{path} cannot be read: {_reason(error)}; copy it again, or record anew{hint}") from None


def _messages(part: Reader, wanted: Sequence[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
    """The messages of a reader: by their times, or in the order of the file where that has no index."""
    if isinstance(part.storage, McapReader) and not part.storage.chunks:
        return part.storage.messages_scan(wanted)
    return part.messages(wanted)


def _natural(path: Path) -> list[tuple[int, str]]:
    """By numbers where names have some, so that the tenth file comes after the ninth."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in re.split(r"(\d+)", path.name)]


def _reason(error: Exception) -> str:
    return first_line(error).rstrip(".") or type(error).__name__
