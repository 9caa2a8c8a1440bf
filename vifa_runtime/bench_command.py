"""`vifa bench`."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vifa_runtime.backends import BACKENDS, PRECISIONS, BackendError, Options
from vifa_runtime.bench import bench as measure
from vifa_runtime.bundle import load_bundle
from vifa_runtime.cli_options import (
    BackendOption,
    BundleOption,
    JsonOption,
    PrecisionOption,
    ThreadsOption,
    parse_size,
)
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.provenance import describe_run

SMALLEST = 64  # side of the images, pixels


def bench(
    bundle: BundleOption = DEFAULT_BUNDLE,
    size: Annotated[str, typer.Option(help="Of the camera images, WIDTHxHEIGHT.")] = "640x480",
    threads: ThreadsOption = 0,
    backend: BackendOption = BACKENDS[0],
    precision: PrecisionOption = PRECISIONS[0],
    seconds: Annotated[float, typer.Option(help="Of each of the two measurements.", min=0)] = 10.0,
    tasks: Annotated[
        str, typer.Option(help="How many tasks to compare, with commas between; empty for none.")
    ] = "1,2,5",
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle on this machine: every stage, the floor, and what one backbone for several tasks saves.

    Example: vifa bench --bundle nano-fusion --size 640x480 --threads 2
    """
    counts = _parse_counts(tasks)
    loaded = load_bundle(find_bundle(bundle))
    options = Options(threads=threads, precision=precision)
    with Console(stderr=True).status("") as shown:
        row = measure(loaded, backend, parse_size(size, SMALLEST), options, seconds, counts, shown.update)
    if as_json:
        print(json.dumps({"meta": describe_run("vifa bench", seed=0), "rows": [row]}, indent=2))
    else:
        _show(row)


def _parse_counts(text: str) -> list[int]:
    """The numbers of the text of --tasks; none where it is empty."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(not word.isdecimal() or int(word) == 0 for word in words):
        raise BackendError(f"--tasks must be whole numbers of 1 or more with commas between, got {text!r}")
    return [int(word) for word in words]


def _show(row: Mapping[str, Any]) -> None:
    console = Console()
    console.print(
        f"{row['bundle']} at {row['size']} on {row['device']}, {row['threads'] or 'all'} threads", markup=False
    )
    stages = Table("stage", "p50 ms", "p95 ms", "p99 ms")
    for name, times in row["stages"].items():
        stages.add_row(name, *(f"{times[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")))
    console.print(stages)
    print(f"{row['pairs_per_s']} pairs a second, {row['fusion_pairs_per_s']} where only fused images are wanted")
    print(f"{row['overhead_ms']:.2f} ms of a pair outside the engine, {row['engine_ms']:.2f} ms inside")
    if row["floor_ms"] is not None:
        print(
            f"floor {row['floor_ms']:.2f} ms ({row['gflop']} GFLOP at {row['gflops_peak']} GFLOP/s measured, "
            f"{row['gbytes_peak']} GB/s): the engine takes {row['engine_ms'] / row['floor_ms']:.1f} times that"
        )
    print(f"peak_memory_mib {row['memory_mib']:.0f}: MiB that the whole process held at most, libraries and frames too")
    if row["tasks"]:
        table = Table("tasks", "shared ms", "separate ms", "times faster", "limit by operations", title="fusion alone")
        for task in row["tasks"]:
            table.add_row(*(str(task[key]) for key in ("n", "shared_ms", "separate_ms", "speedup", "limit")))
        console.print(table)
