"""The pages say what the code and the result files say."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from vifa_ros.parameters import to_markdown

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.json"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_parameter_table_is_the_nodes() -> None:
    page = (ROOT / "docs" / "fusion_node.md").read_text()
    table = page.split("<!-- parameters -->\n")[1].split("<!-- end of parameters -->")[0]
    assert table == to_markdown()


def test_the_results_page_is_made_from_the_result_files() -> None:
    render = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["render"]
    assert (ROOT / "docs" / "results" / "README.md").read_text() == render()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text())
    assert {"command", "machine", "versions", "commit", "seed", "date"} <= set(result["meta"])
    for command in result["meta"]["command"].split("; "):
        program = command.split()[0]
        assert program in ("vifa", "vifa-train") or (ROOT / program).exists()
    assert result["rows"]


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", text)) <= targets
    from vifa_ros.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {group.name for group in app.registered_groups}
    assert set(re.findall(r"^    (?:\S*/)?vifa ([a-z]+)", text, re.MULTILINE)) <= commands | groups
