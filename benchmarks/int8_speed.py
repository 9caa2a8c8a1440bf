"""Bundles in 8 bits beside what they were made of: how fast, and what became of their metrics.

    .venv/bin/python benchmarks/int8_speed.py --data ../shared/data

Each bundle goes through `vifa bundle quantize`, calibrated on training pairs and measured on validation pairs, with its
limit and without one; what lies in `--work` is not made again. Then the whole chain and fusion alone run on one real
pair, floats and bytes in turns: `times_faster` is the median of the turns' ratios, with quartiles. `moved_most` is the
guarded metric that changed most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import publish

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.models import find_bundle
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.quantize import GUARDED, LIMIT, STEADY

BUNDLES = ("nano-fusion", "nano-two-task", "tardal-fusion")
PARTS = ("msrs", "cwfid")  # fields only where a bundle has a task for them
NO_LIMIT = 1e6  # relative
SHOWN = 12  # pairs of each part to calibrate on


def quantize(name: str, data: Path, limit: float, measured: int, output: Path) -> list[dict[str, Any]]:
    """Make the bundle; rows of its metrics, none where the command refuses."""
    told = output.with_name(f"{output.name}.json")
    if told.exists():
        return json.loads(told.read_text())
    parts = PARTS if any(task.kind != "fusion" for task in load_bundle(find_bundle(name)).tasks) else PARTS[:1]
    words = ["bundle", "quantize", name, "-o", str(output), "--limit", str(limit), "--json"]
    words += ["--images", str(SHOWN), "--measured", str(measured)]
    for part in parts:
        words += ["--pairs", str(data / part / "train"), "--evaluation", str(data / part / "val")]
    command = [sys.executable, "-P", "-m", "vifa_ros.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    is_refused = done.returncode and "can be in 8 bits within" in done.stderr
    if done.returncode and not is_refused:
        raise SystemExit(done.stderr)
    rows = [] if is_refused else json.loads(done.stdout)["rows"]
    told.write_text(json.dumps(rows))
    return rows


def in_turns(first: Callable[[], Any], second: Callable[[], Any], seconds: float) -> tuple[float, float, list[float]]:
    """Medians of both, milliseconds, and the quartiles of their ratio."""
    taken, end = [], time.monotonic() + seconds
    first(), second()
    while len(taken) < 10 or time.monotonic() < end:
        start = time.perf_counter()
        first()
        middle = time.perf_counter()
        second()
        taken.append((middle - start, time.perf_counter() - middle))
    ratios = np.array([before / after for before, after in taken])
    before, after = 1e3 * np.median(taken, axis=0)
    return round(before, 2), round(after, 2), [round(float(q), 2) for q in np.quantile(ratios, (0.5, 0.25, 0.75))]


def chain_of(bundle: Bundle, pair: Sequence[np.ndarray], threads: int) -> Callable[[], Any]:
    """A call that takes one pair through the whole pipeline."""
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=threads)))
    return lambda: pipeline.process(*pair)


def fusion_of(bundle: Bundle, pair: Sequence[np.ndarray], threads: int) -> Callable[[], Any]:
    """A call that runs backbone and heads alone."""
    engine, tasks = prepare("onnxruntime", bundle, Options(threads=threads)), bundle.task_names
    visible, thermal = pair[0][None], pair[1][None].astype(np.float32) / 255
    return lambda: engine.run(visible, thermal, tasks, fused_only=tasks)


def measure(name: str, limit: float, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of one bundle with one limit."""
    given = {"bundle": name, "limit": "none" if limit == NO_LIMIT else limit}
    changes = quantize(name, options.data, limit, options.measured, folder)
    if not changes:
        return [given | {"part": "refused"} | dict.fromkeys(("in_8_bits", "float_ms", "int8_ms", "times_faster"), "")]
    guarded = [row for row in changes if row["metric"] in STEADY + GUARDED]
    worst = max(guarded, key=lambda row: abs(row["change"]))
    made = load_bundle(folder)
    told = made.manifest["provenance"]["recipe"].partition("INT8 convolutions: ")[2]
    found = find_pairs(options.data / "msrs" / "val")[0]
    pair, floats = (read_visible(found.visible), read_thermal(found.thermal)), load_bundle(find_bundle(name))
    rows = []
    for part, call_of in (("whole chain", chain_of), ("fusion", fusion_of)):
        calls = [call_of(bundle, pair, options.threads) for bundle in (floats, made)]
        before, after, ratio = in_turns(*calls, options.seconds)
        row = given | {"part": part, "in_8_bits": told, "float_ms": before, "int8_ms": after}
        row |= {"times_faster": ratio[0], "q1": ratio[1], "q3": ratio[2], "pairs_per_s": round(1e3 / after, 1)}
        rows.append(row | {"moved_most": f"{worst['task']} {worst['metric']}", "change": round(worst["change"], 4)})
    return rows


def main() -> None:
    """Quantize, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundles", nargs="+", default=BUNDLES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="of each comparison")
    parser.add_argument("--measured", type=int, default=0, help="validation pairs of each part; 0 for all")
    parser.add_argument("--work", type=Path, default=Path("runs/int8"), help="where the bundles in 8 bits are kept")
    parser.add_argument("--only-make", action="store_true", help="make them, measure no speed")
    parser.add_argument("--output", "-o", type=Path, default=Path("docs/results/int8_speed.json"))
    options = parser.parse_args()
    made = {
        (name, limit): options.work / (name if limit == LIMIT else f"{name}-without-limit")
        for name in options.bundles
        for limit in (LIMIT, NO_LIMIT)
    }
    for (name, limit), folder in made.items():
        quantize(name, options.data, limit, options.measured, folder)
        print(f"{folder} is there", flush=True)
    if options.only_make:
        return
    rows = [row for (name, limit), folder in made.items() for row in measure(name, limit, options, folder)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    publish([{key: row.get(key, "") for key in keys} for row in rows], options.output)


if __name__ == "__main__":
    main()
