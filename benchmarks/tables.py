"""Make docs/results/README.md from the JSON files beside it: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vifa_training.efficiency.report import markdown
from vifa_training.markdown import table_of

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

QUALITY_NOTE = """\
Copying one source wins by construction where a metric sums the likeness to both: the copy is perfect for its own
source, so `visible` and `thermal` have a VIF above 1 and an SSIM near 1 whatever they leave out of the other. `maximum`
is close to such a copy where one source is brighter nearly everywhere. Read VIF and SSIM beside `target_contrast` (how
much brighter the warmest 2 % of the pixels are than the image, gray levels) and `ssim_visible` (structure kept of the
visible image): the copy of one source fails one of the two. The heads differ in just these: `saliency` leads in
`target_contrast`, `texture` in `ssim_visible`."""


# Result files whose rows are one table: title, and what to know to read it.
PLAIN = {
    "engine_settings": (
        "### Settings",
        "In turns; the first setting of a part is the back end's, and `ratio` a pair's time relative to it, the median",
        "over the rounds, with quartiles.",
    ),
    "int8_speed": (
        "### INT8",
        "`vifa bundle quantize` with its limit, and without one (every convolution): speed in turns with the bundle",
        "that it was made of, and the guarded metric that moved most on validation pairs. `refused`: no convolution",
        "within the limit.",
    ),
    "network_speed": (
        "## nano against TarDAL",
        "On the same pairs, in turns of a few calls, ONNX Runtime on the CPU. `times_the_first` is a bundle's time",
        "relative to the first one's, the median over the rounds; `least` and `most` are its extremes.",
    ),
    "channel_similarity": (
        "## Similarity of channels",
        "FSIM of every two channels of a layer on a frame of the synthetic street: ours against `piq.fsim` of one pair",
        "after the other, in one run. Seconds of processor time, one thread; channels that are constant left out.",
        "`largest_difference` is between the two, `from_double` and `piq_from_double` what each differs by from piq in",
        "double precision: where a map is zero but for some pixels, float32 rounds what the filters answer.",
    ),
    "transport": (
        "## Images that arrive",
        "Best effort between two processes on one machine. `bare process` only counts; `fusion node` is the demo: it",
        "fuses for both tasks, and a third process listens to the results. Three runs.",
    ),
    "node_latency": (
        "## The node, end to end",
        "From the visible image's stamp to the arrival of the pair's last result in another process, over DDS. The",
        "relay has the same inputs and outputs and does no work. `limit_p50_ms` is the pipeline's p50, measured in",
        "the node, and one and a half times the relay's. In turns, in one run.",
    ),
    "soak": (
        "## The node under faults",
        "Cameras that stall, restart, jump in time, change size and encoding, and send what is no image, one fault",
        "after the other. `broken_laws` counts statuses in which an account does not add up; recovery is the time",
        "from good input to the first result; memory, threads and file descriptors grow after the first minute.",
    ),
    "bag_evaluation": (
        "## Evaluating bags",
        "`vifa evaluate` on a recording of MSRS, relative to the pipeline on the same pairs, decoded, in memory; in",
        "turns, the median over the rounds, in wall time (`times`) and processor time (`cpu`; the machine was shared).",
        "`in_a_row`: the pipeline and all metrics in one thread. `boxes`: `--metrics map,miou`. `all`: the default",
        "metrics, for two tasks. `tenth`: `--fusion-every 10`. `peak_mib`: of the command, for a third of the pairs",
        "and for all.",
    ),
    "alignment": (
        "## Aligning",
        "Known warps of real pairs (scale 0.7 to 1.4, rotation to 5 degrees, shift to 15 %), shared by all pairs of a",
        "trial; an error is the median over the corners. Both data sets are off by themselves (`own misalignment`),",
        "which a right answer shows as an error, so each is also tested with that taken out. A refusal is not within",
        "the limit; `wrong` is a result of more than four times the limit. Seconds are of processor time.",
    ),
}


def render() -> str:
    """The whole page."""
    quality, speed = _read("fusion_quality"), _read("runtime_speed")
    parts = [
        "# Results",
        "Made by `benchmarks/tables.py` from the JSON files beside this page, each of which names its command,",
        "machine, versions, commit and date. Run the commands again to check them on your machine.",
        "",
        "## Fusion quality",
        "",
        _source(quality),
        f"Bundles: {_bundles(quality['meta']['bundles'])}; pairs that no training or tuning saw.",
        "`epochs` is how long a network was trained, where its bundle says so.",
        "",
        *_quality_tables(quality["rows"]),
        QUALITY_NOTE,
        "",
        "## Speed of the whole chain",
        "",
        _source(speed),
        "Raw pair in, every task's image out; machines here are shared, so the best call stands beside the median.",
        "`overhead` is the time around ONNX Runtime relative to the time inside it, in the same calls.",
        "",
        *table_of(speed["rows"]),
        "",
        *_engines(),
        *_plain("engine_settings"),
        *_plain("int8_speed"),
        *_plain("network_speed"),
        *_efficiency(),
        *_plain("channel_similarity"),
        *_tasks(),
        *_head_depth(),
        *_sequences(),
        *_choices(),
        *_published_weights(),
        *_plain("transport"),
        *_plain("node_latency"),
        *_plain("soak"),
        *_plain("bag_evaluation"),
        *_plain("alignment"),
    ]
    return "\n".join(parts)


def _plain(name: str) -> list[str]:
    """A section of PLAIN, if its file is there."""
    if not (RESULTS / f"{name}.json").exists():
        return []
    title, *note = PLAIN[name]
    result = _read(name)
    return [title, "", _source(result), *note, "", *table_of(result["rows"]), ""]


def _engines() -> list[str]:
    """`vifa bench` of the bundles that ship, with eager torch."""
    if not (RESULTS / "engine_speed.json").exists():
        return []
    result = _read("engine_speed")
    lines = [
        "## Engines",
        "",
        _source(result),
        "Whole chain from camera bytes to results, and its parts; `floor` is what the",
        "operations take at the rate of a large matrix product on the same threads, and the bytes at that of a copy.",
        "",
    ]
    keys = ("bundle", "device", "size", "threads", "pairs_per_s", "fusion_pairs_per_s", "engine_ms", "overhead_ms")
    lines += [*table_of([{key: row[key] for key in (*keys, "floor_ms", "memory_mib")} for row in result["rows"]]), ""]
    lines += [
        "One backbone for n tasks against n whole networks, fusion alone, in turns; `limit` is by operations.",
        "",
    ]
    lines += [*table_of([{"bundle": row["bundle"], **task} for row in result["rows"] for task in row["tasks"]]), ""]
    lines += ["Backbone and heads as graphs one after the other, as one, and with the heads' convolutions as one.", ""]
    lines += [*table_of([{"bundle": row["bundle"], **way} for row in result["rows"] for way in row["variants"]]), ""]
    lines += ["Against eager torch on luma, two heads, in turns; `cores` is how many torch really used.", ""]
    return [*lines, *table_of([{"bundle": row["bundle"], **row["eager"]} for row in result["rows"]]), ""]


def _tasks() -> list[str]:
    """Boxes and masks of every method on the same held-out folds."""
    if not (RESULTS / "tasks.json").exists():
        return []
    result = _read("tasks")
    lines = ["## Tasks", "", _source(result), "Pooled over the held-out folds, with the 95 % bootstrap interval."]
    lines += [
        "`of ref` is the ratio to the reference model on the same resamples. [What each method is](../tasks.md).",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["task"] == task]
        for metric in dict.fromkeys(row["metric"] for row in own):
            rows = [row for row in own if row["metric"] == metric]
            lines += [f"### {task}, {metric}: {rows[0]['pairs']} pairs, {rows[0]['folds']} folds", ""]
            lines += [*table_of([_task_line(row) for row in rows]), ""]
    if (RESULTS / "task_folds.json").exists():
        folds = _read("task_folds")
        lines += [
            "### Fold by fold",
            "",
            _source(folds),
            "`of_ref` is `vifa` of `ref`.",
            "",
            *table_of(folds["rows"]),
            "",
        ]
    return lines


def _head_depth() -> list[str]:
    """How many layers a head needs to do what the reference does (the paper's Figure 4)."""
    if not (RESULTS / "head_depth.json").exists():
        return []
    result = _read("head_depth")
    lines = [
        "## Depth of the head",
        "",
        _source(result),
        "Stage 2 with heads of so many convolutions, on one held-out fold; 0 is the reference model itself;",
        "the recipes' heads have two. The task network is the reference's. `of ref` as above.",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["task"] == task and row["metric"] in ("map50", "miou")]
        keys = ("layers", "head_params", "metric", "mean", "low", "high")
        lines += [f"### {task}, fold {rows[0]['fold']} of {rows[0]['folds']}", ""]
        of_ref = [{"of ref": row["ratio"], "from": row["ratio_low"], "to": row["ratio_high"]} for row in rows]
        lines += [
            *table_of([{**{key: row[key] for key in keys}, **extra} for row, extra in zip(rows, of_ref, strict=True)])
        ]
        lines += [""]
    return lines


SEQUENCES = {
    "two_task": "Two tasks, one after the other",
    "three_task": "Three tasks, one after the other",
    "ablation": "What each half of VIFA is worth",
    "fusion_sequence": "What fusion without tasks forgets",
}


def _sequences() -> list[str]:
    """Each experiment on sequences that has been run: every order of tasks, task and metric."""
    lines: list[str] = []
    for name, title in SEQUENCES.items():
        if not (RESULTS / f"{name}.json").exists():
            continue
        result = _read(name)
        lines += [f"## {title}", "", _source(result), "[What each method is](../sequences.md#the-comparison).", ""]
        places = dict.fromkeys((row["sequence"], row["task"], row["metric"]) for row in result["rows"])
        for sequence, task, metric in places:
            wanted = (sequence, task, metric)
            rows = [row for row in result["rows"] if (row["sequence"], row["task"], row["metric"]) == wanted]
            lines += [f"### {sequence.replace('+', ', then ')}: {metric} of {task}", ""]
            lines += [*table_of([_task_line(row) for row in rows]), ""]
    return lines


def _choices() -> list[str]:
    """How strongly each method of a sequence holds on, on the validation parts."""
    if not (RESULTS / "sequence_choices.json").exists():
        return []
    result = _read("sequence_choices")
    lines = ["## How strongly each method holds on", "", _source(result)]
    lines += ["On the validation parts, one seed. `kept` is relative to the task's reference.", ""]
    return [*lines, *table_of(result["rows"]), ""]


def _task_line(row: dict[str, Any]) -> dict[str, Any]:
    line = {key: row[key] for key in ("network", "method", "mean", "low", "high")}
    if "ratio" in row:
        line |= {"of ref": row["ratio"], "from": row["ratio_low"], "to": row["ratio_high"]}
    return {**line, "preset": row["preset"]}


def _published_weights() -> list[str]:
    """Published weights in our networks, against the fused images that their authors published."""
    result = _read("published_weights")
    rows = []
    for network, folder in dict.fromkeys((row["network"], row["pair"].partition("/")[0]) for row in result["rows"]):
        own = [row for row in result["rows"] if (row["network"], row["pair"].partition("/")[0]) == (network, folder)]
        means = [row["mean_abs_gray_levels"] for row in own]
        rows.append(
            {
                "network": network,
                "data": folder,
                "pairs": len(own),
                "mean difference": f"{sum(means) / len(means):.1e}",
                "worst pair's mean": f"{max(means):.1e}",
                "largest of a pixel": max(row["max_abs_gray_levels"] for row in own),
            }
        )
    return [
        "## Published weights",
        "",
        _source(result),
        f"{result['meta']['compared'].capitalize()}, in gray levels.",
        "",
        *table_of(rows),
        "",
    ]


def _bundles(bundles: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{name} (network `{about['network']}`)" for name, about in bundles.items()) or "none"


def _quality_tables(rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for data, split in dict.fromkeys((row["data"], row["split"]) for row in rows):
        own = [row for row in rows if (row["data"], row["split"]) == (data, split)]
        methods: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in own:
            method = (row["bundle"] or row["network"], row["task"], row["epochs"])
            methods.setdefault(method, {})[row["metric"]] = f"{row['value']:.3f}"
        lines += [f"### {data}, {split}: {own[0]['pairs']} pairs", ""]
        lines += table_of(
            [
                {"fused by": name, "task": task, "epochs": epochs, **values}
                for (name, task, epochs), values in methods.items()
            ]
        )
        lines.append("")
    return lines


def _efficiency() -> list[str]:
    """What one backbone for several tasks saves, beside the paper's Tables 5 and 6."""
    result = _read("efficiency")
    picture = "![Speed-up over the number of tasks, and what a head is of a network](efficiency.png)"
    return ["## One backbone, several heads", "", _source(result), "", markdown(result, level=3), picture, ""]


def _source(result: dict[str, Any]) -> str:
    meta = result["meta"]
    return f"`{meta['command']}`, {meta['machine']}, {meta['date']}."


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(render())
    print(f"{RESULTS.name}/README.md written")
