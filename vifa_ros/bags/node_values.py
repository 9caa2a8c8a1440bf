"""The node's parameters for commands that run its chain: their defaults, a parameter file, and options given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from vifa_ros.bags.errors import BagError
from vifa_ros.camera_alignment import CAMERAS, FILE
from vifa_ros.parameters import BY_NAME, Parameter
from vifa_runtime.messages import first_line
from vifa_runtime.plain_yaml import PlainLoader

SECTION = "ros__parameters"
OF_OPTIONS = {"extrinsics": "alignment.extrinsics", "distance": "alignment.distance"}  # other names than the node's
_WITHOUT_FILE = ("resize", "none", CAMERAS)


def read_values(path: Path | None) -> dict[str, Any]:
    """Every parameter of the node by its name: its default, or what a parameter file says.

    Args:
        path: such as config/vifa.yaml; parameters of every node in it count. None for the defaults alone.

    Raises:
        BagError: no such file, no parameter file, or a parameter that is unknown, of another type or out of range.
    """
    values = {name: parameter.default for name, parameter in BY_NAME.items()}
    if path is None:
        return values
    try:
        content = yaml.load(path.read_text(), PlainLoader)
    except OSError as error:
        raise BagError(f"--params: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BagError(f"{path} is no YAML: {first_line(error)}") from None
    nodes = content.values() if isinstance(content, dict) else ()
    sections = [node[SECTION] for node in nodes if isinstance(node, dict) and isinstance(node.get(SECTION), dict)]
    if not sections:
        raise BagError(f"{path} is no parameter file: it holds no {SECTION}; write one like config/vifa.yaml")
    for section in sections:
        for name, value in _flat(section):
            if name in BY_NAME:
                values[name] = _checked(BY_NAME[name], value, str(path))
            elif not name.endswith(".max_rate_hz"):  # a rate is one of the clock's, and every pair is evaluated
                raise BagError(f"{path}: the node has no parameter {name}; see docs/fusion_node.md")
    return values


def given_values(context: typer.Context) -> dict[str, Any]:
    """The parameters of the node that the command line names by an option.

    Raises:
        BagError: a choice that there is not.
    """
    found: dict[str, Any] = {}
    for option, value in context.params.items():
        source = context.get_parameter_source(option)
        if source is None or source.name != "COMMANDLINE":
            continue
        name = OF_OPTIONS.get(option, option)
        if option == "alignment":
            mode = value if value in _WITHOUT_FILE else FILE
            found |= {"alignment.mode": mode, "alignment.file": value if mode == FILE else ""}
        elif name in BY_NAME:
            found[name] = _checked(
                BY_NAME[name], str(value) if isinstance(value, Path) else value, f"--{option.replace('_', '-')}"
            )
    return found


def _checked(parameter: Parameter, value: Any, where: str) -> Any:
    kind = type(parameter.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (isinstance(value, list) and not all(isinstance(entry, str) for entry in value)):
        raise BagError(f"{where}: {parameter.name} must be a {parameter.type_name}, got {value!r:.60}")
    if (problem := parameter.problem(value)) is not None:
        raise BagError(f"{where}: {problem}")
    return value


def _flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Parameters by their whole names, from mappings in mappings or names with dots."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
