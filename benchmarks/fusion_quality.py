"""Fusion quality of a bundle beside the trivial baselines, on pairs it was not trained on.

    .venv/bin/python benchmarks/fusion_quality.py --data ../shared/data

Metrics are those of `vifa_runtime.metrics`, on luma in whole gray levels, averaged over the pairs. Two more tell the
heads apart: `target_contrast`, how much brighter the warmest 2 % of the pixels are than the image, in gray levels, and
`ssim_visible`, how much of the visible image's structure is kept. Takes about 3 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.files import write_json
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.metrics import entropy, fusion_ssim, fusion_ssim_mean, fusion_vif, spatial_frequency, ssim
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_runtime.pairs import PairPaths, find_part, read_thermal, read_visible
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.provenance import describe_run

PARTS = ["msrs/test", "roadscene@test"]
BASELINES = ("average", "maximum", "visible", "thermal")
METRICS = ("en", "sf", "vif", "ssim", "ssim_mean", "target_contrast", "ssim_visible")


def measure(visible: NDArray, thermal: NDArray, fused: NDArray) -> dict[str, float]:
    """Every metric of one fused luma against its sources, all (H,W) in 0..255."""
    warmest = thermal >= np.percentile(thermal, 98)
    return {
        "en": entropy(fused),
        "sf": spatial_frequency(fused),
        "vif": fusion_vif(visible, thermal, fused),
        "ssim": fusion_ssim(visible, thermal, fused),
        "ssim_mean": fusion_ssim_mean(visible, thermal, fused),
        "target_contrast": float(fused[warmest].mean() - fused.mean()),
        "ssim_visible": ssim(visible, fused),
    }


def measure_pair(bundle: Bundle, pair: PairPaths) -> dict[str, dict[str, float]]:
    """Metrics of one pair by method: every task of the bundle and every baseline."""
    rgb, thermal = read_visible(pair.visible), read_thermal(pair.thermal).astype(np.float64)
    visible = np.rint(rgb_to_luma(rgb)).astype(np.float64)
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))
    images = {
        task: np.rint(rgb_to_luma(image))
        for task, image in pipeline.process(rgb, thermal.astype(np.uint8)).fused.items()
    }
    images |= {
        "average": np.rint((visible + thermal) / 2),
        "maximum": np.maximum(visible, thermal),
        "visible": visible,
        "thermal": thermal,
    }
    return {method: measure(visible, thermal, image) for method, image in images.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--parts", nargs="+", default=PARTS)
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE)
    parser.add_argument("--output", type=Path, default=Path("docs/results/fusion_quality.json"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = load_bundle(find_bundle(options.bundle))
    methods = [*bundle.task_names, *BASELINES]
    rows = []
    for part in options.parts:
        pairs = find_part(options.data, part)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            found = list(track(pool.map(partial(measure_pair, bundle), pairs), part, total=len(pairs)))
        for method in methods:
            for metric in METRICS:
                value = float(np.mean([pair[method][metric] for pair in found]))
                rows.append(
                    {"data": part, "task": method, "metric": metric, "value": round(value, 4), "pairs": len(pairs)}
                )
        show(part, methods, rows)
    meta = describe_run("benchmarks/fusion_quality.py", seed=bundle.manifest["provenance"]["seed"])
    write_json(options.output, {"meta": {**meta, "bundle": bundle.name}, "rows": rows})
    print(f"{options.output} written")


def show(part: str, methods: list[str], rows: list[dict]) -> None:
    """Print one data set's table."""
    values = {(row["data"], row["task"], row["metric"]): row["value"] for row in rows}
    table = Table("method", *METRICS, title=part)
    for method in methods:
        table.add_row(method, *(f"{values[part, method, metric]:.3f}" for metric in METRICS))
    Console().print(table)


if __name__ == "__main__":
    main()
