"""Model cards: everything of the manifest that a person asks for, in tables that stay tables."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import manifest, manifest_with_tasks

from vifa_runtime.card import bundle_card, markdown_table

LICENCES = {"code": "Apache-2.0", "weights": "CC-BY-4.0; cells: AGPL-3.0", "data": "a set, research only"}


def test_a_card_tells_what_the_manifest_tells():
    made = manifest_with_tasks(licences=LICENCES)
    made["provenance"] = {**made["provenance"], "recipe": "one; another"}
    card = bundle_card(made)
    assert card.startswith("# tiny\n\n") and card.endswith("\n")
    for task in made["tasks"]:
        classes = ", ".join(known["name"] for known in task.get("classes", []))
        assert f"| {task['name']} | {task['kind']} | {classes} | {task.get('description', '')} |" in card
    assert "| none | bright | vif | 0.500 |" in card
    assert "Data: none. Recipes: one; another." in card and "Commit unknown, 2026-01-31." in card
    for of, licence in LICENCES.items():
        assert f"- {of}: {licence}\n" in card


@pytest.mark.parametrize("metrics", [[], None])
def test_a_bundle_without_metrics_or_recipe_has_a_card_all_the_same(metrics):
    made = manifest(metrics=metrics)
    if metrics is None:
        del made["metrics"]
    card = bundle_card(made)
    assert "## Metrics" not in card and "## Licences" in card


def test_sections_stand_before_the_licences_in_their_order():
    card = bundle_card(manifest(), {"First": ["one", "two"], "Second": ["three"]})
    assert re.findall("^## (.*)$", card, re.MULTILINE) == ["Training", "First", "Second", "Metrics", "Licences"]
    assert "## First\n\none\ntwo\n\n## Second\n\nthree\n\n" in card


@given(
    st.integers(1, 4).flatmap(lambda count: st.lists(st.lists(st.text(), min_size=count, max_size=count), min_size=1))
)
def test_a_table_keeps_its_rows_and_cells_whatever_is_in_them(rows):
    lines = markdown_table(["title"] * len(rows[0]), rows)
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert len(line.splitlines()) == 1
    for line, cells in zip(lines[2:], rows, strict=True):
        found = re.split(r"(?<!\\)\|", line)[1:-1]
        assert [cell.strip().replace(r"\|", "|") for cell in found] == [" ".join(cell.split()) for cell in cells]


def test_none_is_an_empty_cell():
    assert markdown_table(["a", "b"], [[None, 0]]) == ["| a | b |", "| --- | --- |", "|  | 0 |"]
