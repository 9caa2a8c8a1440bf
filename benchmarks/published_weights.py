"""Do published weights give published images? DIDFuse's own weights in our network, against its authors' fused images.

    git clone https://github.com/Zhaozixiang1228/IVIF-DIDFuse
    .venv-training/bin/python benchmarks/published_weights.py --didfuse IVIF-DIDFuse

Reads three folders of the checkout: `Models` (the weights), `Datasets/Test_data_*` (132 pairs of gray images: FLIR, TNO
and near infrared) and `Test_result/*_IJCAI` (what the authors' network made of them). Every pair goes whole through
our network; the result is rounded to gray levels, as theirs was when they saved it. Ends with exit code 1 where the
mean difference of any pair is above one gray level. Takes about 10 minutes on one core.

Of the other networks nothing like it is public in one place: no fused images for TarDAL's weights, no weights for the
images of the PIAFusion port.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rows import command_line

from vifa_runtime.files import write_json
from vifa_runtime.provenance import describe_run
from vifa_training.import_weights import import_network
from vifa_training.networks import FusionNetwork

LARGEST_MEAN = 1.0  # gray levels
SETS = {  # folder of the pairs -> folder of the fused images, both in the checkout
    "FLIR": ("Datasets/Test_data_FLIR", "Test_result/FLIR_IJCAI"),
    "TNO": ("Datasets/Test_data_TNO", "Test_result/TNO_IJCAI"),
    "NIR": ("Datasets/Test_data_NIR_Country", "Test_result/NIR_IJCAI"),
}


@dataclass(frozen=True)
class Published:
    """A published pair with its published fused image: three gray images of one size."""

    name: str
    visible: Path
    thermal: Path
    fused: Path


def find_published(checkout: Path) -> list[Published]:
    """All pairs of the three sets, by number.

    Raises:
        SystemExit: a set has no images, or a pair lacks one.
    """
    found = []
    for name, (pairs, results) in SETS.items():
        thermals = sorted((checkout / pairs).glob("IR*"), key=_number)
        if not thermals:
            raise SystemExit(f"{checkout / pairs} has no IR images; is {checkout} a checkout of IVIF-DIDFuse?")
        for thermal in thermals:
            number = _number(thermal)
            visible, fused = thermal.with_name(f"VIS{number}{thermal.suffix}"), checkout / results / f"F{number}.png"
            found.append(Published(f"{name}/{number}", visible, thermal, fused))
    absent = [str(path) for pair in found for path in (pair.visible, pair.fused) if not path.is_file()]
    if absent:
        raise SystemExit(f"missing: {', '.join(absent)}")
    return found


def measure(network: FusionNetwork, task: str, pair: Published) -> dict[str, float]:
    """Absolute differences between our fused image and the published one, in gray levels."""
    visible, thermal, published = (_read(path) for path in (pair.visible, pair.thermal, pair.fused))
    with torch.no_grad():
        fused = network(*(torch.from_numpy(image / np.float32(255))[None, None] for image in (visible, thermal)))[task]
    levels = np.rint(fused[0, 0].numpy() * 255)
    apart = np.abs(levels - published)
    return {
        "mean_abs_gray_levels": round(float(apart.mean()), 7),
        "max_abs_gray_levels": int(apart.max()),
        "pixels_that_differ": int(np.count_nonzero(apart)),
        "pixels": apart.size,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--didfuse", type=Path, required=True, help="a checkout of the authors' repository")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/results/published_weights.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = [options.didfuse / "Models" / f"{part}_weight_IJCAI.pkl" for part in ("Encoder", "Decoder")]
    imported = import_network("didfuse", weights)
    (task,) = imported.network.heads
    rows = [
        {"network": "didfuse", "pair": pair.name, **measure(imported.network, task, pair)}
        for pair in track(find_published(options.didfuse), "didfuse")
    ]
    meta = describe_run(command_line())
    compared = "our network with the published weights against the fused images that the authors published"
    write_json(options.output, {"meta": {**meta, "compared": compared, "weights": imported.origin}, "rows": rows})
    show(rows)
    print(f"{options.output} written")
    far = [row["pair"] for row in rows if row["mean_abs_gray_levels"] > LARGEST_MEAN]
    if far:
        raise SystemExit(f"more than {LARGEST_MEAN} gray level apart on average: {', '.join(far)}")


def show(rows: list[dict]) -> None:
    """Print one line a set."""
    table = Table("set", "pairs", "mean of pairs", "worst pair's mean", "largest difference", "pixels that differ")
    for name in SETS:
        own = [row for row in rows if row["pair"].startswith(f"{name}/")]
        means = [row["mean_abs_gray_levels"] for row in own]
        largest = max(row["max_abs_gray_levels"] for row in own)
        differ = sum(row["pixels_that_differ"] for row in own), sum(row["pixels"] for row in own)
        cells = (f"{np.mean(means):.2g}", f"{max(means):.2g}", str(largest), f"{differ[0]:,} of {differ[1]:,}")
        table.add_row(name, str(len(own)), *cells)
    Console().print(table)


def _number(path: Path) -> int:
    found = re.search(r"\d+", path.stem)
    return int(found[0]) if found else 0


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise SystemExit(f"{path} is no gray 8-bit image")
    return image


if __name__ == "__main__":
    main()
