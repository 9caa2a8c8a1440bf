"""The back end's states on the stand-in of every version: what it refuses to load, threads, full memory, failures."""

import hashlib
import threading
import types

import numpy as np
import pytest
from onnx import helper
from tensorrt_cases import SIZE, TASKS, build_for, check_equal, pair, refusal
from tensorrt_standin import VERSIONS, install
from tiny_bundle import LUMA, THERMAL, VISIBLE, graph, value

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.backends.tensorrt_calls import make

node = helper.make_node


# Engines that are not there, or do not fit.


def test_no_engine_at_all(machine, bundle, options):
    assert refusal(bundle, options) == (
        f"there are no fp32 engines of bundle tiny in {options.engines}; run vifa bundle build tiny --precision fp32 "
        f"--engines {options.engines} --size WIDTHxHEIGHT, with the camera's size"
    )


def test_engines_of_another_precision_are_none(machine, built, tmp_path):
    words = "there are no fp16 engines of bundle tiny"
    assert refusal(built, Options(engines=tmp_path / "engines", precision="fp16")).startswith(words)


def test_int8_that_needs_pairs_says_so_in_its_mend(machine, bundle, tmp_path):
    words = refusal(bundle, Options(engines=tmp_path / "engines", precision="int8"))
    assert (" --calibration PAIRS --size WIDTHxHEIGHT" in words) is (machine.version != "11")


def test_a_missing_engine_is_named_with_its_graph(machine, built, options):
    (path,) = [
        file
        for file in options.engines.iterdir()
        if b"PLAN" in file.read_bytes() and _is_of(file, "tasks/glare.onnx", built)
    ]
    path.unlink()
    assert refusal(built, options) == (
        f"engine {path} for tasks/glare.onnx does not exist; run vifa bundle build tiny --precision fp32 --size 48x32 "
        f"--engines {options.engines}"
    )
    machine.assert_clean()
    assert machine.trt.deserialised == []


def _is_of(file, path, bundle):
    return file.name.startswith(hashlib.sha256(bundle.graphs[path]).hexdigest()[:16])


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        (("Xavier", (8, 7)), "was built for the GPU Orin, here is Xavier; run vifa bundle build tiny "),
        (("Orin", (8, 9)), "was built for compute capability 8.7, here is 8.9; run vifa bundle build tiny "),
    ],
)
def test_engines_of_another_gpu_are_refused_before_tensorrt_sees_them(machine, built, options, gpu, reason):
    machine.gpus = (gpu,)
    assert f"for backbone.onnx {reason}" in refusal(built, options)
    assert machine.trt.deserialised == []


def test_engines_of_another_tensorrt_are_refused_before_it_sees_them(machine, built, options, monkeypatch):
    other = {"8.5": "8.6", "8.6": "10.0", "10.0": "10.13", "10.13": "11", "11": "8.5"}[machine.version]
    install(monkeypatch, other, machine)
    was, now = VERSIONS[machine.version], VERSIONS[other]
    assert f"was built by TensorRT {was}, here is {now}; run vifa bundle build" in refusal(built, options)
    assert machine.trt.deserialised == []


def test_damaged_engines_are_refused_before_tensorrt_sees_them(machine, built, options):
    for file in options.engines.glob("*.engine"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "for backbone.onnx is damaged: it does not match the SHA-256 in its head; run" in refusal(built, options)
    assert machine.trt.deserialised == []


def test_tensorrt_sees_what_was_built_and_nothing_else(machine, engine, built):
    assert len(machine.trt.deserialised) == len(built.graphs)
    assert all(data.startswith(b"PLAN") for data in machine.trt.deserialised)


def test_an_older_head_on_a_new_backbone_needs_its_own_engines(machine, built, options, tmp_path):
    """The head's graph stays what it was; another backbone could give it features of other sides."""
    nodes = [
        node("Cast", ["visible"], ["levels"], to=1),
        node("MaxPool", ["levels"], ["luma"], kernel_shape=[1, 3], strides=[1, 3]),
        node("AveragePool", ["luma"], ["halved"], kernel_shape=[1, 1]),
        node("Unsqueeze", ["thermal", "last"], ["whole"]),
        node("Transpose", ["whole"], ["turned"], perm=[0, 3, 1, 2]),
        node("MaxPool", ["turned"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["small"], ["heat"], perm=[0, 2, 3, 1]),
    ]
    nodes = [found for found in nodes if found.output[0] != "halved"]
    smaller = graph(nodes, [VISIBLE, THERMAL], [LUMA, value("heat", 1, None)], {"last": np.array([3], np.int64)})
    built.graphs["backbone.onnx"] = smaller  # the engines of heads stay, whose graphs did not change
    graphs = dict(built.graphs)
    for path in list(built.graphs):
        if path != "backbone.onnx":
            del built.graphs[path]
    build_for(built, options)
    built.graphs.update(graphs)
    words = refusal(built, options)
    assert words.startswith(
        "the engine of heads/bright.onnx has the tensor heat of (1, 32, 48, 1), which the others do not fit"
    )
    assert words.endswith(
        f"remove {options.engines} and run vifa bundle build tiny --precision fp32 --size 48x32 "
        f"--engines {options.engines}"
    )


def test_a_refused_change_of_size_leaves_the_present_engines(machine, built, options, reference):
    build_for(built, options, (64, 96))
    engine = prepare("tensorrt", built, options)
    engine.run(*pair(), ["blend"])
    for file in options.engines.glob("*-96x64-*.engine"):
        file.write_bytes(file.read_bytes()[:-1])
    loaded = len(machine.trt.deserialised)
    with pytest.raises(BackendError, match=r"is damaged: .*; run vifa bundle build tiny .*--size 96x64"):
        engine.run(*pair((64, 96)), ["blend"])
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))
    assert len(machine.trt.deserialised) == loaded
    engine.close()


# Building at start.


def test_missing_engines_are_built_at_start_only_where_that_is_allowed(machine, built, options, capsys):
    for file in options.engines.glob("*.engine"):
        if _is_of(file, "tasks/glare.onnx", built):
            file.unlink()
    done = len(machine.trt.builds)
    assert "does not exist" in refusal(built, options)
    engine = prepare("tensorrt", built, Options(engines=options.engines, build=True))
    assert len(machine.trt.builds) == done + 1
    told = capsys.readouterr().err.splitlines()
    assert told == ["TensorRT: tasks/glare.onnx: building for 48x32 in fp32; this takes minutes"]
    engine.run(*pair(), TASKS)
    engine.close()


def test_where_the_size_is_unknown_the_first_pair_is_built_for(machine, bundle, options, reference):
    engine = prepare("tensorrt", bundle, Options(engines=options.engines, build=True))
    assert machine.trt.builds == []
    check_equal(engine.run(*pair(), TASKS), reference.run(*pair(), TASKS))
    assert len(machine.trt.builds) == 5
    check_equal(engine.run(*pair((64, 96)), TASKS), reference.run(*pair((64, 96)), TASKS))
    assert len(machine.trt.builds) == 10
    assert all(made["running"] == 0 for made in machine.trt.builds)  # which would need the memory
    engine.close()


# Threads, states and full memory.


def in_another_thread(work):
    """The error of `work` in another thread, or None."""
    errors = []

    def run():
        try:
            work()
        except BackendError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors[0] if errors else None


def test_another_thread_may_neither_run_nor_close_it(machine, engine, reference):
    for work in (lambda: engine.run(*pair(), ["blend"]), lambda: engine.run(*pair((64, 64)), ["blend"]), engine.close):
        reason = in_another_thread(work)
        assert reason and ("belongs to the thread that made it" in reason or "not for 64x64" in reason)
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))


def test_a_worker_thread_may_do_all_of_it(machine, built, options, reference):
    def live():
        engine = prepare("tensorrt", built, options)
        check_equal(engine.run(*pair(), TASKS), reference.run(*pair(), TASKS))
        engine.close()

    assert in_another_thread(live) is None


def test_what_is_loaded_by_the_first_pair_belongs_to_its_thread(machine, built, options):
    build_for(built, options, (64, 96))
    engine = prepare("tensorrt", built, options)

    def live():
        engine.run(*pair(), ["blend"])
        engine.close()

    assert in_another_thread(live) is None


def test_the_threads_own_context_is_current_again_after_every_call(machine, built, options):
    import pycuda.driver as cuda

    own = cuda.Device(0).make_context()
    engine = prepare("tensorrt", built, options)
    assert machine.stack() == [own]
    engine.run(*pair(), ["blend"])
    with pytest.raises(BackendError):
        engine.run(*pair((64, 64)), ["blend"])
    assert machine.stack() == [own]
    engine.close()
    assert machine.stack() == [own]
    own.pop()
    own.detach()


def test_a_closed_engine_refuses_to_run_and_may_be_closed_again(machine, engine):
    engine.close()
    engine.close()
    machine.assert_clean()
    with pytest.raises(BackendError, match="this TensorRT engine is closed"):
        engine.run(*pair(), ["blend"])


def test_a_hundred_rounds_leak_nothing(machine, built, options):
    build_for(built, options, (64, 64))
    for number in range(100):
        engine = prepare("tensorrt", built, options)
        engine.run(*pair(SIZE if number % 2 else (64, 64), seed=number), TASKS[: 1 + number % 4])
        if number % 3 == 0:
            engine.run(*pair(), TASKS)
        if number % 5 == 0:
            with pytest.raises(BackendError):
                engine.run(*pair((4, 4)), TASKS)
        engine.close()
        machine.assert_clean()


def test_a_full_gpu_at_any_allocation_leaves_nothing_behind(machine, built, options):
    machine.allocations.clear()
    prepare("tensorrt", built, options).close()
    kinds = {"Context", "Stream", "Event", "Runtime", "ICudaEngine", "IExecutionContext"}
    assert kinds | {"DeviceAllocation", "PagelockedHostAllocation"} == set(machine.allocations)
    for number in range(1, len(machine.allocations) + 1):
        machine.allocations.clear()
        machine.fail_at = number
        with pytest.raises(
            BackendError, match=r"GPU 0 \(Orin\) has no memory left for .*smaller size or fewer tasks"
        ) as caught:
            prepare("tensorrt", built, options)
        machine.assert_clean()
        del caught
    machine.fail_at = 0


def test_a_full_gpu_at_a_change_of_size_leaves_an_engine_that_goes_on(machine, built, options, reference):
    build_for(built, options, (64, 96))
    engine = prepare("tensorrt", built, options)
    engine.run(*pair(), ["blend"])
    machine.allocations.clear()
    machine.fail_at = 12
    with pytest.raises(BackendError, match="no memory left"):
        engine.run(*pair((64, 96)), ["blend"])
    assert +machine.live == {"Context": 1}
    assert "belongs to the thread that made it" in in_another_thread(engine.close)
    machine.fail_at = 0
    check_equal(engine.run(*pair((64, 96)), ["blend"]), reference.run(*pair((64, 96)), ["blend"]))
    engine.close()


def test_too_little_memory_for_the_tensors(machine, built, options):
    machine.memory = 20000
    assert "has no memory left for the engines of bundle tiny (cuMemAlloc failed: out of memory)" in refusal(
        built, options
    )


def test_a_launch_that_fails_is_one_line_and_the_engine_goes_on(machine, built, options, reference):
    machine.has_graphs = False
    engine = prepare("tensorrt", built, options)
    machine.fail_run = 1
    with pytest.raises(BackendError) as caught:
        engine.run(*pair(), ["blend"])
    assert str(caught.value) == (
        "TensorRT failed on backbone.onnx: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    )
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))
    engine.close()


def test_work_that_fails_on_the_gpu_is_one_line(machine, engine, reference):
    machine.fail_sync = 1
    with pytest.raises(BackendError) as caught:
        engine.run(*pair(), ["blend"])
    assert str(caught.value) == (
        "CUDA failed on running bundle tiny: cuStreamSynchronize failed: unspecified launch failure; start again, and "
        "see what nvidia-smi says"
    )
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))


def test_an_engine_that_fails_while_it_is_loaded(machine, built, options):
    machine.fail_run = 1
    assert refusal(built, options).startswith("TensorRT failed on backbone.onnx: Error Code 1")


def test_a_reason_is_of_the_call_that_failed(machine):
    logger = types.SimpleNamespace(errors=["of another call"])
    with pytest.raises(BackendError, match=r"^TensorRT cannot make a thing: it gives no reason$"):
        make(None, logger, "a thing", lambda: None)
    with pytest.raises(BackendError, match=r"^TensorRT cannot make a thing: first$"):
        make(None, logger, "a thing", lambda: logger.errors.extend(["first\nmore", "second"]))


def test_the_fallback_says_why(machine, built, options, reference):
    machine.gpus = (("Xavier", (7, 2)),)
    engine = prepare("tensorrt", built, Options(engines=options.engines, fallback="onnxruntime", threads=1))
    told = engine.describe()
    assert told["engine"] == "onnxruntime"
    assert told["fallback"].startswith("tensorrt: engine ")
    assert "was built for the GPU Orin, here is Xavier; run vifa bundle build" in told["fallback"]
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))
    engine.close()
