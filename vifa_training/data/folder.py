"""A plain folder of pairs: `vi/` and `ir/`, with `labels/` (YOLO text) or `masks/` (class-id images) or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vifa_runtime.label_folder import CLASS_FILE, MASK_CLASS_FILE, read_classes
from vifa_runtime.pairs import IMAGE_SUFFIXES, THERMAL_FOLDERS, VISIBLE_FOLDERS
from vifa_training.data.pair_files import PairFiles, choose_part, list_images, match_files, pair_files


class Folder(PairFiles):
    """Pairs of `folder`, or 8:1:1 of them; also what `vifa-train prepare` writes.

    Class names are a line each in `classes.txt`, in the folder or the one above, unless they are given. They name the
    boxes, or the masks where there are no boxes; where there are both, `mask_classes.txt` names those of the masks.
    Without names, classes are not checked.
    """

    def __init__(
        self, folder: Path, part: str = "", classes: Sequence[str] = (), mask_classes: Sequence[str] = ()
    ) -> None:
        """Find the files.

        Args:
            folder: holds `vi/` (or `visible/`) and `ir/` (or `thermal/`), and may hold `labels/` and `masks/`.
            part: `train`, `val` or `test`: 8:1:1 by a hash of the names; all pairs where it is empty.
            classes: names in order, of boxes, or of masks without boxes; of the folder's own file where it is empty.
            mask_classes: names of masks without boxes, which go before `classes`.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        faults: list[str] = []
        visible = list_images(_first(folder, VISIBLE_FOLDERS), faults)
        thermal = list_images(_first(folder, THERMAL_FOLDERS), faults)
        pairs = pair_files(visible, thermal, faults)
        if not pairs and not faults:
            faults.append(f"{folder / 'vi'} holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        labelled, masked = (folder / "labels").is_dir(), (folder / "masks").is_dir()
        if labelled:
            pairs = match_files(pairs, "labels", folder / "labels", (".txt",), faults)
        if masked:
            pairs = match_files(pairs, "mask", folder / "masks", IMAGE_SUFFIXES, faults)
        if labelled or masked:
            given = list(classes) if labelled else list(mask_classes or classes)
            self.classes = given or read_classes(folder, CLASS_FILE)
        if masked:
            self.mask_classes = read_classes(folder, MASK_CLASS_FILE) if labelled else self.classes
        super().__init__(choose_part(pairs, part, folder), faults)


def _first(folder: Path, names: Sequence[str]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])
