"""Building engines, on the stand-in of every version: how, what is kept, what is built anew, and what goes wrong."""

import hashlib
import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from task_graphs import CELLS
from tensorrt_standin import VERSIONS
from tiny_bundle import (
    FUSED,
    HEAT,
    LUMA,
    VISIBLE,
    backbone,
    contents_with_tasks,
    graph,
    head,
    manifest,
    manifest_with_tasks,
    value,
    write_tiny,
    write_with_tasks,
)

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.engine_cache import read_engine
from vifa_runtime.backends.tensorrt import build
from vifa_runtime.backends.tensorrt_build import Order
from vifa_runtime.bundle import write_bundle
from vifa_runtime.pairs import PairError

SIZE = (32, 48)
OLD, NEW = ("8.5", "8.6"), ("10.0", "10.13", "11")
node = helper.make_node


@pytest.fixture
def build_all(tmp_path):
    """A function that builds engines into a folder and returns them by path of their graph."""

    def run(bundle, precision="fp32", size=SIZE, calibration=None, device=0, report=lambda *_: None):
        order = Order(bundle, precision, size, tmp_path / "engines", calibration)
        return {engine.graph: engine for engine in build(order, device, report)}

    return run


@pytest.fixture
def convolved(tmp_path):
    """A bundle whose backbone has a convolution, so that precision makes a difference."""
    weights = np.linspace(-1, 1, 27).reshape(1, 3, 3, 3).astype(np.float32)
    nodes = [
        node("Cast", ["visible"], ["levels"], to=1),
        node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weights"], ["sums"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Transpose", ["sums"], ["luma"], perm=[0, 2, 3, 1]),
        node("Unsqueeze", ["thermal", "last"], ["heat"]),
    ]
    constants = {"weights": weights, "last": np.array([3], np.int64)}
    inputs = [VISIBLE, value("thermal", 1, [1, "H", "W"])]
    return write_tiny(tmp_path / "convolved", {"backbone": graph(nodes, inputs, [LUMA, HEAT], constants)})


@pytest.fixture
def pairs(tmp_path):
    """A folder of three pairs of 64x48, which is not the engines' size."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for folder, shape in (("vi", (48, 64, 3)), ("ir", (48, 64))):
            (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "pairs" / folder / f"{name}.png"), rng.integers(0, 256, shape, np.uint8))
    return tmp_path / "pairs"


def test_every_graph_gets_an_engine_that_says_what_it_is(machine, tmp_path, build_all):
    bundle = write_with_tasks(tmp_path / "a")
    built = build_all(bundle)
    assert list(built) == list(bundle.graphs)
    for path, engine in built.items():
        head = json.loads(engine.file.read_bytes().split(b"\n")[1])
        assert head["graph"] == hashlib.sha256(bundle.graphs[path]).hexdigest()
        assert (head["tensorrt"], head["gpu"], head["capability"]) == (VERSIONS[machine.version], "Orin", "8.7")
        assert (head["precision"], head["size"]) == ("fp32", "48x32")
        assert engine.bytes == len(engine.file.read_bytes().split(b"\n", 2)[2])
    assert not built["backbone.onnx"].kept
    assert built["heads/cells.onnx"].kept  # it is the graph of heads/bright.onnx
    assert len(machine.trt.builds) == 5


def test_how_each_version_is_told_the_precision(machine, convolved, build_all):
    build_all(convolved, "fp32")
    build_all(convolved, "fp16")
    wide, half = machine.trt.builds[0], machine.trt.builds[3]
    assert (wide["flags"], wide["exact"], wide["halves"]) == ([], True, 0)
    assert half["exact"] is False
    if machine.version in OLD:
        assert (wide["strong"], half["strong"]) == (False, False)
        assert (half["flags"], half["halves"]) == (["FP16"], 0)
    else:
        assert (wide["strong"], half["strong"]) == (True, True)
        assert half["flags"] == []
        assert half["halves"] > 0


def test_graphs_of_later_opsets_are_lowered_for_old_versions_only(machine, tmp_path, build_all):
    nodes = [
        node("ReduceMean", ["heat", "axes"], ["mean"]),
        node("Cast", ["visible"], ["levels"], to=1),
        node("Add", ["levels", "mean"], ["sum"]),
        node("QuantizeLinear", ["sum", "one", "zero"], ["fused"]),
    ]
    constants = {"axes": np.array([1, 2], np.int64), "one": np.float32(1), "zero": np.uint8(0)}
    data = graph(nodes, [VISIBLE, HEAT], [FUSED], constants, opset=18)
    build_all(write_tiny(tmp_path / "a", {"bright": data}))
    assert [made["opset"] for made in machine.trt.builds] == [17, 17 if machine.version in OLD else 18, 17]


def test_what_fits_is_kept_and_not_shown_to_tensorrt(machine, tmp_path, build_all):
    bundle = write_with_tasks(tmp_path / "a")
    first = build_all(bundle)
    again = build_all(bundle)
    assert all(engine.kept for engine in again.values())
    assert [engine.file for engine in again.values()] == [engine.file for engine in first.values()]
    assert len(machine.trt.builds) == 5
    assert machine.trt.deserialised == []


def test_a_new_task_builds_its_own_engines_only(machine, tmp_path, build_all):
    build_all(write_tiny(tmp_path / "a"))
    more = {**manifest(), "name": "more", "tasks": [*manifest()["tasks"], CELLS]}
    files = {name: data for name, data in contents_with_tasks().items() if "glare" not in name}
    built = build_all(write_bundle(tmp_path / "b", more, files))
    assert {path for path, engine in built.items() if not engine.kept} == {"tasks/cells.onnx"}


@pytest.mark.parametrize("changed", ["size", "precision"])
def test_another_size_or_precision_is_another_engine(machine, tmp_path, build_all, changed):
    bundle = write_tiny(tmp_path / "a")
    build_all(bundle)
    other = {"size": (64, 64)} if changed == "size" else {"precision": "fp16"}
    assert not any(engine.kept for engine in build_all(bundle, **other).values())
    assert all(engine.kept for engine in build_all(bundle).values())


def test_engines_of_another_machine_or_damaged_ones_are_built_again(machine, tmp_path, build_all, monkeypatch):
    bundle = write_tiny(tmp_path / "a")
    first = build_all(bundle)
    first["heads/blend.onnx"].file.write_bytes(b"nonsense")
    assert [path for path, engine in build_all(bundle).items() if not engine.kept] == ["heads/blend.onnx"]
    machine.gpus = (("Xavier", (7, 2)),)
    assert not any(engine.kept for engine in build_all(bundle).values())
    machine.gpus = (("Orin", (8, 7)), ("Xavier", (7, 2)))
    assert all(engine.kept for engine in build_all(bundle, device=1).values())


def test_times_of_kernels_are_kept_for_the_next_build(machine, tmp_path, build_all):
    bundle = write_with_tasks(tmp_path / "a")
    first = build_all(bundle)
    assert machine.trt.builds[0]["timed"] > 0
    folder = first["backbone.onnx"].file.parent
    (cache,) = folder.glob("timing-*.cache")
    done = len(machine.trt.builds)
    for engine in first.values():
        engine.file.unlink(missing_ok=True)
    build_all(bundle)
    assert sum(made["timed"] for made in machine.trt.builds[done:]) == 0
    cache.write_bytes(b"nonsense")  # is not shown to TensorRT
    build_all(bundle, precision="fp16")
    assert sum(made["timed"] for made in machine.trt.builds[2 * done :]) > 0


def test_times_of_another_gpu_are_measured_anew(machine, tmp_path, build_all):
    bundle = write_tiny(tmp_path / "a")
    first = build_all(bundle)
    machine.gpus = (("Xavier", (7, 2)),)
    build_all(bundle)
    assert sum(made["timed"] for made in machine.trt.builds[3:]) > 0
    assert len(list(first["backbone.onnx"].file.parent.glob("timing-*.cache"))) == 2


def test_times_that_tensorrt_does_not_take_are_measured_anew(machine, tmp_path, build_all):
    machine.trt.times_are_foreign = True
    bundle = write_tiny(tmp_path / "a")
    build_all(bundle)
    assert all(made["timed"] > 0 for made in machine.trt.builds)


def test_progress_is_told(machine, tmp_path, build_all):
    told = []
    build_all(write_tiny(tmp_path / "a"), report=lambda *line: told.append(line))
    graphs = ["backbone.onnx", "heads/bright.onnx", "heads/blend.onnx"]
    assert list(dict.fromkeys(line[0] for line in told)) == graphs
    assert told[0] == ("backbone.onnx", "building for 48x32 in fp32", 0, 0)
    if machine.version in OLD:  # which tell nothing while they build
        assert len(told) == 3
        return
    phases = [line[1:] for line in told if line[0] == "backbone.onnx"][1:]
    assert phases[0] == ("Building Engine", 0, 2)
    assert ("Building Engine", 2, 2) in phases
    assert all(phase == "Building Engine" for phase, _, _ in phases)  # the outermost one


def test_an_interruption_ends_the_build_and_leaves_whole_files(machine, tmp_path, build_all):
    """Ctrl-C arrives in what TensorRT calls, which swallows it."""
    bundle = write_tiny(tmp_path / "a")

    def interrupt(path, phase, done, steps):
        if path == "heads/bright.onnx" and (done or machine.version in OLD):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_all(bundle, report=interrupt)
    machine.assert_clean()
    built = build_all(bundle)
    assert [path for path, engine in built.items() if engine.kept] == ["backbone.onnx"]
    assert not list((tmp_path / "engines").glob(".*"))


# INT8.


def quantised_backbone():
    """The tiny backbone with scales of its own, as `vifa bundle quantize` writes them."""
    model = onnx.load_model_from_string(backbone())
    scaled = [
        node("QuantizeLinear", ["scaled", "scale", "zero"], ["narrow"]),
        node("DequantizeLinear", ["narrow", "scale", "zero"], ["wide"]),
    ]
    nodes = list(model.graph.node)
    place = next(number for number, found in enumerate(nodes) if found.op_type == "Round")
    nodes[place].input[0] = "wide"
    nodes[place:place] = scaled
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, array in (("scale", np.float32(1)), ("zero", np.uint8(3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model.SerializeToString()


def test_int8_is_calibrated_with_real_pairs_as_the_pipeline_sees_them(
    machine, tmp_path, build_all, pairs, make_pipeline
):
    bundle = write_with_tasks(tmp_path / "a")
    if machine.version == "11":
        with pytest.raises(BackendError, match=r"TensorRT 11\S* does not calibrate .* vifa bundle quantize .*fp16"):
            build_all(bundle, "int8", (48, 64), pairs)
        return
    built = build_all(bundle, "int8", (48, 64), pairs)
    made = dict(zip([path for path, engine in built.items() if not engine.kept], machine.trt.builds, strict=True))
    assert all(entry["flags"] == ["FP16", "INT8"] and not entry["strong"] for entry in made.values())
    seen = made["backbone.onnx"]["calibrated"]
    assert len(seen) == 3
    picture = cv2.cvtColor(cv2.imread(str(pairs / "vi" / "b.png")), cv2.COLOR_BGR2RGB)
    warm = cv2.imread(str(pairs / "ir" / "b.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen[1]["visible"][0], picture)
    results = make_pipeline(bundle).process(picture, warm)
    head_inputs, task_inputs = made["heads/blend.onnx"]["calibrated"][1], made["tasks/cells.onnx"]["calibrated"][1]
    assert set(head_inputs) == {"visible", "luma", "heat"}
    np.testing.assert_array_equal(head_inputs["luma"][0, ..., 0], picture @ np.array([0.25, 0.5, 0.25]))
    np.testing.assert_array_equal(task_inputs["image"][0], results.fused["cells"])


def test_pairs_of_another_size_are_brought_to_the_engines(machine, tmp_path, build_all, pairs):
    if machine.version == "11":
        return
    build_all(write_tiny(tmp_path / "a"), "int8", SIZE, pairs)
    for batch in machine.trt.builds[0]["calibrated"]:
        assert (batch["visible"].shape, batch["thermal"].shape) == ((1, 32, 48, 3), (1, 32, 48))
        assert 0 <= batch["thermal"].min() < 0.2 < 0.8 < batch["thermal"].max() <= 1


def test_int8_is_built_again_for_other_pairs_only(machine, tmp_path, build_all, pairs):
    if machine.version == "11":
        return
    bundle = write_tiny(tmp_path / "a")
    build_all(bundle, "int8", SIZE, pairs)
    assert all(engine.kept for engine in build_all(bundle, "int8", SIZE, pairs).values())
    cv2.imwrite(str(pairs / "ir" / "c.png"), np.zeros((48, 64), np.uint8))
    assert not any(engine.kept for engine in build_all(bundle, "int8", SIZE, pairs).values())


def test_int8_without_pairs(machine, tmp_path, build_all):
    bundle = write_tiny(tmp_path / "a")
    if machine.version == "11":
        return
    with pytest.raises(BackendError, match=r"INT8 needs pairs .*--calibration FOLDER, which holds vi/ and ir/"):
        build_all(bundle, "int8")
    with pytest.raises(PairError, match="no folder vi/ or visible/"):
        build_all(bundle, "int8", calibration=tmp_path)


def test_a_pair_that_cannot_be_read_ends_the_build_with_its_name(machine, tmp_path, build_all, pairs):
    """TensorRT would swallow it, and calibrate with the pairs before."""
    if machine.version == "11":
        return
    (pairs / "ir" / "c.png").write_bytes(b"no image")
    with pytest.raises(PairError, match=r"c\.png is not a readable image"):
        build_all(write_tiny(tmp_path / "a"), "int8", SIZE, pairs)
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_a_bundle_with_scales_of_its_own_needs_no_pairs(machine, tmp_path, build_all):
    """Its other graphs are built in FP16."""
    bundle = write_tiny(tmp_path / "a", {"backbone": quantised_backbone()})
    build_all(bundle, "int8")
    scaled, head = machine.trt.builds[:2]
    assert scaled["calibrated"] == head["calibrated"] == []
    if machine.version in OLD:
        assert (scaled["flags"], head["flags"]) == (["FP16", "INT8"], ["FP16"])
    else:
        assert (scaled["flags"], scaled["strong"], head["flags"], head["strong"]) == ([], True, [], True)
    build_all(bundle, "fp32")
    assert machine.trt.builds[3]["flags"] == (["INT8"] if machine.version in OLD else [])


# What goes wrong.


def test_a_graph_that_tensorrt_cannot_take_is_named_with_its_operator(machine, tmp_path, build_all):
    nodes = [node("Max", ["visible", "floor"], ["fused"])]
    bundle = write_tiny(tmp_path / "a", {"bright": graph(nodes, [VISIBLE], [FUSED], {"floor": np.uint8(3)})})
    with pytest.raises(
        BackendError, match=r"^heads/bright\.onnx of bundle tiny: operator Max \(fused\) works on uint8"
    ):
        build_all(bundle)


def test_what_the_parser_refuses_is_one_line(machine, tmp_path, build_all):
    nodes = [
        node("Cast", ["visible"], ["levels"], to=1),
        node("Conv", ["levels", "levels"], ["sums"], pads=[0, 1, 0, 1]),  # weights that are computed
        node("Mul", ["sums", "zero"], ["nothing"]),
        node("ReduceSum", ["nothing"], ["sum"]),
        node("Add", ["levels", "sum"], ["all"]),
        node("QuantizeLinear", ["all", "one", "least"], ["fused"]),
    ]
    constants = {"zero": np.float32(0), "one": np.float32(1), "least": np.uint8(0)}
    data = graph(nodes, [value("visible", 2, [1, 32, 48, 3])], [value("fused", 2, None)], constants)
    bundle = write_tiny(tmp_path / "a")
    bundle.graphs["heads/bright.onnx"] = data  # no bundle could bring it
    with pytest.raises(BackendError) as caught:
        build_all(bundle)
    version = VERSIONS[machine.version]
    words = f"TensorRT {version} refuses heads/bright.onnx: operator Conv: the weights are no initializer"
    assert str(caught.value) == words


def test_a_build_that_fails_is_one_line_with_tensorrts_reason(machine, tmp_path, build_all):
    machine.trt.refuse_builds = "Error Code 10: Could not find any implementation for node {ForeignNode[...]}.\nmore"
    with pytest.raises(BackendError) as caught:
        build_all(write_tiny(tmp_path / "a"))
    assert str(caught.value) == (
        f"TensorRT {VERSIONS[machine.version]} cannot build backbone.onnx: Error Code 10: Could not find any "
        "implementation for node {ForeignNode[...]}."
    )
    machine.trt.refuse_builds = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(
        BackendError, match=r"GPU 0 \(Orin\) has no memory left for building backbone.onnx .*smaller size"
    ):
        build_all(write_tiny(tmp_path / "a"))


def test_a_full_gpu_at_any_allocation_leaves_nothing_behind(machine, tmp_path, build_all, pairs):
    bundle = write_tiny(tmp_path / "a")
    how = ("fp16",) if machine.version == "11" else ("int8", SIZE, pairs)
    build_all(bundle, *how)
    count = len(machine.allocations)
    assert {"Context", "Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig"} <= set(machine.allocations)
    for number in range(1, count + 1):
        for file in (tmp_path / "engines").iterdir():
            file.unlink()
        machine.allocations.clear()
        machine.fail_at = number
        with pytest.raises(BackendError) as caught:
            build_all(bundle, *how)
        assert "\n" not in str(caught.value)
        machine.assert_clean()
        del caught
    machine.allocations.clear()
    machine.fail_at = 0
    assert len(build_all(bundle, *how)) == 3


def test_a_folder_that_cannot_be_written_is_found_before_the_work(machine, tmp_path, build_all):
    (tmp_path / "engines").touch()
    with pytest.raises(BackendError, match=r"cannot make .*engines: File exists; choose another folder"):
        build_all(write_tiny(tmp_path / "a"))
    assert machine.trt.builds == []


def test_engines_of_real_bundles_are_what_the_builder_gave(machine, tmp_path, build_all):
    bundle = write_bundle(tmp_path / "a", manifest_with_tasks(), contents_with_tasks())
    built = build_all(bundle)
    from vifa_runtime.backends.engine_cache import EngineKey

    key = EngineKey(
        hashlib.sha256(head("bright")).hexdigest(), VERSIONS[machine.version], "Orin", "8.7", "fp32", "48x32"
    )
    assert read_engine(built["heads/bright.onnx"].file.parent, key).startswith(b"PLAN")
