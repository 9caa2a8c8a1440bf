"""Bundles that are broken on purpose, and why they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vifa_runtime.bundle import BundleError, load_bundle


def refusal(folder: Path) -> str:
    """The message that loading a folder ends with."""
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500 + len(str(folder))
    return message


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest: `change` gets its content as dictionaries and lists."""
    path = folder / "bundle.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def set_field(*path_and_value: Any) -> Callable[[Any], None]:
    """A change that sets the field at a path, as in set_field("tasks", 0, "kind", "fusion")."""
    *path, last, value = path_and_value

    def change(content: Any) -> None:
        for key in path:
            content = content[key]
        content[last] = value

    return change
