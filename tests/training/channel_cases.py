"""Feature maps, a key-channel analysis by hand, and how much memory tensors take: for tests of the channel analysis."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vifa_training.channels import Choice, KeyChannels, choose
from vifa_training.networks import FusionNetwork


def smooth_maps(count: int, height: int, width: int, seed: int = 0, blur: int = 5) -> Tensor:
    """(C,H,W) in 0..1 that share less and less of their structure."""
    source = torch.Generator().manual_seed(seed)
    size = (height + blur - 1, width + blur - 1)
    shared, own = torch.randn(1, *size, generator=source), torch.randn(count, *size, generator=source)
    maps = shared + own * torch.linspace(0.1, 1.5, count)[:, None, None]
    return to_unit(F.avg_pool2d(maps[:, None], blur, stride=1)[:, 0])


def to_unit(maps: Tensor) -> Tensor:
    """Each map stretched to 0..1."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def random_similarity(count: int, rng: np.random.Generator) -> Tensor:
    """(C,C), symmetric, 0..1, ones on the diagonal, all pairs different."""
    upper = np.triu(rng.random((count, count)), 1)
    return torch.from_numpy(upper + upper.T + np.eye(count))


def made_up(network: FusionNetwork, choice: Choice | None = None, seed: int = 0) -> KeyChannels:
    """Random similarities and entropies for the layers of a network; the first channel of each is dead."""
    choice, rng, layers = choice or Choice(), np.random.default_rng(seed), {}
    for name, count in network.distilled_layers.items():
        entropy = torch.from_numpy(8 * rng.random(count)).float()
        entropy[0] = 0
        layers[name] = choose(random_similarity(count, rng).float(), entropy, choice)
    return KeyChannels(network.name, "f" * 64, "msrs/train", "e" * 64, 7, choice, layers)


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and alive after an operation; `bytes` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self._alive = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in given:
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self._alive.values()))
        return result
