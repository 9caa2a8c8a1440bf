"""MSRS: 1,444 pairs of streets by day and night with masks of nine classes, and 80 with boxes (Tang et al., 2022)."""

from __future__ import annotations

from pathlib import Path

from vifa_runtime.pairs import IMAGE_SUFFIXES, PARTS, choose_names
from vifa_training.data.base import DataError
from vifa_training.data.pair_files import PairFiles, PairOfFiles, choose_part, find_pairs, match_files


class Msrs(PairFiles):
    """The segmentation layout: `train/` and `test/`, each with `vi/`, `ir/` and `Segmentation_labels/`.

    The data set has no validation part: `val` is a tenth of `train/`, by a hash of the names, and `train` the rest.
    """

    classes = ("background", "car", "person", "bike", "curve", "car stop", "guardrail", "color cone", "bump")
    mask_classes = classes

    def __init__(self, folder: Path, part: str = "") -> None:
        """Find the files.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        if part and part not in PARTS:
            raise DataError([f"{folder}: the part {part!r} is unknown; use one of {', '.join(PARTS)}"])
        faults: list[str] = []
        pairs: list[PairOfFiles] = []
        for name in ("train", "test") if not part else ("test",) if part == "test" else ("train",):
            found = find_pairs(folder / name / "vi", folder / name / "ir", faults)
            pairs += match_files(found, "mask", folder / name / "Segmentation_labels", IMAGE_SUFFIXES, faults)
        if part in ("train", "val"):
            held_out = set(choose_names([pair.name for pair in pairs], "val"))
            pairs = [pair for pair in pairs if (pair.name in held_out) == (part == "val")]
        super().__init__(pairs, faults)


class MsrsDetection(PairFiles):
    """The detection layout: `detection/` with `vi/`, `ir/` and `labels/` (YOLO text); parts are 8:1:1 by hash."""

    classes = ("person", "bicycle", "car")

    def __init__(self, folder: Path, part: str = "") -> None:
        """Find the files; `folder` is the data set's, or `detection/` itself.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        faults: list[str] = []
        inside = folder / "detection" if (folder / "detection").is_dir() else folder
        pairs = match_files(
            find_pairs(inside / "vi", inside / "ir", faults), "labels", inside / "labels", (".txt",), faults
        )
        super().__init__(choose_part(pairs, part, folder), faults)
