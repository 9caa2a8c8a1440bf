"""Damaged bundles whose sums are right: whatever the damage, loading ends with a bundle or a one-line BundleError."""

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from task_graphs import detector, segmenter
from tiny_bundle import backbone, head, manifest_with_tasks, replace_file, write_with_tasks

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.bundle import BundleError, load_bundle

BACKBONE, HEAD = backbone(), head("blend")
VISIBLE, THERMAL = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.float32)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


def damaged(data):
    """Strategy: the bytes cut short, with some bytes replaced, or with something put in between."""
    size = len(data)
    cut = st.integers(0, size).map(lambda end: data[:end])
    flips = st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=6)
    flipped = flips.map(lambda changes: replaced(data, changes))
    inserted = st.tuples(st.integers(0, size), st.binary(max_size=20)).map(lambda a: data[: a[0]] + a[1] + data[a[0] :])
    return cut | flipped | inserted


def replaced(data, changes):
    result = bytearray(data)
    for position, byte in changes:
        result[position] = byte
    return bytes(result)


def load_and_run(folder):
    """Load a bundle and run it once; only the errors of each step's own contract get through here."""
    try:
        bundle = load_bundle(folder)
    except BundleError as error:
        assert "\n" not in str(error)
        return
    try:
        engine = prepare("onnxruntime", bundle, Options(threads=1))
        engine.run(VISIBLE, THERMAL, bundle.task_names)
    except BackendError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "tiny"
    write_with_tasks(folder)
    return folder


@pytest.fixture
def whole(folder):
    """The folder, made whole again after every test."""
    yield folder
    write_with_tasks(folder)


@given(data=damaged(BACKBONE))
@example(data=BACKBONE.replace(b"Cast", b"C\nst"))  # a name that breaks the line
@example(data=bytes([0x7A, 6, 0, 0]) + b"ORTM" + BACKBONE)  # see test_onnxruntime_backend.py
def test_a_damaged_backbone(whole, data):
    replace_file(whole, "backbone.onnx", data)
    load_and_run(whole)


@given(data=damaged(HEAD))
def test_a_damaged_head(whole, data):
    replace_file(whole, "heads/blend.onnx", data)
    load_and_run(whole)


@given(data=damaged(detector()))
def test_a_damaged_detector(whole, data):
    replace_file(whole, "tasks/cells.onnx", data)
    load_and_run(whole)


@given(data=damaged(segmenter()))
def test_a_damaged_segmenter(whole, data):
    replace_file(whole, "tasks/glare.onnx", data)
    load_and_run(whole)


@given(st.data())
def test_a_damaged_manifest(whole, data):
    text = (whole / "bundle.yaml").read_bytes()
    (whole / "bundle.yaml").write_bytes(data.draw(damaged(text)))
    load_and_run(whole)
    (whole / "bundle.yaml").write_bytes(text)


def leaves(node, path=()):
    """The paths of every value of nested dictionaries and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from leaves(inner, (*path, key))


@given(path=st.sampled_from(list(leaves(manifest_with_tasks()))), value=ANYTHING)
def test_a_manifest_with_any_value_in_any_place(whole, path, value):
    text = (whole / "bundle.yaml").read_text()
    content = yaml.safe_load(text)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (whole / "bundle.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    load_and_run(whole)
    (whole / "bundle.yaml").write_text(text)
