"""`vifa record`. Without postponed annotations, which Typer 0.9 does not read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from vifa_ros.bags.errors import need_rosbags
from vifa_runtime.cli_options import JsonOption, OptionalPath
from vifa_runtime.provenance import describe_run


def record(
    folder: Annotated[
        Path, typer.Argument(help="Folder with vi/ and ir/, and maybe labels/ (YOLO text), masks/ and classes.txt.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bag.")],
    rate: Annotated[float, typer.Option(help="Pairs a second.", min=0.1, max=1000)] = 15.0,
    skew: Annotated[float, typer.Option(help="How much later the thermal image is taken, seconds.")] = 0.0,
    jitter: Annotated[float, typer.Option(help="Standard deviation of each stamp, seconds.", min=0)] = 0.0,
    drop: Annotated[float, typer.Option(help="Share of each camera's frames left out.", min=0, max=1)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of jitter and drops.", min=0)] = 0,
    start: Annotated[
        float, typer.Option(help="Where the stamps begin, seconds; 2024-01-01 UTC.", min=0)
    ] = 1704067200.0,
    mono16: Annotated[bool, typer.Option("--mono16", help="Record 8-bit thermal images as 16-bit counts.")] = False,
    images: Annotated[
        str, typer.Option(help="raw, png or jpeg; thermal images of 16 bits become PNG with jpeg too.")
    ] = "raw",
    quality: Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)] = 95,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    compression: Annotated[
        str, typer.Option(help="What zstd compresses: none, chunk (of mcap), message or file.")
    ] = "none",
    classes: Annotated[
        str, typer.Option(help="Names of the boxes' classes, with commas between; classes.txt of the folder if empty.")
    ] = "",
    mask_classes: Annotated[
        str,
        typer.Option(help="Names of the masks' classes; mask_classes.txt, or classes.txt where there are no boxes."),
    ] = "",
    alignment: Annotated[
        OptionalPath,
        typer.Option(
            help="Alignment file of mode cameras: its calibrations become camera_info, its extrinsics /tf_static."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bag that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a folder of pairs, with its labels as ground truth, as a bag.

    Each pair once, in the order of names. Topics: visible/ and thermal/ with
    image_raw (/compressed) and camera_info; ground_truth/ with detections, mask,
    their label_info, and pair_name. ros2 bag play, RViz and Foxglove take it.

    Example: vifa record ../shared/data/msrs/test -o street --classes person,bicycle,car
    """
    need_rosbags()
    from vifa_ros.bags.recording import RecordSettings
    from vifa_ros.bags.recording import record as write_bag
    from vifa_ros.play_plan import PlaySettings
    from vifa_runtime.alignment_files import load_alignment
    from vifa_runtime.pairs import find_pairs

    settings = RecordSettings(
        play=PlaySettings(rate, None, skew, jitter, drop, mono16, seed),
        images=images,
        quality=quality,
        storage=storage,
        compression=compression,
        overwrite=overwrite,
        start=round(start * 1e9),
        classes=_names(classes),
        mask_classes=_names(mask_classes),
        alignment=None if alignment is None else load_alignment(alignment),
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("recording", total=2 * len(find_pairs(folder)) * (1 - drop))
        row = write_bag(folder, output, settings, lambda: progress.advance(task))
    _show(row, as_json, seed)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _show(row: dict[str, Any], as_json: bool, seed: int) -> None:
    if as_json:
        print(json.dumps({"meta": describe_run("vifa record", seed=seed), "rows": [row]}, indent=2))
        return
    truth = ", ".join(f"{row[what]} with {what}" for what in ("boxes", "masks") if row[what]) or "none labelled"
    print(
        f"{row['bag']}: {row['visible']} visible images ({truth}) and {row['thermal']} thermal ones of {row['pairs']} "
        f"pairs in {row['duration_s']:.2f} s, {row['bytes'] / 1e6:.1f} MB"
    )
