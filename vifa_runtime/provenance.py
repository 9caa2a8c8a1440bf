"""Who made a result: the `meta` part that stands at the head of every JSON file written here."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_VERSIONED = ("numpy", "onnxruntime", "opencv-python-headless", "scipy", "torch", "ros-jazzy-rclpy")


def describe_run(command: str, seed: int | None = None) -> dict[str, Any]:
    """Return {command, machine, versions, commit, seed, date}; names no host, user or path."""
    return {
        "command": command,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **_installed(_VERSIONED)},
        "commit": commit(),
        "seed": seed,
        "date": today(),
    }


def machine() -> str:
    """Processor model, usable cores and memory in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def commit() -> str:
    """The source tree's git commit, with `+` where files differ from it; `unknown` outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # installed, maybe inside somebody else's checkout
        return "unknown"
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def today() -> str:
    """The date in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _installed(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
