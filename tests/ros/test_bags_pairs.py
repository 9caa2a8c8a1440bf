"""Which topics are the cameras' and which of their frames make pairs: as the node would form them, by its own laws."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bags import (
    START,
    THERMAL,
    VISIBLE,
    camera_entries,
    camera_info,
    compressed,
    frame,
    header,
    image,
    write_bag,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vifa_ros import cameras
from vifa_ros.bags.camera_pairs import BAD_IMAGE, CameraTopics, PairReader, find_topics
from vifa_ros.bags.opening import Bag, BagError
from vifa_ros.conversions import ConversionError
from vifa_ros.pairing import PairingSettings

MS = 1_000_000
SETTINGS = PairingSettings(slop=40 * MS)


def read(path: Path, settings: PairingSettings = SETTINGS, **options):
    """All pairs, and the reader afterwards."""
    with Bag(path) as bag:
        reader = PairReader(bag, find_topics(bag), settings, **options)
        return list(reader), reader


def check_laws(pairs, reader, settings=SETTINGS) -> None:
    """The node's laws, at the end of a bag."""
    for counts in reader.counts.values():
        assert counts.received == counts.paired + sum(counts.dropped.values())
        assert counts.waiting == 0
        assert len(pairs) == counts.paired + counts.reused
    assert [pair.index for pair in pairs] == list(range(len(pairs)))
    assert all(abs(pair.skew) <= max(settings.slop, settings.max_reuse_age) for pair in pairs)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_pair_comes_with_its_pixels_stamps_and_frames(tmp_path, storage):
    pairs, reader = read(write_bag(tmp_path / "drive", camera_entries(5, skew=5 * MS), storage))
    check_laws(pairs, reader)
    assert len(pairs) == 5
    for index, pair in enumerate(pairs):
        visible, thermal = frame(index)
        np.testing.assert_array_equal(pair.visible, visible)
        np.testing.assert_array_equal(pair.thermal, thermal)
        stamp = START + index * 100 * MS
        assert (pair.stamp, pair.visible_stamp, pair.thermal_stamp) == (stamp, stamp, stamp + 5 * MS)
        assert (pair.skew, pair.arrival, pair.reused) == (-5 * MS, stamp + 5 * MS, False)
        assert (pair.visible_frame_id, pair.thermal_frame_id) == ("visible_camera", "thermal_camera")
    assert (reader.read, reader.total) == (10, 10)


def test_a_reader_begins_anew(tmp_path):
    with Bag(write_bag(tmp_path / "drive", camera_entries(3))) as bag:
        reader = PairReader(bag, find_topics(bag), SETTINGS)
        first, second = list(reader), list(reader)
    assert [pair.stamp for pair in first] == [pair.stamp for pair in second]
    check_laws(second, reader)


def test_compressed_images_are_decoded_by_who_asks_for_them(tmp_path):
    counts = frame(1)[1].astype(np.uint16) * 200
    entries = [
        ("/front/rgb/compressed", START, compressed(frame(0)[0], START)),
        ("/lwir/compressed", START + 1, compressed(counts, START)),
        ("/front/rgb/compressed", START + 2 * MS, compressed(frame(0)[0], START + 50 * MS)),
        ("/lwir/compressed", START + 3 * MS, compressed(counts, START + 50 * MS)),
    ]
    entries[2][2].data = entries[2][2].data[:40]  # still a PNG by its first bytes
    (good, bad), reader = read(write_bag(tmp_path / "drive", entries))
    check_laws([good, bad], reader)
    with ThreadPoolExecutor(1) as elsewhere:
        np.testing.assert_array_equal(elsewhere.submit(lambda: good.visible).result(), frame(0)[0])
        np.testing.assert_array_equal(elsewhere.submit(lambda: good.thermal).result(), counts)
    with pytest.raises(ConversionError, match="cut off or damaged"):
        _ = bad.visible


def test_a_pair_has_the_camera_infos_that_came_before_it(tmp_path):
    entries = camera_entries(3)
    entries.insert(2, ("/visible/camera_info", START + 50 * MS, camera_info(16, 12, START)))
    entries.insert(5, ("/thermal/camera_info", START + 150 * MS, camera_info(16, 12, START, focal=9.0)))
    pairs, _ = read(write_bag(tmp_path / "drive", entries))
    assert [sorted(pair.infos) for pair in pairs] == [[], ["visible"], ["thermal", "visible"]]
    assert pairs[2].infos["thermal"].k[0] == 9.0


def test_other_topics_are_handed_over_in_their_order(tmp_path):
    entries = camera_entries(2)
    entries.insert(2, ("/note", START + 50 * MS, header(START + 50 * MS, "between")))
    seen = []
    with Bag(write_bag(tmp_path / "drive", entries)) as bag:
        for pair in PairReader(bag, find_topics(bag), SETTINGS, {"/note": lambda note: seen.append(note.frame_id)}):
            seen.append(pair.index)
    assert seen == [0, "between", 1]


def test_the_last_frames_do_not_wait_for_what_never_comes(tmp_path):
    """The rule waits for a thermal frame nearer than 30 ms, as that camera's period is 40 ms."""
    entries = [(THERMAL, START + i * 40 * MS, image(frame(i)[1], START + i * 40 * MS)) for i in range(5)]
    late = START + 190 * MS
    entries.append((VISIBLE, late, image(frame(9)[0], late)))
    (pair,), reader = read(write_bag(tmp_path / "drive", entries))
    check_laws([pair], reader)
    assert (pair.visible_stamp, pair.thermal_stamp) == (late, START + 160 * MS)


def test_a_frame_that_waited_too_long_is_let_go_before_the_next_arrives(tmp_path):
    settings = PairingSettings(slop=40 * MS, max_wait=500 * MS)
    entries = [
        (VISIBLE, START, image(frame(0)[0], START)),
        (THERMAL, START + 600 * MS, image(frame(0)[1], START)),
    ]
    pairs, reader = read(write_bag(tmp_path / "drive", entries), settings)
    assert pairs == []
    assert reader.counts["visible"].dropped == {"timed_out": 1}


def test_stamps_out_of_order_are_counted_and_the_rest_is_paired(tmp_path):
    entries = camera_entries(6)
    stale, again = START + 50 * MS, START + 200 * MS
    entries.insert(6, (VISIBLE, START + 210 * MS, image(frame(0)[0], stale)))
    entries.insert(7, (VISIBLE, START + 211 * MS, image(frame(0)[0], again)))
    pairs, reader = read(write_bag(tmp_path / "drive", entries))
    check_laws(pairs, reader)
    assert len(pairs) == 6
    assert reader.counts["visible"].dropped == {"out_of_order": 1, "repeated_stamp": 1}
    assert reader.counts["thermal"].dropped == {}


def test_every_visible_frame_is_used_where_thermal_ones_are_reused(tmp_path):
    settings = PairingSettings(slop=17 * MS, pairing="reuse_thermal")
    entries = [(VISIBLE, START + i * 33 * MS, image(frame(i)[0], START + i * 33 * MS)) for i in range(30)]
    entries += [(THERMAL, START + i * 110 * MS, image(frame(i)[1], START + i * 110 * MS)) for i in range(9)]
    entries.sort(key=lambda entry: entry[1])
    pairs, reader = read(write_bag(tmp_path / "drive", entries), settings)
    check_laws(pairs, reader, settings)
    assert len(pairs) == 30
    assert sum(pair.reused for pair in pairs) == reader.counts["thermal"].reused == 21


def test_bad_images_are_counted_as_the_node_does(tmp_path):
    assert BAD_IMAGE == cameras.BAD_IMAGE
    entries = camera_entries(3)
    entries[2][2].step = 5
    entries[5][2].header.stamp.sec = -1
    pairs, reader = read(write_bag(tmp_path / "drive", entries))
    check_laws(pairs, reader)
    assert len(pairs) == 1
    assert [counts.dropped[BAD_IMAGE] for counts in reader.counts.values()] == [1, 1]
    assert "step 5 is too small" in reader.problems["visible"]
    assert "negative" in reader.problems["thermal"]


tiny = frame(0, (2, 2))
gaps = st.lists(st.integers(-20, 120), min_size=0, max_size=25)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    visible=gaps,
    thermal=gaps,
    pairing=st.sampled_from(["nearest", "reuse_thermal", "reuse_visible"]),
    stamps=st.sampled_from(["header", "arrival"]),
    lags=st.lists(st.integers(0, 60), min_size=50, max_size=50),
)
def test_the_laws_hold_whatever_arrives(tmp_path_factory, visible, thermal, pairing, stamps, lags):
    """Stamps that jitter, repeat and run back; messages that lag."""
    entries = []
    for topic, steps, pixels in ((VISIBLE, [0, *visible], tiny[0]), (THERMAL, [0, *thermal], tiny[1])):
        for lag, stamp in zip(lags, START + np.cumsum(steps) * MS, strict=False):
            entries.append((topic, int(stamp) + lag * MS, image(pixels, int(stamp))))
    entries.sort(key=lambda entry: entry[1])
    chosen = PairingSettings(slop=40 * MS, pairing=pairing, stamps=stamps)
    pairs, reader = read(write_bag(tmp_path_factory.mktemp("any") / "bag", entries), chosen)
    check_laws(pairs, reader, chosen)
    by_stream = {"visible": len(visible) + 1, "thermal": len(thermal) + 1}
    assert {stream: counts.received for stream, counts in reader.counts.items()} == by_stream
    if stamps == "header":
        assert all(pair.skew == pair.visible_stamp - pair.thermal_stamp for pair in pairs)


# Which topics are the cameras'.

RGB, GRAY = image(frame(0)[0], START), image(frame(0)[1], START)
PNG = compressed(frame(0)[0], START)


def find(folder: Path, topics: dict[str, object], **options) -> CameraTopics:
    with Bag(write_bag(folder, [(name, START, message) for name, message in topics.items()])) as bag:
        return find_topics(bag, **options)


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        (["/visible/image_raw", "/thermal/image_raw"], ("/visible/image_raw", "/thermal/image_raw")),
        (["/cam0/image", "/nose/ir"], ("/cam0/image", "/nose/ir")),
        (["/front/rgb", "/cam1/image"], ("/front/rgb", "/cam1/image")),
        (["/flir/rgb/image", "/flir/lwir/image"], ("/flir/rgb/image", "/flir/lwir/image")),
        (["/rgb", "/ir", "/rear/image_raw", "/vifa/saliency/image"], ("/rgb", "/ir")),
        (["/rgb", "/ir", "/ground_truth/rgb", "/rgb/depth", "/vifa/ir/mask"], ("/rgb", "/ir")),
        (["/rgb", "/ir", "/rgb/compressed", "/ir/compressed"], ("/rgb", "/ir")),
        (["/rgb/compressed", "/ir"], ("/rgb/compressed", "/ir")),
    ],
    ids=lambda value: " ".join(value),
)
def test_the_only_fitting_pair_is_found(tmp_path, topics, expected):
    found = find(tmp_path / "bag", {name: PNG if name.endswith("compressed") else RGB for name in topics})
    assert (found.visible, found.thermal) == expected


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        (["/a", "/b"], "which image topics are the cameras' is not clear: /a (1), /b (1); name them with --visible"),
        (["/rgb", "/left/rgb", "/ir"], "not clear: /ir (1), /left/rgb (1), /rgb (1); name them"),
        (["/rgb", "/ir/one", "/ir/two"], "not clear"),
        (["/rgb"], "images of one camera only, /rgb (1); a visible and a thermal one are needed"),
        (["/ir", "/ir/compressed"], "images of one camera only, /ir (1), /ir/compressed (1)"),
        (["/vifa/mask"], "no camera's images, only /vifa/mask (1)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_clear_is_asked_for(tmp_path, topics, expected):
    with pytest.raises(BagError) as caught:
        find(tmp_path / "bag", {name: PNG if name.endswith("compressed") else RGB for name in topics})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_named_topics_are_taken_and_the_other_is_found(tmp_path):
    topics = {"/a": RGB, "/b": GRAY, "/ir": GRAY}
    assert find(tmp_path / "1", topics, visible="/b").thermal == "/ir"
    assert find(tmp_path / "2", topics, visible="/a", thermal="/b") == CameraTopics("/a", "/b")
    assert find(tmp_path / "3", {"/a": RGB, "/b": GRAY}, thermal="/a") == CameraTopics("/b", "/a")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"visible": "/rbg"}, "--visible: .* has no topic /rbg; use one of /ir, /rgb"),
        ({"thermal": "/note"}, "--thermal: /note is std_msgs/msg/Header, not sensor_msgs/msg/Image or"),
        ({"visible": "/ir", "thermal": "/ir"}, "--visible and --thermal are both /ir"),
        ({"thermal_info": "/rgb"}, "--thermal-info: /rgb is sensor_msgs/msg/Image, not sensor_msgs/msg/CameraInfo"),
    ],
)
def test_a_wrong_name_is_told_by_its_option(tmp_path, options, expected):
    with pytest.raises(BagError, match=expected):
        find(tmp_path / "bag", {"/rgb": RGB, "/ir": GRAY, "/note": header(START)}, **options)


def test_a_bag_without_images_says_what_it_has(tmp_path):
    with pytest.raises(BagError, match="holds no images; it has /note"):
        find(tmp_path / "bag", {"/note": header(START)})


def test_camera_infos_lie_beside_the_images(tmp_path):
    info = camera_info(16, 12, START)
    topics = {"/a/rgb/compressed": PNG, "/a/camera_info": info, "/b/ir": GRAY, "/b/camera_info": header(START)}
    assert find(tmp_path / "1", topics) == CameraTopics("/a/rgb/compressed", "/b/ir", "/a/camera_info", "")
    topics["/c/info"] = info
    assert find(tmp_path / "2", topics, thermal_info="/c/info").thermal_info == "/c/info"


def test_memory_does_not_grow_with_the_bag(tmp_path):
    peaks = []
    for count in (10, 100):
        path = write_bag(tmp_path / f"{count}", camera_entries(count, size=(200, 250)))
        tracemalloc.start()
        with Bag(path) as bag:
            total = sum(int(pair.visible[0, 0, 0]) >= 0 for pair in PairReader(bag, find_topics(bag), SETTINGS))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == count
    assert peaks[1] < peaks[0] + 1_000_000
