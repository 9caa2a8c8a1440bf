"""`vifa-train efficiency`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from vifa_runtime.files import write_atomically, write_json
from vifa_runtime.provenance import describe_run
from vifa_training.efficiency.plot import plot, require_matplotlib
from vifa_training.efficiency.report import markdown, show
from vifa_training.efficiency.rows import efficiency_rows, size_text
from vifa_training.efficiency.timing import TimingSettings
from vifa_training.networks import NETWORKS

DEFAULT_OUTPUT = Path("efficiency")
LARGEST_SIDE = 1 << 14
MOST_TASKS = 64


class EfficiencyError(ValueError):
    """An option that can't be understood; the message names it and the mend."""


def efficiency(
    networks: Annotated[str, typer.Option(help="Networks, with commas between, or all.")] = "all",
    tasks: Annotated[str, typer.Option(help="Numbers of tasks, with commas between.")] = "1,2,5",
    size: Annotated[str, typer.Option(help="Width x height for operations and memory.")] = "512x512",
    time: Annotated[bool, typer.Option("--time/--no-time", help="Measure times too; takes minutes.")] = True,
    time_size: Annotated[str, typer.Option(help="Width x height of the images that are timed.")] = "160x120",
    repeats: Annotated[int, typer.Option(help="Fewest rounds that are timed.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads that are timed.", min=1)] = 1,
    note: Annotated[str, typer.Option(help="A sentence about the machine's state, for the report.")] = "",
    draw: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw efficiency.png; needs matplotlib.")] = True,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help=f"Folder for efficiency.md, .json and .png. [default: {DEFAULT_OUTPUT}]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; files only where -o is given.")] = False,
) -> None:
    """What one backbone with a head a task saves: parameters, operations, memory, time; the paper's Tables 5 and 6.

    Sizes are rounded up to each network's multiple. Weights are fresh: costs do not depend on them.

    Example: vifa-train efficiency --networks tardal,nano --tasks 1,2,5 --time-size 320x240 -o efficiency
    """
    folder = output if as_json else output or DEFAULT_OUTPUT
    if folder and draw:
        require_matplotlib()
    timing = TimingSettings(parse_size(time_size, "--time-size"), repeats, threads) if time else None
    rows = efficiency_rows(
        parse_networks(networks), parse_tasks(tasks), parse_size(size, "--size"), timing, progress=_to_stderr
    )
    result = {"meta": describe("vifa-train efficiency", timing, note), "rows": rows}
    if folder:
        write_report(result, folder, draw)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Console(width=None if sys.stdout.isatty() else 120))
        print(f"{folder}: {', '.join(path.name for path in sorted(folder.glob('efficiency.*')))}")


def describe(command: str, timing: Optional[TimingSettings], note: str) -> dict[str, Any]:
    """The head of a result: who made it, and how times were measured if they were."""
    meta = describe_run(command, seed=0)
    if timing:
        meta |= {"time_size": size_text(timing.size), "repeats": timing.repeats, "threads": timing.threads}
    return {**meta, "note": note}


def write_report(result: dict[str, Any], folder: Path, draw: bool) -> None:
    """Write efficiency.json, efficiency.md and, if asked, efficiency.png; each whole or not at all."""
    write_json(folder / "efficiency.json", result)
    picture = "![Speed-up and head shares](efficiency.png)\n" if draw else ""
    write_atomically(folder / "efficiency.md", f"# Efficiency\n\n{markdown(result)}\n{picture}".encode())
    if draw:
        write_atomically(folder / "efficiency.png", plot(result["rows"]))


def parse_networks(text: str) -> Sequence[str]:
    """Names in the registry, in the given order.

    Raises:
        EfficiencyError: no such network.
    """
    names = list(NETWORKS) if text == "all" else list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in NETWORKS:
            raise EfficiencyError(f"--networks: no network is called {name!r}; choose of {', '.join(NETWORKS)} or all")
    return names


def parse_tasks(text: str) -> Sequence[int]:
    """Numbers of tasks in rising order.

    Raises:
        EfficiencyError: not whole numbers of 1 to 64.
    """
    parts = {part.strip() for part in text.split(",")}
    if not all(part.isdecimal() and 1 <= int(part) <= MOST_TASKS for part in parts):
        raise EfficiencyError(f"--tasks: {text!r} is no list of whole numbers from 1 to {MOST_TASKS}; write 1,2,5")
    return sorted({int(part) for part in parts})


def parse_size(text: str, option: str) -> tuple[int, int]:
    """(height, width) from width x height.

    Raises:
        EfficiencyError: not two whole numbers of 16 to 16384.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and 16 <= int(side) <= LARGEST_SIDE for side in sides):
        raise EfficiencyError(f"{option}: {text!r} is no width x height from 16 to {LARGEST_SIDE}; write 512x512")
    return int(sides[1]), int(sides[0])


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
