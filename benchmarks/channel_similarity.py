"""FSIM of all pairs of a layer's channels: ours against piq.fsim of one pair after the other, in one run.

    python benchmarks/channel_similarity.py

Layers of bundles that ship, on a synthetic street. Channels that are constant there are left out: piq compares the
rounding errors of such maps. Where a map is zero but for some pixels, float32 rounds what the filters answer; so both
are compared with piq in double precision too. Needs piq (the extra `reference`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import piq
import torch
from rows import publish
from torch import Tensor

from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle
from vifa_runtime.street import Street
from vifa_runtime.thermal import ThermalNormaliser
from vifa_training.bundle_network import network_of
from vifa_training.channels.fsim import fsim_matrix
from vifa_training.data import Sample, whole_batch

LAYERS = (
    "nano-fusion:eighth",
    "nano-fusion:near",
    "nano-fusion:stem",
    "tardal-fusion:first",
)


def live_maps(bundle: str, layer: str, size: tuple[int, int]) -> Tensor:
    """The channels of a layer that are not constant, (C,H,W), on one frame of a street of seed 0."""
    network = network_of(load_bundle(find_bundle(bundle)))
    visible, thermal = Street(seed=0, size=size)[0]
    gray = np.rint(255 * ThermalNormaliser()(thermal)).astype(np.uint8)
    batch = whole_batch(Sample("street", visible, gray), network.size_multiple)
    with torch.no_grad():
        maps = network.backbone.layers(batch.visible_y, batch.thermal)[layer][0]
    return maps[maps.amax(dim=(1, 2)) > maps.amin(dim=(1, 2))]


def pairwise(maps: Tensor) -> Tensor:
    """piq.fsim of every two channels, each stretched to 0..1, as a matrix (C,C)."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    images = ((maps - low) / (high - low)).clamp(0, 1)[:, None, None]
    found = torch.eye(len(maps), dtype=torch.float64)
    for i in range(len(maps)):
        for j in range(i):
            found[i, j] = found[j, i] = piq.fsim(images[i], images[j], chromatic=False)
    return found


def timed(compare: Callable[[Tensor], Tensor], maps: Tensor, calls: int) -> tuple[float, Tensor]:
    """Seconds of processor time of a call, the median, and what it gave; others may use the machine meanwhile."""
    seconds = []
    for _ in range(calls):
        start = time.process_time()
        found = compare(maps)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), found


def measure(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """One row."""
    bundle, _, layer = name.partition(":")
    maps = live_maps(bundle, layer, size)
    ours, found = timed(fsim_matrix, maps, calls=5)
    theirs, wanted = timed(pairwise, maps, calls=1)
    exact = pairwise(maps.double())
    return {
        "bundle": bundle, "layer": layer, "channels": len(maps), "pairs": len(maps) * (len(maps) - 1) // 2,
        "map": f"{maps.shape[2]}x{maps.shape[1]}", "ours_s": round(ours, 3), "piq_s": round(theirs, 1),
        "times_faster": round(theirs / ours), "largest_difference": _largest(found - wanted),
        "from_double": _largest(found - exact), "piq_from_double": _largest(wanted - exact),
        "piq": version("piq"), "threads": 1,
    }  # fmt: skip


def _largest(difference: Tensor) -> float:
    return float(f"{difference.abs().max():.1e}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="bundle:layer")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--output", type=Path, default=Path("docs/results/channel_similarity.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = (int(side) for side in options.size.split("x"))
    rows = [measure(name, (height, width)) for name in options.layers]
    publish(rows, options.output)


if __name__ == "__main__":
    main()
