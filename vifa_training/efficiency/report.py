"""Rows of the efficiency command as tables, Markdown and a plot. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table

from vifa_runtime.card import markdown_table
from vifa_training.efficiency.published import doubts

Row = Mapping[str, Any]

ENGINE_NAMES = {"torch": "torch", "onnx": "ONNX Runtime"}
_LINE = 120
_PAIRS = "a / b is one backbone with a head a task / a whole network a task; published is what the paper prints."


@dataclass(frozen=True)
class Sheet:
    """One table: heading, what its columns mean, columns, cells as text."""

    title: str
    text: str
    columns: list[str]
    rows: list[list[str]]


def markdown(result: Mapping[str, Any], level: int = 2) -> str:
    """All tables and notes of a result, with headings from `level` down."""
    lines: list[str] = []
    for sheet in sheets(result):
        lines += [f"{'#' * level} {sheet.title}", "", *wrap(sheet.text, _LINE), ""]
        lines += [*markdown_table(sheet.columns, sheet.rows), ""]
    problems = doubts(result["rows"])
    if problems:
        lines += [f"{'#' * level} Where the published values can't hold", ""]
        lines += [line for text in problems for line in wrap(f"- {text}", _LINE, subsequent_indent="  ")]
        lines.append("")
    return "\n".join(lines)


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print all tables and notes."""
    for sheet in sheets(result):
        table = Table(*sheet.columns, title=sheet.title, title_justify="left")
        for cells in sheet.rows:
            table.add_row(*cells)
        console.print(table)
        console.print(f"{sheet.text}\n", markup=False, highlight=False)
    for text in doubts(result["rows"]):
        console.print(f"- {text}", markup=False, highlight=False)


def sheets(result: Mapping[str, Any]) -> list[Sheet]:
    """The tables of a result: operations, sizes, speed-up where it was measured, heads."""
    rows = result["rows"]
    timed = [row for row in rows if "time_size" in row]
    return [_operations(rows), _sizes(rows), *([_speed_up(timed, result["meta"])] if timed else []), _heads(rows)]


def _operations(rows: Sequence[Row]) -> Sheet:
    columns = ["network", "tasks", "GMAC, paper's count", "published", "GMAC in full", "other Gop", "limit"]
    cells = [
        [
            row["network"],
            str(row["tasks"]),
            _pair(row["gmac_paper"], row["gmac_paper_separate"]),
            _pair(row["published_gmac"], row["published_gmac_separate"]),
            _pair(row["gmac"], row["gmac_separate"]),
            f"{row['gop_other']:.2f}",
            f"{row['limit']:.3f}",
        ]
        for row in rows
    ]
    text = (
        f"At {rows[0]['size']}; {_PAIRS} The paper's count: convolutions and linear layers, 4 an element "
        "for batch and layer norm, 1 for PReLU, 3n - 1 for a softmax over n, nothing else, over 2^30. In full: every "
        "multiply-accumulate, those of attention among them, over 1e9; other: biases, norms, activations, additions. "
        "The limit is how many times faster one backbone is than separate networks where time goes as the operations "
        "of convolutions and linear layers: K whole / (whole + (K - 1) head)."
    )
    return Sheet("Operations", text, columns, cells)


def _sizes(rows: Sequence[Row]) -> Sheet:
    cells = [
        [
            row["network"],
            str(row["tasks"]),
            f"{row['params']:,} / {row['params_separate']:,}",
            _pair(row["mib"], row["mib_separate"]),
            _pair(row["published_mib"], row["published_mib_separate"]),
            f"{row['peak_mib']:.0f} / {row['peak_mib_separate']:.0f}",
        ]
        for row in rows
    ]
    text = (
        f"{_PAIRS} Peak: weights and results that exist at once at {rows[0]['size']} in eager torch, 32 bit, separate "
        "networks run one after the other; without what an operator takes for itself and an allocator keeps."
    )
    columns = ["network", "tasks", "parameters", "weights, MiB", "published", "peak memory, MiB"]
    return Sheet("Parameters and memory", text, columns, cells)


def _speed_up(rows: Sequence[Row], meta: Mapping[str, Any]) -> Sheet:
    columns = ["network", "tasks", "engine", "separate, ms", "shared, ms", "times faster", "by the clock"]
    cells = [
        [
            row["network"],
            str(row["tasks"]),
            name,
            f"{row[f'{engine}_separate_ms']:.1f}",
            f"{row[f'{engine}_shared_ms']:.1f}",
            f"{row[f'{engine}_ratio']:.2f} ({row[f'{engine}_ratio_low']:.2f}–{row[f'{engine}_ratio_high']:.2f})",
            f"{row[f'{engine}_ratio_clock']:.2f}",
            f"{row['limit']:.2f}",
            _number(row["published_speed_up"]),
        ]
        for row in rows
        for engine, name in ENGINE_NAMES.items()
        if f"{engine}_ratio" in row
    ]
    text = (
        f"K separate networks against one backbone with K heads at {rows[0]['time_size']}, in turn in one run of at "
        f"least {meta['repeats']} rounds, {meta['threads']} thread(s). For one task both are the same work. "
        "Milliseconds of processor time and their ratio: medians, in brackets the quartiles of the ratio; by the "
        "clock: the ratio of elapsed time, which other work on the machine disturbs. torch takes and gives luma, ONNX "
        "Runtime colour, by the exported graphs. The limit counts convolutions and linear layers only: the rest, which "
        "is most of it in the backbone, can lift a ratio over it, and the cost of starting small heads keeps one under "
        "it. "
        f"Published: on a Jetson Nano. {meta['note']} {_not_measured(rows)}"
    )
    return Sheet("Speed-up by sharing the backbone", text.strip(), [*columns, "limit", "published"], cells)


def _not_measured(rows: Sequence[Row]) -> str:
    missing = [
        f"{row['network']} in {name}"
        for row in {row["network"]: row for row in rows}.values()
        for engine, name in ENGINE_NAMES.items()
        if f"{engine}_ratio" not in row
    ]
    return f"Not measured, as the export failed: {', '.join(missing)}." if missing else ""


def _heads(rows: Sequence[Row]) -> Sheet:
    first = {row["network"]: row for row in reversed(rows)}
    cells = [
        [
            name,
            f"{row['head_params']:,}",
            f"{row['head_params_percent']:.2f}",
            _number(row["published_head_params_percent"]),
            f"{row['head_gmac_percent']:.2f}",
            _number(row["published_head_gmac_percent"]),
            *(_number(row.get(f"{engine}_head_percent")) for engine in ENGINE_NAMES),
            _number(row["published_head_time_percent"]),
        ]
        for name, row in reversed(first.items())
    ]
    columns = ["network", "head's parameters", "% of all", "published", "% of operations", "published"]
    columns += [*(f"% of time, {name}" for name in ENGINE_NAMES.values()), "published"]
    text = "One head in a whole network of one task; operations are those of convolutions and linear layers."
    return Sheet("What a head is of the whole network", text, columns, cells)


def _pair(shared: float | None, separate: float | None) -> str:
    return "" if shared is None else f"{shared:.2f} / {separate:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
