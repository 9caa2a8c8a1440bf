"""`vifa extract`. Without postponed annotations, which Typer 0.9 does not read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vifa_ros.bags.errors import need_rosbags
from vifa_ros.bags.options import (
    DEFAULTS,
    ClassesOption,
    MaskClassesOption,
    MaxLagOption,
    MaxReuseAgeOption,
    MaxWaitOption,
    OverwriteOption,
    PairingOption,
    QueueSizeOption,
    SlopOption,
    StampsOption,
    ThermalInfoOption,
    ThermalOffsetOption,
    ThermalOption,
    VisibleInfoOption,
    VisibleOffsetOption,
    VisibleOption,
    make_pairing,
    parse_names,
    shown_progress,
)
from vifa_ros.camera_alignment import CAMERAS, FILE, AlignmentSettings
from vifa_ros.usage import leave_on_sigterm
from vifa_runtime.cli_options import JsonOption, OptionalPath
from vifa_runtime.provenance import describe_run

_Bag = Annotated[Path, typer.Argument(help="Folder of a bag, or one .mcap or .db3 file.")]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the pairs.")]
_Detections = Annotated[
    str, typer.Option(help="Topic of boxes; /ground_truth/detections, if it is there, if empty; none for none.")
]
_Mask = Annotated[str, typer.Option(help="Topic of masks; /ground_truth/mask likewise.")]
_Alignment = Annotated[
    str, typer.Option(help="An alignment file, as the node loads it; cameras: the bag's camera_infos; resize; none.")
]
_Extrinsics = Annotated[
    OptionalPath, typer.Option(help="File with the cameras' extrinsics, --alignment cameras; /tf_static if left out.")
]
_Distance = Annotated[
    float, typer.Option(help="At which both images agree, --alignment cameras, metres.", min=0.01, max=1e5)
]
_Every = Annotated[int, typer.Option(help="Take every so many of the pairs.", min=1)]
_Interval = Annotated[float, typer.Option(help="Seconds between two pairs at least.", min=0)]
_MinMotion = Annotated[
    float, typer.Option(help="Leave out pairs that differ less than this from the last one; see above.", min=0)
]
_WITHOUT_FILE = ("resize", "none", CAMERAS)


def extract(
    bag: _Bag,
    output: _Output,
    visible: VisibleOption = "",
    thermal: ThermalOption = "",
    visible_info: VisibleInfoOption = "",
    thermal_info: ThermalInfoOption = "",
    detections: _Detections = "",
    mask: _Mask = "",
    classes: ClassesOption = "",
    mask_classes: MaskClassesOption = "",
    alignment: _Alignment = DEFAULTS["alignment.mode"],
    extrinsics: _Extrinsics = None,
    distance: _Distance = DEFAULTS["alignment.distance"],
    every: _Every = 1,
    interval: _Interval = 0.0,
    min_motion: _MinMotion = 0.0,
    pairing: PairingOption = DEFAULTS["pairing"],
    slop: SlopOption = DEFAULTS["slop"],
    max_reuse_age: MaxReuseAgeOption = DEFAULTS["max_reuse_age"],
    stamps: StampsOption = DEFAULTS["stamps"],
    visible_offset: VisibleOffsetOption = DEFAULTS["visible_offset"],
    thermal_offset: ThermalOffsetOption = DEFAULTS["thermal_offset"],
    max_lag: MaxLagOption = DEFAULTS["max_lag"],
    max_wait: MaxWaitOption = DEFAULTS["max_wait"],
    queue_size: QueueSizeOption = DEFAULTS["queue_size"],
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a bag's pairs as a folder to train on: vi/, ir/, labels/, masks/.

    Pairs are those that the node would form; options of pairing have the names
    of its parameters. The folder is written whole or not at all.

    --min-motion compares a pair with the last one that was written. Each image
    is averaged to 64 columns and freed of brightness and contrast; what counts
    is the root mean square difference, of the two cameras the larger one.
    0: the same image. Noise: below 0.03. Somebody walks by: 0.1 to 0.3.
    1.4: images that have nothing in common.

    Example: vifa extract street -o pairs --every 5 --min-motion 0.15
    """
    need_rosbags()
    leave_on_sigterm()
    from vifa_ros.bags.extracting import ExtractSettings
    from vifa_ros.bags.extracting import extract as write_pairs

    mode = alignment if alignment in _WITHOUT_FILE else FILE
    rules = make_pairing(
        pairing=pairing, slop=slop, max_reuse_age=max_reuse_age, stamps=stamps, visible_offset=visible_offset,
        thermal_offset=thermal_offset, max_lag=max_lag, max_wait=max_wait, queue_size=queue_size,
    )  # fmt: skip
    settings = ExtractSettings(
        rules, AlignmentSettings(mode, alignment if mode == FILE else "", str(extrinsics or ""), distance),
        visible=visible, thermal=thermal, visible_info=visible_info, thermal_info=thermal_info,
        detections=detections, mask=mask, every=every, interval=interval, min_motion=min_motion,
        classes=parse_names(classes), mask_classes=parse_names(mask_classes), overwrite=overwrite,
    )  # fmt: skip
    with shown_progress("extracting") as tell:
        row = write_pairs(bag, output, settings, tell)
    _show(row, as_json)


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"meta": describe_run("vifa extract"), "rows": [row]}, indent=2))
        return
    if "notice" in row:
        print(f"note: {row['notice']}")
    labelled = ", ".join(f"{row[what]} with {what}" for what in ("boxes", "masks") if row[what])
    print(f"{row['folder']}: {row['written']} of {row['pairs']} pairs{f' ({labelled})' if labelled else ''}")
    for what in ("left_out", "dropped"):
        told = [f"{count} {key.removeprefix(f'{what}.')}" for key, count in row.items() if key.startswith(f"{what}.")]
        if told:
            print(f"{what.replace('_', ' ')}: {', '.join(told)}")
    for what in ("boxes", "masks"):
        if 0 < row[what] < row["written"]:
            print(f"{row['written'] - row[what]} pairs have no {what}; label or remove them before training on them")
