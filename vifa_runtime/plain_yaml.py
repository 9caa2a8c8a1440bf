"""YAML from anywhere, read so that a text says once and in full what it says."""

from __future__ import annotations

from typing import Any

import yaml

from vifa_runtime.messages import shown


class PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases, whose keys are plain text and stand once in a mapping.

    A few aliases stand for more than a memory holds. Of a key that stands twice, YAML takes the last value without a
    word. What is refused is a `yaml.YAMLError` whose message says what, without a mend.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str) or not key.isprintable():
                raise yaml.YAMLError(f"the key {shown(key)} is no plain text")
        found: set[str] = set()
        for key, _ in node.value:
            if key.value in found:
                raise yaml.YAMLError(f"a key stands twice in one mapping: {shown(key.value)}")
            found.add(key.value)
        return mapping
