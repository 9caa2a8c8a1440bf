"""What `vifa-train channels` found, on disk: one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from vifa_training.channels.analysis import Choice, KeyChannels, LayerChannels, analyse
from vifa_training.checkpoint import TrainingError, digest_names, fingerprint, read_safetensors, save_atomically
from vifa_training.data import DataSet
from vifa_training.networks import FusionNetwork

_FORMAT = 1
_KINDS = {
    "similarity": torch.float32,
    "entropy": torch.float32,
    "clusters": torch.int64,
    "key": torch.bool,
}
_AGAIN = "make it again by vifa-train channels"


def save_channels(found: KeyChannels, path: Path) -> None:
    """Write a layer's similarity, entropy, clusters, key and importance as `<layer>.<kind>`, and the rest as JSON.

    Raises:
        TrainingError: it cannot be written.
    """
    tensors = {f"{name}.{kind}": getattr(layer, kind) for name, layer in found.layers.items() for kind in _KINDS}
    tensors |= {f"{name}.importance": tensor for name, tensor in found.importance.items()}
    about = {key: value for key, value in vars(found).items() if key not in ("choice", "layers")}
    about |= {"format": _FORMAT, "choice": asdict(found.choice), "layers": list(found.layers)}
    save_atomically(tensors, path, {"channels": json.dumps(about)})


def load_channels(path: Path, network: FusionNetwork) -> KeyChannels:
    """Read what is to be used with `network`; which weights it was made of, `backbone` tells.

    Raises:
        TrainingError: no such file, not of this format, or of a network with other layers or channels.
    """
    tensors, metadata = read_safetensors(path, _AGAIN)
    try:
        about = json.loads(metadata["channels"])
        if about.pop("format") != _FORMAT:
            raise ValueError
        names, choice = about.pop("layers"), Choice(**about.pop("choice"))
        sizes = {name: len(tensors[f"{name}.entropy"]) for name in names}
        layers = {name: _layer(tensors, name) for name in names}
        found = KeyChannels(**about, choice=choice, layers=layers)
    except (AttributeError, KeyError, TypeError, ValueError, TrainingError):
        raise TrainingError(f"{path} is no file of vifa-train channels of this version; {_AGAIN}") from None
    wanted = dict(network.distilled_layers)
    if found.network != network.name or sizes != wanted:
        differing = [name for name in {**sizes, **wanted} if sizes.get(name) != wanted.get(name)]
        shown = ", ".join(f"{name} ({sizes.get(name, 'none')} for {wanted.get(name, 'none')})" for name in differing)
        raise TrainingError(
            f"{path} is of the network {found.network}, not of this {network.name}"
            f"{f'; channels that differ: {shown}' if shown else ''}; {_AGAIN}"
        )
    return found


def remember(
    network: FusionNetwork, pairs: DataSet, path: Path, data: str = "the pairs before", choice: Choice | None = None
) -> KeyChannels:
    """What the backbone holds of `pairs`: as `path` has it, where that was made of these weights, pairs and choice.

    Else it is looked at and written there. Args, Raises: as `analyse`.
    """
    choice = choice or Choice()
    if path.exists():
        found = load_channels(path, network)
        wanted = fingerprint(network.backbone), digest_names(pairs.names), choice
        if (found.backbone, found.pairs, found.choice) == wanted:
            return found
    found = analyse(network, pairs, data, choice)
    save_channels(found, path)
    return found


def _layer(tensors: Mapping[str, Tensor], name: str) -> LayerChannels:
    """The tensors of one layer; ValueError where they are not as they were written."""
    found = {kind: tensors[f"{name}.{kind}"] for kind in _KINDS}
    count = len(found["entropy"])
    for kind, dtype in _KINDS.items():
        tensor = found[kind]
        if tensor.dtype != dtype or tensor.shape != ((count, count) if kind == "similarity" else (count,)):
            raise ValueError
        if not torch.isfinite(tensor).all():
            raise ValueError
    return LayerChannels(**found)
