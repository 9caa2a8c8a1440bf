"""The efficiency rows as a picture. Needs matplotlib, which is imported where it is used, and no torch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vifa_training.efficiency.report import ENGINE_NAMES

Row = Mapping[str, Any]

_COLOURS = {"torch": "#d95f02", "onnx": "#1b75bc"}
_MARKERS = {"torch": "o", "onnx": "s"}
_PUBLISHED = "#7b3294"
_COLUMNS = 3


class PlotError(RuntimeError):
    """No picture can be made; the message says what is missing."""


def require_matplotlib(otherwise: str = "give --no-plot") -> None:
    """Check, before long work, that a plot can be made.

    Raises:
        PlotError: matplotlib is not installed; install it, or do `otherwise`.
    """
    try:
        import matplotlib  # noqa: F401  (only whether it is there)
    except ImportError:
        raise PlotError(f"the plot needs matplotlib: pip install 'vifa-perception[training]', or {otherwise}") from None


def plot(rows: Sequence[Row]) -> bytes:
    """PNG: for each network the speed-up over the number of tasks, and all heads' shares in one more panel.

    Raises:
        PlotError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    lines = -(-(len(networks) + 1) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.5 * lines), layout="constrained")
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    most = max(2, *(row["tasks"] for row in rows))
    for panel, network in zip(panels, networks, strict=False):
        _speed_up(panel, [row for row in rows if row["network"] == network], most)
    _shares(panels[len(networks)], [next(row for row in rows if row["network"] == name) for name in networks])
    for panel in panels[len(networks) + 1 :]:
        panel.set_axis_off()
    handles = {
        text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle("One backbone with a head a task, against a whole network a task")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return data.getvalue()


def _speed_up(panel: Any, rows: Sequence[Row], most: int) -> None:
    tasks = np.linspace(1, most, 100)
    share = rows[0]["head_gmac_percent"] / 100
    panel.plot(tasks, tasks, ":", color="0.6", label="as many times as tasks")
    panel.plot(tasks, tasks / (1 + (tasks - 1) * share), color="0.25", label="limit by operations")
    for shift, engine in zip((-0.1, 0.1), ENGINE_NAMES, strict=True):
        timed = [row for row in rows if f"{engine}_ratio" in row]
        if timed:
            middle, low, high = (
                np.array([row[f"{engine}_{k}"] for row in timed]) for k in ("ratio", "ratio_low", "ratio_high")
            )
            panel.errorbar(
                [row["tasks"] + shift for row in timed],
                middle,
                yerr=(middle - low, high - middle),
                fmt=_MARKERS[engine],
                color=_COLOURS[engine],
                capsize=3,
                label=f"measured, {ENGINE_NAMES[engine]}",
            )
    for row in rows:
        if row["published_speed_up"]:
            panel.plot(
                row["tasks"],
                row["published_speed_up"],
                "*",
                color=_PUBLISHED,
                markersize=11,
                zorder=3,
                label="published, Jetson Nano",
            )
    panel.set(
        title=rows[0]["network"], xlabel="tasks", ylabel="times faster", xlim=(0.7, most + 0.3), ylim=(0.7, most + 0.3)
    )
    panel.set_xticks(range(1, most + 1))
    panel.set_yticks(range(1, most + 1))
    panel.set_aspect("equal")
    panel.grid(alpha=0.3)


def _shares(panel: Any, rows: Sequence[Row]) -> None:
    """Bars of what a head is of the whole network."""
    kinds = {"parameters": ("head_params_percent", "0.75"), "operations": ("head_gmac_percent", "0.4")}
    kinds |= {
        f"time, {name}": (f"{engine}_head_percent", _COLOURS[engine])
        for engine, name in ENGINE_NAMES.items()
        if any(f"{engine}_head_percent" in row for row in rows)
    }
    height = 0.8 / len(kinds)
    bars = []
    for index, (field, colour) in enumerate(kinds.values()):
        at = np.arange(len(rows)) + (index - (len(kinds) - 1) / 2) * height
        bars.append(panel.barh(at, [row.get(field, np.nan) for row in rows], height, color=colour))
    panel.set_yticks(range(len(rows)), [row["network"] for row in rows])
    panel.invert_yaxis()
    panel.set(title="a head's share of the whole network", xlabel="%")
    panel.legend(bars, kinds, fontsize="small")
    panel.grid(axis="x", alpha=0.3)
