"""`vifa align`: a folder or a bag of a shaken robot becomes the file that the node loads, or a refusal of one line."""

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bags import START, THERMAL, VISIBLE, camera_info, compressed, image, write_bag
from registration_scenes import corner_errors, draw_scene, make_pairs, see, similarity

from vifa_ros.camera_alignment import FILE, AlignmentSettings, AlignmentSource
from vifa_ros.transforms import TransformBuffer
from vifa_runtime.alignment_files import load_alignment
from vifa_runtime.pairs import write_image

WARP = similarity(0.9, 2, 8, -5)
NARROW = ("--smallest", 0.8, "--largest", 1.2, "--rotation", 4)  # quick
RATE, LATE = 30, 0.15  # Hz; seconds by which the thermal camera's clock is late


def write_folder(folder, pairs):
    for number, (visible, thermal) in enumerate(pairs):
        write_image(folder / "vi" / f"{number:03}.png", visible)
        write_image(folder / "ir" / f"{number:03}.png", thermal)
    return folder


def shaken(seconds=4.0, scenes=8, seed=0, shake=True):
    """(time, RGB, thermal) at 30 Hz of cameras that are shaken before one scene after the other."""
    rng = np.random.default_rng(seed)
    drawn = [draw_scene(rng) for _ in range(scenes)]
    rates, phases = rng.uniform(0.3, 3, (2, 6)), rng.uniform(0, 2 * np.pi, (2, 6))
    count = round(seconds * RATE)
    for number in range(count):
        time = number / RATE
        right, down = 5 * np.sin(2 * np.pi * rates * time + phases).sum(axis=1) if shake else (0.0, 0.0)
        shift = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
        bright, warm = drawn[number * scenes // count]
        gray = see(bright, (120, 160), shift, 1.0, rng)
        yield time, np.repeat(gray[:, :, None], 3, axis=2), see(warm, (96, 128), shift @ WARP, 1.0, rng)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """A bag whose thermal stamps are `LATE`, its visible images compressed, with broken ones among them."""
    entries = []
    for time, visible, thermal in shaken():
        arrival = START + round(time * 1e9)
        entries.append((f"{VISIBLE}/compressed", arrival, compressed(visible, arrival)))
        entries.append((THERMAL, arrival + 1, image(thermal, arrival + round(LATE * 1e9))))
    entries[20][2].data = entries[20][2].data[:50]  # an image that was cut off
    entries.append(("/visible/camera_info", START + 1, camera_info(160, 120, START)))
    return write_bag(tmp_path_factory.mktemp("bags") / "shaken", sorted(entries, key=lambda entry: entry[1]))


def test_a_folder_becomes_the_file_that_the_node_loads(vifa, tmp_path):
    folder, output = write_folder(tmp_path / "pairs", make_pairs(WARP)), tmp_path / "new" / "street.yaml"
    code, told, errors = vifa("align", folder, "-o", output, *NARROW, "--soft-border", 5)
    assert (code, errors) == (0, "")
    alignment = AlignmentSource(AlignmentSettings(FILE, str(output))).find({}, TransformBuffer(), 0)  # as the node does
    assert alignment.mode == "homography"
    assert alignment.soft_border == 5
    assert corner_errors(alignment.pixels.matrix, WARP).max() < 1.2
    assert "a similarity from 8 pairs" in told
    assert f"-p alignment.mode:=file -p alignment.file:={output}" in told
    assert "time offset" not in told
    picture = cv2.imread(str(output.with_suffix(".png")))
    assert picture.shape[1] > 2 * 160  # before and after, side by side
    assert sorted(path.name for path in output.parent.iterdir()) == ["street.png", "street.yaml"]


def test_a_bag_gives_the_time_offset_too(vifa, bag, tmp_path):
    code, told, _ = vifa("align", bag, "-o", tmp_path / "bag.yaml", *NARROW, "--frames", 12, "--json")
    assert code == 0
    (row,) = json.loads(told)["rows"]
    assert row["thermal_offset_s"] == pytest.approx(-LATE, abs=0.005)
    assert row["offset_spread_s"] < 0.01
    assert row["pairs"] == 12
    assert row["agreeing"] > 0.85
    assert row["scale"] == pytest.approx(0.9, abs=0.01)  # of equally wide views, of one aspect
    assert row["rotation_deg"] == pytest.approx(2, abs=0.4)
    assert (row["right_px"], row["down_px"]) == pytest.approx((8, -5), abs=0.7)
    assert all(value is None or isinstance(value, (int, float, str)) for value in row.values())
    assert corner_errors(load_alignment(tmp_path / "bag.yaml").pixels.matrix, WARP).max() < 1.5


def test_a_known_offset_is_not_looked_for(vifa, bag, tmp_path):
    """With the right one the images fit, with a wrong one they don't."""
    options = (*NARROW, "--frames", 8)
    code, told, _ = vifa("align", bag, "-o", tmp_path / "bag.yaml", *options, "--thermal-offset", -LATE)
    assert code == 0
    assert f"-p thermal_offset:={-LATE}" in told
    (tmp_path / "bag.yaml").unlink()
    code, _, errors = vifa("align", bag, "-o", tmp_path / "bag.yaml", *options, "--thermal-offset", 0.35)
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "bag.yaml").exists()


def test_a_static_scene_tells_no_time_offset_and_no_alignment(vifa, tmp_path):
    entries = []
    for time, visible, thermal in shaken(scenes=1, shake=False):
        stamp = START + round(time * 1e9)
        entries += [(VISIBLE, stamp, image(visible, stamp)), (THERMAL, stamp, image(thermal, stamp))]
    still = write_bag(tmp_path / "still", entries)
    code, _, errors = vifa("align", still, "-o", tmp_path / "still.yaml", *NARROW)
    assert code == 1
    offset, pairs = errors.splitlines()
    assert "time offset not found" in offset
    assert "static scene" in offset
    assert re.search(r"too few pairs to align: 1 of 1\d\d can be used, 1\d\d show the same scene", pairs)
    assert not (tmp_path / "still.yaml").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: write_folder(folder, make_pairs(WARP, 3)), "too few pairs to align: 3 of 3"),
        (lambda folder: folder.mkdir(), "has no folder vi/ or visible/"),
        (lambda folder: None, "has no folder vi/"),
        (lambda folder: folder.write_bytes(b"x"), "is no bag"),
    ],
    ids=["three pairs", "empty folder", "nothing", "a file"],
)
def test_what_cannot_be_aligned_is_refused_in_one_line(vifa, tmp_path, make, said):
    make(tmp_path / "source")
    code, told, errors = vifa("align", tmp_path / "source", "-o", tmp_path / "new.yaml", *NARROW)
    assert (code, told) == (1, "")
    assert errors.startswith("vifa: ")
    assert len(errors.splitlines()) == 1
    assert said in errors
    assert not (tmp_path / "new.yaml").exists()


def test_a_refusal_leaves_what_was_there(vifa, tmp_path):
    (tmp_path / "street.yaml").write_text("mode: none\n")
    folder = write_folder(tmp_path / "pairs", make_pairs(WARP, 3))
    assert vifa("align", folder, "-o", tmp_path / "street.yaml", *NARROW)[0] == 1
    assert (tmp_path / "street.yaml").read_text() == "mode: none\n"
    assert not (tmp_path / "street.png").exists()


def test_pairs_of_several_sizes_are_refused_by_name(vifa, tmp_path):
    pairs = make_pairs(WARP, 2)
    folder = write_folder(tmp_path / "pairs", [*pairs, (pairs[0][0][:100], pairs[0][1])])
    _, _, errors = vifa("align", folder, "-o", tmp_path / "new.yaml")
    assert "002: the visible image is 160x100, those before are 160x120" in errors


def test_the_file_is_named_as_what_it_is(vifa, tmp_path):
    code, _, errors = vifa("align", tmp_path, "-o", tmp_path / "street.png")
    assert code == 1
    assert "does not end in .yaml or .yml" in errors


def test_a_bag_without_pairs_says_why(vifa, tmp_path):
    entries = []
    for number, (time, visible, thermal) in enumerate(shaken(seconds=1)):
        stamp = START + round(time * 1e9)
        entries += [(VISIBLE, stamp, image(visible, stamp)), (THERMAL, stamp, image(thermal, stamp + 10**12 + number))]
    apart = write_bag(tmp_path / "apart", entries)
    code, _, errors = vifa("align", apart, "-o", tmp_path / "new.yaml", *NARROW)
    assert code == 1
    assert "gives no pair" in errors.splitlines()[-1]
    assert "have 0.0 s in common" in errors.splitlines()[0]


def test_a_folder_needs_neither_ros_nor_rosbags(tmp_path):
    folder = write_folder(tmp_path / "pairs", make_pairs(WARP, 6))
    program = """
import sys
sys.modules["rosbags"] = sys.modules["rclpy"] = None  # importing them fails
from vifa_ros.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "align", folder, "-o", tmp_path / "new.yaml", *map(str, NARROW)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new.yaml").exists()
