"""Step 2 of the paper's Figure 2: which channels of a trained backbone are to be kept when it learns something new."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vifa_training.channels.clusters import CLUSTERINGS, DEFAULT_CLUSTERING, find_clusters
from vifa_training.channels.entropy import entropy
from vifa_training.channels.fsim import ROOM, fsim_matrix
from vifa_training.checkpoint import TrainingError, digest_names, fingerprint
from vifa_training.data import DataSet
from vifa_training.data.check import Track
from vifa_training.distillation.features import whole
from vifa_training.networks import FusionNetwork


@dataclass(frozen=True)
class Choice:
    """What is looked at, and how key channels are chosen.

    Attributes:
        images: how many pairs are drawn; all where there are fewer. 128 and 0.9 are the paper's.
        seed: of the draw.
        threshold: similarity from which on channels are alike, 0..1.
        clustering: key of `CLUSTERINGS`.
    """

    images: int = 128
    seed: int = 0
    threshold: float = 0.9
    clustering: str = DEFAULT_CLUSTERING

    def __post_init__(self) -> None:
        if self.images < 1:
            raise TrainingError(f"the number of images must be 1 or more, got {self.images}")
        if not 0 <= self.threshold <= 1:
            raise TrainingError(f"the threshold must be in 0..1, got {self.threshold}")
        if self.clustering not in CLUSTERINGS:
            raise TrainingError(f"no clustering is called {self.clustering!r}; choose of {', '.join(CLUSTERINGS)}")


@dataclass(frozen=True)
class LayerChannels:
    """The channels of one layer.

    Attributes:
        similarity: (C,C) float32, FSIM, the mean over the images; symmetric, ones on the diagonal.
        entropy: (C,) float32, bits, the mean over the images.
        clusters: (C,) int64, numbered from 0.
        key: (C,) bool, the channel of the highest entropy in each cluster; none in a cluster of dead channels.
    """

    similarity: Tensor
    entropy: Tensor
    clusters: Tensor
    key: Tensor

    @property
    def importance(self) -> Tensor:
        """M of Eq. 1, (C,) float32: the entropy of a key channel in bits, 0..8; 0 for the others."""
        return self.entropy * self.key

    @property
    def dead(self) -> Tensor:
        """(C,) bool: constant on every image."""
        return self.entropy == 0


@dataclass(frozen=True)
class KeyChannels:
    """What a backbone holds of one data set: the channels of its layers, and where they come from.

    Attributes:
        network: name in the registry.
        backbone: fingerprint of its weights.
        data: the parts that the images were drawn from, in words.
        pairs: digest of the names of all pairs in them.
        images: how many.
        choice: how they were drawn and key channels chosen.
        layers: name -> channels, in order of depth.
    """

    network: str
    backbone: str
    data: str
    pairs: str
    images: int
    choice: Choice
    layers: Mapping[str, LayerChannels]

    @property
    def importance(self) -> dict[str, Tensor]:
        """M of Eq. 1 of every layer, (C,) float32."""
        return {name: layer.importance for name, layer in self.layers.items()}

    @property
    def identity(self) -> str:
        """SHA-256 of the importances, by which a training knows that it is held by the same ones."""
        total = hashlib.sha256()
        for name, importance in self.importance.items():
            total.update(name.encode() + importance.numpy().tobytes())
        return total.hexdigest()


def analyse(
    network: FusionNetwork, pairs: DataSet, data: str, choice: Choice, room: int = ROOM, track: Track = iter
) -> KeyChannels:
    """Look at a backbone's layers on randomly drawn pairs and choose the key channels.

    Pairs are whole images, one at a time, as a robot sees them: in a crop, a layer on a coarse grid would be a few
    pixels, and edges would count for much. Every pair counts the same, whatever its size.

    Args:
        network: in evaluation mode.
        pairs: one or more.
        data: what they are, in words.
        room: bytes, as of `fsim_matrix`.
        track: wraps the indices of the pairs, for a progress bar.

    Raises:
        TrainingError: there is no pair, or a feature is not finite or too small.
        DataError: a pair is wrong or smaller than the network's `size_multiple`.
    """
    if not len(pairs):
        raise TrainingError(f"{data}: there is no pair to look at; name another part")
    count, sizes = min(choice.images, len(pairs)), network.distilled_layers
    drawn = sorted(np.random.default_rng(choice.seed).choice(len(pairs), count, replace=False).tolist())
    similarity = {name: torch.zeros((channels, channels), dtype=torch.float64) for name, channels in sizes.items()}
    told = {name: torch.zeros(channels, dtype=torch.float64) for name, channels in sizes.items()}
    for index in track(drawn):
        sample = pairs[index]
        batch = whole(sample, network)
        with torch.no_grad():
            features = network.backbone.layers(batch.visible_y, batch.thermal)
        for name in sizes:
            maps = features.pop(name)[0]
            try:
                similarity[name] += fsim_matrix(maps, room=room) / count
            except ValueError as error:
                raise TrainingError(f"layer {name} on {sample.name}: {error}") from None
            told[name] += entropy(maps) / count
    layers = {name: choose(similarity[name].float(), told[name].float(), choice) for name in sizes}
    backbone, names = fingerprint(network.backbone), digest_names(pairs.names)
    return KeyChannels(network.name, backbone, data, names, count, choice, layers)


def choose(similarity: Tensor, entropy: Tensor, choice: Choice) -> LayerChannels:
    """Clusters and key channels of a layer, from similarity (C,C) and entropy (C,)."""
    clusters, key = find_clusters(similarity, entropy, choice.threshold, choice.clustering)
    return LayerChannels(similarity, entropy, clusters, key)
