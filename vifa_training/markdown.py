"""Tables in Markdown, for reports and cards. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vifa_runtime.card import markdown_table


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table with a column for every key that a row has, in the order in which they come up.

    What a row lacks, or holds as None, is an empty cell. No lines of no rows.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return markdown_table(columns, ([row.get(key) for key in columns] for row in rows)) if rows else []
