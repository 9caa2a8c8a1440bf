"""Parts of data sets, and several of them as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from vifa_training.data.base import DataError, DataSet, Sample


class Subset:
    """Some samples of a data set, in the order of `indices`."""

    def __init__(self, dataset: DataSet, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.classes, self.mask_classes = dataset.classes, dataset.mask_classes
        self.names = [dataset.names[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.dataset[self.indices[index]]


def spread_evenly(dataset: DataSet, most: int) -> Subset:
    """At most so many samples of a data set, evenly spread over it, in their order."""
    kept = min(most, len(dataset))
    return Subset(dataset, [index * len(dataset) // kept for index in range(kept)])


class Concatenation:
    """The samples of several data sets, one after the other; those without labels may stand beside those with."""

    def __init__(self, datasets: Sequence[DataSet]) -> None:
        """Join one or more.

        Raises:
            DataError: two name their classes differently.
        """
        self.datasets = list(datasets)
        self.classes = _agreed("classes", [dataset.classes for dataset in datasets])
        self.mask_classes = _agreed("mask classes", [dataset.mask_classes for dataset in datasets])
        self.names = [name for dataset in datasets for name in dataset.names]
        self._ends = list(accumulate(map(len, datasets)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        which = bisect_right(self._ends, index)
        return self.datasets[which][index - (self._ends[which - 1] if which else 0)]


def _agreed(kind: str, names: Sequence[Sequence[str]]) -> Sequence[str]:
    """The names that all with names have in common."""
    given = {tuple(some) for some in names if some}
    if len(given) > 1:
        shown = " and ".join(", ".join(some) for some in sorted(given))
        raise DataError([f"these data sets have different {kind}: {shown}; train on them apart"])
    return next(iter(given), ())
