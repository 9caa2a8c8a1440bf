"""What makes a bundle one that is not loaded: each by name, in one line, before any engine sees it."""

import os
import shutil

import pytest
from broken_bundles import edit, refusal, set_field
from onnx import helper
from tiny_bundle import FUSED, HEAT, VISIBLE, graph, replace_file, write_tiny

from vifa_runtime.bundle import LARGEST_MANIFEST, load_bundle


@pytest.mark.parametrize("name", ["bundle.yaml", "backbone.onnx", "heads/blend.onnx", "README.md"])
def test_a_missing_file(bundle_folder, name):
    (bundle_folder / name).unlink()
    assert refusal(bundle_folder).startswith(f"cannot read {bundle_folder / name}: No such file")


def test_a_missing_folder(tmp_path):
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["backbone.onnx", "heads/blend.onnx", "README.md"])
@pytest.mark.parametrize("where", [0, -1])
def test_a_changed_byte(bundle_folder, name, where):
    data = bytearray((bundle_folder / name).read_bytes())
    data[where] ^= 1
    (bundle_folder / name).write_bytes(data)
    assert f"{bundle_folder / name} does not match its SHA-256" in refusal(bundle_folder)


def test_a_byte_more(bundle_folder):
    (bundle_folder / "README.md").write_bytes((bundle_folder / "README.md").read_bytes() + b"\n")
    assert "README.md does not match" in refusal(bundle_folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_field("format", 2), "format 2 is unknown; this version reads format 1"),
        (set_field("format", "x" * 9999), "is unknown"),
        (lambda content: content.pop("format"), "format None is unknown"),
        (set_field("surprise", 1), "'surprise' was unexpected"),
        (set_field("thermal", "surprise", 1), "thermal: Additional properties are not allowed ('surprise'"),
        (set_field("tasks", 0, "score", 0.5), "tasks/0: Additional properties are not allowed ('score'"),
        (lambda content: content.pop("licences"), "'licences' is a required property"),
        (lambda content: content["provenance"].pop("seed"), "provenance: 'seed' is a required property"),
        (set_field("provenance", "seed", "none"), "provenance/seed: 'none' is not of type 'integer', 'null'"),
        (set_field("tasks", 1, "kind", "depth"), "tasks/1/kind: 'depth' is not one of ['fusion', 'detection', 'segm"),
        (set_field("tasks", 1, "kind", ["fusion"]), "tasks/1/kind: ['fusion'] is not one of"),
        (lambda content: content["tasks"][1].pop("kind"), "tasks/1: 'kind' is a required property"),
        (set_field("tasks", 1, "name", "Blend"), "tasks/1/name: 'Blend' does not match"),
        (set_field("tasks", 1, "name", "../blend"), "tasks/1/name: '../blend' does not match"),
        (set_field("tasks", 1, "name", "blend\n"), "tasks/1/name: 'blend\\n' does not match"),
        (set_field("name", "tiny\n"), "name: 'tiny\\n' does not match"),
        (set_field("tasks", []), "tasks: [] "),
        (set_field("tasks", 1, "name", "bright"), "two tasks share a name"),
        (set_field("tasks", 1, "name", "third"), "files does not list heads/third.onnx"),
        (lambda content: content["files"].pop("backbone.onnx"), "files does not list backbone.onnx"),
        (set_field("files", "README.md", "abc"), "files/README.md: 'abc' does not match"),
        (set_field("size_multiple", 0), "size_multiple: 0 is less than the minimum"),
        (set_field("size_multiple", 2.5), "size_multiple: 2.5 is not of type 'integer'"),
        (set_field("size_multiple", True), "size_multiple: True is not of type 'integer'"),
        (set_field("aspect", "crop"), "aspect: 'crop' is not one of"),
        (set_field("working_size", [480]), "working_size"),
        (set_field("working_size", [480, 1e300]), "working_size"),
        (set_field("thermal", "mode", "histogram"), "thermal/mode: 'histogram' is not one of"),
        (set_field("thermal", "low_percentile", 99.9), "low < high"),
        (set_field("thermal", "time_constant", float("nan")), "thermal time_constant must be a number"),
        (set_field("thermal", "minimum", float("-inf")), "thermal minimum must be a number"),
        (set_field("thermal", "maximum", 10**400), "thermal maximum must be a number"),
    ],
)
def test_a_changed_field(bundle_folder, change, reason):
    edit(bundle_folder, change)
    message = refusal(bundle_folder)
    assert message.startswith(f"{bundle_folder}/bundle.yaml: ")
    assert reason in message


NO_MANIFEST = {
    "nothing": ("", "None is not of type 'object'"),
    "a list": ("- a\n- b\n", "is not of type 'object'"),
    "half a list": ("name: [", "is not valid YAML"),
    "a tab": ("\tname: x", "is not valid YAML"),
    "a control character": ("name: \x01", "is not valid YAML"),
    "a call": ("name: !!python/object/apply:os.mkdir [stolen]", "could not determine a constructor for the tag"),
    "a function": ("name: !!python/name:os.system", "could not determine a constructor for the tag"),
    "an own tag": ("name: !secret x", "could not determine a constructor for the tag"),
    "an impossible date": ("date: 2026-99-99", "is not valid YAML: month must be in 1..12"),
    "an endless number": (f"seed: {'9' * 5000}", "is not valid YAML"),
    "a wrong bool": ("seed: !!bool maybe", "is not valid YAML"),
    "an empty int": ("seed: !!int ''", "is not valid YAML"),
    "a deep nest": ("[" * 100_000, "is not valid YAML"),
    "an alias": ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
    "an alias of itself": ("a: &x [*x]\n", "aliases are not allowed"),
    "a number as key": ("1: a\nb: c\n", "the key 1 is no plain text"),
    "a key twice": ("name: a\nname: b\n", "a key stands twice in one mapping: 'name'"),
    "a key twice, deep inside": ("a: [{b: {c: 1, 'c': 2}}]\n", "a key stands twice in one mapping: 'c'"),
    "two lines as key": ('"a\\nb": c\n', "the key 'a\\nb' is no plain text"),
}


@pytest.mark.parametrize(("text", "reason"), NO_MANIFEST.values(), ids=NO_MANIFEST)
def test_text_that_is_no_manifest(bundle_folder, text, reason):
    (bundle_folder / "bundle.yaml").write_text(text)
    assert reason in refusal(bundle_folder)
    assert not (bundle_folder / "stolen").exists()


def test_a_few_lines_of_aliases_that_stand_for_more_than_memory_holds(bundle_folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 15)]
    text = (bundle_folder / "bundle.yaml").read_text()
    (bundle_folder / "bundle.yaml").write_text("\n".join([*lines, text]))
    assert "aliases are not allowed" in refusal(bundle_folder)


def test_bytes_that_are_no_text(bundle_folder):
    (bundle_folder / "bundle.yaml").write_bytes(b"name: \xff\xfe\n")
    assert "is not valid YAML" in refusal(bundle_folder)


def test_a_huge_manifest(bundle_folder):
    with (bundle_folder / "bundle.yaml").open("a") as file:
        file.write("#" * LARGEST_MANIFEST)
    assert f"bundle.yaml is larger than {LARGEST_MANIFEST} bytes" in refusal(bundle_folder)


def test_a_second_list_of_tasks_does_not_hide_the_first(bundle_folder):
    """YAML as it is takes the last of two equal keys, so that who reads the file sees other tasks than are run."""
    with (bundle_folder / "bundle.yaml").open("a") as file:
        file.write("tasks: [{name: blend, kind: fusion}]\n")
    assert "a key stands twice in one mapping: 'tasks'" in refusal(bundle_folder)


@pytest.mark.parametrize("name", ["../README.md", "heads/../../README.md", "/etc/hostname", "..\\README.md"])
def test_a_path_that_points_outside(bundle_folder, name):
    edit(bundle_folder, set_field("files", name, "0" * 64))
    assert f"{name!r} points outside the bundle" in refusal(bundle_folder)


@pytest.mark.parametrize("key", ['"a\\0b"', '"\\ud800"', '"a\\nb"', "1", "null", "true", "[1]"])
def test_a_path_that_is_no_text(bundle_folder, key):
    with (bundle_folder / "bundle.yaml").open("a") as file:
        file.write(f"  {key}: {'0' * 64}\n")
    assert "is not valid YAML" in refusal(bundle_folder)


@pytest.mark.parametrize("name", ["README.md", "bundle.yaml", "heads"])
def test_a_link_to_outside(bundle_folder, tmp_path, name):
    shutil.move(bundle_folder / name, tmp_path / "elsewhere")
    (bundle_folder / name).symlink_to(tmp_path / "elsewhere")
    message = refusal(bundle_folder)
    assert f"{bundle_folder / name}" in message
    assert "links to outside the bundle" in message


def test_a_link_in_a_circle(bundle_folder):
    (bundle_folder / "README.md").unlink()
    (bundle_folder / "README.md").symlink_to("README.md")
    assert "README.md" in refusal(bundle_folder)


def test_links_inside_the_bundle_are_followed(bundle_folder):
    (bundle_folder / "README.md").rename(bundle_folder / "real.md")
    (bundle_folder / "README.md").symlink_to("real.md")
    assert load_bundle(bundle_folder).name == "tiny"


def test_a_bundle_reached_by_a_link_is_loaded(bundle_folder, tmp_path):
    (tmp_path / "link").symlink_to(bundle_folder)
    assert load_bundle(tmp_path / "link").name == "tiny"


def test_a_folder_or_a_pipe_in_the_place_of_a_file(bundle_folder):
    (bundle_folder / "README.md").unlink()
    (bundle_folder / "README.md").mkdir()
    assert "README.md is no regular file" in refusal(bundle_folder)
    (bundle_folder / "README.md").rmdir()
    os.mkfifo(bundle_folder / "README.md")
    assert "README.md is no regular file" in refusal(bundle_folder)


@pytest.mark.parametrize("name", ["backbone.onnx", "heads/blend.onnx"])
@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02}q\x00."])
def test_a_graph_that_is_no_onnx(bundle_folder, name, data):
    replace_file(bundle_folder, name, data)
    assert refusal(bundle_folder).startswith(f"{bundle_folder / name}: ")


def test_a_graph_that_breaks_its_contract_is_named(bundle_folder):
    nodes = [helper.make_node("NonZero", ["visible"], ["fused"])]
    replace_file(bundle_folder, "heads/blend.onnx", graph(nodes, [VISIBLE, HEAT], [FUSED]))
    assert refusal(bundle_folder).startswith(f"{bundle_folder}/heads/blend.onnx: uses the operator 'NonZero'")


def test_files_that_are_not_listed_are_ignored(bundle_folder):
    (bundle_folder / "notes.txt").write_text("mine")
    assert "notes.txt" not in load_bundle(bundle_folder).manifest["files"]


def test_sums_are_compared_before_graphs_are_parsed(tmp_path):
    write_tiny(tmp_path / "a")
    (tmp_path / "a" / "backbone.onnx").write_bytes(b"hello")
    assert "does not match its SHA-256" in refusal(tmp_path / "a")
