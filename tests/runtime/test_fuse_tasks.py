"""`vifa fuse` and `vifa bundle show` with a bundle whose tasks find something."""

import json

import numpy as np
import pytest
from task_graphs import CELLS, GLARE
from tiny_bundle import write_with_tasks

from vifa_runtime.bundle import load_bundle
from vifa_runtime.labels import read_mask
from vifa_runtime.pairs import read_thermal, read_visible, write_image
from vifa_runtime.render import render_overlay

SIZE = (60, 90)


@pytest.fixture
def folder(tmp_path):
    """vi/ and ir/ with the pairs a (a red and a bright spot) and b (nothing), and the bundle `tiny`."""
    visible, thermal = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    write_image(tmp_path / "vi" / "b.png", visible)
    write_image(tmp_path / "ir" / "b.png", thermal)
    visible[20:24, 40:44, 0] = 204
    visible[48:, 4:8], thermal[48:, 4:8] = 255, 255
    write_image(tmp_path / "vi" / "a.png", visible)
    write_image(tmp_path / "ir" / "a.png", thermal)
    write_with_tasks(tmp_path / "tiny", tasks=[])
    return tmp_path


@pytest.fixture
def arguments(folder):
    return ["fuse", folder / "vi", folder / "ir", "-o", folder / "out", "--bundle", folder / "tiny"]


def written(folder):
    return {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}


def test_everything_that_is_found_is_written(vifa, arguments, folder):
    code, output, errors = vifa(*arguments)
    assert (code, errors) == (0, "")
    assert f"2 of 2 pairs fused into {folder}/out/{{cells,glare}}/" in output
    assert written(folder) == {
        path.format(name)
        for name in "ab"
        for path in (
            "cells/{}.png", "cells/detections/{}.json", "cells/overlay/{}.png",
            "glare/{}.png", "glare/mask/{}.png", "glare/confidence/{}.png", "glare/overlay/{}.png",
        )
    }  # fmt: skip


def test_detections_are_flat_rows_best_first(vifa, arguments, folder):
    vifa(*arguments)
    result = json.loads((folder / "out/cells/detections/a.json").read_text())
    assert {"command", "machine", "versions", "commit", "seed", "date"} == set(result["meta"])
    assert result["meta"]["command"] == "vifa fuse"
    keys = ["image", "task", "class", "score", "x1", "y1", "x2", "y2"]
    assert all(list(row) == keys for row in result["rows"])
    red = {"image": "a", "task": "cells", "class": "red", "score": 0.8, "x1": 38, "y1": 18, "x2": 46, "y2": 26}
    assert result["rows"][-1] == red
    assert {row["class"] for row in result["rows"][:-1]} == {"red", "green", "blue"}
    assert all(row["score"] == 1 and row["x1"] == 2 and row["x2"] == 10 for row in result["rows"][:-1])
    assert json.loads((folder / "out/cells/detections/b.json").read_text())["rows"] == []


def test_masks_are_class_ids(vifa, arguments, folder):
    vifa(*arguments)
    wanted = np.zeros(SIZE, np.uint8)
    wanted[48:, 4:8] = 1
    np.testing.assert_array_equal(read_mask(folder / "out/glare/mask/a.png", 2), wanted)
    assert not read_mask(folder / "out/glare/mask/b.png", 2).any()
    confidence = read_thermal(folder / "out/glare/confidence/a.png")
    assert (confidence[0, 0], confidence[50, 5]) == (192, 190)


def test_overlays_show_what_was_found(vifa, arguments, folder, make_pipeline):
    vifa(*arguments)
    bundle = load_bundle(folder / "tiny")
    pair = read_visible(folder / "vi/a.png"), read_thermal(folder / "ir/a.png")
    results = make_pipeline(bundle).process(*pair)
    for task in bundle.tasks:
        overlay = read_visible(folder / f"out/{task.name}/overlay/a.png")
        np.testing.assert_array_equal(overlay, render_overlay(results, task))
        assert (overlay != read_visible(folder / f"out/{task.name}/a.png")).any()
    np.testing.assert_array_equal(
        read_visible(folder / "out/cells/overlay/b.png"), read_visible(folder / "out/cells/b.png")
    )


def test_only_the_wanted_task_is_written(vifa, arguments, folder):
    assert vifa(*arguments, "--task", "cells")[0] == 0
    assert {path.split("/")[0] for path in written(folder)} == {"cells"}


def test_a_place_that_cannot_be_written_is_named(refused, arguments, folder):
    (folder / "out" / "cells").mkdir(parents=True)
    (folder / "out" / "cells" / "detections").write_text("in the way")
    assert f"cannot write {folder}/out/cells/detections/a.json: " in refused(*arguments)


def test_show_lists_kinds_classes_and_thresholds(vifa, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, output, _ = vifa("bundle", "show", folder / "tiny")
    assert code == 0
    lines = [set(line.replace(",", " ").split()) for line in output.splitlines()]
    assert any({"cells", "detection", "colourful"} <= words for words in lines)
    assert any({"cells", "red", "green", "blue", "0.5", "0.25", "20"} <= words for words in lines)
    assert any({"glare", "dark", "bright"} <= words for words in lines)


def test_verify_counts_the_graphs_of_tasks(vifa, folder):
    _, output, _ = vifa("bundle", "verify", folder / "tiny")
    assert output == f"{folder / 'tiny'}: good; 8 files, 5 graphs, tasks cells, glare\n"


def test_show_as_json_is_the_manifest(vifa, folder):
    _, output, _ = vifa("bundle", "show", folder / "tiny", "--json")
    assert json.loads(output)["tasks"] == [CELLS, GLARE]
