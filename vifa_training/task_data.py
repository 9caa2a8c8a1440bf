"""The labelled pairs of a task recipe, all of them read and checked before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from vifa_runtime.labels import UNKNOWN
from vifa_training.data import DataError, DataSet, Sample, open_checked
from vifa_training.task_recipe import TaskRecipe


def open_labelled(root: Path, part: str, recipe: TaskRecipe) -> DataSet:
    """Open a part of the data whose labels are the recipe's.

    Raises:
        DataError: lists everything that is wrong: files, labels of no class of the recipe or in another order, pairs
            without labels of its kind, two of one name.
    """
    kind = "classes" if recipe.kind == "detection" else "mask_classes"
    pairs = open_checked(root, [part], **{kind: list(recipe.classes)})
    names = getattr(pairs, kind)
    if names and tuple(names) != tuple(recipe.classes):
        raise DataError(
            [f"{part} has the classes {', '.join(names)}; recipe {recipe.name} wants {', '.join(recipe.classes)}"]
        )
    problems = [f"{part}: {fault}" for index in range(len(pairs)) for fault in _faults(pairs[index], recipe)]
    for name, count in Counter(pairs.names).items():
        if count > 1:
            problems.append(f"{part}: {count} pairs are called {name}; rename all but one")
    if problems:
        raise DataError(problems)
    return pairs


def _faults(sample: Sample, recipe: TaskRecipe) -> list[str]:
    """What makes a pair useless for the recipe."""
    what, found = ("boxes", sample.labels) if recipe.kind == "detection" else ("mask", sample.mask)
    if found is None:
        return [f"pair {sample.name} has no {what}, of which {recipe.kind} learns; add labels"]
    known = found[found != UNKNOWN] if what == "mask" else found
    count = len(recipe.classes)
    if wrong := sorted({int(number) for number in np.unique(known) if not 0 <= number < count}):
        shown = ", ".join(map(str, wrong[:5]))
        return [f"pair {sample.name} has the class {shown} in its {what}; recipe {recipe.name} names {count} classes"]
    return []
