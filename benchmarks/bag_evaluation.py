"""What `vifa evaluate` takes beside the pure pipeline: time, processor time and memory, in turns in one run.

    .venv/bin/python benchmarks/bag_evaluation.py

A folder of labelled pairs is recorded as a bag. `pure_ms` is the pipeline on the decoded pairs in memory, a pair. The
others are relative to it: the median over the rounds of wall time (`..._times`) and of processor time (`..._cpu`).

in_a_row    the pipeline, and after it all metrics in the same thread
boxes       vifa evaluate --metrics map,miou
all         vifa evaluate, whose metrics are all of them by default
tenth       vifa evaluate --fusion-every 10

`peak_mib` is the most memory that the command held, for a third of the pairs and for all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rows import publish

from vifa_ros.bags.camera_pairs import BagPair, PairReader, find_topics
from vifa_ros.bags.node_values import read_values
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.options import make_pairing
from vifa_ros.bags.recording import RecordSettings, record
from vifa_ros.bags.report import evaluate
from vifa_ros.bags.session import EvaluateSettings
from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.models import find_bundle
from vifa_runtime.pairs import find_pairs
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.scoring import Sources, for_evaluation, gray_levels, gray_thermal, measure_pair

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("person", "bicycle", "car")  # of MSRS
WAYS = {  # options of vifa evaluate
    "boxes": {"metrics": ("map", "miou")},
    "all": {},
    "tenth": {"fusion_every": 10},
}


def link_pairs(source: Path, folder: Path, most: int) -> Path:
    """A folder with the first so many pairs of another and their labels."""
    for pair in find_pairs(source)[:most]:
        for path, part in (
            (pair.visible, "vi"),
            (pair.thermal, "ir"),
            (source / "labels" / f"{pair.name}.txt", "labels"),
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if path.exists():
                (folder / part / path.name).symlink_to(path.resolve())
    return folder


def run_pure(bundle: Bundle, pairs: Sequence[BagPair]) -> None:
    """The pipeline alone."""
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options()))
    for pair in pairs:
        pipeline.process(pair.visible, pair.thermal, pair.stamp * 1e-9)
    pipeline.close()


def run_in_a_row(bundle: Bundle, pairs: Sequence[BagPair], folder: Path) -> None:
    """The pipeline and all metrics, one after the other."""
    lenient = for_evaluation(bundle)
    pipeline = FusionPipeline(lenient, prepare("onnxruntime", lenient, Options()))
    labels, buffers = LabelFolder(folder, lenient.tasks), Buffers()
    for pair, files in zip(pairs, find_pairs(folder), strict=True):
        results = pipeline.process(pair.visible, pair.thermal, pair.stamp * 1e-9)
        size = pair.visible.shape[:2]
        sources = Sources(gray_levels(pair.visible), gray_thermal(pair.thermal, size), buffers)
        measure_pair(lenient, sources, results, *labels.read(files.name, size))
    pipeline.close()


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used


def peak(bag: Path, bundle: Path, folder: Path) -> int:
    """The most memory that the command held, MiB."""
    command = ["-P", "-m", "vifa_ros.cli", "evaluate", bag, "--bundle", bundle, "--output", folder]
    program = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [sys.executable, "-c", program, *map(str, command)]
    return int(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout) // 1024


def measure(name: str, folders: Sequence[Path], bags: Sequence[Path], rounds: int, output: Path) -> dict[str, Any]:
    """The row of one bundle."""
    path = find_bundle(name)
    bundle, values = load_bundle(path), read_values(None)
    with Bag(bags[-1]) as bag:
        pairs = list(PairReader(bag, find_topics(bag), make_pairing()))
        for pair in pairs:
            assert pair.visible.size and pair.thermal.size  # decoded, once and for all
    work: dict[str, Callable[[], Any]] = {
        "pure": lambda: run_pure(bundle, pairs),
        "in_a_row": lambda: run_in_a_row(bundle, pairs, folders[-1]),
    }
    for way, options in WAYS.items():
        settings = EvaluateSettings(values, **options)
        work[way] = lambda settings=settings: evaluate(bags[-1], output, [path], settings)
    run_pure(bundle, pairs[:3])
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in work}
    for _ in range(rounds):
        for way, function in work.items():
            taken[way].append(timed(function))
    row = {
        "bundle": name,
        "pairs": len(pairs),
        "pure_ms": round(1e3 * median(t[0] for t in taken["pure"]) / len(pairs), 1),
    }
    for way in list(work)[1:]:
        for index, kind in enumerate(("times", "cpu")):
            ratios = [own[index] / pure[index] for own, pure in zip(taken[way], taken["pure"], strict=True)]
            row[f"{way}_{kind}"] = round(median(ratios), 2)
    peaks = [str(peak(one, path, output)) for one in bags]
    return {**row, "peak_mib": ", ".join(peaks)}


def main() -> None:
    """Record, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", nargs="+", default=["nano-two-task", "nano-fusion"])
    parser.add_argument("--pairs", type=Path, default=ROOT.parent / "shared" / "data" / "msrs" / "train")
    parser.add_argument("--most", type=int, default=120, help="pairs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", "-o", type=Path, default=ROOT / "docs" / "results" / "bag_evaluation.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folders, bags = [], []
        for count in (options.most // 3, options.most):
            folders.append(link_pairs(options.pairs, work / f"pairs{count}", count))
            bags.append(work / f"bag{count}")
            record(folders[-1], bags[-1], RecordSettings(classes=CLASSES))
        rows = [measure(name, folders, bags, options.rounds, work / "report") for name in options.bundles]
    publish(rows, options.output)


if __name__ == "__main__":
    main()
