"""All that is known about networks and numbers of tasks, one flat row for each of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vifa_training.efficiency.costs import MIB, Cost, cost_of, peak_mib
from vifa_training.efficiency.published import published_fields
from vifa_training.efficiency.timing import ENGINES, EngineError, TimingSettings, measure_network

Row = dict[str, Any]


def efficiency_rows(
    networks: Sequence[str],
    tasks: Sequence[int],
    size: tuple[int, int],
    timing: TimingSettings | None,
    progress: Callable[[str], None],
) -> list[Row]:
    """Rows by network, then by number of tasks.

    Args:
        networks: names in the registry.
        tasks: numbers of tasks, each at least 1.
        size: (height, width) for operations and memory.
        timing: how to measure times too; None leaves their fields out.
        progress: is told what is being done, a line at a time.
    """
    rows = []
    for network in networks:
        progress(f"{network}: counting")
        cost = cost_of(network, size)
        times = {} if timing is None else _times(network, tasks, timing, progress)
        for count in tasks:
            rows.append(
                {
                    "network": network,
                    "tasks": count,
                    **_counted(network, cost, count, size),
                    **times.get(count, {}),
                    **published_fields(network, count),
                }
            )
    return rows


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as people write it: width x height."""
    return f"{size[1]}x{size[0]}"


def _counted(network: str, cost: Cost, tasks: int, size: tuple[int, int]) -> Row:
    peak_separate, peak = peak_mib(network, tasks, size)
    return {
        "params": cost.params_of(tasks),
        "head_params": cost.head_params,
        "gmac_paper": round(cost.gmac_paper(tasks), 4),
        "gmac": round(cost.gmac(tasks), 4),
        "size": size_text(size),
        "params_separate": tasks * cost.params,
        "gmac_paper_separate": round(tasks * cost.gmac_paper(1), 4),
        "gmac_separate": round(tasks * cost.gmac(1), 4),
        "gop_other": round(cost.gop_other(tasks), 4),
        "mib": round(4 * cost.params_of(tasks) / MIB, 4),
        "mib_separate": round(4 * tasks * cost.params / MIB, 4),
        "head_params_percent": round(100 * cost.head_params / cost.params, 3),
        "head_gmac_percent": round(100 * cost.head.layers / cost.whole.layers, 3),
        "limit": round(cost.limit(tasks), 4),
        "peak_mib": round(peak, 2),
        "peak_mib_separate": round(peak_separate, 2),
    }


def _times(
    network: str, tasks: Sequence[int], timing: TimingSettings, progress: Callable[[str], None]
) -> dict[int, Row]:
    """Number of tasks -> fields of every engine; None where the network can't be had in one."""
    found: dict[int, Row] = {count: {"time_size": size_text(timing.size)} for count in tasks}
    for engine in ENGINES:
        progress(f"{network}: measuring in {engine}, {timing.repeats + 1} rounds")
        try:
            times = measure_network(network, engine, tasks, timing)
        except EngineError as error:  # a long run does not end because one export is refused
            progress(f"{network}: left out of {engine}: {error}")
            continue
        for count in tasks:
            found[count] |= {f"{engine}_{name}": value for name, value in times.summary(count).items()}
    return found
