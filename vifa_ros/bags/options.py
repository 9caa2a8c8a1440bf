"""Options that commands on bags share. Without postponed annotations, which Typer 0.9 does not read.

Those of pairing have the names, defaults and ranges of the node's parameters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from vifa_ros.bags.errors import BagError
from vifa_ros.pairing import PairingSettings
from vifa_ros.parameters import BY_NAME, pairing_settings


def _parameter(name: str) -> Any:
    """The option of one of the node's parameters."""
    found = BY_NAME[name]
    text = found.description.replace("`", "") + (f" {', '.join(found.choices)}." if found.choices else "")
    return typer.Option(help=text, min=found.low, max=found.high)


VisibleOption = Annotated[str, typer.Option("--visible", help="Topic of visible images; found by its name if empty.")]
ThermalOption = Annotated[str, typer.Option("--thermal", help="Topic of thermal images; likewise.")]
VisibleInfoOption = Annotated[
    str, typer.Option("--visible-info", help="Topic of the visible camera_info; the one beside the images if empty.")
]
ThermalInfoOption = Annotated[str, typer.Option("--thermal-info", help="Topic of the thermal camera_info; likewise.")]
ClassesOption = Annotated[
    str, typer.Option("--classes", help="Names of the boxes' classes, with commas between; known ones if empty.")
]
MaskClassesOption = Annotated[str, typer.Option("--mask-classes", help="Names of the masks' classes; likewise.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what a command like this wrote there.")]

PairingOption = Annotated[str, _parameter("pairing")]
SlopOption = Annotated[float, _parameter("slop")]
MaxReuseAgeOption = Annotated[float, _parameter("max_reuse_age")]
StampsOption = Annotated[str, _parameter("stamps")]
VisibleOffsetOption = Annotated[float, _parameter("visible_offset")]
ThermalOffsetOption = Annotated[float, _parameter("thermal_offset")]
MaxLagOption = Annotated[float, _parameter("max_lag")]
MaxWaitOption = Annotated[float, _parameter("max_wait")]
QueueSizeOption = Annotated[int, _parameter("queue_size")]

DEFAULTS: dict[str, Any] = {name: parameter.default for name, parameter in BY_NAME.items()}


def make_pairing(**given: Any) -> PairingSettings:
    """How frames are paired, by the node's parameters of that name; what is not given is their default.

    Raises:
        BagError: a choice that there is not.
    """
    try:
        return pairing_settings({**DEFAULTS, **given}.__getitem__)
    except ValueError as error:
        raise BagError(f"--{error}") from None


def parse_names(text: str) -> tuple[str, ...]:
    """The names in the text of an option, with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[float, float], None]]:
    """Show on a terminal how far something is while the block runs; gives what is to be told (done, total)."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
