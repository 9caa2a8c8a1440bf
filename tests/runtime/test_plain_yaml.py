"""YAML as bundles and alignment files are read: everything once, in full and by plain names."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.plain_yaml import PlainLoader

KEYS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8).filter(str.isprintable)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
CONTENT = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
)


class InFull(yaml.SafeDumper):
    """PyYAML's own writer, but for aliases."""

    def ignore_aliases(self, data):
        return True


@given(CONTENT)
def test_what_pyyaml_writes_is_read_as_it_was(content):
    assert yaml.load(yaml.dump(content, Dumper=InFull, allow_unicode=True), PlainLoader) == content


@given(CONTENT.filter(bool), st.data())
def test_any_key_that_is_written_again_is_refused_by_name(content, data):
    again = data.draw(st.sampled_from(sorted(content)))
    text = yaml.dump(content, Dumper=InFull) + yaml.dump({again: 1}, Dumper=InFull)
    assert yaml.safe_load(text)[again] == 1, "PyYAML itself takes the last one"
    with pytest.raises(yaml.YAMLError, match="a key stands twice in one mapping: ") as caught:
        yaml.load(text, PlainLoader)
    assert str(caught.value).endswith(repr(again))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "aliases are not allowed"),
        ("<<: {a: 1}\na: 2", "a key stands twice in one mapping: 'a'"),
        ("? {a: 1}\n: 2", "unhashable key"),
        ("? 0x" + "f" * 5000 + "\n: 1", "is no plain text"),
        ('"a\\tb": 1', r"the key 'a\tb' is no plain text"),
    ],
    ids=["alias", "merged key", "mapping as key", "huge number as key", "tab in key"],
)
def test_what_is_refused(text, reason):
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.load(text, PlainLoader)
    assert reason in str(caught.value)


def test_an_anchor_without_an_alias_is_harmless():
    assert yaml.load("a: &x [1]", PlainLoader) == {"a": [1]}
