"""`vifa evaluate` on bags: the numbers of the folder that was recorded, the same in every run, or one line why not."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from bags import THERMAL, VISIBLE, camera_entries, image, write_bag
from evaluations import (
    CLASSES,
    SIZE,
    pipeline_of,
    run,
    settings_of,
    values_of,
    write_bag_of,
    write_labels,
    write_pairs,
)
from skimage.measure import shannon_entropy

from vifa_ros.bags import report as report_module
from vifa_ros.bags import topics
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.extracting import ExtractSettings, extract
from vifa_ros.bags.messages import make_detections, make_header, make_image, types
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.options import make_pairing
from vifa_ros.bags.report import evaluate
from vifa_ros.bags.session import METRICS
from vifa_runtime.bundle import load_bundle
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.labels import Labels, read_yolo
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.metrics import mean_average_precision
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.scoring import (
    EXTENDED_METRICS,
    Scores,
    Sources,
    for_evaluation,
    gray_levels,
    gray_thermal,
    measure_pair,
)

ROOT = Path(__file__).resolve().parents[2]
MSRS = ROOT.parent / "shared" / "data" / "msrs" / "test"
MS = 1_000_000
ZSTD = b"\x28\xb5\x2f\xfd"  # what its frames begin with


@pytest.fixture(scope="module")
def street(tmp_path_factory, finding_bundle):
    """A folder of six labelled pairs, and a bag of it."""
    root = tmp_path_factory.mktemp("street")
    folder = write_labels(write_pairs(root / "pairs"), finding_bundle)
    return folder, write_bag_of(folder, root / "bag", skew=0.01)


@pytest.fixture(scope="module")
def report(street, finding_bundle, tmp_path_factory):
    return run(street[1], tmp_path_factory.mktemp("out") / "report", finding_bundle)


def on_the_folder(folder, bundle, names=None, threads=1):
    """Every metric by `scoring` on the files themselves: what `vifa-train evaluate` computes too (its own tests)."""
    lenient = for_evaluation(load_bundle(bundle))
    pipeline, scores, extended = pipeline_of(lenient, threads), Scores(lenient), []
    labels = LabelFolder(folder, lenient.tasks)
    for pair in find_pairs(folder):
        if names is not None and pair.name not in names:
            continue
        rgb, raw = read_visible(pair.visible), read_thermal(pair.thermal)
        results, gray = pipeline.process(rgb, raw), gray_thermal(raw, rgb.shape[:2])
        scores.add(rgb, gray, results, *labels.read(pair.name, rgb.shape[:2]))
        measured = measure_pair(lenient, Sources(gray_levels(rgb), gray), results, metrics=EXTENDED_METRICS)
        extended.append({task: one.fusion for task, one in measured.items()})
    means = {
        (task, metric): np.mean([one[task][metric] for one in extended])
        for task in extended[0]
        for metric in EXTENDED_METRICS
    }
    return means | {(row["task"], row["metric"]): row["value"] for row in scores.rows()}


def test_a_bag_gives_every_number_of_the_folder_it_was_recorded_from(street, report, finding_bundle):
    values = values_of(report)
    assert values == pytest.approx(on_the_folder(street[0], finding_bundle), abs=1e-9)
    assert {metric for _, metric in values} == {
        *EXTENDED_METRICS, "map50_all", "map50_95_all", "ap50_red", "ap50_green", "miou", "iou_dark", "iou_bright",
    }  # fmt: skip
    assert 0.02 < values["cells", "map50_all"] < 0.98 and 0.5 < values["glare", "miou"] < 0.98
    pairs = {(row["metric"], row["pairs"]) for row in report["rows"] if row["tag"] == "all"}
    assert {("en", 6), ("map50_all", 5), ("miou", 4)} <= pairs and len({count for _, count in pairs}) == 3


@pytest.mark.skipif(not MSRS.is_dir(), reason=f"the real pairs of {MSRS.name} are not beside this repository")
def test_real_pairs_by_a_bundle_that_ships(tmp_path):
    """Some of msrs/test, as PNG and in sqlite3: every number of the folder, to 1e-6 and better."""
    for pair in find_pairs(MSRS)[2::10]:
        for path in (pair.visible, pair.thermal, MSRS / "labels" / f"{pair.name}.txt"):
            (tmp_path / "pairs" / path.parent.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "pairs" / path.parent.name / path.name).symlink_to(path)
    classes = ("person", "bicycle", "car")
    bag = write_bag_of(tmp_path / "pairs", tmp_path / "bag", images="png", storage="sqlite3", classes=classes)
    values = values_of(run(bag, tmp_path / "out", ROOT / "models/nano-two-task", values={"threads": 0}))
    expected = on_the_folder(tmp_path / "pairs", ROOT / "models/nano-two-task", threads=0)
    assert values == pytest.approx(expected, abs=1e-9) and 0.05 < values["road_users", "map50_all"] < 0.95


def test_the_numbers_are_those_of_other_implementations(street, report, finding_bundle):
    """EN by scikit-image, mAP over all images at once, mIoU by sets of pixels; each from the files."""
    lenient = for_evaluation(load_bundle(finding_bundle))
    pipeline, entropies, found, true = pipeline_of(lenient), [], [], []
    hits, either = np.zeros(2), np.zeros(2)
    for pair in find_pairs(street[0]):
        results = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal))
        entropies.append(shannon_entropy(np.rint(rgb_to_luma(results.fused["bright"]))))
        if (path := street[0] / "labels" / f"{pair.name}.txt").exists():
            found.append(results.detections["cells"])
            true.append(read_yolo(path, SIZE, 3))
        if (path := street[0] / "masks" / f"{pair.name}.png").exists():
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            for number in (0, 1):
                a, b = mask == number, (results.masks["glare"] == number) & (mask != 255)
                hits[number] += (a & b).sum()
                either[number] += (a | b).sum()
    values, scores = values_of(report), mean_average_precision(found, true, 3)
    assert values["bright", "en"] == pytest.approx(np.mean(entropies))
    assert values["cells", "map50_95_all"] == pytest.approx(scores.map50_95, abs=1e-12)
    assert values["cells", "ap50_green"] == pytest.approx(scores.ap50[1], abs=1e-12)
    assert values["glare", "miou"] == pytest.approx((hits / either).mean(), abs=1e-12)


def test_day_and_night_are_those_of_the_names(street, report, finding_bundle):
    names = [pair.name for pair in find_pairs(street[0])]
    for tag, letter in (("day", "D"), ("night", "N")):
        own = {name for name in names if name.endswith(letter)}
        assert values_of(report, tag) == pytest.approx(on_the_folder(street[0], finding_bundle, own), abs=1e-9)
    assert [row["name"] for row in report["frames"] if row["task"] == "bright"] == names
    assert {row["tag"] for row in report["frames"] if row["name"].endswith("N")} == {"night"}


def test_two_runs_are_equal_to_the_bit(street, report, finding_bundle, tmp_path):
    again = run(street[1], tmp_path / "again", finding_bundle)
    first, second = (
        {key: part for key, part in one.items() if key not in ("meta", "latency")} for one in (report, again)
    )
    assert json.dumps(first) == json.dumps(second)
    for part in ("bag", "bundles", "settings", "notes"):
        assert report["meta"][part] == again["meta"][part]
    files = sorted(row["file"] for row in again["worst"])
    other = {file: (tmp_path / "again/worst" / file).read_bytes() for file in files}
    run(street[1], tmp_path / "again", finding_bundle)  # in the place of the older one
    assert other == {file: (tmp_path / "again/worst" / file).read_bytes() for file in files}


def test_the_report_says_what_was_evaluated_and_how(street, report, finding_bundle):
    meta, bag = report["meta"], street[1]
    files = sorted(bag.glob("*.mcap"))
    assert meta["bag"]["sha256"] == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert meta["bag"]["path"] == str(bag) and meta["bag"]["duration_s"] == pytest.approx(0.51)
    assert (
        meta["bundles"]["finding"]["sha256"]
        == hashlib.sha256((finding_bundle / "bundle.yaml").read_bytes()).hexdigest()
    )
    assert meta["bundles"]["finding"]["engine"]["engine"] == "onnxruntime"
    assert meta["settings"]["parameters"] == {"threads": 1} and meta["settings"]["metrics"] == list(METRICS)
    assert {"command", "machine", "versions", "commit", "seed", "date"} < set(meta)
    assert report["streams"] == [
        {"stream": stream, "topic": topic, "received": 6, "paired": 6, "dropped": 0, "rate_hz": pytest.approx(5 / 0.51)}
        for stream, topic in (("visible", VISIBLE), ("thermal", THERMAL))
    ]
    assert report["drops"] == [] and report["thresholds"] == [] and report["comparison"] == []
    stages = {row["stage"] for row in report["latency"]}
    assert {"decode", "normalise", "pipeline", "task.cells", "decode.cells"} <= stages
    assert all(0 <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in report["latency"])
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    assert reasons == {("cells", "ap50_blue"): "there is no blue in the ground truth"}


def test_frames_are_a_row_a_pair_and_task(street, report):
    frames = report["frames"]
    assert [(row["index"], row["task"]) for row in frames] == [
        (index, task) for index in range(6) for task in ("bright", "cells", "glare")
    ]
    with Bag(street[1]) as bag:
        stamps = [message.header.stamp for _, _, message in bag.messages([VISIBLE])]
    expected = [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps]
    assert [row["stamp"] for row in frames if row["task"] == "bright"] == expected
    for task in ("bright", "cells"):
        own = [row["vif"] for row in frames if row["task"] == task]
        assert np.mean(own) == pytest.approx(values_of(report)[task, "vif"], abs=1e-12)
    assert [("map50_all" in row) for row in frames if row["task"] == "cells"] == [True] * 5 + [False]
    assert [("miou" in row) for row in frames if row["task"] == "glare"] == [True] * 4 + [False] * 2


def test_the_worst_pairs_have_pictures(street, report, finding_bundle, tmp_path):
    run(street[1], tmp_path / "out", finding_bundle, worst=2)
    worst = json.loads((tmp_path / "out/report.json").read_text())["worst"]
    for task, metric in (("bright", "vif"), ("cells", "map50_all"), ("glare", "miou")):
        rows = [row for row in worst if (row["task"], row["metric"]) == (task, metric)]
        all_values = sorted(row[metric] for row in report["frames"] if row["task"] == task and metric in row)
        assert [row["value"] for row in rows] == all_values[:2]
        for row in rows:
            picture = cv2.imread(str(tmp_path / "out/worst" / row["file"]))
            tiles = 3 if task == "bright" else 4  # with the truth where there is some
            assert picture is not None and picture.shape[1] == tiles * 324
    named = {row["file"] for row in worst}
    assert named == {path.name for path in (tmp_path / "out/worst").iterdir()}
    page = (tmp_path / "out/report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "data:image/jpeg;base64," in page


def test_without_pictures_there_is_no_folder(street, finding_bundle, tmp_path):
    assert run(street[1], tmp_path / "out", finding_bundle, worst=0)["worst"] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_only_what_is_asked_for_is_measured(street, finding_bundle, tmp_path):
    rows = run(street[1], tmp_path / "out", finding_bundle, metrics=("en", "miou"))["rows"]
    assert {row["metric"] for row in rows} == {"en", "miou", "iou_dark", "iou_bright"}
    rows = run(street[1], tmp_path / "out", finding_bundle, metrics=("map",))["rows"]
    assert {(row["task"], row["metric"].split("_")[0]) for row in rows} == {("cells", "map50"), ("cells", "ap50")}


def test_fused_images_of_every_third_pair(street, report, finding_bundle, tmp_path):
    sparse = run(street[1], tmp_path / "out", finding_bundle, fusion_every=3, tags="none")
    rows = {(row["task"], row["metric"]): row for row in sparse["rows"]}
    own = [row["vif"] for row in report["frames"] if row["task"] == "bright" and row["index"] in (0, 3)]
    assert rows["bright", "vif"]["value"] == pytest.approx(np.mean(own)) and rows["bright", "vif"]["pairs"] == 2
    assert rows["cells", "map50_all"]["value"] == values_of(report)["cells", "map50_all"]


# Ground truth


def test_labels_of_a_folder_count_by_the_names_that_were_recorded(street, report, finding_bundle, tmp_path):
    folder, bag = street
    assert run(bag, tmp_path / "out", finding_bundle, labels=folder)["rows"] == report["rows"]


@pytest.mark.parametrize("pairing", [{}, {"pairing": "reuse_visible", "thermal_offset": -0.01}])
def test_labels_of_a_folder_count_by_the_names_that_extracting_gives(street, finding_bundle, tmp_path, pairing):
    """Of a bag that names no pairs, one visible image of which is missing."""
    with Bag(street[1]) as opened:
        entries = list(opened.messages([*opened.topics]))
    missing = [message for topic, _, message in entries if topic == VISIBLE][2]
    entries = [entry for entry in entries if entry[2] is not missing and entry[0] != topics.PAIR_NAME]
    bare = [(topic, at, as_jazzy(message)) for topic, at, message in entries if topic in (VISIBLE, THERMAL)]
    truth = [entry for entry in entries if entry[0].startswith("/ground_truth")]
    whole = bag_with(tmp_path / "whole", bare, [(topic, at, again(message)) for topic, at, message in truth])
    expected = run(whole, tmp_path / "out", finding_bundle, values=pairing)
    extract(whole, tmp_path / "pairs", ExtractSettings(make_pairing(**pairing)))
    report = run(
        write_bag(tmp_path / "bare", bare), tmp_path / "out", finding_bundle, values=pairing, labels=tmp_path / "pairs"
    )
    assert values_of(report) == pytest.approx(values_of(expected), abs=1e-6)
    assert ("cells", "map50_all") in values_of(report) and len(report["frames"]) == 3 * (6 if pairing else 5)
    assert {row["tag"] for row in report["frames"]} == {"day", "night"}, "by brightness, as there are no names"


def again(message):
    """A message that was read, as one to write: of the same type, with the parts that it is made of."""
    kind = types().types.get(message.__msgtype__) if hasattr(message, "__msgtype__") else None
    if kind is None:
        return [again(one) for one in message] if isinstance(message, list) else message
    return kind(**{field.name: again(getattr(message, field.name)) for field in fields(message)})


def test_a_pairs_name_may_come_after_it_was_complete(street, report, finding_bundle, tmp_path):
    """The thermal image comes first, so that the visible one completes the pair, and its name follows."""
    folder = write_pairs(tmp_path / "pairs")  # the same without labels, for which a pair would wait
    early = run(write_bag_of(folder, tmp_path / "bag", skew=-0.01), tmp_path / "out", finding_bundle, labels=street[0])
    assert values_of(early) == values_of(report)
    assert [row["name"] for row in early["frames"]] == [row["name"] for row in report["frames"]]


def as_jazzy(message):
    pixels = np.frombuffer(message.data, np.uint8).reshape(SIZE if message.encoding == "mono8" else (*SIZE, 3))
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return image(pixels, stamp, message.header.frame_id)


def test_a_bag_without_ground_truth_is_measured_without(street, finding_bundle, tmp_path):
    report = run(write_bag(tmp_path / "bag", camera_entries(4, size=SIZE)), tmp_path / "out", finding_bundle)
    assert {metric for _, metric in values_of(report)} == set(EXTENDED_METRICS)
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    assert reasons == {
        ("cells", "map"): "the bag has no topic /ground_truth/detections; name one with --detections, or give --labels",
        ("glare", "miou"): "the bag has no topic /ground_truth/mask; name one with --mask, or give --labels",
    }
    report = run(street[1], tmp_path / "out", finding_bundle, labels=tmp_path)
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    assert reasons["cells", "map"] == f"{tmp_path} has no folder labels/"
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/else.txt").write_text("")
    report = run(street[1], tmp_path / "out", finding_bundle, labels=tmp_path)
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    assert reasons["cells", "map"] == f"no file in {tmp_path / 'labels'} has the name of a pair of the bag"


def truth_entries(stamps, boxes=(), names=CLASSES, mask=None, topic=topics.DETECTIONS):
    """Messages of ground truth for visible images of these stamps."""
    for stamp in stamps:
        header = make_header(stamp, "visible_camera")
        if mask is not None:
            yield topics.MASK, stamp, make_image(mask, "mono8", header)
        labels = Labels(np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)) % len(names))
        yield topic, stamp, make_detections(labels, [1.0] * len(boxes), names, header)


def bag_with(folder, entries, truths, **options):
    return write_bag(folder, sorted([*entries, *truths], key=lambda entry: entry[1]), store=types(), **options)


def test_ground_truth_without_one_true_box_gives_no_value_and_says_so(finding_bundle, tmp_path):
    entries = camera_entries(3, size=SIZE)
    stamps = [stamp for topic, stamp, _ in entries if topic == VISIBLE]
    report = run(bag_with(tmp_path / "bag", entries, truth_entries(stamps)), tmp_path / "out", finding_bundle)
    reasons = {row["metric"]: row["reason"] for row in report["undefined"] if row["task"] == "cells"}
    assert reasons["map50_all"] == reasons["map50_95_all"] == "there is nothing in the ground truth"
    assert not [row for row in report["rows"] if row["metric"].startswith(("map", "ap50"))]


def test_boxes_of_classes_that_no_task_has_are_told_and_not_counted(finding_bundle, tmp_path):
    entries = camera_entries(3, size=SIZE)
    stamps = [stamp for topic, stamp, _ in entries if topic == VISIBLE]
    boxes = [[0, 0, 8, 8], [8, 8, 20, 20], [30, 30, 40, 40]]
    truths = truth_entries(stamps, boxes, ("green", "boat", "2"))
    report = run(bag_with(tmp_path / "bag", entries, truths), tmp_path / "out", finding_bundle)
    assert report["meta"]["notes"] == ["3 boxes of ground truth are of 'boat', which finding does not find"]
    classes = {row["metric"] for row in report["rows"] if row["metric"].startswith("ap50_")}
    assert classes == {"ap50_green", "ap50_blue"}, "2 is the number of blue"


def test_truth_of_other_images_or_classes_is_none(finding_bundle, tmp_path):
    entries = camera_entries(3, size=SIZE)
    stamps = [stamp + 1 for topic, stamp, _ in entries if topic == VISIBLE]
    mask = np.zeros(SIZE, np.uint8)
    report = run(
        bag_with(tmp_path / "bag", entries, truth_entries(stamps, mask=mask)), tmp_path / "out", finding_bundle
    )
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    for task, metric, topic in (("cells", "map", topics.DETECTIONS), ("glare", "miou", topics.MASK)):
        expected = f"no message of {topic} has the stamp of a visible image that was paired"
        assert reasons[task, metric] == expected
    folder = write_labels(write_pairs(tmp_path / "pairs", 3), finding_bundle)
    bag = write_bag_of(folder, tmp_path / "other", classes=("cat", "dog", "bird"), mask_classes=("bright", "dark"))
    report = run(bag, tmp_path / "out", finding_bundle)
    reasons = {(row["task"], row["metric"]): row["reason"] for row in report["undefined"]}
    assert reasons["cells", "map"] == "the bag's labels name cat, dog, bird, but the task finds red, green, blue"
    assert reasons["glare", "miou"] == "the bag's labels name bright, dark, but the task finds dark, bright"


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.full(SIZE, 7, np.uint8), r"/ground_truth/mask has the class ids 7; expected 0\.\.1"),
        (np.zeros((20, 20), np.uint8), "a mask has 20x20 pixels, its image 64x48"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(finding_bundle, tmp_path, mask, expected):
    entries = camera_entries(3, size=SIZE)
    stamps = [stamp for topic, stamp, _ in entries if topic == VISIBLE]
    bag = bag_with(tmp_path / "bag", entries, truth_entries(stamps, mask=mask))
    refused(bag, tmp_path, finding_bundle, expected)


# Bags that are not what they should be


def refused(bag: Path, tmp_path: Path, bundle: Path, expected: str, **options) -> None:
    """One line, and neither a new folder nor a change of an older one."""
    for folder in (tmp_path / "new", tmp_path / "old"):
        if folder.name == "old":
            folder.mkdir(exist_ok=True)
            (folder / "report.json").write_text("older")
        with pytest.raises(BagError, match=expected) as caught:
            evaluate(bag, folder, [bundle], settings_of(**options))
        assert "\n" not in str(caught.value)
    assert (tmp_path / "old/report.json").read_text() == "older"
    assert not (tmp_path / "new").exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_bag_with_one_camera_is_refused(finding_bundle, tmp_path):
    entries = [entry for entry in camera_entries(3, size=SIZE) if entry[0] == VISIBLE]
    refused(write_bag(tmp_path / "bag", entries), tmp_path, finding_bundle, "images of one camera only")


def test_a_bag_whose_cameras_never_meet_is_refused(finding_bundle, tmp_path):
    bag = write_bag(tmp_path / "bag", camera_entries(3, size=SIZE, skew=50 * MS))
    refused(bag, tmp_path, finding_bundle, r"no pair was formed of 3 visible images \(.*no_partner\).*check the clocks")
    assert run(bag, tmp_path / "out", finding_bundle, values={"slop": 0.06})["streams"][0]["paired"] == 3


def test_an_empty_bag_and_none_are_refused(finding_bundle, tmp_path):
    refused(tmp_path / "nowhere", tmp_path, finding_bundle, "no bag at")
    write_bag(tmp_path / "empty", [])
    refused(tmp_path / "empty", tmp_path, finding_bundle, "holds no messages")


@pytest.fixture(scope="module")
def chunks(tmp_path_factory):
    """A bag of some chunks, each of which holds a few of its 12 pairs."""
    folder = tmp_path_factory.mktemp("chunks") / "bag"
    return write_bag(folder, camera_entries(12, size=(240, 320)), compression="storage") / "bag.mcap"


def test_a_cut_off_bag_is_measured_up_to_there_or_refused(chunks, finding_bundle, tmp_path):
    data = chunks.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) * 3 // 4])
    report = run(chunks, tmp_path / "out", finding_bundle, metrics=("en",))
    short = run(tmp_path / "cut.mcap", tmp_path / "out", finding_bundle, metrics=("en",))
    count = len(short["frames"]) // 3
    assert 2 <= count < 12 and "is cut off" in short["meta"]["notes"][0]
    assert short["frames"] == report["frames"][: 3 * count]
    db3 = write_bag(tmp_path / "db3", camera_entries(6, size=SIZE), storage="sqlite3") / "db3.db3"
    data = db3.read_bytes()
    (tmp_path / "cut.db3").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.db3", tmp_path, finding_bundle, "is cut off")


def test_damage_in_the_middle_ends_it_with_nothing_written(chunks, finding_bundle, tmp_path):
    data = bytearray(chunks.read_bytes())
    assert data.count(ZSTD) > 2
    last = data.rindex(ZSTD)
    data[last : last + 4] = b"none"
    (tmp_path / "bag.mcap").write_bytes(data)
    refused(tmp_path / "bag.mcap", tmp_path, finding_bundle, "is damaged", metrics=("en",))


def test_stamps_out_of_order_and_images_that_cannot_be_decoded_are_counted(street, finding_bundle, tmp_path):
    entries = camera_entries(6, size=SIZE)
    late = [(topic, arrival + 450 * MS, message) for topic, arrival, message in entries[2:4]]
    bad = image(np.zeros(SIZE, np.uint8), entries[8][1] + 1, encoding="yuv9")
    bag = write_bag(tmp_path / "bag", sorted([*entries, *late, (VISIBLE, entries[8][1] + 1, bad)], key=lambda e: e[1]))
    report = run(bag, tmp_path / "out", finding_bundle)
    drops = {(row["what"], row["reason"]): row["count"] for row in report["drops"]}
    assert drops["visible", "out_of_order"] == drops["thermal", "out_of_order"] == 1
    assert drops["visible", "bad_image"] == 1 and "yuv9" in report["meta"]["notes"][0]
    for row in report["streams"]:
        own = sum(count for (what, _), count in drops.items() if what == row["stream"])
        assert row["received"] == row["paired"] + row["dropped"] and row["dropped"] == own
    assert len(report["frames"]) == 3 * report["streams"][0]["paired"]


def test_pairs_that_cannot_be_fused_are_dropped_and_counted(finding_bundle, tmp_path):
    """A thermal image without a finite pixel, which the node would drop too."""
    entries = camera_entries(4, size=SIZE)
    topic, arrival, message = entries[3]
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    entries[3] = (topic, arrival, image(np.full(SIZE, np.nan, np.float32), stamp))
    report = run(write_bag(tmp_path / "bag", entries), tmp_path / "out", finding_bundle)
    assert report["drops"] == [{"what": "pair", "reason": "bad_image", "count": 1}]
    assert report["meta"]["notes"] == ["the last pair dropped by bad_image: the thermal image has no finite pixel"]
    assert [row["index"] for row in report["frames"] if row["task"] == "bright"] == [0, 2, 3]
    only = entries[2:4]
    refused(write_bag(tmp_path / "one", only), tmp_path, finding_bundle, "1 pairs .bad_image: .* no finite pixel")


def test_images_too_small_for_fusion_metrics_are_refused_and_measured_without(finding_bundle, tmp_path):
    bag = write_bag(tmp_path / "bag", camera_entries(3, size=(24, 32)))
    refused(bag, tmp_path, finding_bundle, r"the pair of 17\d+\.\d+ s cannot be measured: expected at least 41x41")
    assert run(bag, tmp_path / "out", finding_bundle, metrics=("map", "miou"))["rows"] == []


def test_what_is_no_report_is_not_replaced(street, finding_bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("kept")
    with pytest.raises(BagError, match=r"mine is there already and holds no report\.json; choose another place"):
        evaluate(street[1], tmp_path / "mine", [finding_bundle], settings_of())
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_page_that_fails_leaves_the_older_report(street, finding_bundle, tmp_path, monkeypatch):
    run(street[1], tmp_path / "out", finding_bundle)
    before = (tmp_path / "out/report.json").read_bytes()

    def fail(report, folder):
        raise RuntimeError("no page")

    monkeypatch.setattr(report_module, "render_page", fail)
    with pytest.raises(RuntimeError, match="no page"):
        evaluate(street[1], tmp_path / "out", [finding_bundle], settings_of())
    assert (tmp_path / "out/report.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
