"""Speed of the whole chain at VGA: pairs a second, and what the pipeline costs on top of ONNX Runtime.

    .venv/bin/python benchmarks/runtime_speed.py

Time inside ONNX Runtime and around it is measured in the same calls, so their ratio holds on a busy machine too.
Allocation is the most memory that Python and NumPy held at once above the level before a call, in the steady state.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import publish

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.street import Street

WARM_UP = 10
ENGINE_STAGES = ("fusion", "backbone", "head.", "task.")


def measure(pipeline: FusionPipeline, frames: list[tuple[NDArray, NDArray]], repeats: int) -> dict[str, float]:
    """Percentiles of one call, its share outside the engine, and its allocation, over `repeats` rounds of frames."""
    total, inside = [], []
    for index, (visible, thermal) in enumerate(frames * repeats):
        start = time.perf_counter()
        results = pipeline.process(visible, thermal, stamp=index / 30)
        total.append(1e3 * (time.perf_counter() - start))
        inside.append(sum(ms for stage, ms in results.milliseconds.items() if stage.startswith(ENGINE_STAGES)))
    total, inside = total[WARM_UP:], inside[WARM_UP:]
    p50, p95, p99 = np.percentile(total, [50, 95, 99])
    engine = float(np.percentile(inside, 50))
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
        "best_ms": round(min(total), 2),
        "pairs_per_s": round(1e3 / float(p50), 1),
        "engine_p50_ms": round(engine, 2),
        "overhead_percent": round(100 * float(np.median(np.subtract(total, inside))) / engine, 1),
        "allocated_kib": round(allocation(pipeline, *frames[0]) / 1024, 1),
        "frame_kib": round(frames[0][0].nbytes / 1024, 1),
    }


def allocation(pipeline: FusionPipeline, visible: NDArray, thermal: NDArray) -> int:
    """Bytes that one call in the steady state holds at its peak above the level before it."""
    tracemalloc.start()
    pipeline.process(visible, thermal, stamp=None)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    pipeline.process(visible, thermal, stamp=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path("docs/results/runtime_speed.json"))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    bundle = load_bundle(find_bundle(options.bundle))
    street = Street(seed=0, size=(height, width))
    raw = [street[index] for index in range(0, 120, 8)]
    inputs = {"mono16": raw, "mono8": [(visible, (thermal >> 8).astype(np.uint8)) for visible, thermal in raw]}
    rows = []
    for name, frames in inputs.items():
        pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=options.threads)))
        row = {"bundle": bundle.name, "tasks": len(bundle.tasks), "thermal": name, "size": options.size}
        rows.append({**row, "threads": options.threads, **measure(pipeline, frames, options.repeats)})
        pipeline.close()
    publish(rows, options.output)


if __name__ == "__main__":
    main()
