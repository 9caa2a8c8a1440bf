"""How many times faster one bundle is than others: all of them on the same pairs, taking turns in one run.

.venv/bin/python benchmarks/network_speed.py nano-fusion tardal-fusion
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rows import publish

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.street import Street


def take_turns(pipelines: list[FusionPipeline], size: tuple[int, int], rounds: int, in_a_row: int) -> np.ndarray:
    """Milliseconds of a call, shape (rounds, pipelines): the median of `in_a_row` calls, as a robot makes them.

    A pipeline's first call in each round is left out: it finds the caches full of another network's tensors.
    """
    street = Street(seed=0, size=size)
    times = np.empty((rounds, len(pipelines)))
    for turn in range(rounds):
        visible, thermal = street[8 * turn]
        gray = (thermal >> 8).astype(np.uint8)
        for index, pipeline in enumerate(pipelines):
            calls = []
            for _ in range(1 + in_a_row):
                start = time.perf_counter()
                pipeline.process(visible, gray, stamp=None)
                calls.append(1e3 * (time.perf_counter() - start))
            times[turn, index] = np.median(calls[1:])
    return times


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", help="the first is what the others are compared with")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--in-a-row", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("docs/results/network_speed.json"))
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    bundles = [load_bundle(find_bundle(name)) for name in options.bundles]
    engines = [prepare("onnxruntime", bundle, Options(threads=options.threads)) for bundle in bundles]
    pipelines = [FusionPipeline(bundle, engine) for bundle, engine in zip(bundles, engines, strict=True)]
    times = take_turns(pipelines, (height, width), options.rounds, options.in_a_row)
    rows = []
    for index, bundle in enumerate(bundles):
        ratios = times[:, index] / times[:, 0]
        rows.append({
            "bundle": bundle.name, "network": bundle.network, "tasks": len(bundle.tasks), "size": options.size,
            "threads": options.threads, "p50_ms": round(float(np.median(times[:, index])), 1),
            "best_ms": round(float(times[:, index].min()), 1),
            "times_the_first": round(float(np.median(ratios)), 1), "least": round(float(ratios.min()), 1),
            "most": round(float(ratios.max()), 1),
        })  # fmt: skip
    publish(rows, options.output)


if __name__ == "__main__":
    main()
