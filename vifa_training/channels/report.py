"""A channel analysis in words and numbers, and as a picture."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import Tensor

from vifa_training.channels.analysis import KeyChannels
from vifa_training.efficiency.plot import require_matplotlib
from vifa_training.markdown import table_of

_COLUMNS = 4
_SIDE, _TITLE, _MARGIN = 2.4, 0.3, 0.9  # inches: of a panel, above it, and right of all for the scale


def layer_rows(analysis: KeyChannels, before: KeyChannels | None = None) -> list[dict[str, Any]]:
    """One flat row a layer: counts, the mean similarity of two different channels, and the least and largest entropy.

    `before` adds the mean similarity of another analysis of the same network.
    """
    rows = []
    for name, layer in analysis.layers.items():
        row = {
            "layer": name,
            "channels": len(layer.key),
            "dead": int(layer.dead.sum()),
            "clusters": int(layer.clusters.max()) + 1,
            "keys": int(layer.key.sum()),
            "similarity": mean_similarity(layer.similarity),
            "entropy_low": round(float(layer.entropy.min()), 2),
            "entropy_high": round(float(layer.entropy.max()), 2),
        }
        if before is not None:
            row["similarity_before"] = mean_similarity(before.layers[name].similarity)
        rows.append(row)
    return rows


def mean_similarity(similarity: Tensor) -> float | None:
    """The mean over all pairs of different channels, to three decimals; None of a single channel."""
    count = len(similarity)
    if count < 2:
        return None
    return round(float((similarity.double().sum() - similarity.diagonal().sum()) / (count * (count - 1))), 3)


def describe(analysis: KeyChannels) -> str:
    """Where an analysis comes from, in one sentence."""
    choice = analysis.choice
    return (
        f"Backbone {analysis.backbone[:12]} of the network {analysis.network} on {analysis.images} pairs of "
        f"{analysis.data} (seed {choice.seed}); clusters `{choice.clustering}` at {choice.threshold:g}."
    )


def summary(analysis: KeyChannels, before: KeyChannels | None = None) -> str:
    """Markdown: where it comes from, a line a layer, and what the channels of each cluster are."""
    rows = layer_rows(analysis, before)
    lines = ["# Channels", "", describe(analysis), *(["", f"Before: {describe(before)}"] if before else []), ""]
    lines += table_of(rows)
    lines += ["", "## Clusters", "", "The key channel of each in bold, with its importance in bits."]
    for name, layer in analysis.layers.items():
        clusters = [torch.nonzero(layer.clusters == i).flatten().tolist() for i in range(int(layer.clusters.max()) + 1)]
        shown = "; ".join(
            " ".join(f"**{c}** ({layer.entropy[c]:.2f})" if layer.key[c] else str(c) for c in cluster)
            for cluster in clusters
        )
        lines += ["", f"{name}: {shown}."]
    return "\n".join([*lines, ""])


def heat_map(analysis: KeyChannels, before: KeyChannels | None = None) -> bytes:
    """PNG: the similarity of the channels of each layer, as in the paper's Figure 3.

    Channels in the network's own order, key channels ticked. With `before`, an analysis of the same network, each layer
    has two panels, before and after. One scale of colour for all.

    Raises:
        PlotError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    shown = [("", analysis)] if before is None else [("before: ", before), ("after: ", analysis)]
    panels = [(word, name, some.layers[name]) for name in analysis.layers for word, some in shown]
    lines = math.ceil(len(panels) / _COLUMNS)
    width, height = _COLUMNS * _SIDE + _MARGIN, lines * (_SIDE + _TITLE) + _TITLE
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    right, top = 1 - _MARGIN / width, 1 - 2 * _TITLE / height
    figure.subplots_adjust(0.02, 0.02, right, top, wspace=0.06, hspace=_TITLE / _SIDE)
    lowest = min(float(layer.similarity.min()) for _, _, layer in panels)
    for axis, (word, name, layer) in zip(axes, panels, strict=False):
        image = axis.imshow(layer.similarity.numpy(), vmin=math.floor(10 * lowest) / 10, vmax=1, cmap="viridis")
        axis.set_title(f"{word}{name}, {int(layer.key.sum())} keys of {len(layer.key)}", fontsize=8)
        keys = torch.nonzero(layer.key).flatten().tolist()
        axis.set_xticks(keys, [])
        axis.set_yticks(keys, [])
        axis.tick_params(length=2, width=0.5)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.colorbar(image, cax=figure.add_axes((right + 0.15 / width, 0.25, 0.15 / width, 0.5)), label="FSIM")
    figure.suptitle(describe(analysis).replace("`", ""), fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
