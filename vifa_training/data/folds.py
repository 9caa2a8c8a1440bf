"""Contiguous blocks of a data set, for cross-validation where neighbouring frames look alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vifa_training.data.base import DataError


def contiguous_folds(
    names: Sequence[str] | int, count: int, groups: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Divide samples into `count` folds of contiguous blocks.

    Neighbours in a video are nearly the same image: drawn at random, one would be trained on and the other tested.

    Args:
        names: of the samples; blocks are cut in their sorted order. Or how many samples, in the order they have.
        count: of the folds, 2 or more.
        groups: of each sample, like its tags; each group is cut into blocks by itself, so that every fold has its share
            of day and night.

    Returns:
        Indices of the samples of each fold, ascending; sizes differ by at most one a group.

    Raises:
        DataError: there are fewer samples than folds.
    """
    length = names if isinstance(names, int) else len(names)
    if not 2 <= count <= length:
        raise DataError([f"{length} samples can't be divided into {count} folds; use 2 to {length}"])
    order = list(range(length)) if isinstance(names, int) else sorted(range(length), key=lambda i: (names[i], i))
    blocks: dict[Hashable, list[int]] = {}
    for index in order:
        blocks.setdefault(groups[index] if groups is not None else None, []).append(index)
    folds: list[list[int]] = [[] for _ in range(count)]
    for members in blocks.values():
        for fold in range(count):
            folds[fold] += members[fold * len(members) // count : (fold + 1) * len(members) // count]
    return [sorted(fold) for fold in folds]
