"""Fusion quality of bundles beside the trivial baselines, on pairs they were not trained on.

    .venv/bin/python benchmarks/fusion_quality.py nano-fusion --data ../shared/data

The same as `vifa-train evaluate --json docs/results/fusion_quality.json` on two data sets; needs no torch. Takes about
3 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import DEFAULT_BUNDLE, find_bundle
from vifa_training.commands.evaluate import report

PARTS = ["msrs/test", "roadscene@test"]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=[DEFAULT_BUNDLE])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--parts", nargs="+", default=PARTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=Path("docs/results/fusion_quality.json"))
    parser.add_argument("--csv", type=Path, help="every image's values")
    options = parser.parse_args()
    bundles = [load_bundle(find_bundle(name)) for name in options.bundles]
    report(
        bundles, options.data, options.parts, options.jobs, "benchmarks/fusion_quality.py", options.json, options.csv
    )


if __name__ == "__main__":
    main()
