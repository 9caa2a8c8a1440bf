"""Every parameter of the fusion node, declared in one table from which the node, its YAML and its page are made.

python -m vifa_ros.parameters yaml > config/vifa.yaml
python -m vifa_ros.parameters markdown     # the table of docs/fusion_node.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vifa_ros.camera_alignment import ALIGNMENTS, AlignmentSettings
from vifa_ros.losses import POLICIES
from vifa_ros.pairing import NEAREST, PAIRINGS, STAMPS, PairingSettings
from vifa_runtime.alignment import LARGEST_BORDER, SOFT_BORDER
from vifa_runtime.backends import BACKENDS, PRECISIONS, Options
from vifa_runtime.models import DEFAULT_BUNDLE
from vifa_runtime.thermal import MODES, POLARITIES, ThermalSettings

BUNDLE_MODES = ("bundle", *MODES)
TRANSPORTS = ("raw", "compressed")
BURST = 3  # pairs that may wait where they come in bursts: at 30 and 9 Hz, up to three at once


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
    Parameter("visible.transport", "raw", "What is subscribed to: image_raw, or /compressed.", choices=TRANSPORTS),
    Parameter("thermal.transport", "raw", "What is subscribed to: image_raw, or /compressed.", choices=TRANSPORTS),
    Parameter(
        "pairing",
        NEAREST,
        "`nearest` uses a frame once; `reuse_thermal` pairs every visible frame, `reuse_visible` every thermal one.",
        choices=PAIRINGS,
        live=True,
    ),
    Parameter("slop", 0.04, "Largest distance between the stamps of a pair, seconds.", 0.0, 10.0, live=True),
    Parameter("max_reuse_age", 0.3, "How much older than its partner a reused frame may be, s.", 0.0, 60.0, live=True),
    Parameter(
        "stamps", STAMPS[0], "Pair by the cameras' stamps, or by arrival if those are bad.", choices=STAMPS, live=True
    ),
    Parameter("visible_offset", 0.0, "Added to the visible stamps before pairing, seconds.", -10.0, 10.0, live=True),
    Parameter("thermal_offset", 0.0, "Added to the thermal stamps before pairing, seconds.", -10.0, 10.0, live=True),
    Parameter("max_lag", 0.04, "How much later than the other camera's a frame may arrive, s.", 0.0, 10.0, live=True),
    Parameter("max_wait", 1.0, "How long a frame may wait for its partner, seconds.", 0.0, 60.0, live=True),
    Parameter("queue_size", 10, "Frames of one camera that may wait for a partner.", 1, 1000, live=True),
    Parameter(
        "backlog", 0, f"Pairs that may wait for the engine; 0 for 1, or {BURST} where frames are reused.", 0, 100
    ),
    Parameter(
        "on_modality_loss",
        POLICIES[0],
        "`hold`: no results; `visible_only`, `thermal_only`, `either`: of what is left; `stop`: deactivate.",
        choices=POLICIES,
        live=True,
    ),
    Parameter("modality_timeout", 0.5, "Silence after which a camera is lost, seconds.", 0.05, 3600.0, live=True),
    Parameter(
        "alignment.mode",
        "resize",
        "How thermal pixels find visible ones; `file` and `cameras`: see below.",
        choices=ALIGNMENTS,
    ),
    Parameter("alignment.file", "", "Alignment file, mode file."),
    Parameter("alignment.extrinsics", "", "File with the cameras' extrinsics, mode cameras; empty for /tf_static."),
    Parameter("alignment.distance", 10.0, "Distance at which both images agree, mode cameras, metres.", 0.01, 1e5),
    Parameter(
        "alignment.soft_border",
        SOFT_BORDER,
        "Visible pixels along which results fade at the thermal image's border.",
        0,
        LARGEST_BORDER,
    ),
    Parameter(
        "thermal.mode",
        "bundle",
        "How thermal images become 0..1; `bundle`: as trained.",
        choices=BUNDLE_MODES,
        live=True,
    ),
    Parameter("thermal.low_percentile", 1.0, "What becomes 0, mode percentile.", 0.0, 100.0, live=True),
    Parameter("thermal.high_percentile", 99.5, "What becomes 1, mode percentile.", 0.0, 100.0, live=True),
    Parameter("thermal.minimum", 0.0, "What becomes 0, mode fixed; Celsius with a scale.", -1e9, 1e9, live=True),
    Parameter("thermal.maximum", 65535.0, "What becomes 1, mode fixed; Celsius with a scale.", -1e9, 1e9, live=True),
    Parameter(
        "thermal.time_constant", 1.0, "Seconds in which limits follow 63 % of a change.", 0.001, 3600.0, live=True
    ),
    Parameter("thermal.polarity", POLARITIES[0], "What the camera sends as bright.", choices=POLARITIES, live=True),
    Parameter("thermal.clahe", 0.0, "Clip limit of local contrast; 0 for none, or as trained.", 0.0, 256.0, live=True),
    Parameter("thermal.scale", 0.0, "Celsius = value * scale + offset; 0: not known.", 0.0, 1e6, live=True),
    Parameter("thermal.offset", 0.0, "See thermal.scale; -273.15 for kelvin.", -1e6, 1e6, live=True),
    Parameter("thermal.frozen_after", 1.0, "Seconds of equal frames that are a fault; 0: never.", 0.0, 3600.0),
    Parameter("points", False, "Subscribe to `points` and colour them: ~/<task>/points."),
    Parameter("points_slop", 0.1, "Largest distance between the stamps of points and image, s.", 0.0, 10.0, live=True),
    Parameter("points_fixed_frame", "", "A frame that stands still, such as odom; empty if the robot does, too."),
    Parameter("jpeg_quality", 90, "Of compressed outputs.", 1, 100, live=True),
    Parameter("save_folder", "~/vifa_frames", "Where ~/save_frame makes its folders.", live=True),
    Parameter("status_rate", 1.0, "Messages a second on ~/status and /diagnostics.", 0.1, 50.0, live=True),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

PAIRING_NAMES = {
    *("pairing", "slop", "max_reuse_age", "stamps", "visible_offset", "thermal_offset", "max_lag", "max_wait"),
    "queue_size",
}
MAX_RATE = Parameter(
    "<task>.max_rate_hz", 0.0, "Results a second of one task; 0 for every pair's.", 0.0, 1000.0, live=True
)


def declare_all(node: Any) -> None:
    """Declare every parameter on a node, with type, range and description.

    Raises:
        rclpy.exceptions.InvalidParameterTypeException, InvalidParameterValueException: a start value is wrong.
    """
    for parameter in PARAMETERS:
        node.declare_parameter(parameter.name, parameter.default, describe(parameter))


def declare_rates(node: Any, tasks: Sequence[str]) -> None:
    """Declare each task's `<task>.max_rate_hz`, which can only be when the bundle is known.

    Raises:
        as `declare_all`.
    """
    for task in tasks:
        if not node.has_parameter(name := rate_name(task)):
            node.declare_parameter(name, MAX_RATE.default, describe(replace(MAX_RATE, name=name)))


def rate_name(task: str) -> str:
    """Name of the parameter that limits a task's rate."""
    return MAX_RATE.name.replace("<task>", task)


def describe(parameter: Parameter) -> Any:
    """The rcl_interfaces/ParameterDescriptor of a parameter."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

    types = {
        bool: ParameterType.PARAMETER_BOOL,
        int: ParameterType.PARAMETER_INTEGER,
        float: ParameterType.PARAMETER_DOUBLE,
        str: ParameterType.PARAMETER_STRING,
        list: ParameterType.PARAMETER_STRING_ARRAY,
    }
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
            descriptor.floating_point_range = [FloatingPointRange(from_value=parameter.low, to_value=parameter.high)]
    return descriptor


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
        pairing=value("pairing"),
        max_reuse_age=nanoseconds("max_reuse_age"),
        stamps=value("stamps"),
        max_lag=nanoseconds("max_lag"),
        max_wait=nanoseconds("max_wait"),
    )


def loss_policy(value: Callable[[str], Any]) -> tuple[str, float]:
    """What becomes of the results while a camera is lost, and after how many seconds it is; by the parameters."""
    return value("on_modality_loss"), value("modality_timeout")


def backlog(value: Callable[[str], Any]) -> int:
    """Pairs that may wait for the engine, by the parameters as above."""
    return value("backlog") or (1 if value("pairing") == NEAREST else BURST)


def alignment_settings(value: Callable[[str], Any]) -> AlignmentSettings:
    """How thermal images are brought onto visible ones, by the parameters as above."""
    return AlignmentSettings(
        mode=value("alignment.mode"),
        file=value("alignment.file"),
        extrinsics=value("alignment.extrinsics"),
        distance=value("alignment.distance"),
        soft_border=value("alignment.soft_border"),
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


def thermal_settings(value: Callable[[str], Any], trained: ThermalSettings) -> ThermalSettings:
    """How thermal images are normalised, by the parameters as above and, in mode bundle, by what was trained with.

    Raises:
        ThermalError: settings that contradict each other.
    """
    mode = value("thermal.mode")
    changes = {name: value(f"thermal.{name}") for name in ("polarity", "scale", "offset")}
    if mode != "bundle":
        names = ("low_percentile", "high_percentile", "minimum", "maximum", "time_constant")
        changes |= {"mode": mode, "clahe": 0.0, **{name: value(f"thermal.{name}") for name in names}}
    if value("thermal.clahe"):
        changes["clahe"] = value("thermal.clahe")
    return replace(trained, **changes)


def to_yaml() -> str:
    """A commented parameter file with every default, as config/vifa.yaml."""
    lines = [
        "# Every parameter of the VIFA fusion node with its default.",
        "# Made by: python -m vifa_ros.parameters yaml",
        "/**:",
        "  ros__parameters:",
    ]
    groups: list[str] = []
    for parameter in sorted(PARAMETERS, key=_group):  # a mapping must not stand twice in a file
        *parents, leaf = parameter.name.split(".")
        if parents and parents != groups:
            lines.append(f"    {parents[0]}:")
        groups = parents
        indent = "    " + "  " * len(parents)
        allowed = f" ({parameter.range_text})" if parameter.range_text else ""
        lines.append(f"{indent}# {parameter.description}{allowed}{' Live.' if parameter.live else ''}")
        lines.append(f"{indent}{leaf}: {_yaml_value(parameter.default)}")
    lines += [f"    # <task>: {{max_rate_hz: 0.0}}  # {MAX_RATE.description} ({MAX_RATE.range_text}) Live."]
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """The parameter table of the node's page."""
    lines = [
        "| parameter | type | default | range | live | what it does |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for p in (*PARAMETERS, MAX_RATE):
        live = "yes" if p.live else ""
        default = f"`{_yaml_value(p.default)}`"
        lines.append(f"| `{p.name}` | {p.type_name} | {default} | {p.range_text} | {live} | {p.description} |")
    return "\n".join(lines) + "\n"


def _group(parameter: Parameter) -> str:
    """What parameters are put together by in the file: those without a group come first, in the table's order."""
    return parameter.name.rpartition(".")[0]


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
