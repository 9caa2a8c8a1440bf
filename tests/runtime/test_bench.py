"""`vifa bench`: what it counts, what it compares, and what it prints."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.bench import Ceilings, _floor_ms, bench, chain_flops, measure_ceilings, with_heads
from vifa_runtime.bundle import BACKBONE, load_bundle
from vifa_runtime.cli import app
from vifa_runtime.graph_costs import count_flops
from vifa_runtime.models import find_bundle

node = helper.make_node


def small_graph(nodes, shapes, constants):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(s)) for name, s in shapes.items()]
    weights = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("nodes", "shapes", "constants", "flops"),
    [
        # 6 channels of 8x10 numbers, each a product with 3*5*5 weights and a sum
        ([node("Conv", ["x", "w"], ["y"], pads=[2] * 4)], {"x": (1, 3, 8, 10)}, {"w": (6, 3, 5, 5)}, 2 * 480 * 75),
        # of two groups, each number sees the 2 channels of its own
        ([node("Conv", ["x", "w"], ["y"], group=2)], {"x": (1, 4, 5, 5)}, {"w": (6, 2, 1, 1)}, 2 * 150 * 2),
        (
            [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])],
            {"x": (1, 4, 5, 6)},
            {"w": (4, 3, 2, 2)},
            2 * 120 * 12,
        ),
        ([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 7, 3)}, {"w": (3, 5)}, 2 * 70 * 3),
        ([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": (3, 7)}, {"w": (3, 5)}, 2 * 35 * 3),
        ([node("Relu", ["x"], ["a"]), node("Transpose", ["a"], ["y"])], {"x": (4, 9)}, {}, 36),
    ],
)
def test_operations_by_hand(nodes, shapes, constants, flops):
    assert count_flops(small_graph(nodes, shapes, constants), shapes) == flops


def test_operations_grow_with_the_image_and_are_mostly_convolutions():
    bundle = load_bundle(find_bundle("tardal-fusion"))
    small, large = (sum(chain_flops(bundle, size).values()) for size in ((64, 64), (128, 64)))
    assert large == pytest.approx(2 * small, rel=1e-3)
    # 296,577 parameters with one head; the weights of convolutions are used once a pixel.
    backbone = chain_flops(bundle, (64, 64))[BACKBONE]
    assert backbone == pytest.approx(2 * (296_577 - 18_817) * 64 * 64, rel=0.03)


def test_repeated_heads_are_heads_of_their_own(bundle, make_pair):
    wide = with_heads(bundle, 5)
    assert wide.task_names == ["bright", "blend", "bright_2", "blend_2", "bright_3"]
    visible, thermal = make_pair(8, 8)
    fused = prepare("onnxruntime", wide, Options(threads=1)).run(
        visible[None], thermal[None].astype("f4") / 255, wide.task_names
    )
    assert list(fused.fused) == wide.task_names
    real = with_heads(load_bundle(find_bundle("nano-fusion")), 3)
    weights = [onnx.load_model_from_string(real.graphs[task.head]).graph.initializer for task in real.tasks]
    kernels = [next(numpy_helper.to_array(w) for w in of if len(w.dims) == 4) for of in weights]
    np.testing.assert_allclose(kernels[2], kernels[0] * (1 + 1 / 64), rtol=1e-6)


def test_a_row_holds_what_scripts_read(bundle):
    row = bench(bundle, "onnxruntime", (64, 96), Options(threads=1), seconds=0.2, counts=(1, 3))
    assert (row["bundle"], row["size"], row["threads"]) == ("tiny", "96x64", 1)
    assert set(row["stages"]) == {"normalise", "align", "restore", "fusion", "total", "fusion only"}
    for times in row["stages"].values():
        assert 0 < times["p50_ms"] <= times["p95_ms"] <= times["p99_ms"]
    assert row["pairs_per_s"] == pytest.approx(1e3 / row["stages"]["total"]["p50_ms"], rel=0.01)
    assert [task["n"] for task in row["tasks"]] == [1, 3]
    assert row["tasks"][0]["limit"] == 1 and row["tasks"][1]["limit"] > 1
    assert row["engine_ms"] > 0 and row["overhead_ms"] > 0 and row["floor_ms"] > 0
    assert row["gflop"] == round(sum(chain_flops(bundle, (64, 96)).values()) / 1e9, 3)


def test_the_floor_is_the_larger_of_what_operations_and_bytes_take():
    """By hand, for TarDAL at 96x128 with its two tasks; by the ceilings of the same run, not by the clock."""
    bundle = load_bundle(find_bundle("tardal-fusion"))
    row = bench(bundle, "onnxruntime", (96, 128), Options(threads=1), 0.1, ())
    pixels, weights = 96 * 128, sum(len(graph) for graph in bundle.graphs.values())
    gbytes = (pixels * (3 + 4) + 2 * pixels * 3 + weights) / 1e9  # bytes and floats in, two images out
    times = row["gflop"] / row["gflops_peak"], gbytes / row["gbytes_peak"]
    assert row["floor_ms"] == pytest.approx(1e3 * max(times), rel=0.02)  # of rounded numbers
    assert row["tasks"] == []


@pytest.mark.parametrize(
    ("ceilings", "milliseconds"),
    [(Ceilings(gflops=2.0, gbytes=1e6), 1500.0), (Ceilings(gflops=1e9, gbytes=0.5), None)],
    ids=["operations", "bytes"],
)
def test_the_floor_is_set_by_what_is_scarce(bundle, ceilings, milliseconds):
    """3 Gflop at 2 Gflop/s; or images and weights of the tiny bundle at half a GB/s."""
    moved = 8 * 8 * (3 + 4 + 3 * len(bundle.tasks)) + sum(len(graph) for graph in bundle.graphs.values())
    expected = milliseconds or 1e3 * moved / 0.5e9
    assert _floor_ms(bundle, (8, 8), {"a": 2 * 10**9, "b": 10**9}, ceilings) == pytest.approx(expected)


def test_ceilings_of_more_work_are_not_lower():
    found = measure_ceilings(threads=1, seconds=0.1)
    assert 1 < found.gflops < 10_000 and 0.5 < found.gbytes < 10_000


def test_the_command_prints_a_row_or_tables():
    command = [
        "bench",
        "--bundle",
        "nano-fusion",
        "--size",
        "96x64",
        "--threads",
        "1",
        "--seconds",
        "0.1",
        "--tasks",
        "2",
    ]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    [row] = result["rows"]
    assert {"command", "machine", "versions", "commit", "seed", "date"} <= set(result["meta"])
    assert {"bundle", "backend", "device", "pairs_per_s", "fusion_pairs_per_s", "overhead_ms", "floor_ms"} <= set(row)
    assert [set(task) for task in row["tasks"]] == [{"n", "shared_ms", "separate_ms", "speedup", "limit"}]
    shown = CliRunner().invoke(app, command, catch_exceptions=False).output
    for text in ("nano-fusion at 96x64 on CPU", "pairs a second", "outside the engine", "floor", "MiB", "times faster"):
        assert text in shown
    assert row["memory_mib"] > 50 and re.search(r"peak_memory_mib \d+: MiB that the whole process held", shown)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--size", "640", "--size must be WIDTHxHEIGHT"),
        ("--size", "8x8", "--size must be WIDTHxHEIGHT of 64 to 8192"),
        ("--tasks", "two", "--tasks must be whole numbers"),
        ("--tasks", "0", "--tasks must be whole numbers"),
        ("--tasks", "1,-2", "--tasks must be whole numbers"),
        ("--tasks", "²", "--tasks must be whole numbers"),
        ("--backend", "tpu", "back end 'tpu' is unknown"),
    ],
)
def test_wrong_options_are_named(option, value, reason):
    with pytest.raises(BackendError, match=reason):
        CliRunner().invoke(app, ["bench", option, value], catch_exceptions=False)
