"""How fast a bundle runs here: stages, the floor that the machine sets, and what sharing the backbone saves.

Everything is measured in one run and in turns, as machines are noisy: ratios hold where absolute times do not.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vifa_runtime.backends import Backend, Options, prepare
from vifa_runtime.bundle import BACKBONE, Bundle, Task
from vifa_runtime.graph_costs import count_flops
from vifa_runtime.graph_tools import fix_sizes, image_shapes, sides
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.street import Street

WARM_UP = 5
FRAMES = 8
AROUND = ("normalise", "align", "restore", "decode.")  # stages of the pipeline outside its engine
_SIDE = 1536  # of the square matrices whose product gives the peak
_COPIED = 1 << 24  # numbers that the bandwidth is measured with


@dataclass(frozen=True)
class Ceilings:
    """What this machine can do by the same engine and threads.

    Attributes:
        gflops: 1e9 operations a second, of a large matrix product.
        gbytes: 1e9 bytes a second, read and written, of a change of sign.
    """

    gflops: float
    gbytes: float


def bench(
    bundle: Bundle,
    backend: str,
    size: tuple[int, int],
    options: Options,
    seconds: float = 10.0,
    counts: Sequence[int] = (1, 2, 5),
    advance: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure a bundle on synthetic frames with 16-bit thermal images.

    Args:
        backend, options: as of `prepare`.
        size: (height, width) of the camera images.
        seconds: of each of the two measurements.
        counts: how many tasks share a backbone in the comparison; heads are repeated where the bundle has fewer.
        advance: told what is being done.

    Returns:
        A row `{bundle, backend, device, size, threads, pairs_per_s, fusion_pairs_per_s, overhead_ms, engine_ms,
        floor_ms, gflop, gflops_peak, gbytes_peak, memory_mib, stages, tasks}`. `stages` is name -> `{p50_ms, p95_ms,
        p99_ms}`, with `total` and `fusion only` for whole calls; `tasks` are `{n, shared_ms, separate_ms, speedup,
        limit}`: the fusion part alone, medians of turns, and what the operations allow. The floor, of the engine's part
        alone, is None for back ends whose ceilings cannot be measured. `memory_mib` is the peak of this process's
        resident memory so far, libraries and frames included, before the comparison of tasks.

    Raises:
        BackendError: the engine cannot be had or fails.
    """
    advance("warming up")
    street = Street(seed=0, size=size)
    frames = [street[index] for index in range(0, 15 * FRAMES, 15)]
    engine = prepare(backend, bundle, options)
    pipeline = FusionPipeline(bundle, engine)
    about = engine.describe()
    advance("whole chain")
    stages, inside, overhead = _time_stages(pipeline, frames, seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipeline.close()
    padded = bundle.grid(size).padded
    flops = chain_flops(bundle, padded)
    ceilings = None
    if about["device"] == "CPU":
        advance("ceilings")
        ceilings = measure_ceilings(options.threads)
    advance("shared against separate")
    tasks = compare(bundle, backend, padded, options, counts, seconds) if counts else []
    return {
        "bundle": bundle.name,
        "backend": backend,
        "device": f"{about['device']}, {about['engine']} {about['version']}, {about['precision']}",
        "size": f"{size[1]}x{size[0]}",
        "threads": options.threads,
        "pairs_per_s": round(1e3 / stages["total"]["p50_ms"], 1),
        "fusion_pairs_per_s": round(1e3 / stages["fusion only"]["p50_ms"], 1),
        "overhead_ms": round(overhead, 3),
        "engine_ms": round(inside, 3),
        **_limits(bundle, padded, flops, ceilings),
        "memory_mib": round(memory, 1),
        "stages": stages,
        "tasks": tasks,
    }


def chain_flops(bundle: Bundle, size: tuple[int, int]) -> dict[str, int]:
    """Path of each graph -> its operations for a pair of `size` (height, width), which the engine takes as it is."""
    shapes = image_shapes(size)
    backbone = fix_sizes(onnx.load_model_from_string(bundle.graphs[BACKBONE]), shapes)
    shapes |= {feature.name: sides(feature) for feature in backbone.graph.output}
    return {path: count_flops(graph, shapes) for path, graph in bundle.graphs.items()}


def measure_ceilings(threads: int, seconds: float = 1.0) -> Ceilings:
    """What ONNX Runtime reaches on this CPU with so many threads (0: one a core) where nothing is in its way."""
    product = _graph("MatMul", 2, [_SIDE, _SIDE])
    matrices = {name: np.random.default_rng(0).random((_SIDE, _SIDE), np.float32) for name in ("a", "b")}
    numbers = {"a": np.random.default_rng(0).random(_COPIED, np.float32)}
    best = [_best(graph, inputs, threads, seconds) for graph, inputs in ((product, matrices), (_negation(), numbers))]
    return Ceilings(2 * _SIDE**3 / best[0] / 1e9, 2 * 4 * _COPIED / best[1] / 1e9)


def compare(
    bundle: Bundle, backend: str, size: tuple[int, int], options: Options, counts: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    """One backbone with n heads against n whole networks, fusion alone, in turns.

    Args:
        size: (height, width) that the engine takes.
        counts: every n.
        seconds: for all of them together.
    """
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (1, *size, 3), np.uint8)
    thermal = rng.random((1, *size), np.float32)
    wide = with_heads(bundle, max(counts))
    alone = [prepare(backend, wide.with_tasks([task]), options) for task in wide.tasks]
    shared = {count: prepare(backend, wide.with_tasks(wide.tasks[:count]), options) for count in counts}

    def run_shared(count: int) -> None:
        shared[count].run(visible, thermal, wide.task_names[:count])

    def run_separate(count: int) -> None:
        for engine, name in zip(alone[:count], wide.task_names, strict=False):
            engine.run(visible, thermal, [name])

    turns: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    end = time.monotonic() + seconds
    while len(turns[counts[0]]) < 4 or time.monotonic() < end:
        for count, taken in turns.items():
            taken.append((_clocked(run_separate, count), _clocked(run_shared, count)))
    engines: list[Backend] = [*alone, *shared.values()]
    for engine in engines:
        engine.close()
    flops = chain_flops(wide, size)
    return [_compared(count, np.array(taken[1:]), flops, wide) for count, taken in turns.items()]


def with_heads(bundle: Bundle, count: int) -> Bundle:
    """A bundle with the first `count` heads and no task graphs; heads are repeated where there are fewer.

    The weights of a repeated head are a little larger, so that no engine sees that it computes the same twice.
    """
    tasks, graphs = [], {BACKBONE: bundle.graphs[BACKBONE]}
    for index in range(count):
        own = bundle.tasks[index % len(bundle.tasks)]
        round_ = index // len(bundle.tasks)
        task = Task(own.name if not round_ else f"{own.name}_{round_ + 1}", "fusion")
        graphs[task.head] = _scaled(bundle.graphs[own.head], 1 + round_ / 64)
        tasks.append(task)
    return replace(bundle, tasks=tuple(tasks), graphs=graphs)


def _time_stages(
    pipeline: FusionPipeline, frames: Sequence[tuple[NDArray, NDArray]], seconds: float
) -> tuple[dict[str, dict[str, float]], float, float]:
    """Percentiles of every stage, the median inside the engine and the median outside of it, milliseconds."""
    names = pipeline.bundle.task_names
    times: dict[str, list[float]] = {}
    inside, outside = [], []
    end, index = time.monotonic() + seconds, 0
    while index < 4 * WARM_UP or time.monotonic() < end:
        visible, thermal = frames[index % len(frames)]
        stamp = index / 30
        start = time.perf_counter()
        stages = pipeline.process(visible, thermal, stamp).milliseconds
        total = 1e3 * (time.perf_counter() - start)
        start = time.perf_counter()
        pipeline.process(visible, thermal, stamp, tasks=[], fused_only=names)
        fusion = 1e3 * (time.perf_counter() - start)
        index += 1
        if index <= WARM_UP:
            continue
        for stage, taken in {**stages, "total": total, "fusion only": fusion}.items():
            times.setdefault(stage, []).append(taken)
        engine = sum(taken for stage, taken in stages.items() if not stage.startswith(AROUND))
        inside.append(engine)
        outside.append(total - engine)
    rows = {
        stage: dict(
            zip(("p50_ms", "p95_ms", "p99_ms"), np.percentile(taken, [50, 95, 99]).round(3).tolist(), strict=True)
        )
        for stage, taken in times.items()
    }
    return rows, float(np.median(inside)), float(np.median(outside))


def _compared(count: int, taken: NDArray[np.float64], flops: dict[str, int], bundle: Bundle) -> dict[str, Any]:
    heads = [flops[task.head] for task in bundle.tasks[:count]]
    limit = (count * flops[BACKBONE] + sum(heads)) / (flops[BACKBONE] + sum(heads))
    separate, shared = np.median(taken, axis=0)
    return {
        "n": count,
        "shared_ms": round(float(shared), 3),
        "separate_ms": round(float(separate), 3),
        "speedup": round(float(np.median(taken[:, 0] / taken[:, 1])), 3),
        "limit": round(limit, 3),
    }


def _limits(
    bundle: Bundle, size: tuple[int, int], flops: dict[str, int], ceilings: Ceilings | None
) -> dict[str, float | None]:
    """The columns of a row that tell the work, and where the ceilings are known, how fast it can be at best."""
    gflop = round(sum(flops.values()) / 1e9, 3)
    if ceilings is None:
        return {"floor_ms": None, "gflop": gflop, "gflops_peak": None, "gbytes_peak": None}
    return {
        "floor_ms": round(_floor_ms(bundle, size, flops, ceilings), 3),
        "gflop": gflop,
        "gflops_peak": round(ceilings.gflops, 1),
        "gbytes_peak": round(ceilings.gbytes, 1),
    }


def _floor_ms(bundle: Bundle, size: tuple[int, int], flops: dict[str, int], ceilings: Ceilings) -> float:
    """The larger of the two times: all operations at the peak; images read, results and weights moved once."""
    pixels = size[0] * size[1]
    weights = sum(len(graph) for graph in bundle.graphs.values())
    moved = pixels * (3 + 4) + 3 * pixels * len(bundle.tasks) + weights
    return 1e3 * max(sum(flops.values()) / (1e9 * ceilings.gflops), moved / (1e9 * ceilings.gbytes))


def _clocked(run: Callable[[int], None], argument: int) -> float:
    start = time.perf_counter()
    run(argument)
    return 1e3 * (time.perf_counter() - start)


def _scaled(graph: bytes, factor: float) -> bytes:
    if factor == 1:
        return graph
    model = onnx.load_model_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 4:
            scaled = (numpy_helper.to_array(tensor) * np.float32(factor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    return model.SerializeToString()


def _graph(operator: str, inputs: int, shape: Sequence[int]) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc"[:inputs]]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)
    node = helper.make_node(operator, [value.name for value in values], ["result"])
    graph = helper.make_graph([node], operator, values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _negation() -> bytes:
    return _graph("Neg", 1, [_COPIED])


def _best(graph: bytes, inputs: dict[str, NDArray], threads: int, seconds: float) -> float:
    """Seconds of the fastest call; results are written to the same place each time."""
    from vifa_runtime.backends.onnxruntime import make_session, ort

    session = make_session(graph, threads)
    binding = session.io_binding()
    result = np.empty_like(inputs["a"])
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    binding.bind_ortvalue_output("result", ort.OrtValue.ortvalue_from_numpy(result))
    best, end = np.inf, time.monotonic() + seconds
    while best == np.inf or time.monotonic() < end:
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        best = min(best, time.perf_counter() - start)
    return float(best)
