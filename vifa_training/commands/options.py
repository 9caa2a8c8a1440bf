"""Options that several commands of `vifa-train` have, each declared once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer

BundleName = Annotated[str, typer.Argument(help="A bundle's folder, or the name of one that ships.")]
Data = Annotated[Path, typer.Option(help="Folder that holds the data sets.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 for one a core.", min=0)]
Channels = Annotated[
    Optional[list[Path]],
    typer.Option(help="Key channels of an earlier data set, of vifa-train channels; one for each, the newest last."),
]
Older = Annotated[
    Optional[list[str]],
    typer.Option(help="Recipe of a labelled task that the bundle has, to measure what it loses; one for each."),
]


def use_threads(threads: int) -> None:
    """Let torch use so many threads; 0 leaves it at one a core."""
    if threads:
        torch.set_num_threads(threads)


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """The command of a function that takes many options as one dataclass.

    One parameter of `function` is annotated by a dataclass. The command has the dataclass's fields as options of its
    own in that place, with their types, defaults and help, and hands them over as one. Typer reads all that from the
    command's signature; what has no default goes first.
    """
    own = inspect.signature(function).parameters
    name, kind = next((p.name, p.annotation) for p in own.values() if is_dataclass(p.annotation))
    fields = inspect.signature(kind).parameters
    spread = [option for p in own.values() for option in (fields.values() if p.name == name else [p])]
    spread.sort(key=lambda option: option.default is not option.empty)

    @functools.wraps(function)
    def command(**given: object) -> None:
        function(**{name: kind(**{field: given.pop(field) for field in fields}), **given})

    options = [option.replace(kind=option.KEYWORD_ONLY) for option in spread]
    command.__signature__ = inspect.Signature(options)
    command.__annotations__ = {option.name: option.annotation for option in options}
    return command
