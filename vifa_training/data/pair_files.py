"""Pairs that lie on disk as files: found all at once, read when they are asked for, kept while there is room."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vifa_runtime.labels import Labels, read_mask, read_yolo
from vifa_runtime.pairs import IMAGE_SUFFIXES, PARTS, PairError, choose_names, read_thermal, read_visible
from vifa_training.data.base import DataError, Sample
from vifa_training.data.cache import SampleCache
from vifa_training.data.check import find_problems


@dataclass(frozen=True)
class PairOfFiles:
    """Where one pair, and what is known of it, lies.

    Attributes:
        name: unique in its data set.
        visible, thermal: image files.
        labels: file of its boxes, None where the data set has none.
        mask: class-id image, None where the data set has none.
    """

    name: str
    visible: Path
    thermal: Path
    labels: Path | None = None
    mask: Path | None = None


class PairFiles:
    """The base of all data sets on disk, which differ in where files lie and how boxes are written.

    Samples that were read stay in memory while there is room, so that a small set is decoded once.
    """

    classes: Sequence[str] = ()
    mask_classes: Sequence[str] = ()

    def __init__(self, pairs: Sequence[PairOfFiles], faults: Sequence[str] = ()) -> None:
        """Hold `pairs`, in their order.

        Raises:
            DataError: there are `faults`; it lists them and all that is wrong inside the pairs that were found.
        """
        self.pairs = list(pairs)
        self.names = [pair.name for pair in self.pairs]
        self._cache = SampleCache()
        if faults:
            raise DataError([*faults, *find_problems(self)])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.pairs):
            raise IndexError(f"sample {index} of {len(self.pairs)}")
        return self._cache.get(index, self._read)

    def read_labels(self, pair: PairOfFiles, size: tuple[int, int]) -> Labels:
        """Read the boxes of a pair that has some; `size` is (height, width) in pixels. YOLO text unless overridden."""
        assert pair.labels is not None
        return read_yolo(pair.labels, size, len(self.classes) or None)

    def _read(self, index: int) -> Sample:
        pair = self.pairs[index]
        problems: list[str] = []
        visible = _attempt(problems, read_visible, pair.visible)
        thermal = _attempt(problems, read_thermal, pair.thermal)
        mask = _attempt(problems, read_mask, pair.mask, len(self.mask_classes) or None) if pair.mask else None
        size = next((image.shape[:2] for image in (visible, thermal) if image is not None), None)
        labels = _attempt(problems, self.read_labels, pair, size) if pair.labels and size else None
        if thermal is not None and thermal.dtype != np.uint8:
            problems.append(f"{pair.thermal} holds {thermal.dtype}; convert it to 8 bits")
        for path, image in ((pair.thermal, thermal), (pair.mask, mask)):
            if visible is not None and image is not None and image.shape != size:
                problems.append(f"{path} is {_size(image)} but {pair.visible} is {_size(visible)}; align them")
        if problems or visible is None or thermal is None:
            raise DataError(problems)
        boxes, numbers = labels or (None, None)
        return Sample(pair.name, visible, thermal, boxes, numbers, mask, day_or_night(pair.name))


def list_files(folder: Path, suffixes: Collection[str], faults: list[str], ending: str = "") -> dict[str, Path]:
    """Files of a folder by name, without suffix and `ending` (like `_co`); what is wrong is added to `faults`."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        faults.append(f"{folder} does not exist or is not a folder; add it")
        return files
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.stem.endswith(ending):
            continue
        name = path.stem.removesuffix(ending)
        if name in files:
            faults.append(f"{path} and {files[name]} share a name; keep one of them")
        files.setdefault(name, path)
    return files


def pair_files(visible: dict[str, Path], thermal: dict[str, Path], faults: list[str]) -> list[PairOfFiles]:
    """Pair the files of the same name, sorted; files without a partner are added to `faults`."""
    lonely = [visible[name] for name in sorted(visible.keys() - thermal.keys())]
    lonely += [thermal[name] for name in sorted(thermal.keys() - visible.keys())]
    faults.extend(f"{path} has no partner of the same name; add it or remove this file" for path in lonely)
    return [PairOfFiles(name, visible[name], thermal[name]) for name in sorted(visible.keys() & thermal.keys())]


def find_pairs(visible: Path, thermal: Path, faults: list[str]) -> list[PairOfFiles]:
    """The pairs of two folders of images; what is missing or alone is added to `faults`."""
    pairs = pair_files(list_images(visible, faults), list_images(thermal, faults), faults)
    if not pairs and not faults:
        faults.append(f"{visible} holds no images; unpack the data set there")
    return pairs


def match_files(
    pairs: Sequence[PairOfFiles], kind: str, folder: Path, suffixes: Sequence[str], faults: list[str]
) -> list[PairOfFiles]:
    """Give each pair the file of its name in `folder`; those too many or missing are added to `faults`.

    Args:
        pairs: of one folder, complete.
        kind: field of `PairOfFiles` to fill, `labels` or `mask`.
        folder: where the files lie.
        suffixes: that they may have.
        faults: extended.
    """
    assert kind in {field.name for field in fields(PairOfFiles)}
    files = list_files(folder, suffixes, faults)
    names = {pair.name for pair in pairs}
    faults.extend(f"{files[name]} belongs to no image; remove it" for name in sorted(files.keys() - names))
    hint = "; an empty file means that nothing is there" if kind == "labels" else ""
    for name in sorted(names - files.keys()):
        faults.append(f"{folder / (name + suffixes[0])} is missing{hint}")
    return [PairOfFiles(**{**vars(pair), kind: files.get(pair.name)}) for pair in pairs]


def choose_part(pairs: Sequence[PairOfFiles], part: str, source: Path) -> list[PairOfFiles]:
    """Choose 8:1:1 of the pairs by a hash of their names, or all where `part` is empty; see `find_part`.

    Raises:
        DataError: the part is unknown, or there are too few pairs to fill it.
    """
    if not part:
        return list(pairs)
    if part not in PARTS:
        raise DataError([f"{source}: the part {part!r} is unknown; use one of {', '.join(PARTS)}"])
    chosen = set(choose_names([pair.name for pair in pairs], part))
    if pairs and not chosen:
        raise DataError([f"{source}: {len(pairs)} pairs are too few for a part {part!r}; use 10 or more, or all"])
    return [pair for pair in pairs if pair.name in chosen]


def list_images(folder: Path, faults: list[str], ending: str = "") -> dict[str, Path]:
    """The images of a folder; as `list_files`."""
    return list_files(folder, IMAGE_SUFFIXES, faults, ending)


def day_or_night(name: str) -> tuple[str, ...]:
    """Tags of a sample after MSRS's names, which end in a digit and `D` or `N`; empty for all others."""
    if len(name) > 1 and name[-2].isdigit():
        return {"D": ("day",), "N": ("night",)}.get(name[-1], ())
    return ()


def _attempt(problems: list[str], read: Callable[..., Any], *arguments: object) -> Any:
    """What `read` returns, or None and its reasons in `problems`."""
    try:
        return read(*arguments)
    except PairError as error:
        problems.extend(getattr(error, "problems", (str(error),)))
        return None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
