"""`vifa evaluate`: the node's chain on a bag. Alignment, thermal state, tags, the bag of results, memory, threads."""

import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bags import THERMAL, VISIBLE, camera_entries, camera_info, frame, image, write_bag
from evaluations import SIZE, pipeline_of, run, settings_of, values_of, write_bag_of, write_labels, write_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from vifa_ros.bags import report as report_module
from vifa_ros.bags import session as session_module
from vifa_ros.bags import topics
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.messages import make_extrinsics, types
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.overlapping import overlapped
from vifa_ros.bags.report import evaluate
from vifa_ros.bags.tags import NIGHT_BELOW, read_spans, tag_of_name
from vifa_runtime.alignment import Alignment
from vifa_runtime.alignment_files import write_alignment
from vifa_runtime.backends import prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.camera_model import Camera
from vifa_runtime.metrics import detection_file, entropy, spatial_frequency
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap
from vifa_runtime.render import render_overlay
from vifa_runtime.scoring import Sources, gray_levels, gray_thermal

MS = 1_000_000
STRING = "std_msgs/msg/String"


# Thermal images


def test_16_bit_images_are_normalised_in_the_order_of_stamps_as_in_the_node(tiny_bundle, tmp_path):
    folder = write_pairs(tmp_path / "pairs", 5, np.uint16)
    bag = write_bag_of(folder, tmp_path / "bag", rate=5.0)
    loaded, by_state = load_bundle(tiny_bundle), []
    for smooths in (True, False):
        report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en", "vif"), smooths=smooths)
        pipeline, expected = pipeline_of(loaded), []
        for index, pair in enumerate(find_pairs(folder)):
            stamp = 1_704_067_200 + (index + 0.5) / 5 if smooths else None
            rgb, raw = read_visible(pair.visible), read_thermal(pair.thermal)
            fused = gray_levels(pipeline.process(rgb, raw, stamp).fused["bright"])
            sources = Sources(gray_levels(rgb), gray_thermal(raw, SIZE))
            expected.append({"en": entropy(fused), **sources.measure(fused, ("vif",))})
        own = [row for row in report["frames"] if row["task"] == "bright"]
        for row, values in zip(own, expected, strict=True):
            assert {key: row[key] for key in values} == pytest.approx(values, abs=1e-9)
        told = report["meta"]["settings"]["thermal_limits"]
        assert ("as in the node" in told) is smooths
        by_state.append([row["vif"] for row in own])
    assert np.abs(np.subtract(*by_state)).max() > 1e-3, "the state does matter"


def test_a_camera_that_sends_warm_as_dark_is_measured_warm_as_bright(tiny_bundle, tmp_path):
    entries = camera_entries(3, size=SIZE)
    inverted = [
        (topic, at, image(255 - frame(number // 2, SIZE)[1], at) if topic == THERMAL else message)
        for number, (topic, at, message) in enumerate(entries)
    ]
    plain = run(write_bag(tmp_path / "plain", entries), tmp_path / "out", tiny_bundle)
    values = {"thermal.polarity": "black_hot"}
    turned = run(write_bag(tmp_path / "turned", inverted), tmp_path / "out", tiny_bundle, values=values)
    assert values_of(turned) == pytest.approx(values_of(plain), abs=1e-9)


# Alignment


def shifted(index):
    """A thermal image in which everything lies 5 pixels more to the left, in an image of another size."""
    return np.roll(frame(index, SIZE)[1], -5, axis=1)[:, :50]


@pytest.fixture(scope="module")
def shifted_bag(tmp_path_factory):
    entries = [
        (topic, at, image(shifted(number // 2), at, "thermal_camera") if topic == THERMAL else message)
        for number, (topic, at, message) in enumerate(camera_entries(3, size=SIZE))
    ]
    return write_bag(tmp_path_factory.mktemp("shifted") / "bag", entries)


def test_thermal_images_are_measured_where_the_alignment_puts_them(tiny_bundle, shifted_bag, tmp_path):
    pixels = HomographyMap((1.0, 0.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (48, 50), SIZE)
    write_alignment(tmp_path / "shift.yaml", Alignment("homography", pixels, 0))
    values = {"alignment.mode": "file", "alignment.file": str(tmp_path / "shift.yaml")}
    report = run(shifted_bag, tmp_path / "out", tiny_bundle, values=values, metrics=("sf", "vif"))
    for row in (row for row in report["frames"] if row["task"] == "bright"):
        visible = frame(row["index"], SIZE)[0]
        heat = gray_levels(visible)  # where the thermal camera sees nothing
        heat[:, 5:55] = shifted(row["index"])
        fused = visible.copy()
        fused[:, 5:55] = np.clip(visible[:, 5:55].astype(int) + shifted(row["index"])[..., None], 0, 255)
        luma = gray_levels(fused)
        assert row["sf"] == pytest.approx(spatial_frequency(luma), abs=1e-9)
        expected = Sources(gray_levels(visible), heat).measure(luma, ("vif",))["vif"]
        assert row["vif"] == pytest.approx(expected, abs=1e-6)


def calibrated_entries(count=3, later=0, tf=True):
    """Two cameras side by side, whose camera_info and /tf_static begin with the pair of number `later`."""
    store = types()
    for number, (topic, at, message) in enumerate(camera_entries(count, size=SIZE)):
        if number // 2 >= later:
            stream = "visible" if topic == VISIBLE else "thermal"
            yield topics.INFOS[stream], at, camera_info(64, 48, at, topics.FRAMES[stream], focal=100.0)
        if number == 0 and tf:
            baseline = Extrinsics((1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0.5, 0.0, 0.0))
            message_tf = make_extrinsics(baseline, topics.FRAMES["thermal"], topics.FRAMES["visible"], at)
            yield topics.TF_STATIC, at, message_tf
        yield topic, at, message
    assert store


def test_cameras_are_aligned_by_what_the_bag_tells(tiny_bundle, tmp_path):
    """A baseline of half a metre seen at 10 m through 100 pixels of focal length: five pixels."""
    bag = write_bag(tmp_path / "bag", calibrated_entries(), store=types())
    report = run(bag, tmp_path / "out", tiny_bundle, values={"alignment.mode": "cameras"}, metrics=("sf",))
    camera = Camera(SIZE, (100.0, 0.0, 32.0, 0.0, 100.0, 24.0, 0.0, 0.0, 1.0), "plumb_bob", (0.0,) * 5)
    pixels = CameraMap(camera, camera, Extrinsics((1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0.5, 0.0, 0.0)), 10.0)
    pipeline = pipeline_of(load_bundle(tiny_bundle))
    pipeline.alignment = Alignment("cameras", pixels)
    for row in (row for row in report["frames"] if row["task"] == "bright"):
        fused = pipeline.process(*frame(row["index"], SIZE)).fused["bright"]
        assert row["sf"] == pytest.approx(spatial_frequency(gray_levels(fused)), abs=1e-9)
    same_place = run(bag, tmp_path / "out", tiny_bundle, metrics=("sf",))
    assert abs(values_of(same_place)["bright", "sf"] - values_of(report)["bright", "sf"]) > 0.1


def test_pairs_before_the_calibration_are_dropped_as_the_node_drops_them(tiny_bundle, tmp_path):
    bag = write_bag(tmp_path / "bag", calibrated_entries(4, later=2), store=types())
    report = run(bag, tmp_path / "out", tiny_bundle, values={"alignment.mode": "cameras"}, metrics=("en",))
    assert report["drops"] == [{"what": "pair", "reason": "no_calibration", "count": 2}]
    assert sorted({row["index"] for row in report["frames"]}) == [2, 3]
    bag = write_bag(tmp_path / "none", calibrated_entries(tf=False), store=types())
    with pytest.raises(BagError, match=r"3 pairs \(no_calibration: .*publish it on /tf_static, or set alignment"):
        evaluate(bag, tmp_path / "no", [tiny_bundle], settings_of({"alignment.mode": "cameras"}))


# The pairing


def test_pairs_are_those_of_the_parameters(tiny_bundle, tmp_path):
    bag = write_bag(tmp_path / "bag", [e for n, e in enumerate(camera_entries(8, size=SIZE)) if n % 4 != 3])
    for values, expected in (
        ({}, 4),
        ({"pairing": "reuse_thermal", "max_reuse_age": 0.2}, 8),
        ({"thermal_offset": -0.1, "slop": 0.01}, 3),
    ):
        report = run(bag, tmp_path / "out", tiny_bundle, values=values, metrics=("en",))
        assert len(report["frames"]) == 2 * expected
        assert report["meta"]["settings"]["parameters"] == {"threads": 1, **values}


# Tags


def brightness_bag(folder, extra=()):
    entries = []
    for index in range(6):
        visible = np.full((*SIZE, 3), (20, 200)[index % 2], np.uint8)
        at = 1_700_000_000_000_000_000 + index * 100 * MS
        entries += [(VISIBLE, at, image(visible, at)), (THERMAL, at, image(frame(index, SIZE)[1], at))]
    return write_bag(folder, sorted([*entries, *extra], key=lambda entry: entry[1]), store=types())


def tags_of(report):
    return [row["tag"] for row in report["frames"] if row["task"] == "bright"]


def test_dark_images_are_night(tiny_bundle, tmp_path):
    bag = brightness_bag(tmp_path / "bag")
    assert 20 < NIGHT_BELOW < 200
    report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en",))
    assert tags_of(report) == ["night", "day"] * 3
    for tag, parity in (("night", 0), ("day", 1)):
        own = [row["en"] for row in report["frames"] if row["task"] == "bright" and row["index"] % 2 == parity]
        assert values_of(report, tag)["bright", "en"] == pytest.approx(np.mean(own))
    report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en",), night_below=10.0)
    assert tags_of(report) == ["day"] * 6 and values_of(report, "day") == values_of(report)
    report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en",), tags="none")
    assert tags_of(report) == ["all"] * 6 and {row["tag"] for row in report["rows"]} == {"all"}


def test_a_topic_tells_tags_from_its_message_on(tiny_bundle, tmp_path):
    said = types().types[STRING]
    first = 1_700_000_000_000_000_000
    extra = [("/place", first + 150 * MS, said(data="tunnel")), ("/place", first + 450 * MS, said(data=" open road "))]
    bag = brightness_bag(tmp_path / "bag", extra)
    report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en",), tags="/place")
    assert tags_of(report) == ["other"] * 2 + ["tunnel"] * 3 + ["open road"]
    for number, wrong in enumerate(("all", "x" * 41, "<b>")):
        bag = brightness_bag(tmp_path / f"bag{number}", [("/place", first, said(data=wrong))])
        with pytest.raises(BagError, match="/place: the tag"):
            evaluate(bag, tmp_path / "no", [tiny_bundle], settings_of(tags="/place"))
    with pytest.raises(BagError, match=r"--tags: .* has no topic /time of std_msgs/msg/String; it has /place"):
        evaluate(tmp_path / "bag", tmp_path / "no", [tiny_bundle], settings_of(tags="/time"))


def test_a_file_tells_tags_by_the_seconds_since_the_first_pair(tiny_bundle, tmp_path):
    path = tmp_path / "tags.yaml"
    path.write_text("- {from: 0.3, to: 0.5, tag: tunnel}\n- {from: 0, to: 0.1, tag: start}\n")
    bag = brightness_bag(tmp_path / "bag")
    report = run(bag, tmp_path / "out", tiny_bundle, metrics=("en",), tags=str(path))
    assert tags_of(report) == ["start", "other", "other", "tunnel", "tunnel", "other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no list"),
        ("{from: 0}", "holds no list"),
        ("[", "is no YAML"),
        ("- {from: 0, to: 1}", "entry 1 must be like"),
        ("- {from: 0, to: 1, tag: a}\n- {from: 2, to: 1, tag: b}", "entry 2 ends before it begins"),
        ("- {from: zero, to: 1, tag: a}", "entry 1: from must be a number of seconds, got 'zero'"),
        ("- {from: 0, to: .nan, tag: a}", "entry 1: to must be a number"),
        ("- {from: 0, to: 1, tag: 5}", "entry 1: the tag 5 is none"),
        ("- {from: 0, to: 1, tag: all}", "the tag 'all' stands for all pairs"),
        ("- {from: 1, to: 4, tag: b}\n- {from: 0, to: 2, tag: a}", "a ends at 2 s, but b begins at 1 s"),
    ],
)
def test_a_file_of_tags_that_is_wrong_is_refused(tmp_path, text, expected):
    (tmp_path / "tags.yaml").write_text(text)
    with pytest.raises(BagError, match=expected) as caught:
        read_spans(tmp_path / "tags.yaml")
    assert str(tmp_path / "tags.yaml") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BagError, match="--tags: cannot read nothing: No such file"):
        read_spans(Path("nothing"))


@pytest.mark.parametrize(
    ("name", "tag"),
    [("00537D", "day"), ("1N", "night"), ("BAND", ""), ("", ""), ("N", ""), ("00537D.a", ""), ("7d", "")],
)
def test_names_tell_day_from_night_as_those_of_msrs_do(name, tag):
    assert tag_of_name(name) == tag


# The bag of results


@pytest.mark.parametrize("images", ["raw", "jpeg"])
def test_the_bag_of_results_is_what_the_node_publishes(finding_bundle, tmp_path, images):
    folder = write_labels(write_pairs(tmp_path / "pairs", 3), finding_bundle)
    bag = write_bag_of(folder, tmp_path / "bag", skew=0.02)
    run(bag, tmp_path / "out", finding_bundle, metrics=("map",), output_images=images)
    bundle = load_bundle(finding_bundle)
    pipeline, pairs = pipeline_of(bundle), find_pairs(folder)
    suffix = "" if images == "raw" else "/compressed"
    with Bag(bag) as source, Bag(tmp_path / "out/bag") as results:
        headers = [message.header for _, _, message in source.messages([VISIBLE])]
        expected = {f"/fusion_node/{task}/image{suffix}" for task in ("bright", "cells", "glare")}
        expected |= {
            f"/fusion_node/{task}/{kind}" for task in ("cells", "glare") for kind in ("label_info", f"overlay{suffix}")
        }
        assert set(results.topics) == expected | {"/fusion_node/cells/detections", "/fusion_node/glare/mask"}
        found = {topic: [message for _, _, message in results.messages([topic])] for topic in results.topics}
    for index, pair in enumerate(pairs):
        made = pipeline.process(
            read_visible(pair.visible), read_thermal(pair.thermal)
        )  # by the bundle's own thresholds
        for topic, messages in found.items():
            if not topic.endswith("label_info"):
                assert len(messages) == 3
                header = messages[index].header
                assert (header.stamp.sec, header.stamp.nanosec) == (
                    headers[index].stamp.sec,
                    headers[index].stamp.nanosec,
                )
                assert header.frame_id == "visible_camera"
        boxes = found["/fusion_node/cells/detections"][index].detections
        assert len(boxes) == len(made.detections["cells"].scores) <= 20
        for box, corners, score, label in zip(boxes, *made.detections["cells"], strict=True):
            x, y = box.bbox.center.position.x, box.bbox.center.position.y
            assert [x - box.bbox.size_x / 2, y - box.bbox.size_y / 2] == pytest.approx(corners[:2].tolist())
            result = box.results[0].hypothesis
            assert (result.class_id, result.score) == (("red", "green", "blue")[label], pytest.approx(float(score)))
        mask = found["/fusion_node/glare/mask"][index]
        assert mask.encoding == "mono8" and bytes(mask.data) == made.masks["glare"].tobytes()
        if images == "raw":
            assert bytes(found["/fusion_node/bright/image"][index].data) == made.fused["bright"].tobytes()
            overlay = render_overlay(made, bundle.tasks[1])
            assert bytes(found["/fusion_node/cells/overlay"][index].data) == overlay.tobytes()
    names = [(entry.class_id, entry.class_name) for entry in found["/fusion_node/glare/label_info"][0].class_map]
    assert names == [(0, "dark"), (1, "bright")]


# Memory and threads


def test_memory_does_not_grow_with_the_bag(finding_bundle, tmp_path, monkeypatch):
    """Four times the pairs, labelled, take hardly more: what is kept of a pair lies in files."""
    monkeypatch.setattr(report_module, "MOST_PAGE_ROWS", 30)
    monkeypatch.setattr(detection_file, "_CHUNK", 1000)
    folder = write_labels(write_pairs(tmp_path / "pairs", 10), finding_bundle, unlabelled=0, unmasked=0)
    peaks = []
    for count in (1, 4):
        for index in range(10 * count):
            for part, suffix in (("vi", ".png"), ("ir", ".png"), ("labels", ".txt"), ("masks", ".png")):
                source = folder / part / f"{index % 10:03}{'DN'[index % 2]}{suffix}"
                if source.exists():
                    target = tmp_path / str(count) / part / f"{index:04}{'DN'[index % 2]}{suffix}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(source)
        bag = write_bag_of(tmp_path / str(count), tmp_path / f"bag{count}", storage="sqlite3")
        if not peaks:
            evaluate(bag, tmp_path / "out", [finding_bundle], settings_of(worst=0))  # what is loaded once is loaded
        tracemalloc.start()
        evaluate(bag, tmp_path / "out", [finding_bundle], settings_of(worst=0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 0.2e6, f"{peaks}: 30 pairs more are 0.4 MB of images and 0.2 MB of scores"


class OneThread:
    """A back end that keeps the rule of TensorRT's: the thread that makes it runs and closes it."""

    def __init__(self, backend):
        self._backend, self._thread, self.closed = backend, threading.get_ident(), False
        self.describe = backend.describe

    def run(self, *arguments):
        assert threading.get_ident() == self._thread
        return self._backend.run(*arguments)

    def close(self):
        assert threading.get_ident() == self._thread
        self.closed = True
        self._backend.close()


def test_an_engine_is_made_run_and_closed_in_one_thread(tiny_bundle, tmp_path, monkeypatch):
    made = []

    def prepare_here(*arguments):
        made.append(OneThread(prepare(*arguments)))
        return made[-1]

    monkeypatch.setattr(session_module, "prepare", prepare_here)
    bag = write_bag(tmp_path / "bag", camera_entries(4, size=SIZE))
    run(bag, tmp_path / "out", tiny_bundle, tiny_bundle, metrics=("en",), resamples=2)
    with pytest.raises(BagError, match="at least 41x41"):
        small = write_bag(tmp_path / "small", camera_entries(4, size=(24, 32)))
        evaluate(small, tmp_path / "no", [tiny_bundle], settings_of())
    assert len(made) == 3 and all(backend.closed for backend in made)


@given(st.integers(0, 12), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_overlapped_work_gives_what_work_in_a_row_gives(count, workers, randoms):
    began: list[int] = []

    def first(item):
        began.append(item)
        return item * 10

    def second(item):
        time.sleep(randoms.random() * 1e-3)
        return item + 1

    assert list(overlapped(range(count), first, second, workers)) == [10 * item + 1 for item in range(count)]
    assert began == list(range(count)), "the first kind of work keeps the order, as the thermal state needs"


def test_the_first_work_can_be_done_where_its_tools_were_made():
    """CUDA contexts belong to the thread that made them."""
    threads = set()
    with ThreadPoolExecutor(1) as engine:
        threads.add(engine.submit(threading.get_ident).result())
        for result in overlapped(range(5), lambda item: threads.add(threading.get_ident()) or item, int, 2, engine):
            assert result < 5
        assert engine.submit(threading.get_ident).result() in threads, "it goes on"
    assert len(threads) == 1


def test_what_has_not_begun_is_not_done_when_the_results_are_left():
    done = []
    with ThreadPoolExecutor(1) as engine:
        results = overlapped(
            range(50), lambda item: time.sleep(0.01) or item, lambda item: done.append(item) or item, 4, engine
        )
        assert next(results) == 0
        results.close()
        assert engine.submit(int).result() == 0
    assert len(done) <= 7, "so many were on their way"


@pytest.mark.parametrize("where", ["items", "first", "second"])
def test_an_error_ends_overlapped_work_in_its_turn(where):
    def fail_at(stage):
        def work(item):
            if where == stage and item == 5:
                raise BagError("five")
            return item

        return work

    drawn, results = [], []

    def items():
        for item in range(100):
            drawn.append(item)
            yield fail_at("items")(item)

    before = threading.active_count()
    with pytest.raises(BagError, match="five"):
        for result in overlapped(items(), fail_at("first"), fail_at("second"), 2):
            results.append(result)
    assert results == list(range(len(results))) and len(results) in (range(6) if where == "items" else (5,))
    assert len(drawn) <= 5 + 2 + 3, "no more items are drawn than are on their way"
    assert threading.active_count() == before


def test_only_so_many_items_are_on_their_way():
    drawn: list[int] = []

    def items():
        for item in range(30):
            drawn.append(item)
            yield item

    for number, _ in enumerate(overlapped(items(), int, int, 3), start=1):
        assert len(drawn) <= number + 4
    assert number == 30
