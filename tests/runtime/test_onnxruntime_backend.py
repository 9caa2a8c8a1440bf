"""ONNX Runtime behind the back-end contract, on the tiny bundle: every value is known."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from tiny_bundle import FUSED, HEAT, LUMA, THERMAL, VISIBLE, backbone, expected, graph, write_tiny

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.backends import onnxruntime as engine_module
from vifa_runtime.backends.onnxruntime import make_session
from vifa_runtime.backends.small_products import probe

node = helper.make_node


@pytest.fixture
def engine(bundle):
    engine = prepare("onnxruntime", bundle, Options(threads=1))
    yield engine
    engine.close()


@pytest.fixture
def half_broken(tmp_path):
    """An engine whose `blend` head passes all checks and fails in every run: it asks for an image that is not there."""
    nodes = [node("Gather", ["visible", "sixth"], ["fused"], axis=0)]
    broken = graph(nodes, [VISIBLE], [FUSED], {"sixth": np.array([5], np.int64)})
    return prepare("onnxruntime", write_tiny(tmp_path / "a", graphs={"blend": broken}), Options(threads=1))


def batch(visible, thermal):
    """A pair as the contract wants it."""
    return visible[None], thermal[None].astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("size", [(4, 4), (8, 20), (60, 32)])
@pytest.mark.parametrize("tasks", [["bright"], ["blend"], ["bright", "blend"]])
def test_results_equal_the_arithmetic(engine, make_pair, size, tasks):
    visible, thermal = batch(*make_pair(*size))
    results = engine.run(visible, thermal, tasks)
    assert list(results.fused) == tasks
    for task in tasks:
        fused = results.fused[task]
        assert (fused.shape, fused.dtype) == ((1, *size, 3), np.uint8)
        np.testing.assert_array_equal(fused[0], expected(task, visible[0], thermal[0]))


def test_a_size_that_changes_and_comes_back(engine, make_pair):
    for seed, size in enumerate([(8, 8), (16, 4), (8, 8), (4, 16), (16, 4)]):
        visible, thermal = batch(*make_pair(*size, seed))
        fused = engine.run(visible, thermal, ["bright", "blend"]).fused
        for task in ("bright", "blend"):
            np.testing.assert_array_equal(fused[task][0], expected(task, visible[0], thermal[0]))


def test_a_task_that_is_wanted_only_later(engine, make_pair):
    for seed, tasks in enumerate([["bright"], ["blend"], ["bright", "blend"], ["bright"]]):
        visible, thermal = batch(*make_pair(8, 12, seed))
        for task, fused in engine.run(visible, thermal, tasks).fused.items():
            np.testing.assert_array_equal(fused[0], expected(task, visible[0], thermal[0]))


def test_images_that_must_not_be_written_to(engine, make_pair):
    visible, thermal = batch(*make_pair(8, 8))
    visible.flags.writeable = thermal.flags.writeable = False
    fused = engine.run(visible, thermal, ["blend"]).fused["blend"]
    np.testing.assert_array_equal(fused[0], expected("blend", visible[0], thermal[0]))


@pytest.mark.parametrize("merge", [True, False])
def test_each_stage_that_ran_is_timed_and_no_other(bundle, make_pair, merge):
    engine, pair = prepare("onnxruntime", bundle, Options(threads=1, merge=merge)), batch(*make_pair(8, 8))
    assert engine.run(*pair, ["blend"]).milliseconds.keys() == {"backbone", "head.blend"}
    times = engine.run(*pair, ["bright", "blend"]).milliseconds
    assert times.keys() == ({"fusion"} if merge else {"backbone", "head.bright", "head.blend"})
    assert all(time >= 0 for time in times.values())


def test_a_head_that_nobody_wants_is_not_run(half_broken, make_pair):
    visible, thermal = batch(*make_pair(8, 8))
    fused = half_broken.run(visible, thermal, ["bright"]).fused["bright"]
    np.testing.assert_array_equal(fused[0], expected("bright", visible[0], thermal[0]))


def test_nothing_is_run_where_nothing_is_wanted(tmp_path, make_pair):
    nodes = [node("Gather", ["thermal", "sixth"], ["picked"], axis=0), node("Unsqueeze", ["picked", "last"], ["heat"])]
    constants = {"sixth": np.array([5], np.int64), "last": np.array([3], np.int64)}
    nodes.append(node("Identity", ["heat"], ["luma"]))
    broken = graph(nodes, [VISIBLE, THERMAL], [LUMA, HEAT], constants)
    engine = prepare("onnxruntime", write_tiny(tmp_path / "a", graphs={"backbone": broken}), Options(threads=1))
    results = engine.run(*batch(*make_pair(8, 8)), [])
    assert (results.fused, results.milliseconds) == ({}, {})
    with pytest.raises(BackendError):
        engine.run(*batch(*make_pair(8, 8)), ["bright"])


def test_a_run_that_fails_is_one_line_and_the_engine_goes_on(half_broken, make_pair):
    visible, thermal = batch(*make_pair(8, 8))
    for _ in range(2):
        with pytest.raises(BackendError, match="ONNX Runtime failed on bundle tiny") as caught:
            half_broken.run(visible, thermal, ["bright", "blend"])
        assert "\n" not in str(caught.value)
        fused = half_broken.run(visible, thermal, ["bright"]).fused["bright"]
        np.testing.assert_array_equal(fused[0], expected("bright", visible[0], thermal[0]))


def test_features_and_images_stay_at_their_place_in_memory(engine, make_pair):
    addresses = set()
    for seed in range(4):
        fused = engine.run(*batch(*make_pair(16, 16, seed)), ["bright", "blend"]).fused
        addresses.add(tuple(image.ctypes.data for image in fused.values()))
    assert len(addresses) == 1


def test_an_image_stays_at_its_place_whether_it_comes_from_one_graph_or_from_several(engine, make_pair):
    both = engine.run(*batch(*make_pair(8, 8)), ["bright", "blend"]).fused["blend"]
    one = engine.run(*batch(*make_pair(8, 8)), ["blend"]).fused["blend"]
    assert one.ctypes.data == both.ctypes.data


def test_two_engines_of_one_bundle_do_not_share_results(bundle, engine, make_pair):
    other = prepare("onnxruntime", bundle, Options(threads=1))
    visible, thermal = batch(*make_pair(8, 8, seed=1))
    fused = engine.run(visible, thermal, ["bright"]).fused["bright"]
    other.run(*batch(*make_pair(8, 8, seed=2)), ["bright"])
    np.testing.assert_array_equal(fused[0], expected("bright", visible[0], thermal[0]))


@pytest.mark.parametrize(("threads", "shown"), [(1, "1"), (3, "3"), (0, str(os.cpu_count()))])
def test_description(bundle, threads, shown):
    assert prepare("onnxruntime", bundle, Options(threads)).describe() == {
        "engine": "onnxruntime",
        "version": onnxruntime.__version__,
        "device": "CPU",
        "precision": "fp32",
        "threads": shown,
    }


def test_a_closed_engine_refuses_to_run_and_may_be_closed_again(bundle, make_pair):
    engine = prepare("onnxruntime", bundle, Options(threads=1))
    engine.run(*batch(*make_pair(8, 8)), ["bright"])
    engine.close()
    engine.close()
    with pytest.raises(BackendError):
        engine.run(*batch(*make_pair(8, 8)), ["bright"])


def test_an_unknown_engine(bundle):
    with pytest.raises(BackendError, match="back end 'tpu' is unknown; use one of onnxruntime"):
        prepare("tpu", bundle, Options())


def test_a_graph_that_the_engine_refuses(tmp_path):
    """Two operators that compute one tensor: inference of shapes does not mind, ONNX Runtime does."""
    model = onnx.load_model_from_string(backbone())
    model.graph.node.append(node("Identity", ["rounded"], ["scaled"]))
    bundle = write_tiny(tmp_path / "a", graphs={"backbone": model.SerializeToString()})
    with pytest.raises(BackendError, match="ONNX Runtime refuses bundle tiny") as caught:
        prepare("onnxruntime", bundle, Options())
    assert "\n" not in str(caught.value)


def test_bytes_that_are_checked_as_onnx_are_run_as_onnx(tmp_path, make_pair):
    """ONNX Runtime takes bytes with ORTM at offset 4 for its own format, which nothing checks; to ONNX it is a field
    of no meaning, so a graph could be good in the one reading and anything in the other."""
    hidden = bytes([0x7A, 6, 0, 0]) + b"ORTM" + backbone()
    engine = prepare("onnxruntime", write_tiny(tmp_path / "a", graphs={"backbone": hidden}), Options(threads=1))
    visible, thermal = batch(*make_pair(8, 8))
    fused = engine.run(visible, thermal, ["blend"]).fused["blend"]
    np.testing.assert_array_equal(fused[0], expected("blend", visible[0], thermal[0]))


WITHOUT_ENGINE = """
import sys
sys.modules["onnxruntime"] = None
from vifa_runtime.backends import BackendError, Options, prepare
try:
    prepare("onnxruntime", None, Options())
except BackendError as error:
    print(error)
"""


def test_products_of_8_bits_do_not_overflow():
    """By hand: 4 channels of 255 times 127, 129,540, in steps of 1000. In 16 bits a pair of them ends at 32,767.

    Run it under `qemu-x86_64 -cpu Haswell` to see a processor on which they do, with ONNX Runtime's usual kernels.
    """
    (steps,) = make_session(probe(), 1).run(None, {"bytes": np.full((1, 4, 16, 16), 255, np.uint8)})
    assert steps.shape == (1, 8, 16, 16) and set(steps.ravel()) == {130}


@pytest.mark.parametrize("overflow", [True, False])
def test_slower_kernels_are_asked_for_only_where_products_overflow(monkeypatch, bundle, overflow):
    monkeypatch.setattr(engine_module, "products_overflow", lambda: overflow)
    for graph_bytes, wanted in ((probe(), overflow), (bundle.graphs["backbone.onnx"], False)):
        options = make_session(graph_bytes, 1).get_session_options()
        if wanted:
            assert options.get_session_config_entry("session.x64quantprecision") == "1"
        else:
            with pytest.raises(RuntimeError, match=r"session\.x64quantprecision"):
                options.get_session_config_entry("session.x64quantprecision")


def test_a_machine_without_the_engine():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", WITHOUT_ENGINE], cwd=root, capture_output=True, text=True)
    assert done.stdout.startswith("ONNX Runtime cannot be loaded"), done.stderr
    assert "pip install onnxruntime" in done.stdout
