"""A data set shrunk and written as a plain folder: for small machines, and to send to another one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vifa_runtime.files import write_atomically, write_json
from vifa_runtime.labels import Labels, format_yolo
from vifa_runtime.pairs import write_image
from vifa_runtime.provenance import commit, today
from vifa_training.data.base import DataError, DataSet, Sample
from vifa_training.data.check import Track
from vifa_training.data.folder import CLASS_FILE, MASK_CLASS_FILE
from vifa_training.data.opening import open_data
from vifa_training.data.transforms import resize

ORIGIN_FILE = "prepared.json"


@dataclass(frozen=True)
class Shrinking:
    """How much smaller images become; never larger.

    Attributes:
        scale: factor of both sides, above 0 and up to 1.
        side: pixels of the longer side, at most; instead of `scale`.
    """

    scale: float | None = None
    side: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and self.side is not None:
            raise DataError(["scale and side exclude each other; give one"])
        if self.scale is not None and not 0 < self.scale <= 1:
            raise DataError([f"scale must be above 0 and at most 1, got {self.scale}"])
        if self.side is not None and self.side < 16:
            raise DataError([f"side must be 16 pixels or more, got {self.side}"])

    def apply(self, sample: Sample) -> Sample:
        """The sample at its new size, whose sides are rounded to whole pixels."""
        height, width = sample.thermal.shape
        factor = self.scale or (min(1.0, self.side / max(height, width)) if self.side else 1.0)
        size = max(1, round(factor * width)), max(1, round(factor * height))
        return sample if size == (width, height) else resize(sample, size)


@dataclass(frozen=True)
class Prepared:
    """What was written: the folder, how many pairs, and how many bytes of files."""

    folder: Path
    pairs: int
    size: int


def prepare_part(root: Path, part: str, output: Path, shrinking: Shrinking, track: Track = iter) -> Prepared:
    """Write a part of the data as `output/<its name>`: `vi/`, `ir/`, `labels/`, `masks/`, losslessly.

    A plain folder keeps its path, so that a recipe finds it below another root. All is written beside and renamed at
    the end; an interrupted call goes on where it stopped, and a finished one is left alone.

    Args:
        root, part: as of `open_data`.
        output: folder of all prepared parts.
        shrinking: how much smaller images become.
        track: wraps the indices, to show progress; like `rich.progress.track`.

    Raises:
        DataError: lists everything that is wrong with the data, or the folder was prepared in another way.
    """
    folder = output / prepared_name(part)
    origin = {"part": part, "scale": shrinking.scale, "side": shrinking.side}
    if folder.exists():
        if _read_origin(folder) != origin:
            raise DataError([f"{folder} holds something else; remove it or choose another folder"])
        return _describe(folder)
    beside = folder.with_name(f".{folder.name}.part")
    if _read_origin(beside) != origin:
        shutil.rmtree(beside, ignore_errors=True)
    dataset = open_data(root, part)
    write_json(beside / ORIGIN_FILE, {**origin, "commit": commit(), "date": today()})
    _write_samples(dataset, beside, shrinking, track)
    for name, classes in ((CLASS_FILE, dataset.classes), (MASK_CLASS_FILE, dataset.mask_classes)):
        if classes:
            write_atomically(beside / name, "".join(f"{some}\n" for some in classes).encode())
    beside.rename(folder)
    return _describe(folder)


def prepared_name(part: str) -> str:
    """Path of a prepared part below the output: `msrs/train` as it is, `roadscene@val` as `roadscene-val`."""
    folders, at, rest = part.partition("@")
    pieces = []
    for piece in (folders + at + rest.replace("/", "-")).split("/"):
        kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in piece)
        pieces.append(kept.strip(".") or "-")  # neither hidden nor a way out
    return "/".join(pieces)


def _write_samples(dataset: DataSet, folder: Path, shrinking: Shrinking, track: Track) -> None:
    problems = _repeated(dataset.names)
    kinds: dict[tuple[bool, bool], str] = {}
    for index in track(range(len(dataset))):
        name = dataset.names[index]
        try:
            sample = dataset[index]
        except DataError as error:
            problems.extend(error.problems)
            continue
        kinds.setdefault((sample.boxes is not None, sample.mask is not None), name)
        # The thermal image is written last: where it is, the sample is complete.
        if not problems and not (folder / "ir" / f"{name}.png").exists():
            _write_sample(shrinking.apply(sample), folder)
    if len(kinds) > 1:
        shown = " and ".join(kinds.values())
        problems.append(f"{shown} differ in whether they have boxes or masks; prepare their folders apart")
    if problems:
        raise DataError(problems)


def _write_sample(sample: Sample, folder: Path) -> None:
    if sample.boxes is not None and sample.labels is not None:
        text = format_yolo(Labels(sample.boxes, sample.labels), sample.thermal.shape)
        write_atomically(folder / "labels" / f"{sample.name}.txt", text.encode())
    if sample.mask is not None:
        write_image(folder / "masks" / f"{sample.name}.png", sample.mask)
    write_image(folder / "vi" / f"{sample.name}.png", sample.visible)
    write_image(folder / "ir" / f"{sample.name}.png", sample.thermal)


def _repeated(names: Iterable[str]) -> list[str]:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    return [f"two samples are called {name}; prepare their folders apart" for name in repeated]


def _read_origin(folder: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads((folder / ORIGIN_FILE).read_text())
        return {key: content[key] for key in ("part", "scale", "side")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe(folder: Path) -> Prepared:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Prepared(folder, sum(path.parent.name == "ir" for path in files), sum(path.stat().st_size for path in files))
