"""`vifa demo` as a user runs it: processes over real topics, a summary and a contact sheet."""

import json

import cv2
import numpy as np
import pytest
from images import random_visible
from processes import run

from vifa_runtime.render import GAP, LABEL_HEIGHT

SECONDS, RATE = 3, 10
KEYS = {
    *("frames_sent", "frames_in", "transport_lost", "pairs", "processed", "published", "detections", "masks"),
    *("dropped", "unaccounted", "fps", "latency_ms", "stage_ms", "bundle"),
}
TILE = 360  # pixels: width of an image on the contact sheet


@pytest.fixture(scope="module")
def demo(tiny_bundle, tmp_path_factory):
    """A finished demo: its process and its folder."""
    output = tmp_path_factory.mktemp("demo")
    ended = run("vifa_ros.cli", "demo", "--seconds", SECONDS, "--rate", RATE, "-b", tiny_bundle, "-o", output)
    return ended, output


@pytest.fixture(scope="module")
def row(demo):
    (row,) = json.loads((demo[1] / "summary.json").read_text())["rows"]
    return row


def test_it_succeeds_and_prints_a_table(demo):
    ended, output = demo
    assert ended.returncode == 0, ended.stderr
    assert "unaccounted" in ended.stdout and f"{output.name}/summary.json" in ended.stdout.replace("\n", "")


def test_the_summary_has_every_key(row):
    assert set(row) >= KEYS
    assert set(row["frames_sent"]) == set(row["frames_in"]) == {"visible", "thermal"}
    assert set(row["published"]) == {"bright", "dim"}
    assert row["detections"] == row["masks"] == {}
    assert set(row["latency_ms"]) == {"p50", "p95", "p99"}
    assert {"fusion", "publish"} <= set(row["stage_ms"])
    assert row["bundle"] == "tiny"


def test_the_summary_says_how_it_was_made(demo):
    meta = json.loads((demo[1] / "summary.json").read_text())["meta"]
    assert set(meta) >= {"command", "machine", "versions", "commit", "seed", "date"}


def test_everything_is_accounted_for(row):
    assert row["unaccounted"] == 0, row
    assert row["frames_sent"] == {"visible": SECONDS * RATE, "thermal": SECONDS * RATE}
    assert row["transport_lost"] == sum(row["frames_sent"].values()) - sum(row["frames_in"].values())
    assert row["processed"] == row["published"]["bright"] == row["published"]["dim"] > 0


def test_the_contact_sheet_has_a_column_for_each_image(demo):
    sheet = cv2.imread(str(demo[1] / "contact_sheet.png"))
    width = 4 * (TILE + GAP)  # visible, thermal, bright, dim
    tile = TILE * 480 // 640 + GAP
    assert sheet.shape[1] == width
    rows, rest = divmod(sheet.shape[0] - LABEL_HEIGHT, tile)
    assert rest == 0 and 1 <= rows <= 6
    assert sheet[LABEL_HEIGHT:].std() > 10, "it shows something"


@pytest.fixture(scope="module")
def finding_demo(finding_bundle, tmp_path_factory):
    """Row and contact sheet of a demo with a bundle that finds something."""
    output = tmp_path_factory.mktemp("demo")
    ended = run("vifa_ros.cli", "demo", "--seconds", SECONDS, "--rate", RATE, "-b", finding_bundle, "-o", output)
    assert ended.returncode == 0, ended.stderr
    return (
        json.loads((output / "summary.json").read_text())["rows"][0],
        cv2.cvtColor(cv2.imread(str(output / "contact_sheet.png")), cv2.COLOR_BGR2RGB),
    )


def test_the_summary_tells_how_many_messages_of_what_was_found_came(finding_demo):
    row, _ = finding_demo
    assert row["unaccounted"] == 0, row
    assert row["processed"] > 0
    assert row["published"] == dict.fromkeys(("bright", "cells", "glare"), row["processed"])
    assert (row["detections"], row["masks"]) == ({"cells": row["processed"]}, {"glare": row["processed"]})
    assert {"task.cells", "decode.cells", "task.glare", "decode.glare"} <= set(row["stage_ms"])


def test_the_contact_sheet_shows_overlays(finding_demo):
    """All three tasks fuse alike; the overlay of `glare` is half blue or yellow, that of `cells` has boxes on it."""
    _, sheet = finding_demo
    tiles = {
        name: sheet[LABEL_HEIGHT : LABEL_HEIGHT + TILE * 480 // 640, i * (TILE + GAP) : i * (TILE + GAP) + TILE]
        for i, name in enumerate(("visible", "thermal", "bright", "cells", "glare"))
    }
    bright, cells, glare = (tiles[name].astype(int) for name in ("bright", "cells", "glare"))
    colours = np.where((bright.sum(axis=2) > 384)[..., None], (255, 255, 0), (0, 0, 255))
    far_off = (abs(glare - (bright + colours) / 2) > 3).any(axis=2)
    assert far_off.mean() < 0.1, (
        "half image, half colour of the class, but for pixels at edges, which the sheet averages"
    )
    differs = (abs(cells - bright) > 40).any(axis=2)
    assert 0 < differs.mean() < 0.5


def test_a_wrong_bundle_fails_with_the_reason(tmp_path):
    ended = run("vifa_ros.cli", "demo", "--seconds", 3, "-b", "/nowhere", "-o", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("vifa: the node cannot run: no bundle at /nowhere and none ships by that name")
    assert ended.stderr.count("\n") == 1


def test_a_session_without_any_result_fails_with_the_reason(tiny_bundle, tmp_path):
    for part in ("vi", "ir"):
        (tmp_path / part).mkdir()
    cv2.imwrite(str(tmp_path / "vi" / "a.png"), random_visible(48, 64))
    cv2.imwrite(str(tmp_path / "ir" / "a.tiff"), np.full((48, 64), np.nan, np.float32))
    ended = run("vifa_ros.cli", "demo", "--pairs", tmp_path, "--seconds", 1, "-b", tiny_bundle, "-o", tmp_path / "out")
    assert ended.returncode == 1
    assert ended.stderr == (
        "vifa: nothing was published for bright, dim: pair dropped: the thermal image has no finite pixel\n"
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rows"][0]["unaccounted"] == 0


def test_a_folder_without_pairs_fails_with_the_reason(tiny_bundle, tmp_path):
    ended = run("vifa_ros.cli", "demo", "--pairs", tmp_path, "-b", tiny_bundle, "-o", tmp_path / "out")
    assert ended.returncode == 1
    assert ended.stderr == f"vifa: {tmp_path} has no folder vi/ or visible/; expected vi/ and ir/\n"
