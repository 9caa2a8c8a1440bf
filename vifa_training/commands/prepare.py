"""`vifa-train prepare`: data sets made smaller, as plain folders."""

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.progress import track

from vifa_training.data.opening import GRAMMAR
from vifa_training.prepare import Shrinking, prepare_part


def prepare(
    parts: Annotated[list[str], typer.Argument(metavar="PART...", help=f"What to prepare: {GRAMMAR}.")],
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that the smaller ones are written to.")],
    scale: Annotated[Optional[float], typer.Option(help="Factor of both sides, at most 1.")] = None,
    side: Annotated[Optional[int], typer.Option(help="Longest side in pixels, instead of --scale.")] = None,
) -> None:
    """Write smaller copies of data sets, lossless, that every command reads as it reads plain folders.

    Interrupted, it goes on where it stopped. Plain folders keep their paths, so a recipe runs on the copies by another
    --data alone.

    Example: vifa-train prepare msrs/train msrs/val roadscene --data ../shared/data -o small --scale 0.5
    """
    shrinking = Shrinking(scale, side)
    done = [prepare_part(data, part, output, shrinking, partial(track, description=part)) for part in parts]
    for part, made in zip(parts, done, strict=True):
        print(f"{part}: {made.folder}, {made.pairs} pairs, {made.size / 1e6:.1f} MB")
    print(f"{sum(made.size for made in done) / 1e6:.1f} MB in all")
