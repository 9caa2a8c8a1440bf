"""The chain that stays on a device, run on the device `cpu` that every ONNX Runtime has."""

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_bundle import expected, write_tiny, write_with_tasks

from vifa_runtime.backends import BackendError, Options, onnxruntime_gpu, prepare
from vifa_runtime.backends.onnxruntime import ort
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle


@pytest.fixture
def on_cpu(monkeypatch):
    """`prepare` with the name of the CUDA back end, on the CPU."""
    monkeypatch.setattr(onnxruntime_gpu, "PROVIDERS", {"cuda": "CPUExecutionProvider"})
    monkeypatch.setattr(onnxruntime_gpu, "DEVICE", "cpu")
    return lambda bundle, **options: prepare("onnxruntime-cuda", bundle, Options(**options))


def batch(visible, thermal):
    return visible[None], thermal[None].astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("tasks", [["bright"], ["bright", "blend"]])
def test_results_equal_the_arithmetic(on_cpu, bundle, make_pair, merge, tasks):
    engine = on_cpu(bundle, merge=merge)
    for seed, size in enumerate([(4, 4), (8, 20), (4, 4)]):
        visible, thermal = batch(*make_pair(*size, seed))
        results = engine.run(visible, thermal, tasks)
        assert list(results.fused) == tasks
        for task in tasks:
            np.testing.assert_array_equal(results.fused[task][0], expected(task, visible[0], thermal[0]))
        whole = merge and len(tasks) == 2
        assert set(results.milliseconds) == ({"fusion"} if whole else {"backbone", *(f"head.{t}" for t in tasks)})
    assert engine.run(visible, thermal, []).fused == {}


def test_task_graphs_find_what_they_find_on_the_cpu(on_cpu, tmp_path, make_pair):
    bundle = write_with_tasks(tmp_path / "tasks")
    pair = batch(*make_pair(16, 16))
    found = [
        engine.run(*pair, bundle.task_names) for engine in (on_cpu(bundle), prepare("onnxruntime", bundle, Options()))
    ]
    assert found[0].outputs.keys() == found[1].outputs.keys() and len(found[0].outputs) > 1
    for task, outputs in found[1].outputs.items():
        assert outputs.keys() == found[0].outputs[task].keys()
        for name, array in outputs.items():
            np.testing.assert_array_equal(found[0].outputs[task][name], array)
    only = on_cpu(bundle).run(*pair, bundle.task_names, fused_only=bundle.task_names)
    assert only.outputs == {} and set(only.fused) == set(bundle.task_names)


def test_a_real_bundle_gives_the_same_bytes(on_cpu):
    bundle = load_bundle(find_bundle("nano-fusion"))
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    thermal = rng.random((1, 96, 128), dtype=np.float32)
    fused = on_cpu(bundle).run(visible, thermal, bundle.task_names).fused
    for merge in (True, False):
        engine = prepare("onnxruntime", bundle, Options(threads=1, merge=merge))
        for task, image in engine.run(visible, thermal, bundle.task_names).fused.items():
            np.testing.assert_array_equal(fused[task], image)


def test_a_provider_that_is_listed_and_does_not_load_is_refused(monkeypatch, bundle):
    """ONNX Runtime warns and takes the CPU; that must not pass for a GPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(BackendError, match="CUDAExecutionProvider cannot be loaded; check the GPU's driver"):
        prepare("onnxruntime-cuda", bundle, Options())


def test_a_failed_run_is_one_line_and_a_closed_engine_refuses(on_cpu, bundle, make_pair):
    engine = on_cpu(bundle)
    visible, thermal = batch(*make_pair(8, 8))
    with pytest.raises(BackendError, match="failed on bundle tiny") as caught:
        engine.run(visible, thermal[:, :4], ["blend"])
    assert "\n" not in str(caught.value)
    engine.close()
    with pytest.raises(BackendError):
        engine.run(visible, thermal, ["blend"])


def test_messages_name_the_provider(on_cpu, tmp_path, bundle, make_pair):
    model = onnx.load_model_from_string(bundle.graphs["backbone.onnx"])
    model.graph.node.append(helper.make_node("Identity", ["rounded"], ["scaled"]))  # which is computed twice then
    twice = write_tiny(tmp_path / "a", graphs={"backbone": model.SerializeToString()})
    with pytest.raises(BackendError, match=r"^CPUExecutionProvider refuses bundle tiny: "):
        on_cpu(twice)
    with pytest.raises(BackendError, match=r"^CPUExecutionProvider failed on bundle tiny: "):
        on_cpu(bundle).run(*batch(*make_pair(8, 8))[::-1], ["blend"])


def test_description(on_cpu, bundle):
    told = on_cpu(bundle, device=0).describe()
    assert told["engine"] == "onnxruntime CPUExecutionProvider" and told["device"] == "cpu 0"


def test_tensorrt_keeps_its_engines_in_the_users_cache_or_where_it_is_told(monkeypatch, tmp_path, bundle):
    """Without the provider, so that what it would be given is looked at before ONNX Runtime refuses it."""
    given = []
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, providers, **__: given.append(dict(providers)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for engines in (None, tmp_path / "mine"):
        with pytest.raises(BackendError):
            prepare("onnxruntime-tensorrt", bundle, Options(precision="fp16", engines=engines, device=2))
    folders = [providers["TensorrtExecutionProvider"]["trt_engine_cache_path"] for providers in given]
    assert folders == [str(tmp_path / "cache" / "vifa" / "onnxruntime-tensorrt"), str(tmp_path / "mine")]
    [chosen, _] = [providers["TensorrtExecutionProvider"] for providers in given]
    assert (chosen["device_id"], chosen["trt_fp16_enable"], chosen["trt_engine_cache_enable"]) == ("2", "1", "1")
