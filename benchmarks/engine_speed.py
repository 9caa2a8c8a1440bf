"""Engines on this machine: `vifa bench` of the bundles that ship, with eager torch beside it in the same run.

    .venv-training/bin/python benchmarks/engine_speed.py

A row is what `vifa bench --json` prints, with two more fields. `variants`: backbone and heads as graphs one after the
other, as one, and with the heads' convolutions as one. `eager`: the bundle's network in torch on luma, against ONNX
Runtime from camera bytes to camera bytes, in turns. `eager.cores` is how many cores torch really used: its threads
sometimes share one. Kept by device in benchmarks/results/, and as docs/results/engine_speed.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rows import command_line

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bench import with_heads
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.files import write_json
from vifa_runtime.models import find_bundle
from vifa_runtime.provenance import describe_run, machine
from vifa_training.bundle_network import network_of

BUNDLES = ("nano-fusion", "nano-two-task", "tardal-fusion")


def bench_alone(name: str, size: str, threads: int, seconds: float) -> dict[str, Any]:
    """The row of `vifa bench` in a process of its own, whose memory is that of this bundle alone."""
    command = [sys.executable, "-c", "from vifa_runtime.cli import app; app()", "bench", "--bundle", name, "--json"]
    command += ["--size", size, "--threads", str(threads), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["rows"][0]


@torch.inference_mode()
def against_eager(bundle: Bundle, size: tuple[int, int], threads: int, seconds: float) -> dict[str, Any]:
    """Medians of turns: eager torch, ONNX Runtime, their ratio with its quartiles."""
    torch.set_num_threads(threads)
    network = network_of(bundle)
    engine = prepare("onnxruntime", bundle, Options(threads=threads))
    rng = np.random.default_rng(0)
    visible, thermal = rng.integers(0, 256, (1, *size, 3), np.uint8), rng.random((1, *size), np.float32)
    luma, warm = (torch.rand(1, 1, *size) for _ in range(2))
    taken: list[tuple[float, float, float]] = []
    end = time.monotonic() + seconds
    while len(taken) < 4 or time.monotonic() < end:
        start, busy = time.perf_counter(), time.process_time()
        features = network.backbone(luma, warm)
        for task in bundle.task_names:
            network.heads[task](features)
        middle, cores = time.perf_counter(), time.process_time() - busy
        engine.run(visible, thermal, bundle.task_names, fused_only=bundle.task_names)
        taken.append((middle - start, time.perf_counter() - middle, cores / (middle - start)))
    engine.close()
    eager, onnx, cores = np.array(taken[1:]).T
    low, middle, high = np.percentile(eager / onnx, [25, 50, 75])
    return {
        "eager_ms": round(1e3 * float(np.median(eager)), 2),
        "onnxruntime_ms": round(1e3 * float(np.median(onnx)), 2),
        "times_faster": round(float(middle), 2),
        "quartiles": [round(float(low), 2), round(float(high), 2)],
        "cores": round(float(np.median(cores)), 2),
        "torch": torch.__version__,
    }


def variants(bundle: Bundle, size: tuple[int, int], threads: int, seconds: float) -> list[dict[str, Any]]:
    """Medians of turns with 2 and 5 heads: graphs one after the other, as one, and with heads as one convolution."""
    rng = np.random.default_rng(0)
    visible, thermal = rng.integers(0, 256, (1, *size, 3), np.uint8), rng.random((1, *size), np.float32)
    ways = {"apart_ms": {"merge": False}, "merged_ms": {}, "batched_ms": {"batch_heads": True}}
    rows = []
    for count in (2, 5):
        wide = with_heads(bundle, count)
        engines = [prepare("onnxruntime", wide, Options(threads=threads, **way)) for way in ways.values()]
        taken: list[list[float]] = []
        end = time.monotonic() + seconds / 2
        while len(taken) < 4 or time.monotonic() < end:
            taken.append([])
            for engine in engines:
                start = time.perf_counter()
                engine.run(visible, thermal, wide.task_names)
                taken[-1].append(1e3 * (time.perf_counter() - start))
        medians = np.median(taken[1:], axis=0)
        rows.append({"heads": count} | {way: round(float(ms), 3) for way, ms in zip(ways, medians, strict=True)})
        for engine in engines:
            engine.close()
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--bundles", nargs="+", default=list(BUNDLES))
    parser.add_argument("--output", type=Path, default=Path("docs/results/engine_speed.json"))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    rows = []
    for name in options.bundles:
        bundle = load_bundle(find_bundle(name))
        row = bench_alone(name, options.size, options.threads, options.seconds)
        row["variants"] = variants(bundle, (height, width), options.threads, options.seconds)
        row["eager"] = against_eager(bundle, (height, width), options.threads, options.seconds)
        rows.append(row)
    result = {"meta": describe_run(command_line(), seed=0), "rows": rows}
    write_json(options.output, result)
    device = re.sub("[^a-z0-9]+", "-", machine().lower()).strip("-")
    write_json(Path("benchmarks/results") / f"{device}.json", result)
    keys = ("bundle", "pairs_per_s", "fusion_pairs_per_s", "overhead_ms", "engine_ms", "floor_ms")
    table = Table(*keys, "two tasks", "times eager")
    for row in rows:
        two = next(task["speedup"] for task in row["tasks"] if task["n"] == 2)
        table.add_row(*(str(row[key]) for key in keys), str(two), str(row["eager"]["times_faster"]))
    Console(width=200).print(table)
    print(f"{options.output} written")


if __name__ == "__main__":
    main()
