"""The part of the `vifa` command that needs no ROS: fuse images, measure, look at bundles and make others of them."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vifa_runtime.alignment_files import load_alignment
from vifa_runtime.backends import BACKENDS, PRECISIONS, Options, prepare
from vifa_runtime.bench_command import bench
from vifa_runtime.build_command import build
from vifa_runtime.bundle import Bundle, Task, load_bundle
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.cli_options import (
    BackendOption,
    BundleArgument,
    BundleOption,
    JsonOption,
    OptionalPath,
    OptionalTexts,
    PrecisionOption,
    ThreadsOption,
)
from vifa_runtime.files import write_json
from vifa_runtime.metrics import Detections
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.pairs import PairError, match_pairs, read_thermal, read_visible, write_image
from vifa_runtime.pipeline import FusionPipeline, Results
from vifa_runtime.provenance import describe_run
from vifa_runtime.quantize_command import quantize
from vifa_runtime.render import render_overlay
from vifa_runtime.thermal import ThermalError

app = typer.Typer(
    help="Visible-infrared fusion: one shared backbone, one thin head a task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bundle_app = typer.Typer(help="Look at bundles, check them, quantize them, build their engines.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")
app.command()(bench)
bundle_app.command()(build)
bundle_app.command()(quantize)


@app.command()
def fuse(
    visible: Annotated[Path, typer.Argument(help="Visible image, or a folder of them.")],
    thermal: Annotated[Path, typer.Argument(help="Thermal image, or a folder with the same names.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for <task>/<name>.png and what is found in it.")
    ],
    bundle: BundleOption = DEFAULT_BUNDLE,
    task: Annotated[OptionalTexts, typer.Option(help="Task to run; may be given again. All by default.")] = None,
    backend: BackendOption = BACKENDS[0],
    threads: ThreadsOption = 0,
    precision: PrecisionOption = PRECISIONS[0],
    engines: Annotated[
        OptionalPath, typer.Option(help="Folder of TensorRT engines; the user's cache if left out.")
    ] = None,
    alignment: Annotated[
        OptionalPath, typer.Option(help="Alignment file, as config/alignment_*.yaml; same field of view if left out.")
    ] = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help=f"Use {BACKENDS[0]} where the engine can't be had, and say so.")
    ] = False,
) -> None:
    """Fuse image files or whole folders, each pair by itself.

    Every task gives <task>/<name>.png.
    Detection adds <task>/detections/<name>.json: class, score and box of each.
    Segmentation adds <task>/mask/<name>.png: class ids, 255 for unknown,
    and <task>/confidence/<name>.png where the bundle tells it.
    Both add <task>/overlay/<name>.png to look at.

    Example: vifa fuse street/vi street/ir -o fused
    """
    pairs = match_pairs(visible, thermal)
    loaded = load_bundle(find_bundle(bundle))
    options = Options(threads, precision=precision, engines=engines, fallback=BACKENDS[0] if allow_fallback else "")
    aligned = None if alignment is None else load_alignment(alignment)
    pipeline = FusionPipeline(loaded, prepare(backend, loaded, options), alignment=aligned)
    if reason := pipeline.backend.describe().get("fallback"):
        print(f"vifa: fusing with {BACKENDS[0]} instead; {reason}", file=sys.stderr)
    meta = describe_run("vifa fuse")
    problems = []
    for pair in track(pairs, description="fusing", disable=len(pairs) == 1):
        try:
            # `or None`: where the option is left out, older Typer gives an empty list.
            results = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal), tasks=task or None)
        except (PairError, ThermalError, AlignmentError) as error:
            problems.append(f"{pair.name}: {error}")
            continue
        for path, content in _result_files(pair.name, loaded, results, meta):
            _write(output / path, content)
    pipeline.close()
    done = len(pairs) - len(problems)
    print(f"{done} of {len(pairs)} pairs fused into {output}/{{{','.join(task or loaded.task_names)}}}/")
    if problems:
        raise PairError("; ".join(problems))


@bundle_app.command()
def show(bundle: BundleArgument = DEFAULT_BUNDLE, as_json: JsonOption = False) -> None:
    """Print what a bundle is: tasks, classes and thresholds, working size, metrics, licences, provenance.

    Example: vifa bundle show nano-fusion
    """
    loaded = load_bundle(find_bundle(bundle))
    if as_json:
        print(json.dumps(loaded.manifest, indent=2))
        return
    _print_bundle(loaded)


@bundle_app.command()
def verify(bundle: BundleArgument = DEFAULT_BUNDLE) -> None:
    """Check a bundle's manifest, sums and graphs without running anything.

    Example: vifa bundle verify models/nano-fusion
    """
    folder = find_bundle(bundle)
    loaded = load_bundle(folder)
    print(
        f"{folder}: good; {len(loaded.manifest['files'])} files, {len(loaded.graphs)} graphs, "
        f"tasks {', '.join(loaded.task_names)}"
    )


def _result_files(
    name: str, bundle: Bundle, results: Results, meta: Mapping[str, Any]
) -> Iterator[tuple[str, NDArray[np.uint8] | dict[str, Any]]]:
    """Path and content, image or JSON, of every file that one pair gives; see `fuse`."""
    for task in bundle.tasks:
        if task.name in results.fused:
            yield f"{task.name}/{name}.png", results.fused[task.name]
        if task.name in results.detections:
            rows = _detection_rows(name, task, results.detections[task.name])
            yield f"{task.name}/detections/{name}.json", {"meta": meta, "rows": rows}
        if task.name in results.masks:
            yield f"{task.name}/mask/{name}.png", results.masks[task.name]
        if task.name in results.confidences:
            yield f"{task.name}/confidence/{name}.png", results.confidences[task.name]
        if task.name in results.detections or task.name in results.masks:
            yield f"{task.name}/overlay/{name}.png", render_overlay(results, task)


def _write(path: Path, content: NDArray[np.uint8] | dict[str, Any]) -> None:
    try:
        if isinstance(content, dict):
            write_json(path, content)
        else:
            write_image(path, content)
    except OSError as error:
        raise PairError(f"cannot write {path}: {error.strerror}; choose another output folder") from None


def _detection_rows(image: str, task: Task, detections: Detections) -> list[dict[str, Any]]:
    """A flat row a box, the best first; corners in pixels, x right, y down."""
    boxes, scores, labels = (np.asarray(array).tolist() for array in detections)
    return [
        {
            "image": image,
            "task": task.name,
            "class": task.classes[label].name,
            "score": round(score, 4),
            **{key: round(side, 2) for key, side in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
        }
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]


def _print_bundle(bundle: Bundle) -> None:
    console = Console(markup=False)  # a bundle's own words are not ours to interpret
    size = "the visible image's own" if bundle.working_size is None else "{1}x{0}".format(*bundle.working_size)
    table = Table(title=bundle.name, show_header=False)
    table.add_row("network", bundle.network)
    table.add_row("working size", f"{size}, multiples of {bundle.size_multiple}")
    table.add_row("thermal", bundle.thermal.mode)
    for section in ("licences", "provenance"):
        for key, value in bundle.manifest[section].items():
            table.add_row(f"{section}: {key}", str(value))
    console.print(table)
    tasks = Table("task", "kind", "what for")
    for task in bundle.tasks:
        tasks.add_row(task.name, task.kind, task.description)
    console.print(tasks)
    classes = Table("task", "classes", "score above", "IoU up to", "at most")
    for task in bundle.tasks:
        names = ", ".join(found.name for found in task.classes)
        if task.kind == "detection":
            classes.add_row(task.name, names, f"{task.score:g}", f"{task.iou:g}", str(task.max_detections))
        elif task.classes:
            classes.add_row(task.name, names)
    if classes.row_count:
        console.print(classes)
    metrics = Table("data", "task", "metric", "value")
    for row in bundle.manifest.get("metrics", []):
        metrics.add_row(row["data"], row["task"], row["metric"], f"{row['value']:.3f}")
    if metrics.row_count:
        console.print(metrics)
