"""Options that commands take as one dataclass: on the command line they are ordinary options."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vifa_training.commands.options import with_options


@dataclass(frozen=True)
class Shared:
    place: Annotated[str, typer.Argument(help="Where.")]
    width: Annotated[int, typer.Option(help="How wide.", min=1)]
    name: Annotated[str, typer.Option(help="What it is called.")] = "shared"


@dataclass(frozen=True)
class Renamed(Shared):
    name: Annotated[str, typer.Option(help="What it is called.")] = "renamed"


def make_app(kind: type[Shared]) -> tuple[typer.Typer, list[tuple[str, Shared, float]]]:
    """A command of its own argument and option beside the shared ones, and what it was called with."""
    app, calls = typer.Typer(), []

    @app.command()
    @with_options
    def build(method: str, options: kind, share: Annotated[float, typer.Option(help="How much.")] = 0.5) -> None:
        """Build something."""
        calls.append((method, options, share))

    return app, calls


@pytest.mark.parametrize(("kind", "name"), [(Shared, "shared"), (Renamed, "renamed")])
def test_shared_options_arrive_as_one_beside_the_commands_own(kind: type[Shared], name: str) -> None:
    app, calls = make_app(kind)
    for arguments in (["fast", "here", "--width", "3"], ["--share", "0.1", "slow", "there", "--width", "4"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, ["fast", "here", "--width", "3", "--name", "mine"]).exit_code == 0
    assert calls == [
        ("fast", kind("here", 3, name), 0.5),
        ("slow", kind("there", 4, name), 0.1),
        ("fast", kind("here", 3, "mine"), 0.5),
    ]


def test_their_types_ranges_and_absence_are_checked() -> None:
    app, calls = make_app(Shared)
    for arguments in (["fast", "here"], ["fast", "--width", "3"], ["fast", "here", "--width", "0"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2
    assert calls == []


def test_help_tells_all_of_them_and_what_the_command_does() -> None:
    app, _ = make_app(Renamed)
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(part in text for part in ("Build something.", "How wide.", "How much.", "default: renamed", "Where."))
