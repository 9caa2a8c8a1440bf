"""One report of a sequence of tasks: `report.md`, `rows.json`, `report.png` and `curves.png`."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vifa_runtime.files import write_atomically, write_json
from vifa_training.efficiency.plot import require_matplotlib
from vifa_training.experiments.published import TABLE_3
from vifa_training.experiments.verdicts import judge, primary_rows
from vifa_training.markdown import table_of

Row = Mapping[str, Any]

NOT_RUN = "None of the methods that are needed was run."
MEANING = {
    "base": "fusion without labels, task network trained on what it shows",
    "ref": "fusion and task network trained as one, for this task alone (Eq. 2): the upper bound",
    "seq": "one fusion network, trained with one task after the other",
    "seq_head": "the backbone of seq, a fresh thin head a task taught by ref (Eq. 3)",
    "ewc": "as seq; weights that mattered are held by springs",
    "lwf": "as seq; all channels and the fused image stay near what they were",
    "replay": "as seq; eight stored pairs of the older task are shown on",
    "vifa": "stage 1 (Eq. 1), then a thin head a task taught by ref (Eq. 3)",
    "key_channels": "stage 1 alone, with the head that it trained, shown to the task network of base",
    "reference": "backbone and heads taught by each ref, one after the other, nothing held",
}


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    order: Sequence[str],
    folds: Mapping[str, Mapping[str, Sequence[float]]],
    drift: Sequence[Row],
    curves: Sequence[Row],
) -> None:
    """Write the report beside what was there, then rename.

    Args:
        folder: of the files.
        result: `{"meta", "rows"}` of `sequence_rows`.
        order: names of the recipes as they were learned.
        folds: task -> method -> the primary metric of each fold by itself.
        drift, curves: rows of `drift_rows` and `curve_rows` of every fold, with `fold`.

    Raises:
        PlotError: matplotlib is not installed.
        OSError: it cannot be written.
    """
    write_json(folder / "rows.json", result)
    write_atomically(folder / "report.png", plot(result["rows"], order, drift))
    if curves:
        write_atomically(folder / "curves.png", plot_curves(curves))
    write_atomically(folder / "report.md", markdown(result, order, folds, drift, bool(curves)).encode())


def markdown(
    result: Mapping[str, Any],
    order: Sequence[str],
    folds: Mapping[str, Mapping[str, Sequence[float]]],
    drift: Sequence[Row],
    has_curves: bool,
) -> str:
    """The report as text; arguments as of `write_report`."""
    rows, meta = result["rows"], result["meta"]
    head = rows[0]
    lines = [
        f"# {', then '.join(order)}: {head['network']}",
        "",
        f"`{meta['command']}`, {meta['date']}, {meta['machine']}, {head['folds']} folds, preset {head['preset']}, "
        f"seed {meta['seed']}, commit {meta['commit']}.",
        "Pooled over held-out folds with 95 % bootstrap intervals; `of ref` on the same resamples.",
        "`won back` is the share of what seq lost against ref; the last columns are the folds by themselves.",
        "",
    ]
    for task in order:
        primary = primary_rows(rows, task)
        spread = folds.get(task, {})
        lines += [f"## {task}: {primary[0]['metric']}", ""]
        lines += [*table_of(_lines(primary, spread, is_old=task != order[-1])), ""]
    lines += ["![what each method keeps](report.png)", "", "## What the methods are", ""]
    methods = dict.fromkeys(row["method"] for row in rows)
    lines += [*table_of([{"method": name, "": MEANING.get(name, "")} for name in methods]), ""]
    lines += ["## What was to be shown", "", *(table_of(_verdict_lines(rows, order)) or [NOT_RUN]), ""]
    if drift:
        lines += ["## How far the features went", ""]
        lines += [
            "On held-out pairs of the first task, relative to what they were before the later tasks; mean over the"
        ]
        lines += ["folds. `key` and `other` are the key channels and the rest, where there are any.", ""]
        lines += [*table_of(_drift_lines(drift)), ""]
    if has_curves:
        lines += ["## Learning curves", "", "Mean loss of each training, by its steps, over the folds. Remedies add a"]
        lines += ["loss of their own, so that lines are to be compared in shape, not in height.", ""]
        lines += ["![learning curves](curves.png)", ""]
    lines += ["## All metrics", "", *table_of([_flat(row) for row in rows]), ""]
    lines += ["## Published", "", "Table 3 of the paper, on M3FD and MSRS, its slipped labels put right: other data,"]
    lines += ["other task networks, longer trainings. Not to be compared with the numbers above.", ""]
    lines += [*table_of([row._asdict() for row in TABLE_3]), ""]
    return "\n".join(lines)


def plot(rows: Sequence[Row], order: Sequence[str], drift: Sequence[Row]) -> bytes:
    """PNG: for each task the methods with their intervals beside ref, and how far the features of each went."""
    require_matplotlib("run without a report")
    from matplotlib.figure import Figure

    panels = len(order) + bool(drift)
    figure = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel, task in zip(axes, order, strict=False):
        every = primary_rows(rows, task)
        primary = [row for row in every if row["mean"] is not None]
        middle = [row["mean"] for row in primary]
        spans = [
            [row["mean"] - (row["mean"] if row["low"] is None else row["low"]) for row in primary],
            [(row["mean"] if row["high"] is None else row["high"]) - row["mean"] for row in primary],
        ]
        colours = [{"ref": "0.35", "vifa": "#1b75bc"}.get(row["method"], "0.7") for row in primary]
        panel.barh(range(len(primary)), middle, color=colours, xerr=spans, error_kw={"capsize": 2, "ecolor": "0.2"})
        panel.set_yticks(range(len(primary)), [row["method"] for row in primary])
        panel.invert_yaxis()
        panel.set(title=task, xlabel=every[0]["metric"])
        for row in primary:
            if row["method"] == "ref":
                panel.axvline(row["mean"], color="0.35", linestyle=":")
        panel.grid(axis="x", alpha=0.3)
    if drift:
        for method in dict.fromkeys(row["method"] for row in drift):
            lines = _mean_drift([row for row in drift if row["method"] == method])
            axes[-1].plot(list(lines), [values["drift"] for values in lines.values()], marker="o", label=method)
        axes[-1].set(title=f"change of features on {order[0]}", ylabel="relative to what they were", ylim=(0, None))
        axes[-1].tick_params(axis="x", rotation=45)
        axes[-1].legend(fontsize="small")
        axes[-1].grid(alpha=0.3)
    return _png(figure)


def plot_curves(curves: Sequence[Row]) -> bytes:
    """PNG: for each later task the loss by steps of what was trained for it, and in a panel below that of stage 1."""
    require_matplotlib("run without a report")
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in curves))
    kinds = [kind for kind in (True, False) if any((row["method"] == "stage 1") != kind for row in curves)]
    figure = Figure(figsize=(5.2 * len(tasks), 3.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(tasks), squeeze=False)
    for line, is_whole in zip(axes, kinds, strict=True):
        for panel, task in zip(line, tasks, strict=True):
            rows = [row for row in curves if row["task"] == task and (row["method"] != "stage 1") == is_whole]
            for method in dict.fromkeys(row["method"] for row in rows):
                losses: dict[int, list[float]] = {}
                for row in rows:
                    if row["method"] == method:
                        losses.setdefault(row["step"], []).append(row["loss"])
                panel.plot(list(losses), [sum(of) / len(of) for of in losses.values()], label=method)
            panel.set(title=f"{task}: {'whole networks' if is_whole else 'stage 1'}", xlabel="step", ylabel="loss")
            panel.legend(fontsize="small")
            panel.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Any) -> bytes:  # of matplotlib, which only drawing needs
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return data.getvalue()


def _lines(primary: Sequence[Row], folds: Mapping[str, Sequence[float]], is_old: bool) -> list[Row]:
    means = {row["method"]: row["mean"] for row in primary}
    lost = (means.get("ref") or 0) - (means["seq"] if means.get("seq") is not None else math.inf)
    lines = []
    for row in primary:
        back = (row["mean"] - means["seq"]) / lost if lost > 0 and row["mean"] is not None else None
        line = {"method": row["method"], "mean": row["mean"], "interval": _interval(row["low"], row["high"])}
        line |= {"of ref": row["ratio"], "from to": _interval(row["ratio_low"], row["ratio_high"])}
        if is_old:
            line |= {"won back": "" if back is None else f"{back:.0%}"}
        spread = folds.get(row["method"], [])
        lines.append(line | {f"fold {number}": round(value, 3) for number, value in enumerate(spread, start=1)})
    return lines


def _verdict_lines(rows: Sequence[Row], order: Sequence[str]) -> list[Row]:
    return [
        {
            "claim": verdict.claim,
            "measured": round(verdict.measured, 3),
            "interval": _interval(verdict.low, verdict.high),
            "at least": verdict.wanted,
            "holds": ("yes" if verdict.holds else "no") + (", within the interval" if verdict.is_open else ""),
        }
        for verdict in judge(rows, order)
    ]


def _drift_lines(drift: Sequence[Row]) -> list[Row]:
    lines = []
    for method in dict.fromkeys(row["method"] for row in drift):
        for layer, values in _mean_drift([row for row in drift if row["method"] == method]).items():
            shown = {key.removesuffix("_drift"): round(value, 3) for key, value in values.items()}
            lines.append({"method": method, "layer": layer, "drift": "", "key": "", "other": ""} | shown)
    return lines


def _mean_drift(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Layer -> kind of drift -> mean over the folds."""
    means: dict[str, dict[str, float]] = {}
    for layer in dict.fromkeys(row["layer"] for row in rows):
        for kind in ("drift", "key_drift", "other_drift"):
            known = [row[kind] for row in rows if row["layer"] == layer and row[kind] is not None]
            if known:
                means.setdefault(layer, {})[kind] = sum(known) / len(known)
    return means


def _flat(row: Row) -> Row:
    interval = _interval(row["low"], row["high"])
    return {key: row[key] for key in ("task", "metric", "method", "mean")} | {"interval": interval}


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
