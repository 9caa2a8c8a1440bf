"""Every parameter of the fusion node, declared in one table from which the node, its YAML and its page are made.

python -m vifa_ros.parameters yaml > config/vifa.yaml
python -m vifa_ros.parameters markdown     # the table of docs/fusion_node.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vifa_ros.pairing import PairingSettings
from vifa_runtime.backends import BACKENDS, PRECISIONS, Options
from vifa_runtime.models import DEFAULT_BUNDLE
from vifa_runtime.thermal import MODES, ThermalSettings

BUNDLE_MODES = ("bundle", *MODES)


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: as ROS knows it.
        default: its Python type is the parameter's type; a list is one of strings, and never empty (ROS could not
            tell its type).
        description: what it does, with its unit.
        low, high: inclusive range of a number.
        choices: allowed strings.
        live: may change while the node is configured; else only while it is unconfigured.
    """

    name: str
    default: bool | int | float | str | list[str]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def type_name(self) -> str:
        """ROS's name of its type."""
        names = {bool: "bool", int: "integer", float: "double", str: "string", list: "string array"}
        return names[type(self.default)]

    @property
    def range_text(self) -> str:
        """Allowed values, for people."""
        if self.choices:
            return ", ".join(self.choices)
        return "" if self.low is None else f"{self.low:g} to {self.high:g}"

    def problem(self, value: Any) -> str | None:
        """Why a value of the right type is not allowed, or None."""
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r}; use one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            return f"{self.name} is {value}; use a value from {self.low:g} to {self.high:g}"
        return None


PARAMETERS = (
    Parameter("bundle", DEFAULT_BUNDLE, "Folder of the bundle, or the name of one that ships."),
    Parameter("tasks", [""], 'Tasks to run when somebody listens, by name; [""] for all.', live=True),
    Parameter("backend", "onnxruntime", "Engine.", choices=BACKENDS),
    Parameter("threads", 0, "CPU threads of the engine; 0 for one a core.", 0, 256),
    Parameter("precision", PRECISIONS[0], "Of TensorRT; other engines run graphs as they are.", choices=PRECISIONS),
    Parameter("engines", "", "Folder of TensorRT engines, which must be trusted; empty for the user's cache."),
    Parameter("build_engines", False, "Build missing TensorRT engines at `configure`; takes minutes, see its timeout."),
    Parameter("fallback", "", "Engine to use where the wanted one can't be had; empty to fail instead."),
    Parameter("autostart", True, "Configure and activate at start; false leaves that to a lifecycle manager."),
    Parameter("configure_timeout", 60.0, "Seconds that `configure` waits for the engine.", 0.1, 3600.0),
    Parameter("slop", 0.04, "Largest distance between the stamps of a pair, seconds.", 0.0, 10.0, live=True),
    Parameter("visible_offset", 0.0, "Added to the visible stamps before pairing, seconds.", -10.0, 10.0, live=True),
    Parameter("thermal_offset", 0.0, "Added to the thermal stamps before pairing, seconds.", -10.0, 10.0, live=True),
    Parameter("queue_size", 10, "Frames of one camera that may wait for a partner.", 1, 1000, live=True),
    Parameter(
        "thermal.mode",
        "bundle",
        "How thermal images become 0..1; `bundle`: as trained.",
        choices=BUNDLE_MODES,
    ),
    Parameter("thermal.low_percentile", 1.0, "What becomes 0, mode percentile.", 0.0, 100.0),
    Parameter("thermal.high_percentile", 99.5, "What becomes 1, mode percentile.", 0.0, 100.0),
    Parameter("thermal.minimum", 0.0, "What becomes 0, mode fixed, in the image's unit.", -1e9, 1e9),
    Parameter("thermal.maximum", 65535.0, "What becomes 1, mode fixed, in the image's unit.", -1e9, 1e9),
    Parameter("thermal.time_constant", 1.0, "Seconds in which limits follow 63 % of a change.", 0.001, 3600.0),
    Parameter("status_rate", 1.0, "Messages a second on ~/status and /diagnostics.", 0.1, 50.0, live=True),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def declare_all(node: Any) -> None:
    """Declare every parameter on a node, with type, range and description.

    Raises:
        rclpy.exceptions.InvalidParameterTypeException, InvalidParameterValueException: a start value is wrong.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

    types = {
        bool: ParameterType.PARAMETER_BOOL,
        int: ParameterType.PARAMETER_INTEGER,
        float: ParameterType.PARAMETER_DOUBLE,
        str: ParameterType.PARAMETER_STRING,
        list: ParameterType.PARAMETER_STRING_ARRAY,
    }
    for parameter in PARAMETERS:
        descriptor = ParameterDescriptor(
            name=parameter.name,
            type=types[type(parameter.default)],
            description=parameter.description,
            additional_constraints=", ".join(parameter.choices),
        )
        if parameter.low is not None and parameter.high is not None:
            if isinstance(parameter.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=parameter.low, to_value=parameter.high)
                ]
        node.declare_parameter(parameter.name, parameter.default, descriptor)


def find_problem(values: Mapping[str, Any], configured: bool) -> str | None:
    """Why a change of parameters must be refused, or None.

    Args:
        values: new values by name; names that are not in the table are none of ours.
        configured: whether the node holds an engine, so that only live parameters may change.
    """
    for name, value in values.items():
        parameter = BY_NAME.get(name)
        if parameter is None:
            continue
        if configured and not parameter.live:
            return f"{name} is fixed while the node is configured; clean it up first"
        if (problem := parameter.problem(value)) is not None:
            return problem
    return None


def pairing_settings(value: Callable[[str], Any]) -> PairingSettings:
    """How frames are paired, by the parameters of which `value` gives each by its name."""

    def nanoseconds(name: str) -> int:
        return round(value(name) * 1e9)

    return PairingSettings(
        slop=nanoseconds("slop"),
        visible_offset=nanoseconds("visible_offset"),
        thermal_offset=nanoseconds("thermal_offset"),
        capacity=value("queue_size"),
    )


def engine_options(value: Callable[[str], Any]) -> Options:
    """How the engine is made, by the parameters as above."""
    return Options(
        threads=value("threads"),
        precision=value("precision"),
        engines=Path(value("engines")) if value("engines") else None,
        build=value("build_engines"),
        fallback=value("fallback"),
    )


def thermal_settings(value: Callable[[str], Any]) -> ThermalSettings | None:
    """How thermal images are normalised, by the parameters as above; None for the bundle's own settings."""
    mode = value("thermal.mode")
    if mode == "bundle":
        return None
    names = ("low_percentile", "high_percentile", "minimum", "maximum", "time_constant")
    return ThermalSettings(mode=mode, **{name: value(f"thermal.{name}") for name in names})


def to_yaml() -> str:
    """A commented parameter file with every default, as config/vifa.yaml."""
    lines = [
        "# Every parameter of the VIFA fusion node with its default.",
        "# Made by: python -m vifa_ros.parameters yaml",
        "/**:",
        "  ros__parameters:",
    ]
    groups: list[str] = []
    for parameter in PARAMETERS:
        *parents, leaf = parameter.name.split(".")
        if parents and parents != groups:
            lines.append(f"    {parents[0]}:")
        groups = parents
        indent = "    " + "  " * len(parents)
        allowed = f" ({parameter.range_text})" if parameter.range_text else ""
        lines.append(f"{indent}# {parameter.description}{allowed}{' Live.' if parameter.live else ''}")
        lines.append(f"{indent}{leaf}: {_yaml_value(parameter.default)}")
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """The parameter table of the node's page."""
    lines = [
        "| parameter | type | default | range | live | what it does |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for p in PARAMETERS:
        live = "yes" if p.live else ""
        default = f"`{_yaml_value(p.default)}`"
        lines.append(f"| `{p.name}` | {p.type_name} | {default} | {p.range_text} | {live} | {p.description} |")
    return "\n".join(lines) + "\n"


def _yaml_value(value: bool | int | float | str | Sequence[str]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) or value == "":
        return json.dumps(value)
    return str(value)


if __name__ == "__main__":
    formats = {"yaml": to_yaml, "markdown": to_markdown}
    if len(sys.argv) != 2 or sys.argv[1] not in formats:
        raise SystemExit("usage: python -m vifa_ros.parameters yaml|markdown")
    print(formats[sys.argv[1]](), end="")
