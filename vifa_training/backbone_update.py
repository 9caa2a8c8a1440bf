"""A bundle with another backbone: what its older tasks lose by it, and new files."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vifa_runtime.bundle import BACKBONE, Bundle, write_bundle
from vifa_runtime.provenance import commit, today
from vifa_training.add_task import bundle_card, joined
from vifa_training.channels import KeyChannels
from vifa_training.data import DataSet
from vifa_training.distillation.stage2 import whole
from vifa_training.export import backbone_graph, head_graph
from vifa_training.networks import FusionNetwork

DRIFT_IMAGES = 16


@torch.no_grad()
def layer_drift(
    before: FusionNetwork, after: FusionNetwork, pairs: DataSet, memory: KeyChannels, images: int = DRIFT_IMAGES
) -> list[dict[str, Any]]:
    """How far each layer went, on some pairs, evenly spread.

    Returns:
        Rows `{layer, keys, channels, key_drift, other_drift}` in order of depth; a drift is the root mean square of the
        change over that of the old features, of the key channels or the others; None where there are none.
    """
    count = min(images, len(pairs))
    chosen = [index * len(pairs) // count for index in range(count)]
    squares = {name: torch.zeros(2, len(layer.key), dtype=torch.float64) for name, layer in memory.layers.items()}
    for index in chosen:
        batch = whole(pairs[index], before)
        old, new = (network.backbone.layers(batch.visible_y, batch.thermal) for network in (before, after))
        for name, total in squares.items():
            total[0] += (new[name] - old[name]).double().square().mean(dim=(0, 2, 3)).cpu()
            total[1] += old[name].double().square().mean(dim=(0, 2, 3)).cpu()
    rows = []
    for name, layer in memory.layers.items():
        drifts = [_relative(squares[name][:, kept]) for kept in (layer.key, ~layer.key)]
        keys = int(layer.key.sum())
        rows.append(
            {"layer": name, "keys": keys, "channels": len(layer.key), "key_drift": drifts[0], "other_drift": drifts[1]}
        )
    return rows


def write_with_backbone(bundle: Bundle, network: FusionNetwork, head: str, data: Sequence[str], folder: Path) -> Bundle:
    """Write a bundle with another backbone and the head that was trained with it.

    The other heads and all task graphs are the same bytes. Metrics were those of the old backbone, and are left out.

    Raises:
        BundleError: the result does not pass the runtime's checks.
    """
    contents = dict(bundle.graphs) | {BACKBONE: backbone_graph(network)}
    trained = next(task for task in bundle.tasks if task.name == head)
    contents[trained.head] = head_graph(network, head)
    manifest: dict[str, Any] = {
        key: copy.deepcopy(value) for key, value in bundle.manifest.items() if key not in ("format", "files")
    }
    provenance: Mapping[str, Any] = manifest["provenance"]
    changed = {"data": joined(provenance["data"], ", ".join(data)), "commit": commit(), "date": today()}
    changed["recipe"] = joined(provenance.get("recipe", ""), "stage 1")
    manifest |= {"name": folder.resolve().name, "metrics": [], "provenance": {**provenance, **changed}}
    return write_bundle(folder, manifest, contents | {"README.md": bundle_card(manifest).encode()})


def _relative(squares: torch.Tensor) -> float | None:
    """Root of the summed change over the summed old squares, (2,C) -> a number; None of no channels."""
    change, old = squares.sum(dim=1).tolist()
    return None if not squares.shape[1] else round((change / old) ** 0.5, 4) if old else 0.0
