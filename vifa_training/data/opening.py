"""From one line of a recipe to a data set: formats, parts and folds by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vifa_runtime.pairs import PARTS, PairError
from vifa_training.data.base import DataError, DataSet
from vifa_training.data.check import Track, find_problems
from vifa_training.data.combine import Concatenation, Subset
from vifa_training.data.folder import Folder
from vifa_training.data.folds import contiguous_folds
from vifa_training.data.m3fd import M3fd
from vifa_training.data.msrs import Msrs, MsrsDetection
from vifa_training.data.pair_files import day_or_night
from vifa_training.data.roadscene import RoadScene
from vifa_training.data.street import StreetData
from vifa_training.data.vedai import Vedai

FORMATS: Mapping[str, Callable[[Path, str], DataSet]] = {
    "m3fd": M3fd,
    "msrs": Msrs,
    "msrs-detection": MsrsDetection,
    "roadscene": RoadScene,
    "vedai512": partial(Vedai, resolution=512),
    "vedai1024": partial(Vedai, resolution=1024),
}
TIMES = ("day", "night")
GRAMMAR = "[format:]folder[+folder...][@options], options of train|val|test, fold=K/N, day|night with commas between"


class Part(NamedTuple):
    """A part in words: see `open_data`.

    Attributes:
        format: key of `FORMATS`, `folder` or `street`.
        folders: below the root; of `street`, what to make.
        part: one of `PARTS`, or empty for all.
        fold: (K, N) of cross-validation, K from 1; None without.
        time: one of `TIMES`, or empty for both.
    """

    format: str
    folders: tuple[str, ...]
    part: str
    fold: tuple[int, int] | None
    time: str = ""


def parse_part(text: str) -> Part:
    """Take a part apart; see `open_data`.

    Raises:
        DataError: it isn't written as `GRAMMAR` says.
    """
    head, _, options = text.partition("@")
    kind, colon, folders = head.rpartition(":")
    known = ("folder", "street", *FORMATS)
    if colon and kind not in known:
        raise DataError([f"{text}: the format {kind!r} is unknown; use one of {', '.join(known)}"])
    part, fold, time = "", None, ""
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "fold":
            fold = _parse_fold(text, value)
        elif option in PARTS and not part:
            part = option
        elif option in TIMES and not time:
            time = option
        else:
            raise DataError([f"{text}: {option!r} is unknown; write {GRAMMAR}"])
    if not all(folders.split("+")) or text.endswith("@"):
        raise DataError([f"{text}: a name is missing; write {GRAMMAR}"])
    return Part(kind or "folder", tuple(folders.split("+")), part, fold, time)


def open_data(root: Path, text: str, classes: Sequence[str] = (), mask_classes: Sequence[str] = ()) -> DataSet:
    """Open a part of the data under `root`: `[format:]folder[+folder...][@...]`.

    - No format means a plain folder (`vi/`, `ir/`, `labels/`, `masks/`), like `msrs/train`; the others are keys of
      `FORMATS`, like `m3fd:M3FD_Detection`. `street:200` makes 200 synthetic pairs; `street:200/3` others, of seed 3.
    - `@train`, `@val`, `@test`: the data set's own parts where it has some, else 8:1:1 by a hash of the names.
    - `@fold=2/5`: the second of five contiguous blocks; `@test,fold=2/5` is the same one, `@val,fold=2/5` the block
      after it, `@train,fold=2/5` the other three. Blocks are cut by day and by night apart.
    - `@day`, `@night`: of all that, the pairs whose names say so, as MSRS's do; `@night,train`.
    - `a+b`: the pairs of both, as one set that is then divided into folds.

    Args:
        root: folder of all data sets.
        text: the part.
        classes, mask_classes: names for plain folders, which go before those of their own; see `Folder`.

    Raises:
        DataError: names everything that is wrong with the part, with the files of its folders, and with their contents
            where files are wrong; contents alone are read later (see `check`).
    """
    part = parse_part(text)
    of_set = "" if part.fold else part.part
    datasets: list[DataSet] = []
    problems: list[str] = []
    for folder in part.folders:
        try:
            datasets.append(_open_one(root, part.format, folder, of_set, classes, mask_classes))
        except PairError as error:
            problems.extend(getattr(error, "problems", (str(error),)))
    if problems:
        raise DataError(problems)
    whole = datasets[0] if len(datasets) == 1 else Concatenation(datasets)
    chosen = _choose_fold(whole, part.part or "test", *part.fold) if part.fold else whole
    return _choose_time(text, chosen, part.time) if part.time else chosen


def open_checked(
    root: Path,
    parts: Sequence[str],
    classes: Sequence[str] = (),
    mask_classes: Sequence[str] = (),
    track: Track = iter,
) -> DataSet:
    """Open several parts as one data set and read all of it once.

    Args:
        root, classes, mask_classes: as of `open_data`.
        parts: one or more.
        track: as of `check`.

    Raises:
        DataError: lists everything that is wrong in any of them.
    """
    datasets: list[DataSet] = []
    problems: list[str] = []
    for part in parts:
        try:
            dataset = open_data(root, part, classes, mask_classes)
        except DataError as error:
            problems.extend(error.problems)
        else:
            datasets.append(dataset)
            problems.extend(find_problems(dataset, track))
    if problems:
        raise DataError(problems)
    if not datasets:
        raise DataError(["there is no part to open; name one or more"])
    return datasets[0] if len(datasets) == 1 else Concatenation(datasets)


def _open_one(
    root: Path, kind: str, name: str, part: str, classes: Sequence[str], mask_classes: Sequence[str]
) -> DataSet:
    if kind == "street":
        count, _, seed = name.partition("/")
        if not (count.isdigit() and (seed or "0").isdigit()):
            raise DataError([f"street:{name}: expected `street:COUNT` or `street:COUNT/SEED`, like street:200/3"])
        return StreetData(int(count), int(seed or 0), part)
    if kind == "folder":
        return Folder(root / name, part, classes, mask_classes)
    return FORMATS[kind](root / name, part)


def _parse_fold(text: str, value: str) -> tuple[int, int]:
    number, _, count = value.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) and int(count) >= 2):
        raise DataError([f"{text}: {value!r} is no fold; write fold=K/N with K from 1 to N, like fold=2/5"])
    return int(number), int(count)


def _choose_time(text: str, dataset: DataSet, time: str) -> DataSet:
    chosen = [index for index, name in enumerate(dataset.names) if time in day_or_night(name)]
    if not chosen:
        raise DataError([f"{text}: no name of a pair says {time} by a digit and {time[0].upper()} at its end"])
    return Subset(dataset, chosen)


def _choose_fold(dataset: DataSet, role: str, number: int, count: int) -> DataSet:
    if role == "train" and count < 3:
        raise DataError([f"{count} folds leave nothing to train on beside val and test; use 3 or more"])
    groups = [day_or_night(name) for name in dataset.names]
    folds = contiguous_folds(dataset.names, count, groups)
    tested, validated = number - 1, number % count
    if role != "train":
        return Subset(dataset, folds[tested if role == "test" else validated])
    rest = (fold for i, fold in enumerate(folds) if i not in (tested, validated))
    return Subset(dataset, sorted(index for fold in rest for index in fold))
