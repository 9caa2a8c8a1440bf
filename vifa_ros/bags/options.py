"""Options that commands on bags share. Without postponed annotations, which Typer 0.9 does not read.

Those of pairing have the names, defaults and ranges of the node's parameters.
"""

from typing import Annotated, Any

import typer

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
        ValueError: a choice that there is not.
    """
    return pairing_settings({**DEFAULTS, **given}.__getitem__)
