"""Reading a whole data set before it is trained on, so that all its faults are told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vifa_training.data.base import DataError, DataSet

Track = Callable[[Sequence[int]], Iterable[int]]


def find_problems(dataset: DataSet, track: Track = iter) -> list[str]:
    """Read every sample and list what is wrong, one text each, in order.

    Args:
        dataset: to read; one that fits its cache isn't decoded again afterwards.
        track: wraps the indices, to show progress; like `rich.progress.track`.
    """
    problems: list[str] = []
    for index in track(range(len(dataset))):
        try:
            dataset[index]
        except DataError as error:
            problems.extend(error.problems)
    return problems


def check(dataset: DataSet, track: Track = iter) -> None:
    """Read every sample; see `find_problems`.

    Raises:
        DataError: lists everything that is wrong, or says that there is no sample.
    """
    problems = find_problems(dataset, track) if len(dataset) else ["the data set has no sample; choose another part"]
    if problems:
        raise DataError(problems)
