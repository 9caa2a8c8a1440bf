"""Where bundles are: a folder the user names, or one that ships with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vifa_runtime.bundle import MANIFEST, BundleError

DEFAULT_BUNDLE = "nano-fusion"


def find_bundle(name: str) -> Path:
    """Return the folder of a bundle: `name` as a path, or else a shipped bundle of that name.

    Raises:
        BundleError: neither exists; names the shipped ones.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser raises for a user that does not exist)
    if (path / MANIFEST).is_file():
        return path
    shipped = {
        p.name: p for root in _model_folders() if root.is_dir() for p in root.iterdir() if (p / MANIFEST).is_file()
    }
    if name in shipped:
        return shipped[name]
    raise BundleError(
        f"no bundle at {name} and none ships by that name; shipped: {', '.join(sorted(shipped)) or 'none'}"
    )


def _model_folders() -> list[Path]:
    """From the least to the most specific, so that a source tree wins over an installed package."""
    prefixes = [Path(sys.prefix), *(Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p)]
    installed = [prefix / "share" / "vifa" / "models" for prefix in prefixes]
    return [*installed, Path(__file__).resolve().parent.parent / "models"]
