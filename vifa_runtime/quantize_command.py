"""`vifa bundle quantize`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vifa_runtime.bundle import Bundle, check_new_bundle, load_bundle, write_bundle
from vifa_runtime.card import bundle_card, markdown_table
from vifa_runtime.cli_options import BundleArgument, JsonOption
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.models import find_bundle
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible, spread_evenly
from vifa_runtime.provenance import commit, describe_run, today
from vifa_runtime.quantize import GUARDED, LIMIT, STEADY, LabelledPair, Quantized
from vifa_runtime.quantize import quantize as make_8_bits


def quantize(
    bundle: BundleArgument,
    pairs: Annotated[
        list[Path],
        typer.Option(help="Folder of pairs to calibrate on: vi/ and ir/, the robot's own; may be given several times."),
    ],
    evaluation: Annotated[
        list[Path],
        typer.Option(
            help="Folder of other pairs; labels/ or masks/ in it let the network of a task be quantized. "
            "May be given several times, as for tasks whose labels lie apart."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    limit: Annotated[
        float, typer.Option(help="By how much VIF, SSIM, mAP and mIoU may fall, relative.", min=0)
    ] = LIMIT,
    images: Annotated[int, typer.Option(help="Pairs of each folder to calibrate on, evenly drawn.", min=1)] = 16,
    measured: Annotated[
        int, typer.Option(help="Pairs of each folder to measure on, evenly drawn; 0 for all.", min=0)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle whose convolutions are in 8 bits, as many as leave the images what they were.

    Example: vifa bundle quantize tardal-fusion --pairs data/train --evaluation data/val -o tardal-int8
    """
    source = load_bundle(find_bundle(bundle))
    check_new_bundle(output)
    console = Console(stderr=True)
    with console.status("") as shown:
        result = make_8_bits(
            source,
            [pair for folder in pairs for pair in _open(source, folder, images, labelled=False)],
            [pair for folder in evaluation for pair in _open(source, folder, measured, labelled=True)],
            limit,
            shown.update,
        )
    manifest = _manifest(source, output.resolve().name, result)
    card = bundle_card(manifest, {"Quantization": _card_section(source, result, limit, pairs, evaluation)})
    write_bundle(output, manifest, {**result.graphs, "README.md": card.encode()})
    if as_json:
        print(json.dumps({"meta": describe_run("vifa bundle quantize"), "rows": list(result.rows)}, indent=2))
        return
    table = Table("task", "metric", "before", "after", "change")
    for row in result.rows:
        table.add_row(row["task"], row["metric"], str(row["before"]), str(row["after"]), f"{row['change']:+.2%}")
    Console().print(table)
    print(f"{output}: convolutions in 8 bits: {_convolutions(result)}")


def _manifest(source: Bundle, name: str, result: Quantized) -> dict[str, Any]:
    """The source's manifest for the quantized bundle; metrics of the source are none of it."""
    manifest = {key: value for key, value in source.manifest.items() if key not in ("format", "files")}
    provenance = manifest["provenance"]
    recipe = "; ".join(filter(None, (provenance.get("recipe"), f"INT8 convolutions: {_convolutions(result)}")))
    provenance = {**provenance, "recipe": recipe, "commit": commit(), "date": today()}
    return {**manifest, "name": name, "metrics": [], "provenance": provenance}


def _convolutions(result: Quantized) -> str:
    return "; ".join(f"{path} {count} of {every}" for path, (count, every) in result.convolutions.items())


def _card_section(
    source: Bundle, result: Quantized, limit: float, pairs: Sequence[Path], evaluation: Sequence[Path]
) -> list[str]:
    """What the card says of quantizing: of what, on what, how far, and what became of the images and findings."""
    columns = ["task", "metric", "before", "after", "change", "pairs"]
    cells = [
        [row["task"], row["metric"], row["before"], row["after"], f"{row['change']:+.2%}", row["pairs"]]
        for row in result.rows
    ]
    return [
        f"Made from the bundle `{source.name}` by `vifa bundle quantize`: convolutions in 8 bits where the images stay",
        f"what they were, all else as it was. Ranges were measured on pairs of `{_names(pairs)}`, what follows",
        f"on other pairs, of `{_names(evaluation)}`. Allowed was: {', '.join(STEADY)} move by {limit:.2%} at",
        f"most, {', '.join(GUARDED)} fall by no more than that.",
        "",
        *markdown_table(
            ["graph", "convolutions", "in 8 bits"],
            [[path, every, count] for path, (count, every) in result.convolutions.items()],
        ),
        "",
        *markdown_table(columns, cells),
    ]


def _names(folders: Sequence[Path]) -> str:
    return "`, `".join("/".join(folder.resolve().parts[-2:]) for folder in folders)


def _open(bundle: Bundle, folder: Path, most: int, labelled: bool) -> list[LabelledPair]:
    """Read pairs of a folder, at most so many (0 for all); labelled with its boxes and masks for the bundle's tasks."""
    found = find_pairs(folder)
    labels = LabelFolder(folder, bundle.tasks) if labelled else None
    opened = []
    for pair in spread_evenly(found, most or len(found)):
        visible = read_visible(pair.visible)
        boxes, masks = labels.read(pair.name, visible.shape[:2]) if labels else ({}, {})
        opened.append(LabelledPair(visible, read_thermal(pair.thermal), boxes, masks))
    return opened
