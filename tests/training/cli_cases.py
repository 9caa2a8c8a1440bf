"""`vifa-train` as a user runs it, in this process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from vifa_training.cli import app


def vifa_train(*arguments: str | Path) -> str:
    """What the command prints; its errors are raised, as `vifa-train` sees them."""
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
