"""Clusters and key channels against SciPy and by hand, and the entropy of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_cases import random_similarity
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial.distance import squareform
from scipy.stats import entropy as scipy_entropy

from vifa_training.channels.clusters import CLUSTERINGS, find_clusters
from vifa_training.channels.entropy import entropy

# A chain: 0 is like 1, 1 like 2 and 2 like 3; 4 is like none.
CHAIN = torch.tensor([
    [1.00, 0.95, 0.50, 0.40, 0.1],
    [0.95, 1.00, 0.93, 0.50, 0.1],
    [0.50, 0.93, 1.00, 0.94, 0.1],
    [0.40, 0.50, 0.94, 1.00, 0.1],
    [0.10, 0.10, 0.10, 0.10, 1.0],
])  # fmt: skip


@pytest.mark.parametrize(
    ("clustering", "told", "clusters", "keys"),
    [
        ("linked", [1, 2, 3, 4, 5], [0, 0, 0, 0, 1], [3, 4]),
        ("mutual", [1, 2, 3, 4, 5], [0, 0, 1, 1, 2], [1, 3, 4]),
        ("leaders", [1, 2, 3, 4, 5], [0, 0, 1, 1, 2], [1, 3, 4]),
        ("leaders", [1, 4, 3, 2, 5], [0, 0, 0, 1, 2], [1, 3, 4]),  # 2 is like 3 too, but 1 tells more
        ("leaders", [4, 1, 3, 2, 0], [0, 0, 1, 1, 2], [0, 2]),  # and nothing is to be kept of 4
        ("leaders", [3, 3, 3, 3, 3], [0, 0, 1, 1, 2], [0, 2, 4]),  # equal ones by their index
    ],
)
def test_a_chain_by_hand(clustering: str, told: list[float], clusters: list[int], keys: list[int]) -> None:
    found, key = find_clusters(CHAIN, torch.tensor(told, dtype=torch.float32), 0.9, clustering)
    assert found.tolist() == clusters
    assert torch.nonzero(key).flatten().tolist() == keys


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one[:, None] == one, other[:, None] == other)


@pytest.mark.parametrize("seed", range(20))
def test_linked_and_mutual_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity, threshold = random_similarity(int(rng.integers(2, 25)), rng), 0.75
    told = torch.from_numpy(rng.random(len(similarity)))
    _, components = csgraph.connected_components(similarity.numpy() >= threshold, directed=False)
    assert same_partition(find_clusters(similarity, told, threshold, "linked")[0].numpy(), components)
    tree = hierarchy.linkage(squareform(1 - similarity.numpy(), checks=False), "complete")
    complete = hierarchy.fcluster(tree, 1 - threshold, "distance")
    assert same_partition(find_clusters(similarity, told, threshold, "mutual")[0].numpy(), complete)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 20), seed=st.integers(0, 10_000), threshold=st.floats(0, 1))
def test_what_each_reading_promises(count: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    similarity, told = random_similarity(count, rng), torch.from_numpy(rng.integers(0, 4, count).astype(float))
    alike = similarity >= threshold
    for clustering in CLUSTERINGS:
        clusters, key = find_clusters(similarity, told, threshold, clustering)
        firsts = [clusters.tolist().index(number) for number in range(int(clusters.max()) + 1)]
        assert firsts == sorted(firsts), "numbered by their lowest channels"
        for number in range(len(firsts)):
            members = torch.nonzero(clusters == number).flatten()
            keys = members[key[members]]
            assert len(keys) == int(told[members].max() > 0)
            assert (told[members] <= told[keys].sum()).all(), "none tells more than the key"
            if clustering == "mutual":
                assert alike[members][:, members].all()
            if clustering == "leaders" and len(keys):
                assert alike[keys[0], members].all()
        keys = torch.nonzero(key).flatten()
        if clustering != "mutual":
            assert alike[keys][:, keys].sum() == len(keys), "no two keys are alike"


def test_the_ends_of_the_threshold() -> None:
    similarity, told = random_similarity(9, np.random.default_rng(0)), torch.arange(1.0, 10)
    for clustering in CLUSTERINGS:
        assert int(find_clusters(similarity, told, 0.0, clustering)[0].max()) == 0
        assert find_clusters(similarity, told, 1.0, clustering)[1].all()


def test_a_single_channel_is_its_own_key_unless_it_is_dead() -> None:
    for clustering in CLUSTERINGS:
        for told in (3.0, 0.0):
            clusters, key = find_clusters(torch.ones(1, 1), torch.tensor([told]), 0.9, clustering)
            assert clusters.tolist() == [0] and key.tolist() == [told > 0]


def test_entropy_by_hand() -> None:
    """Half of the pixels in one bin and a quarter in two others are 1.5 bits; 256 levels alike are 8."""
    maps = torch.stack([torch.tensor([[0.0, 0, 0, 0], [1, 1, 3, 3]]), torch.ones(2, 4)])
    assert entropy(maps).tolist() == pytest.approx([1.5, 0])
    assert entropy(torch.arange(256.0).view(1, 16, 16) / 7 - 3).item() == pytest.approx(8)
    # 256 bins between 0 and 3: 0.01 is in the first with 0, and 0.012 in the next.
    assert entropy(torch.tensor([[[0, 0.01, 0.012, 3.0]]])).item() == pytest.approx(1.5)
    # The last bin holds the largest value too: a quarter and three quarters are 0.811 bits.
    assert entropy(torch.tensor([[[0, 2.999, 3.0, 3.0]]])).item() == pytest.approx(2 - 0.75 * np.log2(3))


@pytest.mark.parametrize("seed", range(5))
def test_entropy_is_that_of_numpys_histogram_whatever_the_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(4, 30, 41)).astype(np.float32) ** 3
    maps[1] = np.maximum(maps[1], 0)
    wanted = [scipy_entropy(np.histogram(one.astype(float), bins=256)[0], base=2) for one in maps]
    np.testing.assert_allclose(entropy(torch.from_numpy(maps)), wanted, atol=1e-3)
    gained = torch.from_numpy(maps.astype(np.float64) * 1e-4 + 2)
    np.testing.assert_allclose(entropy(gained), wanted, atol=1e-2)
