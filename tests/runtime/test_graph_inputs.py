"""What a graph is given for real pairs, on the tiny bundle: every value is known."""

import subprocess
import sys

import numpy as np
import pytest
from onnx import helper
from tiny_bundle import FUSED, VISIBLE, WEIGHTS, expected, graph, write_tiny, write_with_tasks

from vifa_runtime.backends import BackendError
from vifa_runtime.graph_inputs import aligned_pairs, graph_inputs
from vifa_runtime.pipeline import InputError


@pytest.fixture
def with_tasks(tmp_path):
    return write_with_tasks(tmp_path / "tasks")


@pytest.fixture
def pairs(make_pair):
    """Three pairs of one size, and one of another whose sides are no multiples of 4."""
    return [*(make_pair(8, 12, seed) for seed in range(3)), make_pair(6, 9, 3)]


def padded(image, size):
    """The edge repeated to the right and below."""
    height, width = image.shape[:2]
    return image[np.minimum(np.arange(size[0]), height - 1)][:, np.minimum(np.arange(size[1]), width - 1)]


def as_the_network_sees(pairs):
    """Every pair padded to multiples of 4, the thermal image in 0..1."""
    for visible, thermal in pairs:
        size = tuple(-(-side // 4) * 4 for side in thermal.shape)
        yield padded(visible, size), padded(thermal, size) / np.float32(255)


def test_a_backbone_is_given_both_images_as_the_pipeline_hands_them_over(with_tasks, pairs):
    given = list(graph_inputs(with_tasks, "backbone.onnx", pairs))
    assert len(given) == len(pairs)
    for images, (visible, thermal) in zip(given, as_the_network_sees(pairs), strict=True):
        assert set(images) == {"visible", "thermal"}
        np.testing.assert_array_equal(images["visible"][0], visible)
        np.testing.assert_allclose(images["thermal"][0], thermal, atol=1e-7)


@pytest.mark.parametrize(("task", "features"), [("bright", {"heat"}), ("blend", {"luma", "heat"})])
def test_a_head_is_given_the_features_that_it_asks_for(with_tasks, pairs, task, features):
    given = graph_inputs(with_tasks, f"heads/{task}.onnx", pairs)
    for inputs, (visible, thermal) in zip(given, as_the_network_sees(pairs), strict=True):
        assert set(inputs) == {"visible", *features}
        np.testing.assert_array_equal(inputs["visible"][0], visible)
        np.testing.assert_array_equal(inputs["heat"][0, ..., 0], np.rint(255 * thermal))
        if "luma" in features:
            np.testing.assert_array_equal(inputs["luma"][0, ..., 0], visible @ np.array(WEIGHTS))


@pytest.mark.parametrize(("task", "head"), [("cells", "bright"), ("glare", "blend")])
def test_a_task_graph_is_given_the_fused_image_of_its_own_head(with_tasks, pairs, task, head):
    given = graph_inputs(with_tasks, f"tasks/{task}.onnx", pairs)
    for inputs, (visible, thermal) in zip(given, as_the_network_sees(pairs), strict=True):
        assert set(inputs) == {"image"}
        np.testing.assert_array_equal(inputs["image"][0], expected(head, visible, thermal))


@pytest.mark.parametrize("path", ["backbone.onnx", "heads/blend.onnx", "tasks/glare.onnx"])
def test_what_was_given_stays_when_the_next_pair_comes(with_tasks, pairs, path):
    kept, copied = [], []
    for inputs in graph_inputs(with_tasks, path, pairs[:3]):
        kept.append(inputs)
        copied.append({name: array.copy() for name, array in inputs.items()})
    for inputs, was in zip(kept, copied, strict=True):
        for name, array in inputs.items():
            assert array.flags.c_contiguous
            np.testing.assert_array_equal(array, was[name])
    visible = next(aligned_pairs(with_tasks, pairs))[0]
    assert not np.shares_memory(visible, pairs[0][0]), "not even the camera's own image"


def test_pairs_are_taken_one_by_one(with_tasks, pairs):
    """So that a folder of thousands need not fit into memory."""
    left = iter(pairs)
    given = graph_inputs(with_tasks, "backbone.onnx", left)
    next(given)
    assert len(list(left)) == len(pairs) - 1


def test_a_pair_that_the_pipeline_refuses(with_tasks, make_pair):
    visible, thermal = make_pair(8, 8)
    with pytest.raises(InputError, match="expected a visible image"):
        next(graph_inputs(with_tasks, "backbone.onnx", [(visible[:, :, :2], thermal)]))


def test_a_graph_that_fails_before_is_named_in_one_line(tmp_path, pairs):
    nodes = [helper.make_node("Gather", ["visible", "sixth"], ["fused"], axis=0)]  # there is one image only
    broken = graph(nodes, [VISIBLE], [FUSED], {"sixth": np.array([5], np.int64)})
    bundle = write_with_tasks(tmp_path / "a", {"heads/cells.onnx": broken})
    with pytest.raises(BackendError, match=r"ONNX Runtime failed on heads/cells\.onnx of bundle tiny: ") as caught:
        next(graph_inputs(bundle, "tasks/cells.onnx", pairs))
    assert "\n" not in str(caught.value)


WITHOUT_ENGINE = """
import sys
from pathlib import Path
sys.modules["onnxruntime"] = None
from vifa_runtime.backends import BackendError
from vifa_runtime.bundle import load_bundle
from vifa_runtime.graph_inputs import graph_inputs
try:
    next(graph_inputs(load_bundle(Path(sys.argv[1])), "backbone.onnx", []))
except BackendError as error:
    print(error)
"""


def test_a_machine_without_onnx_runtime(tmp_path):
    write_tiny(tmp_path / "tiny")
    command = [sys.executable, "-P", "-c", WITHOUT_ENGINE, str(tmp_path / "tiny")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("ONNX Runtime cannot be loaded"), done.stderr
