"""Task graphs behind the back-end contract, on ONNX Runtime: every value is known."""

import numpy as np
import pytest
from task_graphs import (
    MASK,
    detector,
    expected_boxes,
    expected_confidence,
    expected_mask,
    expected_scores,
    node,
    segmenter,
    task_graph,
)
from tiny_bundle import expected, write_with_tasks

from vifa_runtime.backends import BackendError, Options, prepare

TASKS = ["bright", "blend", "cells", "glare"]


@pytest.fixture
def make_engine(tmp_path):
    """A function that puts the bundle with the toy tasks, some of its graphs replaced, on ONNX Runtime."""

    def make(**graphs):
        paths = {f"tasks/{name}.onnx": graph for name, graph in graphs.items()}
        return prepare("onnxruntime", write_with_tasks(tmp_path / "tiny", paths), Options(threads=1))

    return make


def batch(visible, thermal):
    """A pair as the contract wants it."""
    return visible[None], thermal[None].astype(np.float32) / np.float32(255)


def check(results, visible, thermal):
    """What the toy tasks gave follows from the fused images that they looked at."""
    height, width = visible.shape[1:3]
    if "cells" in results.outputs:
        found, image = results.outputs["cells"], expected("bright", visible[0], thermal[0])
        assert [found[name].dtype for name in ("boxes", "scores")] == [np.float32, np.float32]
        np.testing.assert_array_equal(found["boxes"], expected_boxes(height, width)[None])
        np.testing.assert_allclose(found["scores"], expected_scores(image)[None], atol=1e-6)
    if "glare" in results.outputs:
        found, image = results.outputs["glare"], expected("blend", visible[0], thermal[0])
        np.testing.assert_array_equal(found["mask"], expected_mask(image)[None])
        np.testing.assert_array_equal(found["confidence"], expected_confidence(image)[None])


def test_a_size_that_changes_and_comes_back(make_engine, make_pair):
    engine = make_engine()
    for seed, size in enumerate([(8, 8), (16, 4), (8, 8), (40, 60), (4, 16), (16, 4)]):
        pair = batch(*make_pair(*size, seed))
        results = engine.run(*pair, TASKS)
        assert list(results.fused) == TASKS
        assert list(results.outputs) == ["cells", "glare"]
        check(results, *pair)


def test_a_task_that_is_wanted_only_later(make_engine, make_pair):
    engine = make_engine()
    for seed, tasks in enumerate([["bright"], ["cells"], ["glare", "blend"], TASKS, ["glare"]]):
        pair = batch(*make_pair(8, 12, seed))
        results = engine.run(*pair, tasks)
        assert set(results.outputs) == set(tasks) & {"cells", "glare"}
        check(results, *pair)


def test_tasks_of_which_only_the_fused_image_is_wanted(make_engine, make_pair):
    engine = make_engine()
    for seed, fused_only in enumerate([(), ("cells",), {"cells", "glare"}, ("glare",), ()]):
        pair = batch(*make_pair(8, 12, seed))
        results = engine.run(*pair, TASKS, fused_only)
        assert list(results.fused) == TASKS
        assert set(results.outputs) == {"cells", "glare"} - set(fused_only)
        np.testing.assert_array_equal(results.fused["cells"][0], expected("bright", pair[0][0], pair[1][0]))
        check(results, *pair)


def test_each_stage_that_ran_is_timed_and_no_other(make_engine, make_pair):
    engine, pair = make_engine(), batch(*make_pair(8, 8))
    assert engine.run(*pair, ["cells"]).milliseconds.keys() == {"backbone", "head.cells", "task.cells"}
    assert engine.run(*pair, ["cells", "bright"], ["cells"]).milliseconds.keys() == {
        "backbone", "head.cells", "head.bright",
    }  # fmt: skip


def test_a_segmenter_that_does_not_tell_how_sure_it_is(make_engine, make_pair):
    pair = batch(*make_pair(8, 8))
    for _ in range(2):
        found = make_engine(glare=segmenter(confidence=False)).run(*pair, ["glare"]).outputs["glare"]
        assert found.keys() == {"mask"}


def test_results_stay_at_their_place_in_memory(make_engine, make_pair):
    """From the second pair of a size on: the first tells how large they are."""
    engine, addresses = make_engine(), set()
    for seed in range(4):
        outputs = engine.run(*batch(*make_pair(16, 16, seed)), TASKS).outputs
        addresses.add(tuple(array.ctypes.data for found in outputs.values() for array in found.values()))
    assert len(addresses) == 1


BROKEN = task_graph(
    [node("ReduceMax", ["image"], ["planes"], axes=[3], keepdims=0), node("Gather", ["planes", "sixth"], ["mask"])],
    [MASK],
    {"sixth": np.array([5], np.int64)},
)


def test_a_graph_that_fails_is_one_line_and_the_engine_goes_on(make_engine, make_pair):
    """It passes all checks and fails in every run: it asks for an image of the batch that is not there."""
    engine, pair = make_engine(glare=BROKEN), batch(*make_pair(8, 8))
    for _ in range(2):
        with pytest.raises(BackendError, match="ONNX Runtime failed on bundle tiny") as caught:
            engine.run(*pair, TASKS)
        assert "\n" not in str(caught.value)
        check(engine.run(*pair, ["bright", "cells"]), *pair)
        assert list(engine.run(*pair, ["glare"], ["glare"]).fused) == ["glare"]


def test_two_engines_of_one_bundle_do_not_share_results(make_engine, make_pair):
    one, other = make_engine(), make_engine(cells=detector())
    pair = batch(*make_pair(8, 8, seed=1))
    results = one.run(*pair, TASKS)
    other.run(*batch(*make_pair(8, 8, seed=2)), TASKS)
    check(results, *pair)
