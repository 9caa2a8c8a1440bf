"""What the paper claims of sequences, held against rows of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FORGETS, REACHES, RECOVERS = 0.08, 0.98, 0.85
RIVALS = ("ewc", "lwf", "replay", "seq_head")


class Verdict(NamedTuple):
    """A claim, the number that it hangs on, what that should be at least, and whether it is.

    `low` and `high` are the number's paired bootstrap interval, where it is known.
    """

    claim: str
    measured: float
    wanted: float
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.measured >= self.wanted

    @property
    def is_open(self) -> bool:
        """Whether the interval spans what is wanted: another draw of pairs might have said the other thing."""
        return self.low is not None and self.high is not None and self.low < self.wanted < self.high


def judge(rows: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[Verdict]:
    """Every claim that the rows can speak of.

    Args:
        rows: of `sequence_rows`; the first metric of a task is the one that counts.
        order: names of the recipes as they were learned.
    """
    means: dict[str, dict[str, float]] = {}
    gains: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    for task in order:
        known = [row for row in primary_rows(rows, task) if row["mean"] is not None]
        means[task] = {row["method"]: row["mean"] for row in known}
        gains[task] = {row["method"]: (row.get("gain_low"), row.get("gain_high")) for row in known}
    verdicts = []
    first = means[order[0]]
    if _known(first, "seq", "ref"):
        verdicts.append(Verdict(f"{order[0]}: seq loses of ref", 1 - first["seq"] / first["ref"], FORGETS))
    for task, values in means.items():
        verdicts += _of_task(task, values, gains[task], task != order[-1])
    return verdicts


def primary_rows(rows: Sequence[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    """The rows of a task's primary metric, which is the one that comes first."""
    own = [row for row in rows if row["task"] == task]
    return [row for row in own if row["metric"] == own[0]["metric"]]


def _of_task(
    task: str, values: Mapping[str, float], gains: Mapping[str, tuple[float | None, float | None]], is_old: bool
) -> list[Verdict]:
    if not _known(values, "vifa", "ref"):
        return []
    found = [Verdict(f"{task}: vifa of ref", values["vifa"] / values["ref"], REACHES)]
    if is_old and _known(values, "seq") and values["ref"] > values["seq"]:
        for method in ("vifa", *RIVALS):
            if _known(values, method):
                share = (values[method] - values["seq"]) / (values["ref"] - values["seq"])
                wanted = RECOVERS if method == "vifa" else 0.0
                found.append(Verdict(f"{task}: {method} wins back of what seq lost", share, wanted))
    found += [
        Verdict(f"{task}: vifa less {rival}", values["vifa"] - values[rival], 0.0, *gains[rival])
        for rival in RIVALS
        if _known(values, rival)
    ]
    if is_old and _known(values, "key_channels", "reference", "seq"):  # Table 7
        found += [
            Verdict(f"{task}: {p} less seq", values[p] - values["seq"], 0.0) for p in ("key_channels", "reference")
        ]
        found += [
            Verdict(f"{task}: vifa less {p}", values["vifa"] - values[p], 0.0, *gains[p])
            for p in ("key_channels", "reference")
        ]
    return found


def _known(values: Mapping[str, float], *methods: str) -> bool:
    return all(method in values for method in methods) and values.get("ref", 1) > 0
