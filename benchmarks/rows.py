"""What the speed benchmarks do with their rows: print a table, write the JSON."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vifa_runtime.files import write_json
from vifa_runtime.provenance import describe_run


def publish(rows: Sequence[dict[str, Any]], output: Path) -> None:
    """Print `rows`, which share their keys, and write them to `output` with machine, versions, commit and date."""
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=200).print(table)
    write_json(output, {"meta": describe_run(command_line(), seed=0), "rows": list(rows)})
    print(f"{output} written")


def command_line() -> str:
    """The benchmark's command with the options that it was given; of absolute paths the last name alone."""
    program, *options = sys.argv
    shown = [Path(option).name if Path(option).is_absolute() else option for option in options]
    return shlex.join([f"benchmarks/{Path(program).name}", *shown])
