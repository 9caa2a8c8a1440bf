"""What tasks find, in visible pixels: boxes and masks of one pair through the whole pipeline, on ONNX Runtime."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_graphs import CELLS, expected_boxes, expected_confidence, expected_mask, expected_scores
from tiny_bundle import expected, write_with_tasks

from vifa_runtime.decode import decode_detections, restore_detections
from vifa_runtime.pipeline import InputError

TASKS = ["bright", "blend", "cells", "glare"]
SIZE = (120, 160)


@pytest.fixture(scope="module")
def with_tasks(tmp_path_factory):
    """The tiny bundle with the toy tasks, as it is loaded."""
    return write_with_tasks(tmp_path_factory.mktemp("bundles") / "tiny")


def with_changed_tasks(bundle, **changes):
    """The bundle with the same fields of all tasks changed."""
    return dataclasses.replace(bundle, tasks=tuple(dataclasses.replace(task, **changes) for task in bundle.tasks))


def share(thermal):
    return thermal.astype(np.float32) / 255


def scene(*boxes, size=SIZE):
    """A black visible image with full red boxes (x1, y1, x2, y2), and a thermal one without anything warm."""
    visible = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        visible[y1:y2, x1:x2, 0] = 255
    return visible, np.zeros(size, np.uint8)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=30)
def test_results_equal_the_arithmetic_at_any_size(with_tasks, make_pipeline, make_pair, height, width, seed):
    visible, thermal = make_pair(height, width, seed)
    visible //= 2  # or nearly every cell would be found
    results = make_pipeline(with_tasks).process(visible, thermal)
    grid = with_tasks.grid((height, width))
    image = expected("bright", grid.place(visible), grid.place(share(thermal)))
    boxes, scores = expected_boxes(*grid.padded), expected_scores(image).astype(np.float32)
    wanted = restore_detections(decode_detections(boxes, scores, CELLS["score"], CELLS["iou"], 20), grid)
    found = results.detections["cells"]
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    image = expected("blend", visible, share(thermal))
    np.testing.assert_array_equal(results.masks["glare"], expected_mask(image))
    np.testing.assert_array_equal(results.confidences["glare"], expected_confidence(image))


def test_boxes_lie_around_what_is_there_and_are_clipped(with_tasks, make_pipeline):
    results = make_pipeline(with_tasks).process(*scene((40, 60, 44, 64), (0, 0, 4, 4), (156, 116, 160, 120)))
    found = results.detections["cells"]
    np.testing.assert_array_equal(found.boxes, [[0, 0, 6, 6], [38, 58, 46, 66], [154, 114, 160, 120]])
    np.testing.assert_array_equal(found.scores, [1, 1, 1])
    np.testing.assert_array_equal(found.labels, [0, 0, 0])
    assert [array.dtype for array in found] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize("aspect", ["letterbox", "stretch"])
@pytest.mark.parametrize("working", [(64, 64), (60, 120), (240, 320)])
def test_results_of_a_working_size_come_back_to_visible_pixels(tmp_path, make_pipeline, working, aspect):
    bundle = write_with_tasks(tmp_path / "tiny", working_size=list(working), aspect=aspect)
    bundle = with_changed_tasks(bundle, max_detections=1000)
    visible, thermal = scene()
    visible[40:80, 80:120], thermal[40:80, 80:120] = 255, 255
    results = make_pipeline(bundle).process(visible, thermal)
    scale = np.array(bundle.grid(SIZE).content) / SIZE
    mask = results.masks["glare"]
    assert (mask.shape, mask.dtype) == (SIZE, np.uint8)
    wanted = np.zeros(SIZE, np.uint8)
    wanted[40:80, 80:120] = 1
    assert (mask != wanted).sum() <= 4 * 40 / scale.min()  # a grid pixel along the edge
    assert results.confidences["glare"].shape == SIZE
    boxes = results.detections["cells"].boxes
    assert len(boxes) > 0
    reach = np.array([*(8 / scale[::-1]), *(8 / scale[::-1])])  # of a box beyond the cell that it belongs to
    together = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
    np.testing.assert_array_less(np.abs(np.array(together) - [80, 40, 120, 80]), reach)


def test_nothing_found_is_empty_arrays(with_tasks, make_pipeline):
    results = make_pipeline(with_tasks).process(*scene())
    assert [array.shape for array in results.detections["cells"]] == [(0, 4), (0,), (0,)]
    assert not results.masks["glare"].any()


def test_only_wanted_tasks_give_results(with_tasks, make_pipeline, make_pair):
    pipeline, pair = make_pipeline(with_tasks), make_pair(*SIZE)
    results = pipeline.process(*pair, tasks=["bright", "cells"])
    assert (list(results.fused), list(results.detections), list(results.masks)) == (["bright", "cells"], ["cells"], [])
    results = pipeline.process(*pair, tasks=["glare"])
    assert (list(results.fused), list(results.detections), list(results.masks)) == (["glare"], [], ["glare"])
    results = pipeline.process(*pair, tasks=["blend"])
    assert (results.detections, results.masks, results.confidences) == ({}, {}, {})


@pytest.mark.parametrize(
    ("tasks", "fused_only", "fused", "found"),
    [
        (None, ["cells"], TASKS, {"glare"}),
        (["cells", "glare"], ["glare"], ["cells", "glare"], {"cells"}),
        (["cells"], {"glare"}, ["cells", "glare"], {"cells"}),
        ([], ("cells",), ["cells"], set()),
        ([], (), [], set()),
    ],
)
def test_tasks_of_which_only_the_fused_image_is_wanted(
    with_tasks, make_pipeline, make_pair, tasks, fused_only, fused, found
):
    results = make_pipeline(with_tasks).process(*make_pair(8, 8), tasks=tasks, fused_only=fused_only)
    assert list(results.fused) == fused
    assert results.detections.keys() | results.masks.keys() == found
    assert {stage for stage in results.milliseconds if "task." in stage} == {f"task.{name}" for name in found}


def test_an_unknown_task_of_which_only_the_fused_image_is_wanted(with_tasks, make_pipeline, make_pair):
    with pytest.raises(InputError, match="bundle tiny has no task 'depth'; it has bright, blend, cells, glare"):
        make_pipeline(with_tasks).process(*make_pair(8, 8), tasks=["cells"], fused_only=["depth"])


def test_every_stage_is_timed(with_tasks, make_pipeline, make_pair):
    times = make_pipeline(with_tasks).process(*make_pair(8, 8), tasks=["blend", "cells", "glare"]).milliseconds
    assert times.keys() == {
        "normalise", "align", "backbone", "restore", "head.blend", "head.cells", "head.glare",
        "task.cells", "task.glare", "decode.cells", "decode.glare",
    }  # fmt: skip
    assert all(time >= 0 for time in times.values())


def test_ids_of_no_class_are_unknown(with_tasks, make_pipeline):
    """The graph calls bright pixels 1, but the bundle knows one class."""
    bundle = with_changed_tasks(with_tasks, classes=with_tasks.tasks[3].classes[:1])
    visible, thermal = scene()
    visible[10:20, 30:50], thermal[10:20, 30:50] = 255, 255
    mask = make_pipeline(bundle).process(visible, thermal, tasks=["glare"]).masks["glare"]
    assert (mask[10:20, 30:50] == 255).all()
    assert np.count_nonzero(mask) == 200


def test_the_tasks_own_thresholds_are_used(with_tasks, make_pipeline):
    visible, thermal = scene((40, 60, 44, 64), (48, 60, 52, 64), (44, 60, 48, 64))
    visible //= 2

    def count(**changes):
        pipeline = make_pipeline(with_changed_tasks(with_tasks, **changes))
        return len(pipeline.process(visible, thermal).detections["cells"].boxes)

    assert count() == 0  # of 127 gray levels: below one half
    assert count(score=0.25) == 2  # the one in the middle overlaps the others by a third
    assert count(score=0.25, iou=0.35) == 3
    assert count(score=0.25, iou=0.35, max_detections=1) == 1


def test_detections_are_the_callers_own(with_tasks, make_pipeline):
    pipeline = make_pipeline(with_tasks)
    first = pipeline.process(*scene((40, 60, 44, 64))).detections["cells"]
    pipeline.process(*scene((80, 20, 84, 24)))
    np.testing.assert_array_equal(first.boxes, [[38, 58, 46, 66]])
    assert all(array.flags.writeable for array in first)


def test_a_size_that_changes_mid_stream_and_comes_back(with_tasks, make_pipeline):
    pipeline = make_pipeline(with_tasks)
    for size in (SIZE, (61, 83), (8, 8), (61, 83), SIZE):
        visible, thermal = scene((4, 4, 8, 8), size=size)
        results = pipeline.process(visible, thermal, stamp=0.0)
        wanted = [[2, 2, min(10, size[1]), min(10, size[0])]]
        np.testing.assert_array_equal(results.detections["cells"].boxes, wanted)
        assert results.masks["glare"].shape == size
