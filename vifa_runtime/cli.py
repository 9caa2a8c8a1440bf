"""The part of the `vifa` command that needs no ROS: fuse images, look at bundles."""

import json
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vifa_runtime.backends import BACKENDS, Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.pairs import PairError, match_pairs, read_thermal, read_visible, write_image
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.thermal import ThermalError

app = typer.Typer(
    help="Visible-infrared fusion: one shared backbone, one thin head a task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bundle_app = typer.Typer(help="Look at bundles and check them.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

BundleOption = Annotated[str, typer.Option("--bundle", "-b", help="Folder of a bundle, or the name of a shipped one.")]
BundleArgument = Annotated[str, typer.Argument(help="Folder of a bundle, or the name of a shipped one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def fuse(
    visible: Annotated[Path, typer.Argument(help="Visible image, or a folder of them.")],
    thermal: Annotated[Path, typer.Argument(help="Thermal image, or a folder with the same names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for <task>/<name>.png.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    task: Annotated[Optional[list[str]], typer.Option(help="Task to run; may be given again. All by default.")] = None,
    backend: Annotated[str, typer.Option(help=f"Engine: {', '.join(BACKENDS)}.")] = BACKENDS[0],
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for one a core.", min=0)] = 0,
) -> None:
    """Fuse image files or whole folders, each pair by itself.

    Example: vifa fuse street/vi street/ir -o fused
    """
    pairs = match_pairs(visible, thermal)
    loaded = load_bundle(find_bundle(bundle))
    pipeline = FusionPipeline(loaded, prepare(backend, loaded, Options(threads)))
    problems = []
    for pair in track(pairs, description="fusing", disable=len(pairs) == 1):
        try:
            results = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal), tasks=task)
        except (PairError, ThermalError) as error:
            problems.append(f"{pair.name}: {error}")
            continue
        for name, image in results.fused.items():
            _write(output / name / f"{pair.name}.png", image)
    pipeline.close()
    done = len(pairs) - len(problems)
    print(f"{done} of {len(pairs)} pairs fused into {output}/{{{','.join(task or loaded.task_names)}}}/")
    if problems:
        raise PairError("; ".join(problems))


@bundle_app.command()
def show(bundle: BundleArgument = DEFAULT_BUNDLE, as_json: JsonOption = False) -> None:
    """Print what a bundle is: tasks, working size, metrics, licences, provenance.

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


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    try:
        write_image(path, image)
    except OSError as error:
        raise PairError(f"cannot write {path}: {error.strerror}; choose another output folder") from None


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
    metrics = Table("data", "task", "metric", "value")
    for row in bundle.manifest.get("metrics", []):
        metrics.add_row(row["data"], row["task"], row["metric"], f"{row['value']:.3f}")
    if metrics.row_count:
        console.print(metrics)
