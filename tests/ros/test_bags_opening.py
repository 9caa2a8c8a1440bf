"""Opening bags: what is in them comes out, whatever they are packed in, and what is broken is said in one line."""

import hashlib
import shutil
import sqlite3
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags import JAZZY, START, THERMAL, VISIBLE, camera_entries, frame, header, image, write_bag
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vifa_ros.bags.errors import need_rosbags
from vifa_ros.bags.messages import make_detections, make_header, types
from vifa_ros.bags.opening import Bag, BagError
from vifa_runtime.labels import Labels

KINDS = [("mcap", how) for how in ("none", "storage", "message", "file")]
KINDS += [("sqlite3", how) for how in ("none", "message", "file")]
BOTH = {VISIBLE, THERMAL}


def read_all(path: Path, topics=BOTH) -> list[tuple[str, int, bytes]]:
    """Topic, arrival and pixels of every image."""
    with Bag(path) as bag:
        return [(topic, arrival, bytes(found.data)) for topic, arrival, found in bag.messages(topics)]


def entries_read(entries) -> list[tuple[str, int, bytes]]:
    """What `read_all` should give."""
    return [(topic, arrival, bytes(found.data)) for topic, arrival, found in entries]


def refusal(path: Path) -> str:
    """The one line by which a bag is refused when it is opened and read."""
    with pytest.raises(BagError) as caught, Bag(path) as bag:
        list(bag.messages(bag.topics))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_every_kind_of_bag_gives_what_was_written(tmp_path, storage, compression):
    entries = camera_entries(5)
    path = write_bag(tmp_path / "drive", entries, storage, compression)
    assert read_all(path) == entries_read(entries)
    with Bag(path) as bag:
        assert {name: (topic.type, topic.count) for name, topic in bag.topics.items()} == {
            THERMAL: ("sensor_msgs/msg/Image", 5),
            VISIBLE: ("sensor_msgs/msg/Image", 5),
        }
        assert (bag.message_count, bag.start, bag.notice) == (10, START, "")
        assert bag.duration == pytest.approx(0.405, abs=1e-9)
        assert [topic for topic, _, _ in bag.messages([THERMAL])] == [THERMAL] * 5


def test_a_message_is_read_whole(tmp_path):
    pixels = frame(3)[0]
    sent = image(pixels, START + 7, "front")
    with Bag(write_bag(tmp_path / "one", [("/rgb", START, sent)])) as bag:
        ((topic, arrival, message),) = bag.messages(["/rgb"])
        assert (topic, arrival) == ("/rgb", START)
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (START // 10**9, 7)
        assert (message.header.frame_id, message.encoding, message.step) == ("front", "rgb8", 48)
        np.testing.assert_array_equal(message.data.reshape(pixels.shape), pixels)
        ((_, _, raw),) = bag.raw_messages(["/rgb"])
        assert raw == bytes(JAZZY.serialize_cdr(sent, "sensor_msgs/msg/Image"))


def split(folder: Path, storage: str, parts: int = 3) -> list:
    """Write a bag of several files, numbered past ten; returns the entries."""
    suffix = {"mcap": ".mcap", "sqlite3": ".db3"}[storage]
    folder.mkdir()
    entries = []
    names = [f"drive_{number}{suffix}" for number in range(8, 8 + parts)]
    for number, name in enumerate(names):
        some = camera_entries(2, first=START + number * 10**9)
        entries += some
        part = write_bag(folder.parent / f"part{number}", some, storage)
        shutil.move(part / f"part{number}{suffix}", folder / name)
        metadata = yaml.safe_load((part / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["relative_file_paths"] = names
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return entries


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_split_bag_is_read_in_the_order_of_its_files(tmp_path, storage):
    entries = split(tmp_path / "drive", storage)
    assert read_all(tmp_path / "drive") == entries_read(entries)
    (tmp_path / "drive" / "metadata.yaml").unlink()
    assert read_all(tmp_path / "drive") == entries_read(entries), "by the numbers in the names: 8, 9, 10"
    with Bag(tmp_path / "drive") as bag:
        assert "no metadata.yaml" in bag.notice
        assert "ros2 bag reindex" in bag.notice


def test_metadata_that_was_never_finished_is_not_believed(tmp_path):
    entries = camera_entries(2)
    path = write_bag(tmp_path / "drive", entries)
    content = yaml.safe_load((path / "metadata.yaml").read_text())
    content["rosbag2_bagfile_information"].update(message_count=0, topics_with_message_count=[])
    (path / "metadata.yaml").write_text(yaml.safe_dump(content))
    assert read_all(path) == entries_read(entries)
    assert read_all(path / "metadata.yaml") == entries_read(entries)
    assert read_all(path / "drive.mcap") == entries_read(entries)


def as_humble(path: Path) -> None:
    """Turn a sqlite3 bag into one as Humble writes it: no definitions, no hashes, no distribution."""
    file = next(path.glob("*.db3"))
    with sqlite3.connect(file) as base:
        base.executescript(
            "DROP TABLE schema; DROP TABLE message_definitions; DROP TABLE metadata;"
            "ALTER TABLE topics DROP COLUMN type_description_hash;"
        )
    content = yaml.safe_load((path / "metadata.yaml").read_text())
    info = content["rosbag2_bagfile_information"]
    info["version"] = 5
    del info["ros_distro"], info["custom_data"]
    for topic in info["topics_with_message_count"]:
        del topic["topic_metadata"]["type_description_hash"]
        topic["topic_metadata"]["offered_qos_profiles"] = ""
    (path / "metadata.yaml").write_text(yaml.safe_dump(content))


def test_a_bag_of_humble_without_definitions_is_read(tmp_path):
    entries = camera_entries(3)
    path = write_bag(tmp_path / "drive", entries, "sqlite3")
    as_humble(path)
    assert read_all(path) == entries_read(entries)


def test_boxes_of_humble_are_read_without_definitions(tmp_path):
    found = Labels(np.array([[1, 2, 3, 5]], np.float32), np.array([0]))
    sent = make_detections(found, [0.5], ["car"], make_header(START, "front"))
    path = write_bag(tmp_path / "drive", [("/boxes", START, sent)], "sqlite3", store=types())
    as_humble(path)
    with Bag(path) as bag:
        ((_, _, heard),) = bag.messages(["/boxes"])
    (box,) = heard.detections
    assert (box.bbox.center.position.y, box.bbox.size_x) == (3.5, 2.0)
    assert (box.results[0].hypothesis.class_id, box.results[0].hypothesis.score) == ("car", 0.5)


@pytest.mark.parametrize("distribution", ["FOXY", "HUMBLE", "IRON", "KILTED", "LYRICAL"])
def test_bags_of_other_distributions_are_read_by_their_own_definitions(tmp_path, distribution):
    store = get_typestore(Stores[f"ROS2_{distribution}"])
    sent = [(VISIBLE, START + i, image(frame(i)[0], START + i, store=store)) for i in range(3)]
    path = write_bag(tmp_path / "drive", sent, store=store, version=8)
    assert read_all(path, [VISIBLE]) == entries_read(sent)


def odd_store():
    """The types of Jazzy, and one that nobody knows."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("std_msgs/Header header\nfloat32[3] gains\n", "odd_msgs/msg/Gains"))
    return store


def with_odd_type(folder: Path, storage: str) -> Path:
    store = odd_store()
    gains = store.types["odd_msgs/msg/Gains"](header=header(START, store=store), gains=np.arange(3, dtype=np.float32))
    entries = [("/gains", START, gains), (VISIBLE, START, image(frame(0)[0], START, store=store))]
    return write_bag(folder, entries, storage, store=store)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_unknown_type_is_read_by_the_definition_that_came_with_it(tmp_path, storage):
    with Bag(with_odd_type(tmp_path / "drive", storage)) as bag:
        ((_, _, gains),) = bag.messages(["/gains"])
        assert gains.gains.tolist() == [0, 1, 2]


def test_an_unknown_type_without_definition_hinders_only_who_asks_for_it(tmp_path):
    path = with_odd_type(tmp_path / "drive", "sqlite3")
    as_humble(path)
    assert len(read_all(path, [VISIBLE])) == 1
    assert "/gains: the bag does not define the type odd_msgs/msg/Gains; record it as MCAP" in refusal(path)


def test_a_definition_that_makes_no_sense_hinders_only_who_asks_for_it(tmp_path):
    path = with_odd_type(tmp_path / "drive", "sqlite3")
    with sqlite3.connect(next(path.glob("*.db3"))) as base:
        base.execute("UPDATE message_definitions SET encoded_message_definition='}{' WHERE topic_type LIKE 'odd%'")
    assert len(read_all(path, [VISIBLE])) == 1
    assert "/gains: the definition of odd_msgs/msg/Gains is not understood" in refusal(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """An MCAP bag of several chunks, of a MiB each."""
    return write_bag(tmp_path_factory.mktemp("large") / "drive", camera_entries(8, size=(300, 400)))


def file_of(path: Path) -> Path:
    return next(file for file in path.iterdir() if file.name != "metadata.yaml")


def cut(path: Path, target: Path, share: float, zeros: int = 0) -> Path:
    """A copy of a bag's only file without its end, and with zeros behind it."""
    data = file_of(path).read_bytes()
    target.write_bytes(data[: int(share * len(data))] + bytes(zeros))
    return target


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(share=0.328125, zeros=100_000)  # the zeros are the end of a chunk
@given(share=st.floats(0, 1, exclude_max=True), zeros=st.sampled_from([0, 5, 100_000]))
def test_a_cut_off_mcap_file_gives_its_beginning_and_says_so(tmp_path, large, share, zeros):
    whole = read_all(large)
    path = cut(large, tmp_path / "cut.mcap", share, zeros)
    try:
        with Bag(path) as bag:
            found = [(topic, arrival, bytes(m.data)) for topic, arrival, m in bag.messages(bag.topics)]
            assert f"is cut off: the {len(found)} messages" in bag.notice
    except BagError as error:
        assert "\n" not in str(error)
        assert share < 0.5, "one of the three or four chunks is whole"
        return
    assert found == whole[: len(found)]
    assert len(found) >= share * len(whole) - 10, "no more is lost than two chunks of at most five messages"


def test_a_cut_off_last_file_of_a_split_bag_costs_only_its_end(tmp_path, large):
    folder = tmp_path / "drive"
    folder.mkdir()
    shutil.copy(next(large.glob("*.mcap")), folder / "a_0.mcap")
    cut(large, folder / "a_1.mcap", 0.7)
    found, whole = read_all(folder), read_all(large)
    assert found[: len(whole)] == whole
    assert 0 < len(found) - len(whole) < len(whole)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_off_sqlite_file_is_refused(tmp_path, share):
    source = tmp_path / "drive"
    if not source.exists():
        write_bag(source, camera_entries(20), "sqlite3")
    error = refusal(cut(source, tmp_path / "cut.db3", share))
    assert "cut.db3" in error
    assert "; " in error


def test_a_count_of_pages_that_sqlite_itself_does_not_trust_is_not_believed(tmp_path):
    """Old versions of SQLite left it as it was, without the change counter that makes it valid."""
    entries = camera_entries(3)
    path = write_bag(tmp_path / "drive", entries, "sqlite3") / "drive.db3"
    head = bytearray(path.read_bytes())
    head[28:32] = (9999).to_bytes(4, "big")
    path.write_bytes(head)
    assert "is cut off" in refusal(path)
    head[92:96] = (int.from_bytes(head[24:28], "big") + 1).to_bytes(4, "big")
    path.write_bytes(head)
    assert read_all(path) == entries_read(entries)


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_a_closed_bag_leaves_nothing_open(tmp_path, storage, compression, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = write_bag(tmp_path / "drive", camera_entries(1), storage, compression)
    with Bag(path) as bag:
        next(bag.messages(BOTH))
        opened = [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(link.resolve())]
        assert opened
    del bag
    assert not [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(link.resolve())]
    assert not list((tmp_path / "scratch").iterdir())


def test_messages_that_sqlite_has_not_put_in_place_are_told_of(tmp_path):
    path = write_bag(tmp_path / "drive", camera_entries(2), "sqlite3")
    (path / "drive.db3-wal").write_bytes(b"log")
    with Bag(path) as bag:
        assert "wal_checkpoint" in bag.notice


def test_a_damaged_message_is_named(tmp_path):
    path = write_bag(tmp_path / "drive", camera_entries(2), "sqlite3")
    with sqlite3.connect(path / "drive.db3") as base:
        base.execute("UPDATE messages SET data = substr(data, 1, 60) WHERE id = 3")
    assert f"{VISIBLE}: the message of 1700000000.100000000 s is damaged" in refusal(path)


def test_compressed_messages_without_metadata_say_where_it_is_told(tmp_path):
    path = write_bag(tmp_path / "drive", camera_entries(2), "mcap", "message")
    assert "the messages are compressed; open the folder" in refusal(path / "drive.mcap")


def broken_by_nothing(path: Path) -> str:
    return "no bag at"


def broken_by_empty_folder(path: Path) -> str:
    path.mkdir()
    return "holds neither metadata.yaml nor files that end in .mcap or .db3"


def broken_by_text(path: Path) -> str:
    path.write_text("hello")
    return "is no bag; name a folder"


def broken_by_bag_without_messages(path: Path) -> str:
    write_bag(path, [])
    return "holds no messages"


def broken_by_wrong_metadata(path: Path) -> str:
    write_bag(path, camera_entries(1))
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    return "ros2 bag reindex"


def broken_by_missing_file(path: Path) -> str:
    write_bag(path, camera_entries(1))
    (path / f"{path.name}.mcap").unlink()
    return f"lists {path.name}.mcap, which"


def broken_by_unknown_compression(path: Path) -> str:
    write_bag(path, camera_entries(1), "mcap", "message")
    file = path / "metadata.yaml"
    file.write_text(file.read_text().replace("zstd", "brotli"))
    return "brotli"


def broken_by_both_storages(path: Path) -> str:
    write_bag(path, camera_entries(1))
    (path / "metadata.yaml").unlink()
    (path / "more.db3").touch()
    return "name one of the files"


def broken_by_two_types(path: Path) -> str:
    path.mkdir()
    for number, message in enumerate((image(frame(0)[0], START), header(START))):
        part = write_bag(path.parent / f"part{number}", [("/a", START, message)])
        shutil.move(part / f"part{number}.mcap", path)
    return "/a has messages of two types"


@pytest.mark.parametrize("make", [value for name, value in sorted(globals().items()) if name.startswith("broken_by_")])
def test_what_is_no_readable_bag_is_refused_in_one_line(tmp_path, make):
    expected = make(tmp_path / "drive")
    assert expected in refusal(tmp_path / "drive")


def test_a_bag_of_ros_1_is_refused_with_the_converter(tmp_path):
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    assert "rosbags-convert" in refusal(tmp_path / "old.bag")


def test_a_topic_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with (
        Bag(write_bag(tmp_path / "drive", camera_entries(1))) as bag,
        pytest.raises(BagError, match=f"has no topic /nowhere; it has {THERMAL}, {VISIBLE}"),
    ):
        next(bag.messages(["/nowhere"]))


def test_the_digest_is_that_of_all_files_in_order(tmp_path):
    split(tmp_path / "drive", "mcap")
    data = b"".join((tmp_path / "drive" / f"drive_{number}.mcap").read_bytes() for number in (8, 9, 10))
    with Bag(tmp_path / "drive") as bag:
        assert bag.digest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", [("mcap", "none"), ("mcap", "storage"), ("sqlite3", "none")], ids="-".join)
def test_memory_does_not_grow_with_the_bag(tmp_path, kind):
    peaks = []
    for count in (10, 100):  # 2 and 20 MB
        path = write_bag(tmp_path / f"{count}", camera_entries(count, size=(200, 250)), *kind)
        tracemalloc.start()
        with Bag(path) as bag:
            assert sum(1 for _ in bag.messages(BOTH)) == 2 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


def test_missing_rosbags_are_named_with_the_mend(monkeypatch):
    need_rosbags()
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(BagError, match=r"pip install 'vifa-perception\[bags\]'"):
        need_rosbags()
