"""`vifa-train channels`."""

import json as json_text
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vifa_runtime.bundle import load_bundle
from vifa_runtime.files import write_atomically
from vifa_runtime.models import find_bundle
from vifa_runtime.provenance import describe_run
from vifa_training.bundle_network import network_of
from vifa_training.channels.analysis import Choice, analyse
from vifa_training.channels.clusters import CLUSTERINGS, DEFAULT_CLUSTERING
from vifa_training.channels.files import load_channels, save_channels
from vifa_training.channels.report import describe, heat_map, layer_rows, summary
from vifa_training.checkpoint import TrainingError
from vifa_training.commands.options import BundleName, Data, Threads, use_threads
from vifa_training.data import open_checked
from vifa_training.efficiency.plot import require_matplotlib


def channels(
    bundle: BundleName,
    data: Data,
    part: Annotated[list[str], typer.Option(help="A part in it, like msrs/train; may be given again.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="*.safetensors to write; a *.md goes beside it.")],
    images: Annotated[int, typer.Option(help="Pairs to draw; all where there are fewer.")] = 128,
    threshold: Annotated[float, typer.Option(help="FSIM from which on channels are alike.")] = 0.9,
    clusters: Annotated[str, typer.Option(help=f"How they are formed: {', '.join(CLUSTERINGS)}.")] = DEFAULT_CLUSTERING,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    heatmap: Annotated[Optional[Path], typer.Option(help="Draw the similarities to this PNG.")] = None,
    compare: Annotated[
        Optional[Path], typer.Option(help="An earlier file of the same network, shown as `before`.")
    ] = None,
    threads: Threads = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the key channels of a bundle's backbone: how alike its channels are and how much each tells (section 3.2).

    Example: vifa-train channels nano-fusion --data ../shared/data --part msrs/train -o runs/channels/msrs.safetensors
    """
    choice = Choice(images, seed, threshold, clusters)
    if output.suffix != ".safetensors":
        raise TrainingError(f"--output: {output} must end in .safetensors")
    if heatmap:
        require_matplotlib("leave --heatmap out")
    use_threads(threads)
    network = network_of(load_bundle(find_bundle(bundle)))
    before = load_channels(compare, network) if compare else None
    tracked = partial(track, transient=True, disable=as_json)
    pairs = open_checked(data, part, track=partial(tracked, description="reading pairs"))
    found = analyse(network, pairs, ", ".join(part), choice, track=partial(tracked, description="comparing channels"))
    try:
        save_channels(found, output)
        write_atomically(output.with_suffix(".md"), summary(found, before).encode())
        if heatmap:
            write_atomically(heatmap, heat_map(found, before))
    except OSError as error:
        raise TrainingError(f"cannot write {error.filename}: {error.strerror}; choose another file") from None
    rows = layer_rows(found, before)
    if as_json:
        print(json_text.dumps({"meta": describe_run("vifa-train channels", seed), "rows": rows}, indent=2))
        return
    table = Table(*rows[0], box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
    print(describe(found))
    print(f"{', '.join(str(path) for path in (output, output.with_suffix('.md'), heatmap) if path)} written")
