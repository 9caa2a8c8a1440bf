"""`vifa-train prepare`: smaller, lossless, whole or resumed, and read again like any folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from data_cases import write_folder, write_text
from typer.testing import CliRunner

from vifa_training import prepare as module
from vifa_training.commands.prepare import prepare
from vifa_training.data import DataError, DataSet, Sample, open_checked
from vifa_training.prepare import Shrinking, prepare_part, prepared_name

BOX = "1 0.5 0.5 0.5 0.5\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`set/train` with three pairs of 32x24, boxes and masks."""
    folder = write_folder(tmp_path / "root" / "set" / "train", ["a", "b", "c"], labels=BOX, mask=2)
    write_text(folder / "classes.txt", "person\ncar\n")
    write_text(folder / "mask_classes.txt", "soil\ncrop\nweed\n")
    return tmp_path / "root"


def samples(dataset: DataSet) -> list[Sample]:
    return [dataset[i] for i in range(len(dataset))]


def test_at_full_size_nothing_is_lost(root: Path, tmp_path: Path) -> None:
    made = prepare_part(root, "set/train", tmp_path / "small", Shrinking())
    assert made.folder == tmp_path / "small" / "set" / "train"
    assert made.pairs == 3
    assert made.size == sum(path.stat().st_size for path in made.folder.rglob("*.*"))
    before, after = (open_checked(where, ["set/train"]) for where in (root, tmp_path / "small"))
    assert (list(before.classes), list(before.mask_classes)) == (list(after.classes), list(after.mask_classes))
    for old, new in zip(samples(before), samples(after), strict=True):
        for field in ("visible", "thermal", "labels", "mask"):
            assert (getattr(old, field) == getattr(new, field)).all()
        np.testing.assert_allclose(old.boxes, new.boxes, atol=1e-3)
    origin = json.loads((made.folder / "prepared.json").read_text())
    assert origin["part"] == "set/train" and origin["scale"] is None
    assert str(tmp_path) not in json.dumps(origin)
    assert sorted(path.name for path in (tmp_path / "small" / "set").iterdir()) == ["train"]  # nothing left beside


@pytest.mark.parametrize(
    "shrinking,size,box",
    [
        (Shrinking(scale=0.5), (12, 16), [4, 3, 12, 9]),
        (Shrinking(side=16), (12, 16), [4, 3, 12, 9]),
        (Shrinking(side=64), (24, 32), [8, 6, 24, 18]),
    ],
)
def test_images_boxes_and_masks_shrink_alike(
    shrinking: Shrinking, size: tuple[int, int], box: list[float], root: Path, tmp_path: Path
) -> None:
    prepare_part(root, "set/train", tmp_path / "small", shrinking)
    sample = open_checked(tmp_path / "small", ["set/train"])[0]
    assert sample.mask is not None and sample.boxes is not None
    assert sample.visible.shape[:2] == sample.thermal.shape == sample.mask.shape == size
    np.testing.assert_allclose(sample.boxes, [box], atol=1e-3)
    assert (sample.mask == 2).all()


def test_an_interrupted_call_goes_on_where_it_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = module._write_sample, []

    def fail_at_c(sample: Sample, folder: Path) -> None:
        if sample.name == "c" and len(written) == 2:
            raise KeyboardInterrupt
        written.append(sample.name)
        write(sample, folder)

    monkeypatch.setattr(module, "_write_sample", fail_at_c)
    with pytest.raises(KeyboardInterrupt):
        prepare_part(root, "set/train", tmp_path / "small", Shrinking())
    assert not (tmp_path / "small" / "set" / "train").exists()
    written.append("again")
    assert prepare_part(root, "set/train", tmp_path / "small", Shrinking()).pairs == 3
    assert written == ["a", "b", "again", "c"]
    open_checked(tmp_path / "small", ["set/train"])
    # A finished one is left alone.
    assert prepare_part(root, "set/train", tmp_path / "small", Shrinking()).pairs == 3
    assert len(written) == 4


def test_rests_of_another_size_are_not_mixed_in(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module._write_sample

    def fail_at_c(sample: Sample, folder: Path) -> None:
        if sample.name == "c":
            raise OSError("no space left")
        write(sample, folder)

    monkeypatch.setattr(module, "_write_sample", fail_at_c)
    with pytest.raises(OSError, match="no space"):
        prepare_part(root, "set/train", tmp_path / "small", Shrinking(scale=0.5))
    monkeypatch.undo()
    prepare_part(root, "set/train", tmp_path / "small", Shrinking())
    assert {sample.thermal.shape for sample in samples(open_checked(tmp_path / "small", ["set/train"]))} == {(24, 32)}
    with pytest.raises(DataError, match="holds something else; remove it"):
        prepare_part(root, "set/train", tmp_path / "small", Shrinking(scale=0.5))
    assert (tmp_path / "small" / "set" / "train" / "vi" / "c.png").exists()


def test_wrong_data_is_listed_and_nothing_appears(root: Path, tmp_path: Path) -> None:
    (root / "set" / "train" / "vi" / "a.png").write_bytes(b"no")
    write_text(root / "set" / "train" / "labels" / "c.txt", "0 0.5")
    with pytest.raises(DataError) as refusal:
        prepare_part(root, "set/train", tmp_path / "small", Shrinking())
    assert len(refusal.value.problems) == 2
    assert not (tmp_path / "small" / "set" / "train").exists()


def test_what_does_not_fit_one_folder_is_refused(root: Path, tmp_path: Path) -> None:
    write_folder(root / "bare", ["d"])
    with pytest.raises(DataError, match="a and d differ in whether they have boxes or masks"):
        prepare_part(root, "set/train+bare", tmp_path / "small", Shrinking())
    write_folder(root / "twin", ["d"])
    with pytest.raises(DataError, match="two samples are called d"):
        prepare_part(root, "twin+bare", tmp_path / "small", Shrinking())


@pytest.mark.parametrize(
    "part,name",
    [
        ("msrs/train", "msrs/train"),
        ("roadscene@val", "roadscene-val"),
        ("m3fd:M3FD@train,fold=1/5", "m3fd-M3FD-train-fold-1-5"),
        ("../../etc", "-/-/etc"),
        ("/etc", "-/etc"),
    ],
)
def test_names_of_prepared_parts(part: str, name: str) -> None:
    assert prepared_name(part) == name


@pytest.mark.parametrize(
    "settings,reason",
    [
        ({"scale": 0.5, "side": 100}, "exclude each other"),
        ({"scale": 1.5}, "at most 1, got 1.5"),
        ({"scale": 0.0}, "above 0"),
        ({"side": 8}, "16 pixels or more, got 8"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict, reason: str) -> None:
    with pytest.raises(DataError) as refusal:
        Shrinking(**settings)
    assert reason in str(refusal.value)


def test_the_command(root: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(prepare)
    parts = ["set/train", "street:10"]
    done = CliRunner().invoke(app, [*parts, "--data", str(root), "-o", str(tmp_path / "small"), "--side", "16"])
    assert done.exit_code == 0, done.output
    assert "set/train: " in done.output and "3 pairs" in done.output and "MB in all" in done.output
    assert len(open_checked(tmp_path / "small", ["set/train"])) == 3
    street = open_checked(tmp_path / "small", ["street-10"])
    assert street[0].thermal.shape == (12, 16)
    assert list(street.mask_classes) == ["background", "person", "car"]
    assert "Example: vifa-train prepare" in CliRunner().invoke(app, ["--help"]).output
