"""Extracting bags as folders: exactly what was recorded, aligned, thinned out as asked for, or nothing at all."""

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
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
    image,
    write_bag,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vifa_ros.bags import messages, topics
from vifa_ros.bags.bag_labels import MOST_HELD, read_boxes
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.extracting import ExtractSettings, extract, name_of
from vifa_ros.bags.motion import make_thumbnails, measure_motion
from vifa_ros.bags.options import make_pairing
from vifa_ros.bags.recording import RecordSettings, record
from vifa_ros.camera_alignment import AlignmentSettings
from vifa_ros.cli import app
from vifa_ros.pairing import STREAMS
from vifa_ros.play_plan import PlaySettings
from vifa_runtime.alignment import Alignment
from vifa_runtime.alignment_files import load_alignment, write_alignment
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.label_folder import read_classes
from vifa_runtime.labels import Labels, format_yolo, parse_yolo, read_mask, read_yolo
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.pixel_maps import HomographyMap

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SIZE = (48, 64)
MS = 1_000_000
PAIRING = make_pairing()


def settings_of(pairing: dict | None = None, **options) -> ExtractSettings:
    return ExtractSettings(make_pairing(**(pairing or {})), **options)


def write_folder(folder: Path, count: int = 5, depth=np.uint8, seed: int = 0) -> Path:
    """Pairs of noise, `p0`, `p1`, ...: boxes of all but the last, masks of all but the first."""
    rng = np.random.default_rng(seed)
    for part in ("vi", "ir", "labels", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / "vi" / f"p{index}.png"), rng.integers(0, 256, (*SIZE, 3), np.uint8))
        thermal = rng.integers(0, 256, SIZE).astype(depth)
        thermal = thermal if depth == np.uint8 else (thermal * 100.5).astype(depth)
        cv2.imwrite(str(folder / "ir" / f"p{index}{'.tiff' if depth == np.float32 else '.png'}"), thermal)
        if index < count - 1:
            low, high = np.sort(rng.uniform(0, 1, (2, index, 2)), axis=0)
            rows = [f"{n % 3} {a} {b} {c} {d}\n" for n, (a, b, c, d) in enumerate(np.c_[(low + high) / 2, high - low])]
            (folder / "labels" / f"p{index}.txt").write_text("".join(rows))
        if index:
            cv2.imwrite(str(folder / "masks" / f"p{index}.png"), rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8))
    (folder / "classes.txt").write_text("0 person\nbicycle\n 2 car of 2 doors \n")
    (folder / "mask_classes.txt").write_text("soil\ncrop\nweed\n")
    return folder


def check_equal(source: Path, made: Path) -> None:
    """Pixel for pixel, mask for mask, and box for box to the thousandth of a pixel, in the same order."""
    before, after = find_pairs(source), find_pairs(made)
    assert len(before) == len(after) > 0
    for old, new in zip(before, after, strict=True):
        visible, thermal = read_visible(new.visible), read_thermal(new.thermal)
        np.testing.assert_array_equal(visible, read_visible(old.visible))
        assert thermal.dtype == read_thermal(old.thermal).dtype
        np.testing.assert_array_equal(thermal, read_thermal(old.thermal))
        labels, masks = (
            [folder / part / f"{name}{suffix}" for folder, name in ((source, old.name), (made, new.name))]
            for part, suffix in (("labels", ".txt"), ("masks", ".png"))
        )
        assert labels[0].exists() == labels[1].exists()
        if labels[0].exists():
            expected, found = (read_yolo(path, visible.shape[:2], None) for path in labels)
            assert found.labels.tolist() == expected.labels.tolist()
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3, rtol=0)
        assert masks[0].exists() == masks[1].exists()
        if masks[0].exists():
            np.testing.assert_array_equal(read_mask(masks[1], None), read_mask(masks[0], None))


# The round trip.


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32], ids=lambda depth: depth.__name__)
@pytest.mark.parametrize(
    ("storage", "compression", "images"),
    [("mcap", "chunk", "raw"), ("mcap", "none", "png"), ("sqlite3", "none", "raw"), ("sqlite3", "message", "png")],
)
def test_what_was_recorded_comes_back_exactly(tmp_path, storage, compression, images, depth):
    source = write_folder(tmp_path / "source", depth=depth)
    images = "raw" if depth == np.float32 else images
    play = PlaySettings(rate=20, skew=0.007, jitter=0.003)
    record(source, tmp_path / "bag", RecordSettings(play, images, storage=storage, compression=compression))
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert row == {
        "bag": str(tmp_path / "bag"), "folder": str(tmp_path / "made"),
        "pairs": 5, "written": 5, "boxes": 4, "masks": 4,
    }  # fmt: skip
    check_equal(source, tmp_path / "made")
    assert read_classes(tmp_path / "made", "classes.txt") == ["person", "bicycle", "car of 2 doors"]
    assert read_classes(tmp_path / "made", "mask_classes.txt") == ["soil", "crop", "weed"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "classes.txt", "ir", "labels", "mask_classes.txt", "masks", "vi",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["msrs/test", "cwfid/test"])
def test_real_pairs_come_back_exactly(tmp_path, name):
    if not (DATA / name).is_dir():
        pytest.skip(f"the real pairs of {name} are not beside this repository")
    for part in (DATA / name).iterdir():
        (tmp_path / "some" / part.name).mkdir(parents=True)
        for path in sorted(part.iterdir())[:6]:
            (tmp_path / "some" / part.name / path.name).symlink_to(path.resolve())
    record(tmp_path / "some", tmp_path / "bag", RecordSettings(images="png"))
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert (row["boxes"], row["masks"]) == ((6, 0) if name == "msrs/test" else (0, 6))
    check_equal(tmp_path / "some", tmp_path / "made")


def test_masks_without_boxes_keep_their_names_where_training_looks_for_them(tmp_path):
    source = write_folder(tmp_path / "source")
    for path in (source / "labels").iterdir():
        path.unlink()
    (source / "labels").rmdir()
    (source / "classes.txt").write_text("soil\ncrop\nweed\n")
    (source / "mask_classes.txt").unlink()
    record(source, tmp_path / "bag", RecordSettings())
    extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert read_classes(tmp_path / "made", "classes.txt") == ["soil", "crop", "weed"]
    assert not (tmp_path / "made" / "labels").exists()
    assert not (tmp_path / "made" / "mask_classes.txt").exists()


line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), min_size=1, max_size=20)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(line.map(str.strip).filter(bool), min_size=3, max_size=4, unique=True),
    start=st.integers(1, 2**31 - 10).map(lambda seconds: seconds * 10**9 + 123_456_789),
)
def test_names_of_classes_and_stamps_of_pairs_come_back(tmp_path_factory, names, start):
    folder = tmp_path_factory.mktemp("any")
    source = write_folder(folder / "source", 2)
    record(source, folder / "bag", RecordSettings(PlaySettings(rate=10), classes=tuple(names), start=start))
    extract(folder / "bag", folder / "made", settings_of(detections="/ground_truth/detections"))
    assert read_classes(folder / "made", "classes.txt") == names
    stems = [pair.name for pair in find_pairs(folder / "made")]
    stamps = [int(second) * 10**9 + int(rest) for second, rest in (stem.split(".") for stem in stems)]
    assert stamps == [start + 50 * MS, start + 150 * MS]


@given(first=st.integers(0, 2**63), second=st.integers(0, 2**63))
def test_names_are_in_the_order_of_stamps(first, second):
    if max(first, second) < 10**19:  # ten digits of seconds: the year 2286
        assert (name_of(first) < name_of(second)) == (first < second)
    assert (name_of(first) == name_of(second)) == (first == second)


side = st.floats(0, 1)


@given(
    corners=st.lists(st.tuples(side, side, side, side, st.integers(0, 4)), max_size=6),
    size=st.tuples(st.integers(8, 4000), st.integers(8, 4000)),
    named=st.booleans(),
)
def test_boxes_keep_their_place_to_the_thousandth_of_a_pixel(corners, size, named):
    height, width = size
    boxes = np.array([(min(a, c) * width, min(b, d) * height, max(a, c) * width, max(b, d) * height)
                      for a, b, c, d, _ in corners], np.float32).reshape(-1, 4)  # fmt: skip
    labels = np.array([label for *_, label in corners], np.int64)
    large = ((boxes[:, 2:] - boxes[:, :2]) > 0.01).all(axis=1)
    sent = Labels(boxes[large], labels[large])
    names = ["a", "b", "c", "d", "e"] if named else []
    message = messages.make_detections(sent, [1.0] * len(sent.labels), names, messages.make_header(START, ""))
    raw = messages.types().serialize_cdr(message, message.__msgtype__)
    heard = messages.types().deserialize_cdr(raw, message.__msgtype__)
    found = read_boxes(heard, names, size, "/boxes")
    again = parse_yolo(format_yolo(found, size), size, None, "text")
    assert again.labels.tolist() == sent.labels.tolist()
    np.testing.assert_allclose(again.boxes, sent.boxes, atol=1e-3, rtol=0)


# Labels of other makers.


def boxes_message(stamp: int, *boxes, names=("car",)):
    found = Labels(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64))
    return messages.make_detections(found, [1.0] * len(boxes), names, messages.make_header(stamp, ""))


def test_a_rotated_box_becomes_the_upright_one_around_it_and_the_best_guess_counts():
    message = boxes_message(START, (20, 20, 40, 30))
    message.detections[0].bbox.center.theta = math.pi / 2
    worse, better = boxes_message(0, (0, 0, 1, 1)).detections[0], boxes_message(0, (0, 0, 1, 1), names=("bus",))
    worse.results[0].hypothesis.score = 0.3
    message.detections[0].results = [worse.results[0], better.detections[0].results[0]]
    found = read_boxes(message, ["car", "bus"], (100, 100), "/boxes")
    np.testing.assert_allclose(found.boxes, [[25, 15, 35, 35]], atol=1e-5)
    assert found.labels.tolist() == [1]


def test_boxes_are_clipped_to_the_image_and_left_out_beyond_it():
    message = boxes_message(START, (-10, 5, 20, 300), (200, 200, 220, 220))
    np.testing.assert_array_equal(read_boxes(message, ["car"], (100, 150), "/boxes").boxes, [[0, 5, 20, 100]])


def spoil_class(detection) -> None:
    detection.results[0].hypothesis.class_id = "tram"


def spoil_results(detection) -> None:
    detection.results = []


def spoil_width(detection) -> None:
    detection.bbox.size_x = math.nan


@pytest.mark.parametrize(
    ("spoil", "names", "expected"),
    [
        (spoil_class, ["car"], "/boxes: a box is of class 'tram', but the classes are car; name them with --classes"),
        (spoil_class, [], "/boxes: a box is of class 'tram', but the classes have no names; name them with --classes"),
        (spoil_results, ["car"], "/boxes: a box has no class"),
        (spoil_width, ["car"], "/boxes: a box at 15.0, 15.0 of nan x 10.0 pixels is none"),
    ],
)
def test_a_wrong_box_is_refused_with_its_topic(spoil, names, expected):
    message = boxes_message(START, (10, 10, 20, 20))
    spoil(message.detections[0])
    with pytest.raises(BagError) as caught:
        read_boxes(message, names, (100, 100), "/boxes")
    assert expected in str(caught.value)


def labelled_bag(path: Path, count: int, lag: int, labelled: range, first_thermal: int = 0) -> Path:
    """Pairs, some with a box as wide as their index, which is recorded `lag` nanoseconds after the image."""
    entries = [e for e in camera_entries(count, size=SIZE) if e[0] == VISIBLE or e[1] >= START + first_thermal]
    for index in labelled:
        stamp = START + index * 100 * MS
        entries.append((topics.DETECTIONS, stamp + lag, boxes_message(stamp, (0, 0, index % 60 + 1, 5))))
    entries.sort(key=lambda entry: entry[1])
    return write_bag(path, entries, store=messages.types())


def widths(folder: Path) -> dict[int, float]:
    """Number of a pair -> width of its box."""
    found = {}
    for path in sorted((folder / "labels").iterdir()):
        seconds, rest = path.stem.split(".")
        index = round((int(seconds) * 10**9 + int(rest) - START) / (100 * MS))
        found[index] = read_yolo(path, SIZE, None).boxes[0, 2].item()
    return found


@pytest.mark.parametrize("lag", [-500 * MS, 0, 3 * MS, 1_500 * MS], ids=lambda lag: f"{lag // MS} ms")
def test_labels_may_be_recorded_before_and_after_their_image(tmp_path, lag):
    labelled_bag(tmp_path / "bag", 40, lag, range(0, 40, 3))
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of(classes=("car",)))
    assert (row["written"], row["boxes"]) == (40, 14)
    assert widths(tmp_path / "made") == pytest.approx({index: index % 60 + 1 for index in range(0, 40, 3)}, abs=1e-3)


def test_labels_of_images_without_a_pair_do_no_harm(tmp_path):
    """The thermal camera begins ten seconds late, after more labels than are kept."""
    labelled_bag(tmp_path / "bag", 120, 0, range(120), first_thermal=100 * 100 * MS)
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of(classes=("car",)))
    assert (row["written"], row["boxes"]) == (20, 20)
    assert sum(count for key, count in row.items() if key.startswith("dropped.visible.")) == 100
    assert widths(tmp_path / "made") == pytest.approx({i: i % 60 + 1 for i in range(100, 120)}, abs=1e-3)


def test_labels_at_the_end_of_a_bag_are_too_late_but_pairs_are_not_lost(tmp_path):
    labelled_bag(tmp_path / "bag", MOST_HELD + 20, 60_000 * MS, range(3))
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of(classes=("car",)))
    assert row["written"] == MOST_HELD + 20
    assert row["boxes"] == 0


# Which pairs are taken.


def numbers(folder: Path) -> list[int]:
    """Numbers of the pairs in a folder, at ten a second."""
    names = [pair.name.split(".") for pair in find_pairs(folder)]
    return [round((int(seconds) * 10**9 + int(rest) - START) / (100 * MS)) for seconds, rest in names]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 3}, [0, 3, 6, 9]),
        ({"interval": 0.25}, [0, 3, 6, 9]),
        ({"interval": 0.3}, [0, 3, 6, 9]),
        ({"every": 2, "interval": 0.3}, [0, 4, 8]),
        ({"every": 100}, [0]),
        ({}, list(range(12))),
    ],
)
def test_pairs_are_thinned_out_by_number_and_by_time(tmp_path, options, expected):
    write_bag(tmp_path / "bag", camera_entries(12))
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of(**options))
    assert numbers(tmp_path / "made") == expected
    assert row["pairs"] == 12
    assert row["written"] == len(expected)
    assert sum(count for key, count in row.items() if key.startswith("left_out.")) == 12 - len(expected)


def scene(person: int | None = None, gain: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A wall by day in 16-bit heat, with sensor noise, and maybe somebody in front of it."""
    rng = np.random.default_rng(seed)
    wall = np.tile(np.linspace(60, 180, 160), (120, 1))
    wall[30:60, 40:70] += 30
    heat = 3 * wall + 20_000
    if person is not None:
        wall[50:110, person : person + 18] = 30
        heat[50:110, person : person + 18] = 21_500
    visible = np.clip(gain * wall + rng.normal(0, 3, wall.shape), 0, 255).astype(np.uint8)
    return np.repeat(visible[..., None], 3, axis=2), (heat + rng.normal(0, 5, heat.shape)).astype(np.uint16)


def test_near_duplicates_are_left_out(tmp_path):
    """Somebody comes, stands still, and goes; the camera adapts its exposure meanwhile."""
    seen = [(None, 1.0), (None, 1.2), (80, 1.0), (80, 0.8), (95, 1.0), (None, 1.0), (None, 1.0)]
    entries = []
    for index, (person, gain) in enumerate(seen):
        visible, thermal = scene(person, gain, seed=index)
        stamp = START + index * 100 * MS
        entries += [(VISIBLE, stamp, image(visible, stamp)), (THERMAL, stamp, image(thermal, stamp))]
    write_bag(tmp_path / "bag", entries)
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of(min_motion=0.1))
    assert numbers(tmp_path / "made") == [0, 2, 4, 5]
    assert row["left_out.min_motion"] == 3


def test_motion_is_the_distance_of_standardised_small_images():
    """Against its formula, sqrt(2 (1 - r)) of areas' means."""
    (visible, thermal), (other, warmer) = scene(None, seed=1), scene(80, seed=2)

    def areas(picture: np.ndarray) -> np.ndarray:
        gray = picture @ [0.299, 0.587, 0.114] if picture.ndim == 3 else picture
        return cv2.resize(gray.astype(float), (64, 48), interpolation=cv2.INTER_AREA).ravel()

    expected = [
        math.sqrt(2 * (1 - np.corrcoef(areas(one), areas(two))[0, 1]))
        for one, two in ((visible, other), (thermal, warmer))
    ]
    first, second = make_thumbnails(visible, thermal), make_thumbnails(other, warmer)
    assert measure_motion(first, second) == pytest.approx(max(expected), rel=0.02)
    assert measure_motion(first, first) == 0
    brighter = make_thumbnails((visible // 2 + 40).astype(np.uint8), (thermal * 1.5).astype(np.uint16))
    assert measure_motion(first, brighter) < 0.03
    degrees = thermal.astype(np.float32)
    degrees[0, 0] = math.nan
    assert measure_motion(first, make_thumbnails(visible, degrees)) < 0.03
    degrees[50:110, 80:98] += 1500
    assert measure_motion(first, make_thumbnails(visible, degrees)) > 0.1
    assert measure_motion(first, make_thumbnails(visible[:, :60], thermal[:, :60])) == 2


@pytest.mark.parametrize(
    ("pairing", "partners"),
    [
        ({}, {index: index - 3 for index in range(3, 10)}),
        ({"thermal_offset": -0.29}, {index: index for index in range(10)}),
        ({"visible_offset": 0.29}, {index: index for index in range(10)}),
    ],
    ids=str,
)
def test_pairs_are_formed_by_the_nodes_settings(tmp_path, pairing, partners):
    """The thermal camera's clock is 0.29 s ahead: without an offset, images of other moments are taken for pairs."""
    write_bag(tmp_path / "bag", camera_entries(10, skew=290 * MS))
    extract(tmp_path / "bag", tmp_path / "made", settings_of(pairing))
    assert numbers(tmp_path / "made") == list(partners), "by the visible stamps as they were sent"
    for pair, (visible, thermal) in zip(find_pairs(tmp_path / "made"), partners.items(), strict=True):
        np.testing.assert_array_equal(read_visible(pair.visible), frame(visible)[0])
        np.testing.assert_array_equal(read_thermal(pair.thermal), frame(thermal)[1])


def test_without_any_pair_it_says_what_became_of_the_images(tmp_path):
    write_bag(tmp_path / "bag", camera_entries(10, skew=290 * MS))
    with pytest.raises(BagError) as caught:
        extract(tmp_path / "bag", tmp_path / "made", settings_of({"slop": 0.005}))
    assert "no pair can be written: 10 visible images (10 no_partner) and 10 thermal images (" in str(caught.value)
    assert str(caught.value).endswith("check the clocks, the offsets and --slop")
    assert not (tmp_path / "made").exists()


def test_a_thermal_image_is_named_by_its_own_stamp_where_visible_ones_are_reused(tmp_path):
    entries = [(THERMAL, START + i * 33 * MS, image(frame(i)[1], START + i * 33 * MS)) for i in range(12)]
    entries += [(VISIBLE, START + i * 110 * MS, image(frame(i)[0], START + i * 110 * MS)) for i in range(4)]
    write_bag(tmp_path / "bag", sorted(entries, key=lambda entry: entry[1]))
    extract(tmp_path / "bag", tmp_path / "made", settings_of({"pairing": "reuse_visible", "slop": 0.017}))
    names = [pair.name for pair in find_pairs(tmp_path / "made")]
    assert names == [name_of(START + index * 33 * MS) for index in range(12)]


def test_a_bag_whose_clock_was_set_back_gives_each_stamp_once(tmp_path):
    entries = camera_entries(12)
    entries += [(topic, arrival + 60_000 * MS, message) for topic, arrival, message in camera_entries(14)]
    write_bag(tmp_path / "bag", entries)
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert numbers(tmp_path / "made") == list(range(14))
    assert row["left_out.same_stamp"] == 12


def test_an_image_that_cannot_be_decoded_costs_its_pair_only(tmp_path):
    entries = []
    for index in range(4):
        stamp = START + index * 100 * MS
        entries.append(("/rgb/compressed", stamp, compressed(frame(index)[0], stamp)))
        entries.append(("/ir/compressed", stamp, compressed(frame(index)[1], stamp)))
    entries[2][2].data = entries[2][2].data[:50]
    write_bag(tmp_path / "bag", entries)
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert numbers(tmp_path / "made") == [0, 2, 3]
    assert row["left_out.bad_image"] == 1


# Alignment.


def test_thermal_images_are_moved_into_visible_pixels_in_their_own_depth(tmp_path):
    counts = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
    moved = HomographyMap((1, 0, 5, 0, 1, 3, 0, 0, 1), SIZE, SIZE)
    write_alignment(tmp_path / "moved.yaml", Alignment("homography", moved))
    write_bag(
        tmp_path / "bag", [(VISIBLE, START, image(frame(0, SIZE)[0], START)), (THERMAL, START, image(counts, START))]
    )
    extract(
        tmp_path / "bag",
        tmp_path / "made",
        settings_of(alignment=AlignmentSettings("file", str(tmp_path / "moved.yaml"))),
    )
    (pair,) = find_pairs(tmp_path / "made")
    found = read_thermal(pair.thermal)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[3:, 5:], counts[:-3, :-5])
    np.testing.assert_array_equal(found[0, 5:], counts[0, :-5])  # beyond the border, its nearest pixel


def test_a_smaller_thermal_image_becomes_as_large_as_the_visible_one(tmp_path):
    small = np.full((24, 32), 77, np.uint8)
    write_bag(
        tmp_path / "bag", [(VISIBLE, START, image(frame(0, SIZE)[0], START)), (THERMAL, START, image(small, START))]
    )
    extract(tmp_path / "bag", tmp_path / "made", settings_of())
    (pair,) = find_pairs(tmp_path / "made")
    np.testing.assert_array_equal(read_thermal(pair.thermal), np.full(SIZE, 77))
    with pytest.raises(AlignmentError, match="alignment is none"):
        extract(tmp_path / "bag", tmp_path / "none", settings_of(alignment=AlignmentSettings("none")))
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    """A bag with both cameras' calibrations and their mounting, by config/alignment_cameras.yaml."""
    folder = tmp_path_factory.mktemp("calibrated")
    for part, size in (("vi", (480, 640)), ("ir", (256, 320))):
        (folder / "source" / part).mkdir(parents=True)
        for index in range(2):
            picture = cv2.GaussianBlur(frame(index, size)[1], (0, 0), 3)
            cv2.imwrite(str(folder / "source" / part / f"{index}.png"), picture)
    alignment = load_alignment(ROOT / "config" / "alignment_cameras.yaml")
    record(folder / "source", folder / "bag", RecordSettings(alignment=alignment))
    return folder / "bag"


def test_the_bags_own_calibrations_align_as_a_file_with_the_same(tmp_path, calibrated):
    own = settings_of(alignment=AlignmentSettings("cameras", distance=8.0))
    file = settings_of(alignment=AlignmentSettings("file", str(ROOT / "config" / "alignment_cameras.yaml")))
    extract(calibrated, tmp_path / "own", own)
    extract(calibrated, tmp_path / "file", file)
    check_equal(tmp_path / "own", tmp_path / "file")
    unaligned = settings_of()
    extract(calibrated, tmp_path / "unaligned", unaligned)
    first, second = (read_thermal(find_pairs(tmp_path / name)[0].thermal) for name in ("own", "unaligned"))
    assert np.abs(first.astype(int) - second).mean() > 3


def test_calibrations_that_are_missing_are_named(tmp_path, calibrated):
    write_bag(tmp_path / "bag", camera_entries(2))
    with pytest.raises(BagError, match="has no camera_info beside the visible images; name it with --visible-info"):
        extract(tmp_path / "bag", tmp_path / "made", settings_of(alignment=AlignmentSettings("cameras")))
    infos = [(f"/{stream}/camera_info", START, camera_info(16, 12, START, focal=20.0)) for stream in STREAMS]
    write_bag(tmp_path / "infos", [*infos, *camera_entries(2)])
    with pytest.raises(BagError, match=r"has no /tf_static, so where the cameras are is not known; give --extrinsics"):
        extract(tmp_path / "infos", tmp_path / "made", settings_of(alignment=AlignmentSettings("cameras")))
    with pytest.raises(AlignmentError, match=r"extrinsics.yaml: is missing"):
        chosen = AlignmentSettings("cameras", extrinsics=str(tmp_path / "extrinsics.yaml"))
        extract(calibrated, tmp_path / "made", settings_of(alignment=chosen))


# Whole or not at all.


def test_a_folder_is_only_overwritten_on_request_and_others_never(tmp_path):
    write_bag(tmp_path / "bag", camera_entries(3))
    extract(tmp_path / "bag", tmp_path / "made", settings_of(every=2))
    with pytest.raises(BagError, match="is there already; choose another place, or --overwrite it"):
        extract(tmp_path / "bag", tmp_path / "made", settings_of())
    with pytest.raises(BagError):
        extract(tmp_path / "bag", tmp_path / "made", settings_of(overwrite=True, detections="/nowhere"))
    assert numbers(tmp_path / "made") == [0, 2]
    extract(tmp_path / "bag", tmp_path / "made", settings_of(overwrite=True))
    assert numbers(tmp_path / "made") == [0, 1, 2]
    with pytest.raises(BagError, match="is there already and is no folder of pairs"):
        extract(tmp_path / "bag", tmp_path / "bag", settings_of(overwrite=True))
    (tmp_path / "empty").mkdir()
    extract(tmp_path / "bag", tmp_path / "empty", settings_of())
    assert numbers(tmp_path / "empty") == [0, 1, 2]


def test_what_breaks_off_leaves_nothing(tmp_path):
    write_bag(tmp_path / "bag", camera_entries(5))

    def interrupt(done: int, total: int) -> None:
        assert total == 10
        if done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "bag", tmp_path / "made", settings_of(), interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_a_cut_off_bag_gives_what_is_whole_and_says_so(tmp_path):
    write_bag(tmp_path / "bag", camera_entries(8, size=(300, 400)))
    data = (tmp_path / "bag" / "bag.mcap").read_bytes()
    (tmp_path / "bag" / "bag.mcap").write_bytes(data[: len(data) * 2 // 3])
    row = extract(tmp_path / "bag", tmp_path / "made", settings_of())
    assert 0 < row["written"] < 8
    assert "is cut off" in row["notice"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"detections": "/labels"}, "--detections: .* holds no messages of /labels .*; it has none of that type"),
        ({"mask": "/thermal/info"}, "--mask: .* holds no messages of /thermal/info .*; use one of /thermal/image_raw"),
        ({"detections": VISIBLE}, "--detections: /visible/image_raw is sensor_msgs/msg/Image, not vision_msgs"),
    ],
)
def test_label_topics_that_are_not_there_are_refused_by_option(tmp_path, options, expected):
    write_bag(tmp_path / "bag", camera_entries(1))
    with pytest.raises(BagError, match=expected):
        extract(tmp_path / "bag", tmp_path / "made", settings_of(**options))


def test_labels_can_be_left_out(tmp_path):
    record(write_folder(tmp_path / "source"), tmp_path / "bag", RecordSettings())
    extract(tmp_path / "bag", tmp_path / "made", settings_of(detections="none", mask="none"))
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["ir", "vi"]


def test_memory_does_not_grow_with_the_bag(tmp_path):
    peaks = []
    for count in (10, 60):
        write_bag(tmp_path / f"{count}", camera_entries(count, size=(200, 250)))
        tracemalloc.start()
        extract(tmp_path / f"{count}", tmp_path / f"made{count}", settings_of())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


# The command.


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_tells_what_became_of_all_pairs(tmp_path):
    record(write_folder(tmp_path / "source", 9), tmp_path / "bag", RecordSettings(PlaySettings(drop=0.2, seed=4)))
    done = run("extract", tmp_path / "bag", "-o", tmp_path / "made", "--json", "--every", 2)
    told = json.loads(done.stdout)
    (row,) = told["rows"]
    assert told["meta"]["command"] == "vifa extract"
    assert row["written"] == len(find_pairs(tmp_path / "made"))
    assert row["pairs"] == row["written"] + row["left_out.every"]
    done = run("extract", tmp_path / "bag", "-o", tmp_path / "more", "--alignment", "none", "--slop", 0.01)
    assert f"{row['pairs']} of {row['pairs']} pairs (" in done.output
    assert "dropped: " in done.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--pairing", "closest"], "--pairing is 'closest'; use one of nearest, reuse_thermal, reuse_visible"),
        (["--alignment", "nowhere.yaml"], "nowhere.yaml: is missing; check the path"),
        (
            ["--visible", "/nowhere"],
            "--visible: bag has no topic /nowhere; use one of /thermal/image_raw, /visible/image_raw",
        ),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, words, expected):
    write_bag(tmp_path / "bag", camera_entries(1))
    program = [sys.executable, "-P", "-m", "vifa_ros.cli", "extract", "bag", "-o", "made", *words]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"vifa: {expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
