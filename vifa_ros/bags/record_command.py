"""`vifa record`. Without postponed annotations, which Typer 0.9 does not read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vifa_ros.bags.errors import need_rosbags
from vifa_ros.bags.options import ClassesOption, MaskClassesOption, OverwriteOption, parse_names, shown_progress
from vifa_ros.usage import leave_on_sigterm
from vifa_runtime.cli_options import JsonOption, OptionalPath
from vifa_runtime.provenance import describe_run

_Folder = Annotated[
    Path, typer.Argument(help="Folder with vi/ and ir/, and maybe labels/ (YOLO text), masks/ and classes.txt.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bag.")]
_Rate = Annotated[float, typer.Option(help="Pairs a second.", min=0.1, max=1000)]
_Skew = Annotated[float, typer.Option(help="How much later the thermal image is taken, seconds.")]
_Jitter = Annotated[float, typer.Option(help="Standard deviation of each stamp, seconds.", min=0)]
_Drop = Annotated[float, typer.Option(help="Share of each camera's frames left out.", min=0, max=1)]
_Seed = Annotated[int, typer.Option(help="Of jitter and drops.", min=0)]
_Start = Annotated[float, typer.Option(help="Where the stamps begin, seconds; 2024-01-01 UTC.", min=0, max=2e9)]
_Mono16 = Annotated[bool, typer.Option("--mono16", help="Record 8-bit thermal images as 16-bit counts.")]
_Images = Annotated[str, typer.Option(help="raw, png or jpeg; thermal images of 16 bits become PNG with jpeg too.")]
_Quality = Annotated[int, typer.Option(help="Of JPEG.", min=1, max=100)]
_Storage = Annotated[str, typer.Option(help="mcap or sqlite3.")]
_Compression = Annotated[str, typer.Option(help="What zstd compresses: none, chunk (of mcap), message or file.")]
_Alignment = Annotated[
    OptionalPath,
    typer.Option(
        help="Alignment file of mode cameras: its calibrations become camera_info, its extrinsics /tf_static."
    ),
]


def record(
    folder: _Folder,
    output: _Output,
    rate: _Rate = 15.0,
    skew: _Skew = 0.0,
    jitter: _Jitter = 0.0,
    drop: _Drop = 0.0,
    seed: _Seed = 0,
    start: _Start = 1704067200.0,
    mono16: _Mono16 = False,
    images: _Images = "raw",
    quality: _Quality = 95,
    storage: _Storage = "mcap",
    compression: _Compression = "none",
    classes: ClassesOption = "",
    mask_classes: MaskClassesOption = "",
    alignment: _Alignment = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a folder of pairs, with its labels as ground truth, as a bag.

    Each pair once, in the order of names. Topics: visible/ and thermal/ with
    image_raw (/compressed) and camera_info; ground_truth/ with detections,
    mask, label_info of both, and pair_name. Names of classes are those of
    classes.txt and mask_classes.txt, if not given.

    Example: vifa record data/msrs/test -o street --classes person,bicycle,car
    """
    need_rosbags()
    leave_on_sigterm()
    from vifa_ros.bags.recording import RecordSettings
    from vifa_ros.bags.recording import record as write_bag
    from vifa_ros.play_plan import PlaySettings
    from vifa_runtime.alignment_files import load_alignment

    settings = RecordSettings(
        PlaySettings(rate, None, skew, jitter, drop, mono16, seed),
        images=images, quality=quality, storage=storage, compression=compression, overwrite=overwrite,
        start=round(start * 1e9), classes=parse_names(classes), mask_classes=parse_names(mask_classes),
        alignment=None if alignment is None else load_alignment(alignment),
    )  # fmt: skip
    with shown_progress("recording") as tell:
        row = write_bag(folder, output, settings, tell)
    _show(row, as_json, seed)


def _show(row: dict[str, Any], as_json: bool, seed: int) -> None:
    if as_json:
        print(json.dumps({"meta": describe_run("vifa record", seed=seed), "rows": [row]}, indent=2))
        return
    truth = ", ".join(f"{row[what]} with {what}" for what in ("boxes", "masks") if row[what]) or "none labelled"
    print(
        f"{row['bag']}: {row['visible']} visible images ({truth}) and {row['thermal']} thermal ones of {row['pairs']} "
        f"pairs in {row['duration_s']:.2f} s, {row['bytes'] / 1e6:.1f} MB"
    )
