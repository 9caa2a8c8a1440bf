"""What the paper prints of its own sequences, on M3FD, MSRS and VEDAI: shown beside ours, never compared with them.

Its Table 3 slips by one row label from the fourth row on: the row called "Tardal Base." is PIAFusion with VIFA, and so
on to the end, where the rows of SwinFusion's Ref. or VIFA are missing. Here the labels are put right by the text and by
Tables 1, 4 and 7, which repeat some of the numbers.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One line of Table 3: mAP@0.5 on M3FD and mIoU on MSRS; None where it is not printed."""

    network: str
    method: str
    map50: float | None
    miou: float | None


TABLE_3 = [
    Published("visible alone", "", 0.777, 0.610),
    Published("thermal alone", "", 0.762, 0.582),
    Published("PIAFusion", "base", 0.771, 0.621),
    Published("PIAFusion", "ref", 0.794, 0.656),
    Published("PIAFusion", "seq", 0.723, 0.658),
    Published("PIAFusion", "vifa", 0.791, 0.656),
    Published("TarDAL", "base", 0.785, 0.624),
    Published("TarDAL", "ref", 0.826, 0.653),
    Published("TarDAL", "seq", 0.711, 0.652),
    Published("TarDAL", "vifa", 0.822, 0.650),
    Published("DIDFuse", "base", 0.781, 0.589),
    Published("DIDFuse", "ref", None, None),
    Published("DIDFuse", "seq", 0.748, 0.642),
    Published("DIDFuse", "vifa", 0.796, 0.637),
    Published("SwinFusion", "base", 0.785, 0.631),
    Published("SwinFusion", "ref", None, None),
    Published("SwinFusion", "seq", 0.737, 0.644),
    Published("SwinFusion", "vifa", None, None),
    Published("RecoNet", "", 0.788, 0.600),
    Published("CDDFuse", "", 0.792, 0.638),
    Published("BDLFusion", "", 0.803, None),
    Published("SegMif", "", None, 0.644),
]

# Table 4: a third data set. Network -> method -> mAP@0.5 on M3FD, mIoU on MSRS, mAP@0.5 on VEDAI.
TABLE_4 = {
    "PIAFusion": {
        "base": (0.771, 0.621, 0.533),
        "ref": (0.794, 0.656, 0.551),
        "seq": (0.559, 0.383, 0.550),
        "vifa": (0.788, 0.653, 0.548),
    },
    "TarDAL": {
        "base": (0.785, 0.624, 0.565),
        "ref": (0.826, 0.653, 0.578),
        "seq": (0.535, 0.428, 0.578),
        "vifa": (0.819, 0.648, 0.577),
    },
}

# Table 7: its parts. Network -> method of ours -> mAP@0.5 on M3FD, mIoU on MSRS.
TABLE_7 = {
    "TarDAL": {
        "seq": (0.711, 0.652),
        "key_channels": (0.783, 0.624),
        "reference": (0.813, 0.653),
        "vifa": (0.822, 0.650),
    },
    "PIAFusion": {
        "seq": (0.723, 0.658),
        "key_channels": (0.769, 0.623),
        "reference": (0.773, 0.656),
        "vifa": (0.791, 0.656),
    },
}
