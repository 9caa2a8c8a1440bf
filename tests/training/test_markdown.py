"""Tables in Markdown, read back cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vifa_training.markdown import table_of

KEYS = st.sampled_from(["task", "mean", "low", "won back"])
VALUES = st.one_of(st.none(), st.integers(), st.text("abc.%", min_size=1))


def read(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]


@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1), min_size=1, max_size=5))
def test_every_value_stands_below_its_key(rows: list[dict]) -> None:
    columns, rule, *cells = read(table_of(rows))
    assert set(columns) == set().union(*rows) and len(columns) == len(set(columns))
    assert columns[: len(rows[0])] == list(rows[0])
    assert rule == ["---"] * len(columns) and len(cells) == len(rows)
    for row, line in zip(rows, cells, strict=True):
        assert line == ["" if row.get(key) is None else str(row[key]) for key in columns]


def test_no_rows_make_no_table() -> None:
    assert table_of([]) == []
