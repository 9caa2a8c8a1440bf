"""The `vifa` command: what `vifa_runtime` offers without ROS, and what needs ROS, imported only when it is called."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table

from vifa_ros.bags.align_command import align
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.evaluate_command import evaluate
from vifa_ros.bags.extract_command import extract
from vifa_ros.bags.record_command import record
from vifa_ros.bags.replay_command import replay
from vifa_ros.usage import UsageError, leave_on_sigterm, need_ros
from vifa_runtime.backends import BackendError
from vifa_runtime.bundle import BundleError
from vifa_runtime.cli import app
from vifa_runtime.geometry import GeometryError
from vifa_runtime.models import DEFAULT_BUNDLE
from vifa_runtime.pairs import PairError
from vifa_runtime.pipeline import InputError
from vifa_runtime.thermal import ThermalError

PairsOption = Annotated[Optional[Path], typer.Option(help="Folder with vi/ and ir/; the synthetic street by default.")]
RateOption = Annotated[float, typer.Option(help="Pairs a second.", min=0.1, max=1000)]


app.command()(align)
app.command()(record)
app.command()(extract)
app.command()(evaluate)
app.command()(replay)


def without_ros_arguments(arguments: Sequence[str]) -> list[str]:
    """Drop `--ros-args ... [--]`, which launch adds for rclpy; rclpy reads it from sys.argv by itself."""
    own: list[str] = []
    in_ros = False
    for argument in arguments:
        if argument == "--ros-args":
            in_ros = True
        elif in_ros and argument == "--":
            in_ros = False
        elif not in_ros:
            own.append(argument)
    return own


@app.command()
def play(
    folder: Annotated[
        Optional[Path], typer.Argument(help="Folder with vi/ and ir/; the synthetic street if left out.")
    ] = None,
    rate: RateOption = 15.0,
    frames: Annotated[Optional[int], typer.Option(help="Stop after so many pairs.", min=1)] = None,
    loop: Annotated[bool, typer.Option(help="Start again at the folder's end.")] = True,
    skew: Annotated[float, typer.Option(help="How much later the thermal image is taken, seconds.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Standard deviation of each stamp, seconds.", min=0)] = 0.0,
    drop: Annotated[float, typer.Option(help="Share of frames left out.", min=0, max=1)] = 0.0,
    mono16: Annotated[bool, typer.Option("--mono16", help="Play 8-bit thermal images as 16-bit counts.")] = False,
    seed: Annotated[int, typer.Option(help="Of jitter, drops and street.")] = 0,
    sent: Annotated[Optional[Path], typer.Option(help="Write the stamps that went out, as JSON.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a listener before starting.", min=0)] = 30.0,
) -> None:
    """Play a folder of pairs as two camera topics: visible/image_raw and thermal/image_raw.

    Example: vifa play ../shared/data/msrs/test --rate 10 --skew 0.01
    """
    need_ros()
    import rclpy

    from vifa_ros.executor import until_interrupted
    from vifa_ros.players import FolderSource, PlayerNode, PlaySettings, open_source
    from vifa_runtime.files import write_json

    source = open_source(folder, seed)
    if not loop and isinstance(source, FolderSource):
        frames = min(frames or len(source), len(source))
    settings = PlaySettings(rate, frames, skew, jitter, drop, mono16, seed)
    rclpy.init()
    player = PlayerNode(source, settings)
    try:
        with until_interrupted():
            if not player.wait_for_listeners(wait):
                print(f"nobody listens to both cameras after {wait:g} s; playing all the same", file=sys.stderr)
            player.play()
    finally:
        if sent is not None:
            write_json(sent, player.sent)
        print(f"sent {', '.join(f'{len(stamps)} {stream}' for stream, stamps in player.sent.items())} frames")
        player.destroy_node()
        rclpy.try_shutdown()


@app.command()
def demo(
    pairs: PairsOption = None,
    seconds: Annotated[float, typer.Option(help="How long to play.", min=1)] = 20.0,
    rate: RateOption = 15.0,
    bundle: Annotated[str, typer.Option("--bundle", "-b", help="Folder or shipped name.")] = DEFAULT_BUNDLE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("demo"),
) -> None:
    """Run player, node and recorder as separate processes; write summary.json and contact_sheet.png.

    Example: vifa demo --pairs ../shared/data/msrs/test --seconds 20
    """
    need_ros()
    from vifa_ros.demo import DemoError, DemoSettings, run_demo

    what = "the synthetic street" if pairs is None else str(pairs)
    print(f"playing {what} at {rate:g} pairs a second for {seconds:g} s through {bundle}")
    leave_on_sigterm()  # else its processes would outlive it
    try:
        summary = run_demo(DemoSettings(pairs, seconds, rate, bundle, output))
    except DemoError as error:
        raise UsageError(str(error)) from None
    _print_row(summary["rows"][0])
    print(f"{output / 'summary.json'} and {output / 'contact_sheet.png'} written")


def _print_row(row: dict[str, Any]) -> None:
    table = Table("what", "value")
    for key, value in row.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
        table.add_row(key, str(value))
    Console().print(table)


USER_ERRORS = (UsageError, BagError, PairError, BundleError, BackendError, InputError, ThermalError, GeometryError)


def main() -> None:
    """Run the command; errors that a user can mend are one line and exit code 1."""
    try:
        app(args=without_ros_arguments(sys.argv[1:]))
    except USER_ERRORS as error:
        print(f"vifa: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
