"""M3FD: 4,200 pairs of streets and campus with boxes of six classes (Liu et al., CVPR 2022)."""

from __future__ import annotations

from pathlib import Path

from vifa_runtime.labels import Labels, read_text, read_voc
from vifa_runtime.pairs import PARTS
from vifa_training.data.base import DataError
from vifa_training.data.pair_files import PairFiles, PairOfFiles, choose_part, find_pairs, match_files


class M3fd(PairFiles):
    """The detection set, in one of its two published layouts.

    As downloaded: `Vis/`, `Ir/` and `Annotation/` (Pascal VOC). As its authors' code takes it: `vi/`, `ir/` and
    `labels/` (YOLO text). Either may hold the authors' lists `meta/train.txt` and so on, one image a line; without any
    list the parts are 8:1:1 by a hash of the names.
    """

    classes = ("People", "Car", "Bus", "Lamp", "Motorcycle", "Truck")  # in the order of the authors' code

    def __init__(self, folder: Path, part: str = "") -> None:
        """Find the files.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        faults: list[str] = []
        downloaded = (folder / "Vis").is_dir() or not (folder / "vi").is_dir()
        names, suffix = (("Vis", "Ir", "Annotation"), ".xml") if downloaded else (("vi", "ir", "labels"), ".txt")
        visible, thermal, labels = (folder / name for name in names)
        pairs = match_files(find_pairs(visible, thermal, faults), "labels", labels, (suffix,), faults)
        super().__init__(_choose_part(pairs, part, folder, faults), faults)

    def read_labels(self, pair: PairOfFiles, size: tuple[int, int]) -> Labels:
        """Read the boxes of a pair in either layout."""
        if pair.labels is not None and pair.labels.suffix == ".xml":
            return read_voc(pair.labels, size, self.classes)
        return super().read_labels(pair, size)


def _choose_part(pairs: list[PairOfFiles], part: str, folder: Path, faults: list[str]) -> list[PairOfFiles]:
    lists = {path.stem: path for path in sorted((folder / "meta").glob("*.txt")) if path.stem in PARTS}
    if not part or not lists:
        return choose_part(pairs, part, folder)
    if part not in lists:
        raise DataError([f"{folder / 'meta'} lists no part {part!r}; use one of {', '.join(lists)}"])
    chosen = {Path(line.strip()).stem for line in read_text(lists[part]).splitlines() if line.strip()}
    unknown = sorted(chosen - {pair.name for pair in pairs})
    faults.extend(f"{lists[part]} lists {name}, which is no pair; add it or remove the line" for name in unknown)
    return [pair for pair in pairs if pair.name in chosen]
