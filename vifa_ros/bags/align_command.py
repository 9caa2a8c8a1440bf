"""`vifa align`. Without postponed annotations, which Typer 0.9 does not read."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vifa_ros.bags.errors import need_rosbags
from vifa_ros.bags.options import (
    DEFAULTS,
    SlopOption,
    StampsOption,
    ThermalOption,
    VisibleOption,
    make_pairing,
    shown_progress,
)
from vifa_ros.usage import leave_on_sigterm
from vifa_runtime.alignment import LARGEST_BORDER, SOFT_BORDER
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.cli_options import JsonOption
from vifa_runtime.provenance import describe_run

if TYPE_CHECKING:
    from vifa_runtime.registration_frames import Frames
    from vifa_runtime.time_offset import TimeOffset

SUFFIXES = (".yaml", ".yml")
BAG_SUFFIXES = (".mcap", ".db3")
_PATIENT = {"max_lag": 1.0, "max_wait": 2.0, "queue_size": 100}  # parameters of pairing
OptionalSeconds = Optional[float]  # noqa: UP045 (Typer 0.9, of Ubuntu 24.04, does not read `float | None`)


def align(
    source: Annotated[Path, typer.Argument(help="A bag, or a folder with vi/ and ir/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Alignment file to write; a .png is put beside it.")],
    frames: Annotated[int, typer.Option(help="Pairs to use at most, evenly spread; more take longer.", min=5)] = 40,
    smallest: Annotated[
        float, typer.Option("--smallest", help="Smallest scale of the thermal image that is tried.", min=0.35, max=1)
    ] = 0.5,
    largest: Annotated[
        float, typer.Option("--largest", help="Largest; 1: both fields of view are equal.", min=1, max=4)
    ] = 2.0,
    rotation: Annotated[float, typer.Option(help="Degrees that are tried to both sides.", min=0, max=45)] = 8.0,
    soft_border: Annotated[
        int, typer.Option(help="Of the file: pixels along which results fade.", min=0, max=LARGEST_BORDER)
    ] = SOFT_BORDER,
    visible: VisibleOption = "",
    thermal: ThermalOption = "",
    slop: SlopOption = DEFAULTS["slop"],
    stamps: StampsOption = DEFAULTS["stamps"],
    thermal_offset: Annotated[
        OptionalSeconds,
        typer.Option(help="Added to the thermal stamps, seconds; found in the bag if left out.", min=-10, max=10),
    ] = None,
    largest_offset: Annotated[
        float, typer.Option(help="How large a time offset is looked for, seconds.", min=0.1, max=10)
    ] = 1.0,
    seconds: Annotated[
        float, typer.Option(help="How much of the bag is looked at for the time offset; 0: all of it.", min=0)
    ] = 120.0,
    seed: Annotated[int, typer.Option(help="Of the resamples that tell how sure it is.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Calibrate thermal to visible from what both cameras see: no target.

    Writes the alignment file that the node (alignment.mode file) and vifa fuse
    --alignment load, and beside it a picture: thermal edges in orange over
    visible images, before and after. From a bag, the time offset between the
    cameras is found too: the node's parameter thermal_offset.

    Record while the robot moves and turns, in places with edges at a distance.
    What the pairs don't determine is refused, and nothing is written. Options
    of topics, stamps and time offsets are for bags.

    Example: vifa align ../shared/data/msrs/test -o street.yaml
    """
    from vifa_ros.bags.align_results import frames_of_folder, make_row, write_results
    from vifa_runtime.registration import register
    from vifa_runtime.registration_search import SearchRange

    if output.suffix not in SUFFIXES:
        raise AlignmentError(f"--output: {output} does not end in {' or '.join(SUFFIXES)}; name it so")
    leave_on_sigterm()
    offset: TimeOffset | None = None
    notes: list[str] = []
    if _is_bag(source):
        need_rosbags()
        found, offset = _read_bag(
            source, (visible, thermal), frames, (slop, stamps, thermal_offset), (largest_offset, seconds), notes
        )
    else:
        with shown_progress("reading pairs") as tell:
            found = frames_of_folder(source, frames, tell)
    with shown_progress("aligning") as tell:
        result = register(
            found, SearchRange((smallest, largest), rotation), seed, lambda *at: tell(_progress(*at), 1.0)
        )
    row = make_row(source, output, result, offset)
    write_results(output, found, result, soft_border)
    if as_json:
        rows = [{**row, "notes": "; ".join(notes)}]
        print(json.dumps({"meta": describe_run("vifa align", seed=seed), "rows": rows}, indent=2))
        return
    _show(row, given=thermal_offset)


def _is_bag(source: Path) -> bool:
    if source.is_file():
        return True
    names = [path.name for path in source.iterdir()] if source.is_dir() else []
    return "metadata.yaml" in names or any(name.endswith(BAG_SUFFIXES) for name in names)


def _read_bag(
    path: Path,
    cameras: tuple[str, str],
    frames: int,
    pairing: tuple[float, str, OptionalSeconds],
    offsets: tuple[float, float],
    notes: list[str],
) -> "tuple[Frames, TimeOffset | None]":
    """Pairs of a bag, and the time offset by which they were paired if it was found.

    Args:
        cameras: topics of visible and thermal images, or empty.
        pairing: slop, stamps, and thermal offset if it is known.
        offsets: the largest that is looked for, and how many seconds of the bag are.
        notes: to which is added what the user is told.
    """
    from vifa_ros.bags.aligning import frames_of_bag, measure_offset
    from vifa_ros.bags.camera_pairs import find_topics
    from vifa_ros.bags.opening import Bag
    from vifa_runtime.time_offset import TimeOffsetError

    slop, stamps, known = pairing
    # Frames are there already: those that came late to the recorder are waited for, unlike on the robot.
    rules = make_pairing(slop=slop, stamps=stamps, thermal_offset=known or 0.0, **_PATIENT)
    offset = None
    with Bag(path) as bag:
        if bag.notice:
            _note(bag.notice, notes)
        topics = find_topics(bag, *cameras)
        if known is None:
            try:
                with shown_progress("finding the time offset") as tell:
                    offset = measure_offset(bag, topics, stamps, *offsets, tell)
            except TimeOffsetError as error:
                _note(f"time offset not found, pairs are formed by the stamps as they are: {error}", notes)
        if offset is not None:
            rules = replace(rules, thermal_offset=round(offset.seconds * 1e9))
        with shown_progress("reading pairs") as tell:
            return frames_of_bag(bag, topics, rules, frames, tell), offset


def _note(text: str, notes: list[str]) -> None:
    """Tell the user at once: what comes after may be refused because of it."""
    notes.append(text)
    print(f"vifa: {text}", file=sys.stderr)


def _progress(stage: str, share: float) -> float:
    """Of the whole, 0..1."""
    start, part = {"searching": (0.0, 0.6), "refining": (0.6, 0.15), "comparing": (0.75, 0.25)}[stage]
    return start + part * share


def _show(row: dict[str, Any], given: OptionalSeconds) -> None:
    print(
        f"{row['alignment']}: a {row['model']} from {row['pairs']} pairs, {row['agreeing']:.0%} of which agree; scale "
        f"{row['scale']:g}, turned by {row['rotation_deg']:g} degrees, moved by ({row['right_px']:g}, "
        f"{row['down_px']:g}) pixels; covers {row['overlap']:.0%} of the visible image"
    )
    print(
        f"corners: 90 % of resamples within {row['spread_px']:g} pixels, both halves of the pairs within "
        f"{row['halves_px']:g}; fits {row['peak_ratio']:g} times as well as elsewhere. Look at {row['picture']}"
    )
    parameters = f"-p alignment.mode:=file -p alignment.file:={row['alignment']}"
    if row["thermal_offset_s"] is not None:
        print(
            f"time offset: thermal_offset {row['thermal_offset_s']:+.4f} s, 90 % of resamples within "
            f"{row['offset_spread_s'] * 1e3:.1f} ms; motion correlates by {row['offset_correlation']:.2f}"
        )
        parameters += f" -p thermal_offset:={row['thermal_offset_s']:.4f}"
    elif given:
        parameters += f" -p thermal_offset:={given:g}"
    print(f"ros2 run vifa fusion_node --ros-args {parameters}")
