"""RoadScene: 221 aligned pairs of streets from FLIR video, without labels (Xu et al., 2020)."""

from __future__ import annotations

from pathlib import Path

from vifa_training.data.pair_files import PairFiles, choose_part, find_pairs


class RoadScene(PairFiles):
    """The published layout: `crop_LR_visible/` and `cropinfrared/`; parts are 8:1:1 by a hash of the names.

    Its other folders hold pairs that are not aligned; nothing here reads them.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        """Find the files.

        Raises:
            DataError: names everything that is missing, too many or wrong.
        """
        faults: list[str] = []
        pairs = find_pairs(folder / "crop_LR_visible", folder / "cropinfrared", faults)
        super().__init__(choose_part(pairs, part, folder), faults)
