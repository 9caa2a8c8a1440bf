"""Parts in words, folds and unions."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_cases import noise, write_folder, write_m3fd, write_msrs, write_vedai
from hypothesis import given, settings
from hypothesis import strategies as st

from vifa_runtime.pairs import write_image
from vifa_training.data import Concatenation, DataError, Subset, contiguous_folds, open_checked, open_data
from vifa_training.data.folder import Folder
from vifa_training.data.m3fd import M3fd
from vifa_training.data.msrs import Msrs, MsrsDetection
from vifa_training.data.opening import Part, parse_part
from vifa_training.data.street import StreetData
from vifa_training.data.vedai import Vedai

DAYS = [f"{i:05}D" for i in range(10)]
NIGHTS = [f"{i:05}N" for i in range(100, 105)]


@pytest.mark.parametrize(
    "text,part",
    [
        ("msrs/train", Part("folder", ("msrs/train",), "", None)),
        ("roadscene@val", Part("folder", ("roadscene",), "val", None)),
        ("a+b/c@fold=2/5", Part("folder", ("a", "b/c"), "", (2, 5))),
        ("m3fd:M3FD@train,fold=1/3", Part("m3fd", ("M3FD",), "train", (1, 3))),
        ("vedai1024:x@fold=3/3,val", Part("vedai1024", ("x",), "val", (3, 3))),
        ("msrs/train@night", Part("folder", ("msrs/train",), "", None, "night")),
        ("a@day,fold=1/3,val", Part("folder", ("a",), "val", (1, 3), "day")),
        ("street:200/3@test", Part("street", ("200/3",), "test", None)),
    ],
)
def test_parts_are_taken_apart(text: str, part: Part) -> None:
    assert parse_part(text) == part


@pytest.mark.parametrize(
    "text,reason",
    [
        ("coco:x", "format 'coco' is unknown; use one of folder, street, m3fd, msrs, msrs-detection, roadscene"),
        ("x@best", "'best' is unknown; write"),
        ("x@train,val", "'val' is unknown; write"),
        ("x@day,night", "'night' is unknown; write"),
        ("x@fold=0/5", "'0/5' is no fold"),
        ("x@fold=6/5", "'6/5' is no fold"),
        ("x@fold=1/1", "'1/1' is no fold"),
        ("x@fold=a", "'a' is no fold"),
        ("", "a name is missing"),
        ("m3fd:", "a name is missing"),
        ("a+", "a name is missing"),
        ("a@", "a name is missing"),
    ],
)
def test_wrong_parts_are_refused_with_the_grammar(text: str, reason: str) -> None:
    with pytest.raises(DataError) as refusal:
        parse_part(text)
    assert str(refusal.value).startswith(f"{text}: ")
    assert reason in str(refusal.value)


def test_every_format_opens(tmp_path: Path) -> None:
    write_folder(tmp_path / "plain", ["a"], labels="7 0.5 0.5 1 1")
    write_folder(tmp_path / "MSRS" / "detection", ["a"], labels="")
    write_m3fd(tmp_path / "M3FD", ["a"])
    write_msrs(tmp_path / "MSRS", ["a"], ["b"])
    write_vedai(tmp_path / "VEDAI", ["00000001"], 1024)
    for text, kind in (
        ("plain", Folder),
        ("folder:plain", Folder),
        ("m3fd:M3FD", M3fd),
        ("msrs:MSRS@test", Msrs),
        ("msrs-detection:MSRS", MsrsDetection),
        ("vedai1024:VEDAI", Vedai),
        ("street:10@val", StreetData),
    ):
        dataset = open_data(tmp_path, text)
        assert isinstance(dataset, kind), text
        assert len(dataset) == 1
    assert list(open_data(tmp_path, "plain", classes=["a"] * 8).classes) == ["a"] * 8
    for text in ("street:ten", "street:10/x", "street:-1"):
        with pytest.raises(DataError, match="expected `street:COUNT`"):
            open_data(tmp_path, text)


def test_faults_of_all_parts_are_told_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "good", ["a"])
    write_folder(tmp_path / "torn", ["a", "b"])
    (tmp_path / "torn" / "vi" / "b.png").write_bytes(b"no")
    write_folder(tmp_path / "odd", ["a"])
    write_image(tmp_path / "odd" / "vi" / "b.png", noise(4, 4))
    with pytest.raises(DataError) as refusal:
        open_checked(tmp_path, ["good", "torn", "odd", "gone", "good@best", "good+gone"])
    shown = str(refusal.value)
    for name in ("torn/vi/b.png", "odd/vi/b.png", "gone/vi", "gone/ir", "'best' is unknown"):
        assert name in shown
    assert len(refusal.value.problems) == 7  # each folder that is gone is told of for both parts that name it
    assert "good/" not in shown
    assert len(open_checked(tmp_path, ["good", "good"])) == 2
    with pytest.raises(DataError, match="no part to open"):
        open_checked(tmp_path, [])


def test_a_time_that_no_name_says_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "days", DAYS[:2])
    assert open_data(tmp_path, "days@day").names == DAYS[:2]
    with pytest.raises(DataError, match="days@night: no name of a pair says night by a digit and N at its end"):
        open_data(tmp_path, "days@night")


def test_folds_by_hand() -> None:
    assert contiguous_folds(7, 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert contiguous_folds(["b", "d", "a", "c"], 2) == [[0, 2], [1, 3]]
    # Two days and four nights: each fold has one and two.
    assert contiguous_folds(["1", "2", "3", "4", "5", "6"], 2, list("dnnndn")) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match="3 samples can't be divided into 4 folds; use 2 to 3"):
        contiguous_folds(3, 4)


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.booleans()), min_size=2, max_size=40), st.integers(2, 8))
def test_folds_cover_everything_once_in_blocks(drawn: list[tuple[str, bool]], count: int) -> None:
    names, groups = [name for name, _ in drawn], [group for _, group in drawn]
    if count > len(names):
        return
    folds = contiguous_folds(names, count, groups)
    assert sorted(index for fold in folds for index in fold) == list(range(len(names)))
    for group in set(groups):
        order = sorted((i for i in range(len(names)) if groups[i] == group), key=lambda i: (names[i], i))
        blocks = [sorted(order.index(i) for i in fold if groups[i] == group) for fold in folds]
        assert [i for block in blocks for i in block] == list(range(len(order)))  # one after the other
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_folds_of_a_set_in_several_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "set" / "train", DAYS[::2] + NIGHTS[1:])
    write_folder(tmp_path / "set" / "test", DAYS[1::2] + NIGHTS[:1])
    both = "set/train+set/test"
    for k in range(1, 6):
        parts = {part: set(open_data(tmp_path, f"{both}@{part},fold={k}/5").names) for part in ("train", "val", "test")}
        # Neighbours, whichever folder they lie in, and a night in each.
        assert parts["test"] == {*DAYS[2 * k - 2 : 2 * k], NIGHTS[k - 1]}
        assert parts["val"] == {*DAYS[2 * k % 10 : 2 * k % 10 + 2], NIGHTS[k % 5]}
        assert open_data(tmp_path, f"{both}@night,fold={k}/5").names == [NIGHTS[k - 1]]
        assert parts["train"] == {*DAYS, *NIGHTS} - parts["test"] - parts["val"]
        assert set(open_data(tmp_path, f"{both}@fold={k}/5").names) == parts["test"]
    tested = open_data(tmp_path, f"{both}@fold=1/5")
    assert sorted(tested[i].name for i in range(3)) == sorted(tested.names)
    with pytest.raises(DataError, match="2 folds leave nothing to train on"):
        open_data(tmp_path, f"{both}@train,fold=1/2")


def test_unions_and_subsets(tmp_path: Path) -> None:
    first = Folder(write_folder(tmp_path / "a", ["x", "y"], labels="", mask=0), classes=["person"])
    second = Folder(write_folder(tmp_path / "b", ["z"]))
    whole = Concatenation([first, second, first])
    assert [whole[i].name for i in range(len(whole))] == list(whole.names) == ["x", "y", "z", "x", "y"]
    assert list(whole.classes) == ["person"]
    some = Subset(whole, [4, 2])
    assert [some[i].name for i in range(2)] == list(some.names) == ["y", "z"]
    assert some.classes == whole.classes
    for dataset in (whole, some):
        for index in (-1, len(dataset)):
            with pytest.raises(IndexError):
                dataset[index]
    with pytest.raises(DataError, match="different classes: car and person; train on them apart"):
        Concatenation([first, Folder(tmp_path / "a", classes=["car"])])
