"""What settings of ONNX Runtime are worth on this machine: threads, spinning, arena, task graphs side by side.

    python benchmarks/engine_settings.py

Every setting takes its turn in each round, on the same pair: a busy moment strikes all alike. A row is a bundle,
a part and a setting: the median time of a pair, and the median over the rounds of its ratio to what the back end does.
Parts: `fusion` is backbone and heads as one graph, `tasks` are the task graphs on the fused images. `in turn` runs one
task graph after the other with all threads; `side by side` all at once, each on its share of the threads, and
`side by side, all threads` each on all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rows import publish

from vifa_runtime.backends.merge import merge_fusion
from vifa_runtime.backends.onnxruntime import checked_options
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle

Run = Callable[[], Any]


def open_session(graph: bytes, threads: int, *, spin: bool = False, arena: bool = True) -> ort.InferenceSession:
    """A session as `make_session` makes one, but for these settings."""
    options = checked_options()
    options.intra_op_num_threads, options.enable_cpu_mem_arena = threads, arena
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=False)


def bound(session: ort.InferenceSession, inputs: Mapping[str, NDArray]) -> Run:
    """A call of a session on these arrays, whose outputs are allocated once."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(output.name, value)
    return lambda: session.run_with_iobinding(binding)


def fusion_settings(graph: bytes, inputs: Mapping[str, NDArray], threads: int) -> dict[str, Run]:
    """Setting -> a call of the merged graph; the first one is the back end's."""
    settings: dict[str, dict[str, Any]] = {
        f"{threads} threads": {},
        "spinning": {"spin": True},
        "without arena": {"arena": False},
        "1 thread": {"threads": 1},
    }
    return {
        name: bound(open_session(graph, **{"threads": threads, **options}), inputs)
        for name, options in settings.items()
    }


def task_settings(graphs: Sequence[bytes], image: NDArray, threads: int, pool: ThreadPoolExecutor) -> dict[str, Run]:
    """Setting -> a call of all task graphs; the first one is the back end's."""
    share = max(1, threads // len(graphs))
    whole = [bound(open_session(graph, threads), {"image": image}) for graph in graphs]
    parts = [bound(open_session(graph, share), {"image": image}) for graph in graphs]

    def in_turn() -> None:
        for run in whole:
            run()

    def at_once(runs: Sequence[Run]) -> None:
        for done in [pool.submit(run) for run in runs]:
            done.result()

    return {
        "in turn": in_turn,
        "side by side": lambda: at_once(parts),
        "side by side, all threads": lambda: at_once(whole),
    }


def measure(settings: Mapping[str, Run], seconds: float) -> list[dict[str, Any]]:
    """Rows of settings that take turns: median milliseconds, and the ratio to the first one's with its quartiles."""
    times: dict[str, list[float]] = {name: [] for name in settings}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[next(iter(times))]) < 5:
        for name, run in settings.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    first = times[next(iter(times))]
    rows = []
    for name, own in times.items():
        low, middle, high = statistics.quantiles([b / a for a, b in zip(first, own, strict=True)], n=4)
        rows.append(
            {"setting": name, "p50_ms": round(statistics.median(own), 2), "ratio": round(middle, 3)}
            | {"ratio_q1": round(low, 3), "ratio_q3": round(high, 3), "rounds": len(own)}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="nano-two-task")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--output", type=Path, default=Path("docs/results/engine_settings.json"))
    options = parser.parse_args()
    bundle = load_bundle(find_bundle(options.bundle))
    width, height = map(int, options.size.split("x"))
    rng = np.random.default_rng(0)
    visible = rng.integers(0, 256, (1, height, width, 3), np.uint8)
    pair = {"visible": visible, "thermal": rng.random((1, height, width), np.float32)}
    merged = merge_fusion(bundle, bundle.tasks)
    assert merged is not None, "a shipped bundle's graphs are of one version"
    graphs = [bundle.graphs[task.graph] for task in bundle.tasks if task.graph]
    with ThreadPoolExecutor(len(graphs) or 1) as pool:
        parts = {"fusion": fusion_settings(merged, pair, options.threads)}
        if graphs:
            parts["tasks"] = task_settings(graphs, visible, options.threads, pool)
        rows = [
            {"bundle": bundle.name, "part": part, "size": options.size, "threads": options.threads, **row}
            for part, settings in parts.items()
            for row in measure(settings, options.seconds)
        ]
    publish(rows, options.output)


if __name__ == "__main__":
    main()
