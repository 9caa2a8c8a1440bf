"""Tables in Markdown, for reports and cards. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table with a column for every key that a row has, in the order in which they come up.

    What a row lacks, or holds as None, is an empty cell. No lines of no rows.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table_of_cells(columns, ([row.get(key) for key in columns] for row in rows)) if rows else []


def table_of_cells(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table whose columns may share a name; None is an empty cell."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |" for cells in lines]
