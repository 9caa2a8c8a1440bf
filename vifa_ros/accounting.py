"""Where every frame went: the player's list of what it sent against what came back and what the node counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vifa_ros.pairing import THERMAL, VISIBLE


def find_discrepancies(
    sent: Mapping[str, Sequence[int]], results: Mapping[str, Sequence[int]], status: Mapping[str, Any]
) -> dict[str, int]:
    """Compare three independent witnesses of one session; every value is 0 when all agree.

    Args:
        sent: stream -> stamps that the player published.
        results: output (`<task>/image`, `<task>/detections`, ...) -> stamps of the messages that the recorder received.
        status: the node's last FusionStatus, as a dictionary.

    Returns:
        Check -> frames, pairs or results that the witnesses disagree about:
        `visible frames`: a sent stamp without a result must have ended for a counted reason, or in transport.
        `unknown results`: a result whose stamp was never sent, or that came twice.
        `<stream> law`, `pair law`: the node's two laws of accounting.
        `pairing`: uses of both streams' frames, and of the other's alone, against the pairs formed.
        `results of <output>`: what the node says it published for the task and processed, against what arrived.
    """
    streams = {VISIBLE: status[VISIBLE], THERMAL: status[THERMAL]}
    dropped_pairs = _total(status["dropped"])
    known = set(sent[VISIBLE])
    seen = set().union(*results.values())
    visible = streams[VISIBLE]
    ended = _total(visible["dropped"]) + visible["waiting"] + dropped_pairs + status["in_flight"]
    found = {
        "visible frames": abs(len(known - seen) - transport_lost(sent, status, VISIBLE) - ended),
        "unknown results": sum(len(stamps) - len(known & set(stamps)) for stamps in results.values()),
        "pair law": abs(status["formed"] - status["processed"] - dropped_pairs - status["in_flight"]),
        "pairing": sum(
            abs(counts["paired"] + counts["reused"] + streams[other]["alone"] - status["formed"])
            for counts, other in ((streams[VISIBLE], THERMAL), (streams[THERMAL], VISIBLE))
        ),
    }
    for name, counts in streams.items():
        found[f"{name} law"] = abs(
            counts["received"] - counts["paired"] - _total(counts["dropped"]) - counts["waiting"]
        )
        found[f"{name} received more than sent"] = max(0, -transport_lost(sent, status, name))
    published = {task["name"]: task["published"] for task in status["tasks"]}
    for output, stamps in results.items():
        of_task = published[output.partition("/")[0]]
        found[f"results of {output}"] = abs(of_task - len(stamps)) + abs(status["processed"] - len(stamps))
    return found


def transport_lost(sent: Mapping[str, Sequence[int]], status: Mapping[str, Any], stream: str) -> int:
    """Frames that left the player but never reached the node."""
    return len(sent[stream]) - status[stream]["received"]


def sum_drops(status: Mapping[str, Any]) -> dict[str, int]:
    """Drops of frames and pairs by `<owner>.<reason>`."""
    owners = {
        VISIBLE: status[VISIBLE]["dropped"],
        THERMAL: status[THERMAL]["dropped"],
        "pair": status["dropped"],
    }
    return {f"{owner}.{entry['reason']}": entry["count"] for owner, entries in owners.items() for entry in entries}


def _total(entries: Sequence[Mapping[str, Any]]) -> int:
    return sum(entry["count"] for entry in entries)
