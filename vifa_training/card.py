"""Model cards: the README.md of a bundle, made from its recipe and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vifa_runtime.card import markdown_table
from vifa_training.recipe import Recipe


def model_card(recipe: Recipe, network: nn.Module, manifest: Mapping[str, Any]) -> str:
    """Markdown text: what it is, how it was trained, how well it does, under which licences."""
    parameters = sum(p.numel() for p in network.parameters())
    schedule, provenance, licences = recipe.schedule, manifest["provenance"], manifest["licences"]
    lines = [
        f"# {recipe.name}",
        "",
        f"A VIFA bundle: the network `{recipe.network}` ({parameters:,} parameters), one shared backbone and one",
        "thin head a task. Load it with `vifa fuse --bundle`, check it with `vifa bundle verify`.",
        "",
        *markdown_table(
            ["task", "what its fused image is for", "loss weights"],
            [[task.name, task.description, _weights(recipe, weights)] for task, weights in recipe.tasks.items()],
        ),
        "",
        "## Training",
        "",
        f"Unsupervised, on {', '.join(f'`{part}`' for part in recipe.training)}; the best of "
        f"{', '.join(f'`{part}`' for part in recipe.validation)} was kept.",
        f"Adam, {schedule.steps} steps of {schedule.batch} crops of {schedule.crop} pixels, learning rate "
        f"{schedule.learning_rate:g} ({schedule.decay}), seed {schedule.seed}.",
        f"Recipe `{provenance['recipe']}` at commit {provenance['commit']}, {provenance['date']}.",
        "",
    ]
    if manifest["metrics"]:
        lines += [
            "## Metrics",
            "",
            "From `vifa-train evaluate`, which prints the trivial baselines beside them.",
            "",
        ]
        lines += _metrics_table(manifest["metrics"])
    lines += [
        "## Licences",
        "",
        f"Code: {licences['code']}. Weights: {licences['weights']}. Data: {licences['data']}.",
        "",
    ]
    return "\n".join(lines)


def _weights(recipe: Recipe, weights: Mapping[str, float]) -> str:
    if not weights:
        weights = {name: value for name, value in recipe.objective.items() if name != "name"}
    return ", ".join(f"{name} {value:g}" for name, value in weights.items() if value)


def _metrics_table(rows: list[Mapping[str, Any]]) -> list[str]:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    values = {(row["data"], row["task"], row["metric"]): row["value"] for row in rows}
    places = dict.fromkeys((row["data"], row["task"]) for row in rows)
    cells = [[*place, *(f"{values[(*place, metric)]:.3f}" for metric in metrics)] for place in places]
    return [*markdown_table(["data", "task", *metrics], cells), ""]
