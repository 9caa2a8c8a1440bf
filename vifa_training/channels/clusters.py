"""Clusters of channels that look alike, and the key channel of each.

The paper says that channels are "clustered according to their similarities by a predefined threshold" (section 3.2).
That can be read in more than one way; each reading is a function of `CLUSTERINGS`:

- `leaders`, the default: the channel with the highest entropy takes all that are at least as similar to it as the
  threshold, then the highest one that is left does the same. Every channel that goes free is like a key channel which
  tells at least as much, and no two key channels are alike: nothing is lost, nothing is kept twice.
- `linked`: the connected components of the graph of all similar pairs. A chain of neighbours joins channels that are
  not alike at all, whose only key is then like few of them.
- `mutual`: complete linkage. Every two channels of a cluster are similar; two key channels may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def leaders(similarity: Tensor, entropy: Tensor, threshold: float) -> list[list[int]]:
    """Clusters around the channels of highest entropy; see above."""
    left = _by_entropy(entropy)
    clusters = []
    while left:
        cluster = [c for c in left if c == left[0] or similarity[left[0], c] >= threshold]
        left = [c for c in left if c not in cluster]
        clusters.append(cluster)
    return clusters


def linked(similarity: Tensor, entropy: Tensor, threshold: float) -> list[list[int]]:
    """Connected components of the graph of the pairs that are similar; see above."""
    left = list(range(len(similarity)))
    clusters = []
    while left:
        cluster = [left.pop(0)]
        for member in cluster:  # which grows on the way
            near = [c for c in left if similarity[member, c] >= threshold]
            left = [c for c in left if c not in near]
            cluster += near
        clusters.append(cluster)
    return clusters


def mutual(similarity: Tensor, entropy: Tensor, threshold: float) -> list[list[int]]:
    """Complete linkage: the two clusters whose least similar channels are most alike are joined, while they are."""
    clusters = [[c] for c in range(len(similarity))]
    between = similarity.clone().fill_diagonal_(-1)
    while len(clusters) > 1:
        kept, gone = sorted(divmod(int(between.argmax()), len(clusters)))
        if between[kept, gone] < threshold:
            break
        clusters[kept] += clusters.pop(gone)
        rest = [i for i in range(len(between)) if i != gone]
        between[kept] = between[:, kept] = torch.minimum(between[kept], between[gone])
        between = between[rest][:, rest]
        between[kept, kept] = -1
    return clusters


CLUSTERINGS: Mapping[str, Callable[[Tensor, Tensor, float], list[list[int]]]] = {
    clustering.__name__: clustering for clustering in (leaders, linked, mutual)
}
DEFAULT_CLUSTERING = leaders.__name__


def find_clusters(similarity: Tensor, entropy: Tensor, threshold: float, clustering: str) -> tuple[Tensor, Tensor]:
    """Cluster the channels of a layer, and choose the key channel of each cluster: the one of the highest entropy.

    A cluster of channels that are constant on every image has no key: there is nothing to keep. Of equal entropies the
    channel with the lowest index counts.

    Args:
        similarity: (C,C), symmetric.
        entropy: (C,), 0 and above.
        threshold: similarity from which on channels are alike.
        clustering: key of `CLUSTERINGS`.

    Returns:
        Clusters (C,) int64, numbered from 0 by their lowest channels; keys (C,) bool.
    """
    clusters, keys = torch.empty(len(entropy), dtype=torch.int64), torch.zeros(len(entropy), dtype=torch.bool)
    for number, members in enumerate(sorted(CLUSTERINGS[clustering](similarity, entropy, threshold), key=min)):
        clusters[members] = number
        best = _by_entropy(entropy, members)[0]
        keys[best] = entropy[best] > 0
    return clusters, keys


def _by_entropy(entropy: Tensor, channels: list[int] | None = None) -> list[int]:
    """Channels from the highest entropy down, equal ones by index."""
    values = entropy.tolist()
    return sorted(range(len(values)) if channels is None else channels, key=lambda c: (-values[c], c))
