"""The pages about launching and several machines say what the files say; their numbers follow from their formulas."""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_launch_files import LAUNCH_FILES, arguments_of

from vifa_ros.parameters import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_PAGE, NETWORK_PAGE = (ROOT / "docs" / name for name in ("launch.md", "multi_machine.md"))
BYTES = {"rgb8": 3, "mono8": 1, "mono16": 2}
JPEG_BITS, RATE, FRAGMENT, LOSS = 1.5, 30, 1480, 0.001
OTHERS_PARAMETERS = {"in_transport", "out_transport", "node_names", "bond_timeout"}


def table(page: Path, name: str) -> list[list[str]]:
    """The rows of a page's table between its comments, without heading."""
    lines = page.read_text().split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_has_every_launch_argument_with_its_default() -> None:
    stripped = [[cell.strip("`") for cell in row[:3]] for row in table(LAUNCH_PAGE, "arguments")]
    told = {(file, name): None if default == "must be given" else default for file, name, default in stripped}
    declared = {
        (path.name.removesuffix(".launch.py"), name): default
        for path in LAUNCH_FILES
        for name, default in arguments_of(path).items()
    }
    assert told == declared


@pytest.mark.parametrize("row", table(NETWORK_PAGE, "bandwidth"), ids=lambda row: row[0])
def test_bandwidths_follow_from_the_formulas(row: list[str]) -> None:
    width, height, encoding = re.fullmatch(r"(\d+)x(\d+) (\w+)", row[0]).groups()
    pixels = int(width) * int(height)
    expected = []
    for size in (pixels * BYTES[encoding], pixels * JPEG_BITS / 8):
        fragments = ceil(size / FRAGMENT)
        expected.append((f"{size * 8 * RATE / 1e6:.1f}", str(fragments), f"{100 * (1 - LOSS) ** fragments:.0f} %"))
    told = list(zip(row[1::2], row[2::2], strict=True))  # (raw, JPEG) of each quantity
    assert [raw for raw, _ in told] == list(expected[0])
    if encoding != "mono16":  # of which there is no JPEG
        assert [jpeg for _, jpeg in told] == list(expected[1])
    else:
        assert [jpeg for _, jpeg in told] == ["", "", ""]


@pytest.mark.parametrize("page", [LAUNCH_PAGE, NETWORK_PAGE], ids=lambda page: page.name)
def test_every_parameter_of_the_node_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"-p (\w+):=", text)) | set(re.findall(r"`([a-z_]+\.[a-z_]+|\w+_offset)(?::[^`]*)?`", text))
    names = {name for name in named if not name.endswith((".conf", ".yaml"))}
    assert names
    assert names <= set(BY_NAME) | OTHERS_PARAMETERS, names


def test_the_profiles_differ_by_shared_memory_alone() -> None:
    transports = {}
    for name in ("fastdds", "fastdds_network"):
        profile = ElementTree.parse(ROOT / "config" / f"{name}.xml").getroot()
        of_any = {"": "http://www.eprosima.com"}
        described = {
            entry.findtext("transport_id", namespaces=of_any): [(part.tag, part.text) for part in entry]
            for entry in profile.iter("{http://www.eprosima.com}transport_descriptor")
        }
        used = [entry.text for entry in profile.find(".//userTransports", of_any)]
        assert set(used) == set(described)
        transports[name] = described
    assert transports["fastdds_network"] == {"network": transports["fastdds"].pop("network")}
    assert list(transports["fastdds"]) == ["image_shared_memory"]
