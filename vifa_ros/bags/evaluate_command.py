"""`vifa evaluate`. Without postponed annotations, which Typer 0.9 does not read."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vifa_ros.bags.errors import BagError, need_rosbags
from vifa_ros.bags.node_values import given_values, read_values
from vifa_ros.bags.options import (
    DEFAULTS,
    MaxLagOption,
    MaxReuseAgeOption,
    MaxWaitOption,
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
    shown_progress,
)
from vifa_ros.usage import leave_on_sigterm, need_ros
from vifa_runtime.cli_options import (
    BackendOption,
    BundleOption,
    OptionalPath,
    OptionalText,
    OptionalTexts,
    PrecisionOption,
    ThreadsOption,
)
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle

_THRESHOLD = "TASK:METRIC=VALUE, or TASK:METRIC@TAG=VALUE; may be given again."


def evaluate(
    context: typer.Context,
    bags: Annotated[
        list[Path], typer.Argument(metavar="BAG...", help="Folder of a bag, .mcap or .db3 file, or folder of bags.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report; an older one is replaced.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    compare: Annotated[
        OptionalText, typer.Option(help="Another bundle, to be compared with the first on the same pairs.")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="With commas between: en, sf, vif, ssim, ssim_mean, ssim_visible, target_contrast, map, miou."
        ),
    ] = "en,sf,vif,ssim,map,miou",
    fusion_every: Annotated[
        int, typer.Option(help="Measure the fused images of every so many pairs, boxes and masks of all.", min=1)
    ] = 1,
    labels: Annotated[
        OptionalPath,
        typer.Option(help="Folder with labels/ and masks/ by the names of pairs; topics of the bag if left out."),
    ] = None,
    detections: Annotated[
        str, typer.Option(help="Topic of true boxes; /ground_truth/detections, if it is there, if empty.")
    ] = "",
    mask: Annotated[str, typer.Option(help="Topic of true masks; /ground_truth/mask likewise.")] = "",
    tags: Annotated[
        str,
        typer.Option(
            help="Split by: auto, name, luma, none, a topic of std_msgs/String, or a YAML file; see docs/bags.md."
        ),
    ] = "auto",
    night_below: Annotated[
        float, typer.Option(help="Mean luma of a visible image below which it is night, --tags luma.", min=0, max=255)
    ] = 52.0,
    fail_below: Annotated[OptionalTexts, typer.Option(help=f"Fail where a metric is below: {_THRESHOLD}")] = None,
    fail_above: Annotated[OptionalTexts, typer.Option(help=f"Fail where a metric is above: {_THRESHOLD}")] = None,
    thresholds: Annotated[OptionalPath, typer.Option(help="YAML file with more of them; see docs/bags.md.")] = None,
    worst: Annotated[int, typer.Option(help="Pictures of the worst pairs of each task and metric.", min=0)] = 3,
    output_bag: Annotated[
        str, typer.Option(help="Write a bag of the first bundle's results too, its images raw or jpeg.")
    ] = "",
    each_by_itself: Annotated[
        bool,
        typer.Option("--each-by-itself", help="Don't smooth the limits of 16-bit thermal images over time."),
    ] = False,
    published_boxes: Annotated[
        bool,
        typer.Option(
            "--published-boxes", help="Measure those boxes only that the node publishes, above the bundle's score."
        ),
    ] = False,
    live: Annotated[
        str,
        typer.Option(help="Measure what this running node, such as /vifa, publishes while the bag is played into it."),
    ] = "",
    wait: Annotated[float, typer.Option(help="Seconds for the node and for the first image, --live.", min=1)] = 60.0,
    quiet: Annotated[
        float, typer.Option(help="Seconds without an image or result after which the bag has ended, --live.", min=0.5)
    ] = 10.0,
    jobs: Annotated[int, typer.Option(help="Bags at a time, each in a process; see --threads.", min=1, max=256)] = 1,
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster that takes the bags, auto, or local for one on this machine.")
    ] = "",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap, --compare.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Likewise.", min=0)] = 0,
    params: Annotated[
        OptionalPath, typer.Option(help="Parameter file of the node, such as config/vifa.yaml; options go before it.")
    ] = None,
    alignment: Annotated[
        str,
        typer.Option(help="An alignment file, as the node loads it; cameras: the bag's camera_infos; resize; none."),
    ] = DEFAULTS["alignment.mode"],
    extrinsics: Annotated[
        OptionalPath,
        typer.Option(help="File with the cameras' extrinsics, --alignment cameras; /tf_static if left out."),
    ] = None,
    distance: Annotated[
        float, typer.Option(help="At which both images agree, --alignment cameras, metres.", min=0.01, max=1e5)
    ] = DEFAULTS["alignment.distance"],
    visible: VisibleOption = "",
    thermal: ThermalOption = "",
    visible_info: VisibleInfoOption = "",
    thermal_info: ThermalInfoOption = "",
    pairing: PairingOption = DEFAULTS["pairing"],
    slop: SlopOption = DEFAULTS["slop"],
    max_reuse_age: MaxReuseAgeOption = DEFAULTS["max_reuse_age"],
    stamps: StampsOption = DEFAULTS["stamps"],
    visible_offset: VisibleOffsetOption = DEFAULTS["visible_offset"],
    thermal_offset: ThermalOffsetOption = DEFAULTS["thermal_offset"],
    max_lag: MaxLagOption = DEFAULTS["max_lag"],
    max_wait: MaxWaitOption = DEFAULTS["max_wait"],
    queue_size: QueueSizeOption = DEFAULTS["queue_size"],
    backend: BackendOption = DEFAULTS["backend"],
    threads: ThreadsOption = DEFAULTS["threads"],
    precision: PrecisionOption = DEFAULTS["precision"],
) -> None:
    """Run a bag through the chain that the node runs, pair by pair, and write a report: report.json and report.html.

    Every pair is evaluated, none is lost, and two runs give the same numbers. Thresholds that are not kept are told in
    a line each, and the exit code is 1; the report is written all the same.

    Example: vifa evaluate street --bundle nano-two-task -o report --fail-below road_users:map50_all=0.4
    """
    need_rosbags()
    from vifa_ros.bags.many import evaluate_many, find_bags, in_processes, on_ray
    from vifa_ros.bags.report import evaluate as write_report
    from vifa_ros.bags.session import EvaluateSettings

    values = read_values(params) | given_values(context)
    settings = EvaluateSettings(
        values=values,
        visible=visible,
        thermal=thermal,
        visible_info=visible_info,
        thermal_info=thermal_info,
        metrics=_metrics(metrics),
        fusion_every=fusion_every,
        labels=labels,
        detections=detections,
        mask=mask,
        tags=tags,
        night_below=night_below,
        smooths=not each_by_itself,
        as_published=published_boxes,
        worst=worst,
        output_images=_images(output_bag),
        thresholds=_thresholds(thresholds, fail_below, fail_above),
        resamples=resamples,
        seed=seed,
    )
    found = find_bags(bags)
    with shown_progress("evaluating") as on_step:
        if live:
            report = _listen(_only(found), output, live, compare, context, settings, (wait, quiet), on_step)
        else:
            leave_on_sigterm()
            bundles = [find_bundle(name) for name in (values["bundle"], compare) if name is not None]
            if len(found) == 1 and not ray:
                report = write_report(found[0], output, bundles, settings, on_step)
            else:
                run = on_ray(ray, max(1, values["threads"])) if ray else in_processes(min(jobs, len(found)))
                report = evaluate_many(found, output, bundles, settings, run, on_step)
    _show(report)
    print(f"{output / 'report.html'} and {output / 'report.json'} written")
    if not all(row["passed"] for row in report["thresholds"]) or any(row["problem"] for row in report.get("bags", ())):
        raise typer.Exit(1)


def _listen(
    bag: Path,
    output: Path,
    node: str,
    compare: str | None,
    context: typer.Context,
    settings: Any,
    times: tuple[float, float],
    on_step: Any,
) -> dict[str, Any]:
    """The report of `--live`; refuses what the node decides."""
    given = given_values(context)
    bundle = given.pop("bundle", None)
    refused = [*given, *(["params"] if context.params["params"] else []), *(["compare"] if compare else [])]
    if refused:
        raise BagError(f"--live measures the node as it is; leave out {', '.join(refused)}, or set it at the node")
    need_ros()
    from vifa_ros.live_evaluating import evaluate_live

    def on_ready() -> None:
        print(f"listening to {node}; play {bag} into it now", flush=True)

    return evaluate_live(bag, output, node, bundle, settings, *times, on_ready, on_step)


def _only(bags: list[Path]) -> Path:
    if len(bags) > 1:
        raise BagError(f"--live listens to one bag at a time, not to {len(bags)}; name one")
    return bags[0]


def _metrics(text: str) -> tuple[str, ...]:
    from vifa_ros.bags.session import METRICS

    chosen = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in METRICS] or ([] if chosen else [text]):
        raise BagError(f"--metrics: {', '.join(unknown)!r} is unknown; use some of {', '.join(METRICS)}")
    return tuple(metric for metric in METRICS if metric in chosen)


def _images(text: str) -> str:
    from vifa_ros.bags.output_bag import IMAGES

    if text and text not in IMAGES:
        raise BagError(f"--output-bag is {text!r}; use one of {', '.join(IMAGES)}")
    return text


def _thresholds(path: Path | None, below: list[str] | None, above: list[str] | None) -> list[Any]:
    from vifa_ros.bags.thresholds import ABOVE, BELOW, parse_threshold, read_thresholds

    found = [] if path is None else read_thresholds(path)
    found += [parse_threshold(text, BELOW) for text in below or ()]
    return found + [parse_threshold(text, ABOVE) for text in above or ()]


def _show(report: dict[str, Any]) -> None:
    """Tables of what was measured, and a line for each thing that a user must know."""
    console, bundles = Console(), list(report["meta"]["bundles"])
    if len(bundles) == 1:
        console.print(_metric_table(bundles[0], report["rows"]))
    for tag in dict.fromkeys(row["tag"] for row in report["comparison"]):
        rows = [row for row in report["comparison"] if row["tag"] == tag]
        console.print(_comparison_table(f"{tag}: {bundles[1]} beside {bundles[0]}", rows))
    told = (f"not measured: {row['metric']} of {row['task']}: {row['reason']}" for row in report["undefined"])
    for line in dict.fromkeys(told):
        print(line)
    dropped = [f"{row['count']} {row['what']} {row['reason']}" for row in report["drops"]]
    received = " and ".join(f"{row['received']} {row['stream']}" for row in report["streams"])
    print(f"{received} images; dropped: {', '.join(dropped) or 'none'}")
    for note in report["meta"]["notes"]:
        print(f"note: {note}")
    for row in report["thresholds"]:
        value = "not measured" if row["value"] is None else f"{row['value']:.4f}"
        word = "passed" if row["passed"] else "failed"
        wanted = "at least" if row["side"] == "below" else "at most"
        print(f"{word}: {row['metric']} of {row['task']}, {row['tag']}: {value}, wanted {wanted} {row['limit']:g}")


def _metric_table(bundle: str, rows: list[dict[str, Any]]) -> Table:
    """A line a task and metric, a column a tag."""
    tags = list(dict.fromkeys(row["tag"] for row in rows))
    table = Table("task", "metric", title=bundle, box=SIMPLE_HEAD)
    for tag in tags:
        table.add_column(tag, justify="right")
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        lines.setdefault((row["task"], row["metric"]), {})[row["tag"]] = row["value"]
    for (task, metric), values in lines.items():
        table.add_row(task, metric, *(f"{values[tag]:.4f}" if tag in values else "" for tag in tags))
    return table


def _comparison_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """A line a task and metric; the difference with its 95 % interval."""
    table = Table("task", "metric", title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)  # so that 80 columns do
    for name in ("pairs", "first", "second", "difference", "from", "to"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        ends = ("" if row[end] is None else f"{row[end]:+.4f}" for end in ("low", "high"))
        numbers = (str(row["pairs"]), f"{row['first']:.4f}", f"{row['second']:.4f}", f"{row['difference']:+.4f}")
        table.add_row(row["task"], row["metric"], *numbers, *ends)
    return table
