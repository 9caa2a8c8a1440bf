"""Bundles whose tasks find something: what is read, what is refused by name, and what a new task leaves as it was."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from broken_bundles import edit, refusal, set_field
from task_graphs import CELLS, MASK, detector, node, segmenter, task_graph
from tiny_bundle import TASKS, contents_with_tasks, head, manifest_with_tasks, replace_file, write_tiny
from tiny_bundle import write_with_tasks as write

from vifa_runtime.bundle import BundleError, Task, TaskClass, load_bundle, write_bundle
from vifa_runtime.palette import default_colours

CELLS_AT, GLARE_AT = 2, 3  # places in the manifest's list of tasks
EXTRA = "Additional properties are not allowed"


@pytest.fixture
def folder(tmp_path):
    """A folder that holds the tiny bundle with the toy tasks, for tests that break it."""
    write(tmp_path / "tiny")
    return tmp_path / "tiny"


def with_classes(*classes):
    """A change that gives the detector other classes."""
    return set_field("tasks", CELLS_AT, "classes", list(classes))


def test_what_was_written_is_loaded(tmp_path):
    written = write(tmp_path / "a")
    bundle = load_bundle(tmp_path / "a")
    assert bundle == written
    assert bundle.task_names == ["bright", "blend", "cells", "glare"]
    red, green, blue = TaskClass("red", (255, 0, 0)), TaskClass("green", (0, 255, 0)), TaskClass("blue", (0, 0, 255))
    assert bundle.tasks[CELLS_AT] == Task(
        "cells", "detection", "finds colourful cells", (red, green, blue), score=0.5, iou=0.25, max_detections=20
    )
    assert bundle.tasks[GLARE_AT].classes == (TaskClass("dark", (0, 0, 255)), TaskClass("bright", (255, 255, 0)))
    files = contents_with_tasks()
    assert bundle.graphs == {name: files[name] for name in files if name.endswith(".onnx")}
    text = yaml.safe_load((tmp_path / "a" / "bundle.yaml").read_text())
    assert text["tasks"] == manifest_with_tasks()["tasks"]
    assert {"tasks/cells.onnx", "tasks/glare.onnx"} <= set(text["files"])


def test_only_tasks_that_find_something_have_a_graph(tmp_path):
    tasks = write(tmp_path / "a").tasks
    assert [task.graph for task in tasks] == [None, None, "tasks/cells.onnx", "tasks/glare.onnx"]
    assert [task.classes for task in tasks[:2]] == [(), ()]


def test_thresholds_and_colours_have_defaults(folder):
    classes = [{"name": "red"}, {"name": "green", "colour": [0, 9, 0]}, {"name": "blue"}]
    edit(folder, set_field("tasks", CELLS_AT, {"name": "cells", "kind": "detection", "classes": classes}))
    first, _, third = default_colours(3)
    own = (TaskClass("red", first), TaskClass("green", (0, 9, 0)), TaskClass("blue", third))
    task = load_bundle(folder).tasks[CELLS_AT]
    assert task == Task("cells", "detection", classes=own)
    assert (task.score, task.iou, task.max_detections) == (0.25, 0.45, 100)


def test_whole_numbers_may_be_written_as_floats(folder):
    edit(folder, set_field("tasks", CELLS_AT, "max_detections", 20.0))
    edit(folder, set_field("tasks", CELLS_AT, "classes", 0, "colour", [255.0, 0, 0]))
    task = load_bundle(folder).tasks[CELLS_AT]
    assert type(task.max_detections) is int
    assert all(type(level) is int for level in task.classes[0].colour)


def test_a_seed_may_be_null(tmp_path):
    provenance = {"data": "none", "seed": None, "commit": "unknown", "date": "2026-01-31"}
    assert write_tiny(tmp_path / "a", provenance=provenance).manifest["provenance"]["seed"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["tasks"][CELLS_AT].pop("classes"), "tasks/2: 'classes' is a required property"),
        (lambda content: content["tasks"][GLARE_AT].pop("classes"), "tasks/3: 'classes' is a required property"),
        (set_field("tasks", 0, "classes", CELLS["classes"]), f"tasks/0: {EXTRA} ('classes'"),
        (set_field("tasks", 0, "max_detections", 5), f"tasks/0: {EXTRA} ('max_detections'"),
        (set_field("tasks", GLARE_AT, "score", 0.5), f"tasks/3: {EXTRA} ('score'"),
        (set_field("tasks", GLARE_AT, "iou", 0.5), f"tasks/3: {EXTRA} ('iou'"),
        (set_field("tasks", CELLS_AT, "opacity", 0.5), f"tasks/2: {EXTRA} ('opacity'"),
        (set_field("tasks", CELLS_AT, "score", 1.01), "tasks/2/score: 1.01 is greater than the maximum"),
        (set_field("tasks", CELLS_AT, "score", -0.1), "tasks/2/score: -0.1 is less than the minimum"),
        (set_field("tasks", CELLS_AT, "score", float("nan")), "tasks/2/score must be a number in 0..1, got nan"),
        (set_field("tasks", CELLS_AT, "iou", float("nan")), "tasks/2/iou must be a number in 0..1, got nan"),
        (set_field("tasks", CELLS_AT, "iou", "0.5"), "tasks/2/iou: '0.5' is not of type 'number'"),
        (set_field("tasks", CELLS_AT, "iou", True), "tasks/2/iou: True is not of type 'number'"),
        (set_field("tasks", CELLS_AT, "max_detections", 0), "tasks/2/max_detections: 0 is less than the minimum"),
        (set_field("tasks", CELLS_AT, "max_detections", 2.5), "tasks/2/max_detections: 2.5 is not of type 'integer'"),
        (with_classes(), "tasks/2/classes: [] "),
        (with_classes(*({"name": f"c{n}"} for n in range(255))), "tasks/2/classes: [{'name': 'c0'}"),
        (with_classes("red"), "tasks/2/classes/0: 'red' is not of type 'object'"),
        (with_classes({"colour": [1, 2, 3]}), "tasks/2/classes/0: 'name' is a required property"),
        (with_classes({"name": ""}), "tasks/2/classes/0/name: '' does not match"),
        (with_classes({"name": "red\n"}), "tasks/2/classes/0/name: 'red\\n' does not match"),
        (with_classes({"name": "r\x1b[31m"}), "does not match"),
        (with_classes({"name": "r" * 65}), "is too long"),
        (with_classes({"name": "a", "colour": [1, 2]}), "tasks/2/classes/0/colour: [1, 2] "),
        (with_classes({"name": "a", "colour": [1, 2, 256]}), "tasks/2/classes/0/colour/2: 256 is greater"),
        (with_classes({"name": "a", "colour": "red"}), "tasks/2/classes/0/colour: 'red' is not of type 'array'"),
        (with_classes({"name": "a", "weight": 2}), f"tasks/2/classes/0: {EXTRA} ('weight'"),
        (with_classes({"name": "a"}, {"name": "b"}, {"name": "a"}), "tasks/2/classes: two classes share a name"),
        (lambda content: content["files"].pop("tasks/cells.onnx"), "files does not list tasks/cells.onnx; export the"),
        (lambda content: content["files"].pop("heads/glare.onnx"), "files does not list heads/glare.onnx; export the"),
    ],
)  # fmt: skip
def test_a_changed_field(folder, change, reason):
    edit(folder, change)
    message = refusal(folder)
    assert message.startswith(f"{folder}/bundle.yaml: ")
    assert reason in message


def test_another_number_of_classes_than_the_graph_has(folder):
    edit(folder, with_classes({"name": "red"}, {"name": "green"}))
    assert refusal(folder).startswith(
        f"{folder}/tasks/cells.onnx: output 'scores' is not float32 of shape (1, A, 2): for each box one score a class"
    )


def test_a_missing_graph(folder):
    (folder / "tasks/glare.onnx").unlink()
    assert refusal(folder).startswith(f"cannot read {folder / 'tasks/glare.onnx'}: No such file")


SMALL_MASK = [
    node("Slice", ["image", "from", "to", "axis", "step"], ["rows"]),
    node("ReduceMax", ["rows"], ["mask"], axes=[3], keepdims=0),
]
SLICE = {name: np.array([number], np.int64) for name, number in {"from": 0, "to": 9999, "axis": 1, "step": 2}.items()}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cells", b"hello", "is no ONNX file"),
        ("cells", segmenter(), "has the outputs 'mask', 'confidence'; a detection graph gives exactly"),
        ("cells", head("bright"), "lacks the input 'image' of its contract"),
        ("glare", detector(), "has the outputs 'boxes', 'scores'; a segmentation graph gives 'mask'"),
        ("glare", task_graph([node("NonZero", ["image"], ["mask"])], [MASK]), "uses the operator 'NonZero'"),
        ("glare", task_graph(SMALL_MASK, [MASK], SLICE), "output 'mask' is not uint8 of shape (1, H, W)"),
    ],
    ids=["no graph", "the other kind", "a head", "the other kind too", "a forbidden operator", "half the height"],
)  # fmt: skip
def test_a_graph_that_breaks_its_contract_is_named(folder, name, data, reason):
    replace_file(folder, f"tasks/{name}.onnx", data)
    assert refusal(folder).startswith(f"{folder}/tasks/{name}.onnx: {reason}")


def test_a_graph_of_a_fixed_size_is_named(folder):
    model = onnx.load_model_from_string(detector())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 480
    replace_file(folder, "tasks/cells.onnx", model.SerializeToString())
    assert refusal(folder).endswith("tasks/cells.onnx: input 'image' has a fixed side of 480; height and width vary")


def test_a_bundle_that_does_not_load_is_not_put_in_place(tmp_path):
    with pytest.raises(BundleError, match=r"tasks/cells\.onnx: has the outputs 'mask', 'confidence'"):
        write(tmp_path / "a", graphs={"tasks/cells.onnx": segmenter()})
    assert list(tmp_path.iterdir()) == []


def test_thresholds_are_changed_by_replacing_the_task(tmp_path):
    """As evaluation does, which wants boxes of low scores too."""
    bundle = write(tmp_path / "a")
    low = [dataclasses.replace(task, score=0.001) for task in bundle.tasks]
    assert dataclasses.replace(bundle, tasks=tuple(low)).tasks[CELLS_AT].score == 0.001


def test_a_task_that_is_added_leaves_the_others_as_they_were(tmp_path, make_pipeline, make_pair):
    """Files are added, those of older tasks keep every byte, and their results are the same to the bit."""
    old = write_tiny(tmp_path / "old")
    one = write_bundle(
        tmp_path / "one",
        {**manifest_with_tasks(), "tasks": [*manifest_with_tasks()["tasks"][:2], CELLS]},
        {name: data for name, data in contents_with_tasks().items() if "glare" not in name},
    )
    two = write(tmp_path / "two")
    for older, newer in ((old, one), (one, two)):
        assert newer.tasks[: len(older.tasks)] == older.tasks
        for path in older.manifest["files"]:
            assert newer.manifest["files"][path] == older.manifest["files"][path]
    pipelines = [make_pipeline(bundle) for bundle in (old, one, two)]
    for size in ((24, 32), (13, 18)):
        visible, thermal = make_pair(*size)
        first, second, third = (pipeline.process(visible, thermal) for pipeline in pipelines)
        for task in TASKS:
            np.testing.assert_array_equal(first.fused[task], second.fused[task])
            np.testing.assert_array_equal(first.fused[task], third.fused[task])
        np.testing.assert_array_equal(second.fused["cells"], third.fused["cells"])
        for before, after in zip(second.detections["cells"], third.detections["cells"], strict=True):
            np.testing.assert_array_equal(before, after)


def test_the_bundle_that_ships_is_what_it_was():
    """Written before there were other kinds than fusion."""
    bundle = load_bundle(Path(__file__).resolve().parents[2] / "models" / "nano-fusion")
    assert bundle.tasks == (
        Task("saliency", "fusion", "thermal targets stand out; for people and animals at a glance"),
        Task("texture", "fusion", "visible detail leads, thermal fills what is dark; for reading the scene"),
    )


@pytest.mark.parametrize("count", [0, 1, 3, 40, 254])
def test_default_colours_differ_and_stay_when_classes_are_added(count):
    colours = default_colours(count)
    assert len(set(colours)) == len(colours) == count
    assert colours == default_colours(254)[:count]
    assert all(0 <= level <= 255 for colour in colours for level in colour)
