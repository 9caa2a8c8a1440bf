"""The SROS 2 policy allows what a real node does: nothing is missing, nothing is too much."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from offers import Offer

POLICY = Path(__file__).resolve().parents[2] / "config" / "sros2" / "vifa.policy.xml"

# sros2/policy/schemas/policy.xsd, version 0.2.0: element -> (attributes that must be, those that may be, children).
# Actions are left out: the node has none.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "policy": ({"version"}, set(), {"enclaves"}),
    "enclaves": (set(), set(), {"enclave"}),
    "enclave": ({"path"}, set(), {"profiles"}),
    "profiles": (set(), {"type"}, {"profile"}),
    "profile": ({"ns", "node"}, set(), {"topics", "services"}),
    "topics": (set(), {"publish", "subscribe"}, {"topic"}),
    "services": (set(), {"reply", "request"}, {"service"}),
    "topic": (set(), set(), set()),
    "service": (set(), set(), set()),
}
DIRECTIONS = [
    ("topics", "publish", "published"),
    ("topics", "subscribe", "subscribed"),
    ("services", "reply", "services"),
]


@pytest.fixture(scope="module")
def policy() -> ElementTree.Element:
    return ElementTree.parse(POLICY).getroot()


def allowed(policy: ElementTree.Element, kind: str, direction: str) -> list[str]:
    """The patterns of full names that may go in a direction, expanded as sros2's permissions.xsl does."""
    (profile,) = policy.iter("profile")
    namespace = profile.attrib["ns"].rstrip("/")
    names = [entry.text or "" for rule in profile.iter(kind) if direction in rule.attrib for entry in rule]
    begin = {"/": "", "~": f"{namespace}/{profile.attrib['node']}"}  # what a first letter stands for
    return [begin.get(name[0], f"{namespace}/") + name.removeprefix("~") for name in names]


def test_it_follows_the_schema(policy: ElementTree.Element) -> None:
    assert policy.tag == "policy"
    assert policy.attrib["version"] == "0.2.0"
    for element in policy.iter():
        must, may, children = SCHEMA[element.tag]
        assert must <= set(element.attrib) <= must | may
        assert {child.tag for child in element} <= children
        assert bool(len(element)) == bool(children)
        assert bool((element.text or "").strip()) != bool(children)
        if element.tag in ("topics", "services"):
            assert set(element.attrib.values()) == {"ALLOW"}, "what is not allowed is denied"


@pytest.mark.parametrize(("kind", "direction", "side"), DIRECTIONS, ids=[d[1] for d in DIRECTIONS])
def test_it_allows_what_the_node_does_and_nothing_else(
    policy: ElementTree.Element, offered: Offer, kind: str, direction: str, side: str
) -> None:
    """Fast DDS compares with fnmatch, in which * stands for slashes too."""
    patterns, names = allowed(policy, kind, direction), getattr(offered, side)
    assert len(patterns) == len(set(patterns))
    assert [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)] == [], "missing"
    assert [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)] == [], "too much"


def test_only_the_name_of_a_task_is_a_pattern(policy: ElementTree.Element) -> None:
    for kind, direction, _ in DIRECTIONS:
        for pattern in allowed(policy, kind, direction):
            parts = pattern.split("/")
            assert "*" not in "".join(parts[:2] + parts[3:]), pattern
            assert parts[2:3] in (["*"], []) or "*" not in pattern, pattern


def test_a_client_may_not_be_played(policy: ElementTree.Element) -> None:
    """The node calls nobody."""
    assert allowed(policy, "services", "request") == []
