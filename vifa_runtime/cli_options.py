"""Options that several commands share. Without postponed annotations, which Typer 0.9 does not read."""

import re
from pathlib import Path
from typing import Annotated, Optional

import typer

from vifa_runtime.backends import BACKENDS, PRECISIONS, BackendError

OptionalPath = Optional[Path]  # noqa: UP045 (Typer 0.9, of Ubuntu 24.04, does not read `Path | None`)
OptionalText = Optional[str]  # noqa: UP045 (likewise)
OptionalTexts = Optional[list[str]]  # noqa: UP045 (likewise)

_BUNDLE_HELP = "Folder of a bundle, or the name of a shipped one."
BundleOption = Annotated[str, typer.Option("--bundle", "-b", help=_BUNDLE_HELP)]
BundleArgument = Annotated[str, typer.Argument(help=_BUNDLE_HELP)]
BackendOption = Annotated[str, typer.Option(help=f"Engine: {', '.join(BACKENDS)}.")]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; 0 for one a core.", min=0)]
PrecisionOption = Annotated[str, typer.Option(help=f"Of TensorRT: {', '.join(PRECISIONS)}.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

LARGEST_SIDE = 8192  # of images, pixels


def parse_size(text: str, smallest: int) -> tuple[int, int]:
    """(height, width) of the text of an option --size, WIDTHxHEIGHT.

    Raises:
        BackendError: it is none, or a side is outside of `smallest`..8192 pixels; `smallest` is 0 or more.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    width, height = (int(found[1]), int(found[2])) if found else (-1, -1)
    if min(width, height) < smallest or max(width, height) > LARGEST_SIDE:
        raise BackendError(
            f"--size must be WIDTHxHEIGHT of {smallest} to {LARGEST_SIDE} pixels, like 640x480, got {text!r}"
        )
    return height, width
