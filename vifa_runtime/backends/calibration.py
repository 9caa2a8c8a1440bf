"""Real pairs for INT8, from which an engine learns the range of every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from numpy.typing import NDArray

from vifa_runtime.bundle import Bundle
from vifa_runtime.graph_inputs import graph_inputs
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible, spread_evenly

MOST_PAIRS = 256  # evenly spread over the folder's


class CalibrationPairs:
    """The pairs of a folder, as the graphs of one bundle get them at one size."""

    def __init__(self, bundle: Bundle, folder: Path, size: tuple[int, int]) -> None:
        """List the pairs.

        Args:
            folder: holds `vi/` and `ir/`.
            size: (height, width) of the padded images; pairs of another size are brought to it by the bundle's aspect.

        Raises:
            PairError: there are none.
        """
        self._pairs = spread_evenly(find_pairs(folder), MOST_PAIRS)
        self._bundle = bundle if bundle.working_size else replace(bundle, working_size=size)
        digest = hashlib.sha256()
        for pair in self._pairs:
            for path in (pair.visible, pair.thermal):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        self.digest = digest.hexdigest()

    def inputs(self, path: str) -> Iterator[dict[str, NDArray]]:
        """For each pair the inputs of the graph at `path`; see `graph_inputs`.

        Raises:
            PairError: an image cannot be read.
        """
        pairs = ((read_visible(pair.visible), read_thermal(pair.thermal)) for pair in self._pairs)
        return graph_inputs(self._bundle, path, pairs)
