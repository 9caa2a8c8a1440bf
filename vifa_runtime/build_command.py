"""`vifa bundle build`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from vifa_runtime.backends import PRECISIONS, BackendError
from vifa_runtime.backends.engine_cache import default_folder, size_text
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.cli_options import BundleArgument, JsonOption, OptionalPath, OptionalText, parse_size
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.provenance import describe_run

if TYPE_CHECKING:
    from vifa_runtime.backends.tensorrt_build import Built, Order, Report

SMALLEST = 16  # side of the images, pixels


def build(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    precision: Annotated[str, typer.Option(help=f"Of the engines: {', '.join(PRECISIONS)}.")] = PRECISIONS[0],
    size: Annotated[
        OptionalText,
        typer.Option(help="Of the camera images, WIDTHxHEIGHT. Not needed where the bundle has a working size."),
    ] = None,
    engines: Annotated[
        OptionalPath,
        typer.Option(help="Folder for the engines; the user's cache if left out. It must be trusted."),
    ] = None,
    device: Annotated[int, typer.Option(help="Number of the GPU.", min=0)] = 0,
    calibration: Annotated[
        OptionalPath,
        typer.Option(help="For int8: folder with vi/ and ir/ of pairs like those that the robot sees."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build TensorRT engines of a bundle's graphs for this machine's GPU; those that fit already stay.

    It takes minutes, and less where engines of another task or size were built before: the times of kernels are kept.
    Engines are programs: the folder must be one that nobody else may write to.

    Example: vifa bundle build nano-fusion --precision fp16 --size 640x480
    """
    from vifa_runtime.backends.tensorrt import build as build_engines
    from vifa_runtime.backends.tensorrt_build import Order

    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    loaded = load_bundle(find_bundle(bundle))
    order = Order(loaded, precision, _grid_size(loaded, size), engines or default_folder(), calibration)
    with _shown_progress() as report:
        built = build_engines(order, device, report)
    if as_json:
        rows = [_row(loaded, order, engine) for engine in built]
        print(json.dumps({"meta": describe_run("vifa bundle build"), "rows": rows}, indent=2))
    else:
        _print_table(order, built)


def _grid_size(bundle: Bundle, text: str | None) -> tuple[int, int]:
    """(height, width) of the padded images that the bundle works on, for cameras of a size."""
    if bundle.working_size is not None:
        return bundle.grid(bundle.working_size).padded
    if text is None:
        raise BackendError(f"bundle {bundle.name} works at the camera's size; say which by --size, like --size 640x480")
    return bundle.grid(parse_size(text, SMALLEST)).padded


@contextmanager
def _shown_progress() -> Iterator["Report"]:
    """A bar for each graph that is built."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[phase]}"))
    progress = Progress(*columns, console=Console(stderr=True))
    bars: dict[str, TaskID] = {}

    def report(path: str, phase: str, done: int, steps: int) -> None:
        if path not in bars:
            progress.start()
            bars[path] = progress.add_task(path, total=None, phase=phase)
        progress.update(bars[path], completed=done, total=steps or None, phase=phase)

    try:
        yield report
    finally:
        if bars:
            progress.stop()


def _row(bundle: Bundle, order: "Order", engine: "Built") -> dict[str, str | float | int | bool]:
    return {
        "bundle": bundle.name,
        "graph": engine.graph,
        "precision": order.precision,
        "size": size_text(order.size),
        "engine": engine.file.name,
        "kept": engine.kept,
        "seconds": round(engine.seconds, 3),
        "bytes": engine.bytes,
    }


def _print_table(order: "Order", built: Sequence["Built"]) -> None:
    table = Table("graph", "engine", "MB", "seconds")
    for engine in built:
        seconds = "kept" if engine.kept else f"{engine.seconds:.1f}"
        table.add_row(engine.graph, engine.file.name, f"{engine.bytes / 1e6:.1f}", seconds)
    Console(markup=False).print(table)
    print(f"{len(built)} engines of {order.precision} for {size_text(order.size)} in {order.folder}")
