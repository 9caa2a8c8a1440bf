"""VEDAI: about 1,250 aerial pairs, colour and near infrared, with oriented boxes (Razakarivony and Jurie, 2016)."""

from __future__ import annotations

from pathlib import Path

from vifa_runtime.labels import VEDAI_CLASSES, LabelError, Labels, parse_vedai, parse_vedai_table, read_text
from vifa_runtime.pairs import PARTS, choose_names
from vifa_training.data.base import DataError
from vifa_training.data.pair_files import PairFiles, PairOfFiles, choose_part, list_files, list_images, pair_files


class Vedai(PairFiles):
    """One resolution: `Vehicules<R>/` with `<name>_co.png` and `<name>_ir.png`, and `Annotations<R>/`.

    The latter holds a file an image, or `annotation<R>.txt` for all. Where it holds the data set's own folds, `test` is
    the first of them, and of the rest a tenth by a hash of the names is `val`; else the parts are 8:1:1. Boxes are the
    upright ones around the oriented ones.

    Attributes:
        left_out: names of the images that cannot be trained on: those with no annotation, and the few whose annotation
            has no corners.
    """

    classes = VEDAI_CLASSES

    def __init__(self, folder: Path, part: str = "", resolution: int = 512) -> None:
        """Find the files and read the annotations.

        Args:
            folder: holds the two folders of the resolution.
            part: `train`, `val`, `test`, or empty for all.
            resolution: 512 or 1024, pixels a side.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        faults: list[str] = []
        self.resolution = resolution
        images = folder / f"Vehicules{resolution}"
        pairs = pair_files(list_images(images, faults, "_co"), list_images(images, faults, "_ir"), faults)
        if not pairs and not faults:
            faults.append(f"{images} holds no images; unpack the data set there")
        annotations = folder / f"Annotations{resolution}"
        self._labels, sources = _read_annotations(annotations, resolution, faults)
        names = {pair.name for pair in pairs}
        for name in sorted(self._labels.keys() - names):
            faults.append(f"{sources[name]} annotates {name}, which is no pair; add its images or remove it")
        self.left_out = sorted(name for name in names if self._labels.get(name) is None)
        labelled = [
            PairOfFiles(pair.name, pair.visible, pair.thermal, sources[pair.name])
            for pair in pairs
            if self._labels.get(pair.name) is not None
        ]
        super().__init__(_choose_part(labelled, part, annotations), faults)

    def read_labels(self, pair: PairOfFiles, size: tuple[int, int]) -> Labels:
        """Boxes of a pair; they fit images of this resolution only."""
        if size != (self.resolution, self.resolution):
            expected = f"{self.resolution}x{self.resolution}"
            raise LabelError([f"{pair.visible} is {size[1]}x{size[0]}, but annotated at {expected}; replace it"])
        labels = self._labels[pair.name]
        assert labels is not None
        return labels


def _read_annotations(
    folder: Path, resolution: int, faults: list[str]
) -> tuple[dict[str, Labels | None], dict[str, Path]]:
    """Boxes by name of the image (None without corners), and the file that each is from."""
    size = resolution, resolution
    table = folder / f"annotation{resolution}.txt"
    files = {name: path for name, path in list_files(folder, (".txt",), faults).items() if name.isdigit()}
    found: dict[str, Labels | None] = {}
    if not files and not table.is_file():
        faults.append(f"{folder} holds no annotations; unpack the data set there")
    elif not files:
        try:
            found = parse_vedai_table(read_text(table), size, str(table))
        except LabelError as error:
            faults.extend(error.problems)
        return found, dict.fromkeys(found, table)
    for name, path in files.items():
        try:
            found[name] = parse_vedai(read_text(path), size, str(path))
        except LabelError as error:
            faults.extend(error.problems)
    return found, files


def _choose_part(pairs: list[PairOfFiles], part: str, annotations: Path) -> list[PairOfFiles]:
    fold = annotations / "fold01test.txt"
    if not part or not fold.is_file():
        return choose_part(pairs, part, annotations.parent)
    if part not in PARTS:
        raise DataError([f"{annotations.parent}: the part {part!r} is unknown; use one of {', '.join(PARTS)}"])
    # Names that are no pair are images without annotation, or pairs that are reported as incomplete.
    tested = {line.strip().zfill(8) for line in read_text(fold).splitlines() if line.strip()}
    rest = [pair.name for pair in pairs if pair.name not in tested]
    held_out = set(choose_names(rest, "val"))
    parts = {"test": tested, "val": held_out, "train": set(rest) - held_out}
    return [pair for pair in pairs if pair.name in parts[part]]
