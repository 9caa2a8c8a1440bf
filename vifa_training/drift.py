"""How far a backbone's features went from what they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vifa_training.data import DataSet, spread_evenly
from vifa_training.distillation.features import whole
from vifa_training.networks import FusionNetwork

IMAGES = 16


@torch.no_grad()
def layer_drift(
    before: FusionNetwork, after: FusionNetwork, pairs: DataSet, keys: Mapping[str, Tensor], images: int = IMAGES
) -> list[dict[str, Any]]:
    """How far each layer went, on some pairs, evenly spread.

    Args:
        before, after: of one kind.
        pairs: one or more.
        keys: layer -> (C,) bool, its key channels.
        images: how many pairs are looked at.

    Returns:
        Rows `{layer, keys, channels, drift, key_drift, other_drift}` in order of depth; a drift is the root mean square
        of the change over that of the old features, of all channels, the key ones or the others; None of no channels.
    """
    some = spread_evenly(pairs, images)
    squares = {name: torch.zeros(2, len(key), dtype=torch.float64) for name, key in keys.items()}
    for index in range(len(some)):
        batch = whole(some[index], before)
        old, new = (network.backbone.layers(batch.visible_y, batch.thermal) for network in (before, after))
        for name, total in squares.items():
            total[0] += (new[name] - old[name]).double().square().mean(dim=(0, 2, 3)).cpu()
            total[1] += old[name].double().square().mean(dim=(0, 2, 3)).cpu()
    rows = []
    for name, key in keys.items():
        kept = {"drift": torch.ones_like(key), "key_drift": key, "other_drift": ~key}
        drifts = {kind: _relative(squares[name][:, chosen]) for kind, chosen in kept.items()}
        rows.append({"layer": name, "keys": int(key.sum()), "channels": len(key), **drifts})
    return rows


def _relative(squares: Tensor) -> float | None:
    """Root of the summed change over the summed old squares, (2,C) -> a number; None of no channels."""
    change, old = squares.sum(dim=1).tolist()
    return None if not squares.shape[1] else round((change / old) ** 0.5, 4) if old else 0.0
