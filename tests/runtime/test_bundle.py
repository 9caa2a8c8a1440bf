"""Writing a bundle and loading it again; what is left behind where writing fails."""

from pathlib import Path

import pytest
import yaml
from onnx import helper
from tiny_bundle import FUSED, HEAT, VISIBLE, contents, graph, manifest, write_tiny

from vifa_runtime.bundle import BundleError, load_bundle, write_bundle
from vifa_runtime.thermal import ThermalSettings


def tree(folder):
    """Every file below a folder and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def forbidden_head():
    return graph([helper.make_node("NonZero", ["visible"], ["fused"])], [VISIBLE, HEAT], [FUSED])


def test_what_was_written_is_loaded(tmp_path):
    settings = {"mode": "fixed", "minimum": -20, "maximum": 60.5}
    written = write_tiny(tmp_path / "a", thermal=settings, working_size=[48, 64], aspect="stretch", size_multiple=16)
    loaded = load_bundle(tmp_path / "a")
    assert loaded == written
    assert (loaded.name, loaded.network, loaded.size_multiple, loaded.aspect) == ("tiny", "arithmetic", 16, "stretch")
    assert loaded.working_size == (48, 64)
    assert loaded.thermal == ThermalSettings(mode="fixed", minimum=-20, maximum=60.5)
    assert loaded.task_names == ["bright", "blend"]
    assert loaded.tasks[0].description == "for bright pictures"
    files = contents()
    assert loaded.graphs == {name: files[name] for name in files if name.endswith(".onnx")}
    assert tree(tmp_path / "a").keys() == {*files, "bundle.yaml"}


def test_the_manifest_keeps_every_field_in_order_and_adds_sums(bundle_folder):
    text = yaml.safe_load((bundle_folder / "bundle.yaml").read_text())
    assert list(text) == ["format", *manifest(), "files"]
    assert text["format"] == 1
    assert {key: text[key] for key in manifest()} == manifest()
    assert set(text["files"]) == set(contents())


def test_text_in_any_script_is_kept(tmp_path):
    licences = {"code": "Apache-2.0", "weights": "Größe: 熱画像", "data": "line\nbreak: 'quoted'"}
    write_tiny(tmp_path / "a", licences=licences)
    assert load_bundle(tmp_path / "a").manifest["licences"] == licences


def test_a_value_that_occurs_twice_is_written_twice(tmp_path):
    row = {"data": "none", "task": "bright", "metric": "vif", "value": 1.5}
    write_tiny(tmp_path / "a", metrics=[row, row])
    assert load_bundle(tmp_path / "a").manifest["metrics"] == [row, row]


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    bundle = write_tiny(tmp_path / "a", size_multiple=4.0, working_size=[48.0, 64.0])
    grid = bundle.grid((30, 40))
    assert grid.padded == (48, 64)
    assert all(type(side) is int for side in grid.padded)


def test_the_grid_follows_the_manifest(tmp_path, bundle):
    assert bundle.grid((30, 41)).padded == (32, 44)
    stretched = write_tiny(tmp_path / "a", working_size=[64, 64], aspect="stretch")
    assert stretched.grid((30, 41)).content == (64, 64)


def test_a_new_bundle_replaces_the_old_one_whole(tmp_path):
    write_bundle(tmp_path / "a", manifest(), {**contents(), "notes/old.txt": b"old"})
    write_tiny(tmp_path / "a", name="newer")
    assert load_bundle(tmp_path / "a").name == "newer"
    assert not (tmp_path / "a" / "notes").exists()
    assert names(tmp_path) == ["a"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "a").mkdir()
    write_tiny(tmp_path / "a")
    assert load_bundle(tmp_path / "a").name == "tiny"


def test_missing_folders_above_are_made_and_the_bundle_can_be_read_by_all(tmp_path):
    write_tiny(tmp_path / "x" / "y" / "a")
    assert (tmp_path / "x" / "y" / "a").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("old", [True, False])
def test_a_bundle_that_does_not_load_is_not_put_in_place(tmp_path, old):
    if old:
        write_tiny(tmp_path / "a")
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=r"heads/bright\.onnx: uses the operator 'NonZero'"):
        write_tiny(tmp_path / "a", graphs={"bright": forbidden_head()})
    assert tree(tmp_path) == before
    assert names(tmp_path) == (["a"] if old else [])


def test_the_old_bundle_comes_back_where_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    write_tiny(tmp_path / "a")
    before = tree(tmp_path)
    rename = Path.rename

    def fail_for_the_new_one(self, target):
        if Path(target) == tmp_path / "a" and (self / "notes.txt").exists():
            raise OSError("disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="disk trouble"):
        write_bundle(tmp_path / "a", manifest(), {**contents(), "notes.txt": b"new"})
    assert tree(tmp_path) == before
    assert names(tmp_path) == ["a"]


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(BundleError, match="photos exists and is no bundle; choose another output folder"):
        write_tiny(tmp_path / "photos")
    assert tree(tmp_path) == {"photos/cat.jpg": b"cat"}


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write_tiny(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "heads/../../outside.txt", "..\\outside.txt"])
def test_nothing_is_written_outside_the_folder(tmp_path, name):
    with pytest.raises(BundleError, match="points outside the bundle"):
        write_bundle(tmp_path / "in" / "a", manifest(), {**contents(), name: b"x"})
    assert tree(tmp_path) == {}
