"""The back end on the stand-in of every version: the same bytes as ONNX Runtime, CUDA graphs, sizes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from cuda_standin import Machine
from onnx import helper
from tensorrt_cases import SIZE, TASKS, build_for, check_equal, pair, refusal
from tensorrt_standin import VERSIONS, install
from tiny_bundle import FUSED, HEAT, LUMA, THERMAL, VISIBLE, graph, write_tiny

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.street import Street

node = helper.make_node


# What it computes.


@pytest.mark.parametrize(
    ("tasks", "fused_only"),
    [(["bright"], []), (["blend", "cells"], []), (TASKS, []), (TASKS, ["cells"]), (["glare"], ["glare"])],
)
def test_results_equal_those_of_onnxruntime(engine, reference, tasks, fused_only):
    for seed in range(3):
        check_equal(engine.run(*pair(seed=seed), tasks, fused_only), reference.run(*pair(seed=seed), tasks, fused_only))


def test_tasks_that_come_and_go(engine, reference):
    for seed, tasks in enumerate([["bright"], TASKS, ["cells"], ["glare", "blend"], TASKS]):
        check_equal(engine.run(*pair(seed=seed), tasks), reference.run(*pair(seed=seed), tasks))


def test_nothing_is_run_where_nothing_is_wanted(machine, engine):
    machine.fail_sync = 1
    results = engine.run(*pair(), [])
    assert (results.fused, results.outputs, results.milliseconds) == ({}, {}, {})
    machine.fail_sync = 0


def test_every_stage_that_ran_is_timed_in_its_order(engine):
    assert list(engine.run(*pair(), ["blend", "cells"]).milliseconds) == [
        "backbone",
        "head.blend",
        "head.cells",
        "task.cells",
    ]
    times = engine.run(*pair(), TASKS, ["cells", "glare"]).milliseconds
    assert list(times) == ["backbone", *(f"head.{task}" for task in TASKS)]
    assert all(time > 0 for time in times.values())


def test_images_that_must_not_be_written_to_or_have_gaps(engine, reference):
    visible, thermal = pair((64, 96))
    visible, thermal = visible[:, ::2, ::2], thermal[:, ::2, ::2]
    visible.flags.writeable = thermal.flags.writeable = False
    results = reference.run(np.ascontiguousarray(visible), np.ascontiguousarray(thermal), ["blend"])
    check_equal(engine.run(visible, thermal, ["blend"]), results)


def test_results_lie_at_one_place_and_outlive_the_engine(machine, engine, reference):
    addresses = set()
    for seed in range(3):
        results = engine.run(*pair(seed=seed), TASKS)
        arrays = [*results.fused.values(), *(a for found in results.outputs.values() for a in found.values())]
        addresses.add(tuple(array.ctypes.data for array in arrays))
    assert len(addresses) == 1
    engine.close()
    machine.assert_clean()
    check_equal(results, reference.run(*pair(seed=2), TASKS))


def test_what_passes_between_graphs_stays_on_the_gpu(machine, engine):
    """Page-locked memory is there for both images and for what the caller gets, and for nothing else."""
    ends = 2 + len(TASKS) + len(["boxes", "scores", "mask", "confidence"])
    assert machine.live["PagelockedHostAllocation"] == ends
    assert machine.live["DeviceAllocation"] == ends + len(["luma", "heat"])
    before = len(machine.allocations)
    for seed in range(3):
        engine.run(*pair(seed=seed), TASKS)
    assert len(machine.allocations) == before
    assert machine.live["Stream"] == 1


def test_two_engines_do_not_share_results(engine, built, options, reference):
    other = prepare("tensorrt", built, options)
    first = engine.run(*pair(seed=1), ["blend"])
    other.run(*pair(seed=2), ["blend"])
    check_equal(first, reference.run(*pair(seed=1), ["blend"]))
    other.close()


def test_half_precision_stays_within_two_gray_levels(machine, bundle, tmp_path, reference):
    options = Options(engines=tmp_path / "engines", precision="fp16")
    build_for(bundle, options)
    engine = prepare("tensorrt", bundle, options)
    results, others = engine.run(*pair(), TASKS), reference.run(*pair(), TASKS)
    for task in TASKS:
        assert np.abs(results.fused[task].astype(int) - others.fused[task]).max() <= 2
    engine.close()


def test_a_head_that_does_not_look_at_the_features(machine, tmp_path, options):
    nodes = [node("Cast", ["visible"], ["levels"], to=1), node("QuantizeLinear", ["levels", "one", "zero"], ["fused"])]
    data = graph(nodes, [VISIBLE], [FUSED], {"one": np.float32(1), "zero": np.uint8(0)})
    bundle = write_tiny(tmp_path / "a", {"bright": data})
    build_for(bundle, options)
    engine = prepare("tensorrt", bundle, options)
    visible, thermal = pair()
    np.testing.assert_array_equal(engine.run(visible, thermal, ["bright"]).fused["bright"], visible)
    engine.close()


def test_an_image_that_nobody_looks_at(machine, tmp_path, options, make_pair):
    """TensorRT may drop an input that nothing is computed from, as the stand-in does."""
    nodes = [node("Unsqueeze", ["thermal", "last"], ["heat"]), node("Neg", ["heat"], ["luma"])]
    data = graph(nodes, [VISIBLE, THERMAL], [LUMA, HEAT], {"last": np.array([3], np.int64)})
    fused = [
        node("Concat", ["heat", "heat", "heat"], ["all"], axis=3),
        node("QuantizeLinear", ["all", "one", "zero"], ["fused"]),
    ]
    head = graph(fused, [VISIBLE, HEAT], [FUSED], {"one": np.float32(1 / 255), "zero": np.uint8(0)})
    bundle = write_tiny(tmp_path / "a", {"backbone": data, "bright": head, "blend": head})
    build_for(bundle, options)
    engine = prepare("tensorrt", bundle, options)
    visible, thermal = pair()
    found = engine.run(visible, thermal, ["bright"]).fused["bright"]
    np.testing.assert_array_equal(found[0, ..., 1], np.rint(thermal[0] / np.float32(1 / 255)))
    assert machine.live["PagelockedHostAllocation"] == 1 + 2
    engine.close()


# What it says of itself.


def test_description(machine, engine):
    assert engine.describe() == {
        "engine": "tensorrt",
        "version": VERSIONS[machine.version],
        "device": "GPU 0, Orin",
        "precision": "fp32",
        "threads": "1",
        "size": "48x32",
        "cuda_graphs": "7 of 7 engines",
    }


def test_every_launch_is_a_cuda_graph(machine, engine, reference):
    machine.fail_run = 1  # of launches without one
    check_equal(engine.run(*pair(), TASKS), reference.run(*pair(), TASKS))
    assert machine.fail_run == 1


@pytest.mark.parametrize(
    ("trouble", "shown"),
    [
        (
            {"has_driver": False},
            "0 of 7 engines (the CUDA driver has no graphs: libcuda.so.1: cannot open shared object",
        ),
        ({"has_graphs": False}, "0 of 7 engines (the CUDA driver has no graphs: "),
        ({"refuses_capture": True}, "0 of 7 engines (cuStreamBeginCapture_v2 gives 800)"),
        ({"refuses_instantiation": True}, "0 of 7 engines (cuGraphInstantiateWithFlags gives 800)"),
        ({"breaks_capture": 2}, "5 of 7 engines (TensorRT failed on "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_where_there_are_no_cuda_graphs_it_launches_as_usual_and_says_why(
    machine, built, options, reference, trouble, shown
):
    for name, value in trouble.items():
        setattr(machine, name, value)
    engine = prepare("tensorrt", built, options)
    assert engine.describe()["cuda_graphs"].startswith(shown)
    check_equal(engine.run(*pair(), TASKS), reference.run(*pair(), TASKS))
    engine.close()


def test_a_cuda_graph_that_is_refused_later_is_replaced(machine, engine, reference):
    machine.refuses_launch = True
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))
    assert engine.describe()["cuda_graphs"] == "5 of 7 engines (cuGraphLaunch gives 800)"


# Sizes.


def test_a_pair_of_another_size_is_one_line_with_the_mend_and_the_engine_goes_on(machine, engine, options, reference):
    with pytest.raises(BackendError) as caught:
        engine.run(*pair((64, 96)), ["blend"])
    assert str(caught.value) == (
        "engines of bundle tiny are built for 48x32, not for 96x64; run vifa bundle build tiny --precision fp32 "
        f"--size 96x64 --engines {options.engines}"
    )
    check_equal(engine.run(*pair(), ["blend"]), reference.run(*pair(), ["blend"]))


def test_of_several_sizes_the_pair_decides(machine, built, options, reference):
    build_for(built, options, (64, 96))
    engine = prepare("tensorrt", built, options)
    assert engine.describe()["size"] == "none"
    assert not +machine.live
    for size in (SIZE, (64, 96), SIZE):
        check_equal(engine.run(*pair(size), TASKS), reference.run(*pair(size), TASKS))
        assert engine.describe()["size"] == f"{size[1]}x{size[0]}"
        assert machine.live["Stream"] == machine.live["Context"] == 1
    engine.close()


def test_a_working_size_needs_no_other(machine, tmp_path, options):
    bundle = write_tiny(tmp_path / "a", working_size=[30, 46])  # padded to multiples of 4
    build_for(bundle, options)
    build_for(bundle, options, (64, 96))  # of another bundle, say
    engine = prepare("tensorrt", bundle, options)
    assert engine.describe()["size"] == "48x32"
    engine.close()
    shutil.rmtree(options.engines)
    assert refusal(bundle, options).endswith(f"run vifa bundle build tiny --precision fp32 --engines {options.engines}")


# A bundle that ships, through the whole pipeline.


@pytest.mark.parametrize("version", ["8.5", "11"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_shipped_bundle_gives_what_it_gives_on_onnxruntime(monkeypatch, options, version, precision):
    """Within 1 gray level, 2 in half precision, as the design wants it; padding and cropping included."""
    machine = install(monkeypatch, version, Machine())
    bundle, options = load_bundle(find_bundle("nano-two-task")), replace(options, precision=precision)
    visible, thermal = Street(size=(150, 200))[0]
    build_for(bundle, options, bundle.grid((150, 200)).padded)
    found = []
    for engine in (prepare("tensorrt", bundle, options), prepare("onnxruntime", bundle, Options(threads=1))):
        pipeline = FusionPipeline(bundle, engine)
        found.append(pipeline.process(visible, thermal))
        pipeline.close()
    machine.assert_clean()
    results, others = found
    for task, image in others.fused.items():
        largest = np.abs(results.fused[task].astype(int) - image).max()
        assert largest <= {"fp32": 1, "fp16": 2}[precision]
    assert (results.masks["crop_and_weed"] != others.masks["crop_and_weed"]).mean() < 0.01
    assert results.detections.keys() == others.detections.keys() == {"road_users"}
