"""Model cards: the README.md of a bundle, made from its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def bundle_card(manifest: Mapping[str, Any], sections: Mapping[str, Sequence[str]] | None = None) -> str:
    """Markdown text: what a bundle is, how it came about, how well it does, under which licences.

    Args:
        manifest: as `write_bundle` takes it.
        sections: title -> lines of what else there is to say, between training and metrics.
    """
    provenance, licences = manifest["provenance"], manifest["licences"]
    lines = [
        f"# {manifest['name']}",
        "",
        f"A VIFA bundle: one shared `{manifest['network']}` backbone, one thin head a task, and what looks at it.",
        "Try it with `vifa fuse --bundle`, check it with `vifa bundle verify`.",
        "",
        *markdown_table(
            ["task", "kind", "classes", "what it is for"],
            [[task["name"], task["kind"], _class_names(task), task.get("description")] for task in manifest["tasks"]],
        ),
        "",
        "## Training",
        "",
        f"Data: {provenance['data']}. Recipes: {provenance.get('recipe', '')}.",
        f"Commit {provenance['commit']}, {provenance['date']}.",
        "",
    ]
    for title, content in (sections or {}).items():
        lines += [f"## {title}", "", *content, ""]
    if rows := manifest.get("metrics"):
        cells = [[row["data"], row["task"], row["metric"], f"{row['value']:.3f}"] for row in rows]
        lines += ["## Metrics", "", *markdown_table(["data", "task", "metric", "value"], cells), ""]
    lines += ["## Licences", "", *(f"- {key}: {licences[key]}" for key in ("code", "weights", "data")), ""]
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table; None is an empty cell, and what would end a cell or a line is written so that it does not.

    Args:
        columns: titles.
        rows: each with one cell a column.
    """
    return [f"| {' | '.join(map(_cell, cells))} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _cell(content: Any) -> str:
    return "" if content is None else " ".join(str(content).split()).replace("|", "\\|")


def _class_names(task: Mapping[str, Any]) -> str:
    return ", ".join(known["name"] for known in task.get("classes", []))
