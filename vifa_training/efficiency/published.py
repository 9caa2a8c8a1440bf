"""The VIFA paper's Tables 5 and 6 as printed, and what in them can't hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One line of Tables 5 and 6: two tasks on a Jetson Nano, sizes in MiB of 32-bit numbers, counts at 512x512."""

    mib_separate: float
    gmac_separate: float
    ms_separate: float
    mib: float
    gmac: float
    ms: float
    head_params_percent: float
    head_gmac_percent: float
    head_time_percent: float

    @property
    def speed_up(self) -> float:
        """From the printed times; the printed speed-up of PIAFusion, 1.9, has a digit less."""
        return round(self.ms_separate / self.ms, 2)


PAPER = {
    "piafusion": Published(8.98, 573.78, 1677.38, 4.56, 291.73, 866.03, 1.56, 1.68, 3.26),
    "tardal": Published(2.26, 144.86, 526.02, 1.202, 77.34, 283.89, 6.3, 6.78, 7.94),
    "didfuse": Published(1.98, 182.56, 2594.54, 1.27, 110.58, 1403.66, 28.9, 21.1, 8.2),
    "swinfusion": Published(7.2, 474.84, 19255.92, 3.616, 238.52, 9711.77, 0.45, 0.46, 0.87),
}

_OF_NETWORK = {
    "didfuse": [
        "didfuse: the published 110.58 is 0.33 below what the count gives (110.91); its output layer costs 0.30, so it "
        "seems to be left out.",
        "didfuse: by the published times a head is 8.2 % of the network, by its operations 20 %; the speed-up has the "
        "same fault, seen from the other side.",
    ],
    "swinfusion": [
        "swinfusion: the published sizes stand for about 944,000 parameters; the public code has 973,681, of which "
        "8,430 are never used and left out here.",
    ],
}


def published_fields(network: str, tasks: int) -> dict[str, float | None]:
    """The published values that stand beside a row, None where the paper has none.

    One task is half of Ref, which is two whole networks.
    """
    paper = PAPER.get(network)
    fields: dict[str, float | None] = {
        "published_mib": None,
        "published_mib_separate": None,
        "published_gmac": None,
        "published_gmac_separate": None,
        "published_speed_up": None,
        "published_head_params_percent": paper and paper.head_params_percent,
        "published_head_gmac_percent": paper and paper.head_gmac_percent,
        "published_head_time_percent": paper and paper.head_time_percent,
    }
    if paper and tasks == 1:
        half = {"published_mib": round(paper.mib_separate / 2, 3), "published_gmac": round(paper.gmac_separate / 2, 2)}
        fields |= {**half, **{f"{name}_separate": value for name, value in half.items()}}
    if paper and tasks == 2:
        fields |= {"published_mib": paper.mib, "published_mib_separate": paper.mib_separate}
        fields |= {"published_gmac": paper.gmac, "published_gmac_separate": paper.gmac_separate}
        fields["published_speed_up"] = paper.speed_up
    return fields


def doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the published values beside these rows, a sentence or two each."""
    networks = [name for name in dict.fromkeys(row["network"] for row in rows) if name in PAPER]
    if not networks:
        return []
    found = [
        "The paper writes a whole network's operations over 2^30 and adds further heads over 1e9. Its counts for two "
        "tasks and its heads' shares of the operations are therefore a little too large: a share by 7 %."
    ]
    for row in rows:
        if row["published_speed_up"] and row["published_speed_up"] > row["limit"]:
            found.append(
                f"{row['network']}: the published speed-up {row['published_speed_up']:.2f} is above the "
                f"{row['limit']:.2f} that the operations of backbone and head allow. {_measured(row)}".rstrip()
            )
    return found + [text for name in networks for text in _OF_NETWORK.get(name, [])]


def _measured(row: Mapping[str, Any]) -> str:
    ratios = {"torch": row.get("torch_ratio"), "ONNX Runtime": row.get("onnx_ratio")}
    known = [f"{ratio:.2f} in {engine}" for engine, ratio in ratios.items() if ratio]
    return f"Measured here: {', '.join(known)}." if known else ""
