"""Pairs of a folder with `vi/` and `ir/`, held in memory as luma and thermal bytes, and crops drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.pairs import PairError, PairPaths, find_part, read_thermal, read_visible
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings

STRETCH_PROBABILITY = 0.5


class Sample(NamedTuple):
    """A pair as the networks see it: both of shape (H,W), float32, 0..1."""

    visible_y: NDArray[np.float32]
    thermal: NDArray[np.float32]


class PairFolder:
    """The pairs of one or more folders, indexable; `pairs[i]` is the i-th `Sample`, folders in the order given."""

    def __init__(self, root: Path, parts: Sequence[str]) -> None:
        """Read every pair of `root/<part>`; a part is a folder, or `folder@train|val|test` (see `find_part`).

        Raises:
            PairError: names every folder, file or size that is wrong, all at once.
        """
        self.paths: list[PairPaths] = []
        self._pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._stretch = ThermalNormaliser(ThermalSettings(mode="percentile"))
        problems: list[str] = []
        for part in parts:
            try:
                paths = find_part(root, part)
            except PairError as error:
                problems.append(str(error))
                continue
            for path in paths:
                try:
                    self._pairs.append(_read_bytes(path))
                    self.paths.append(path)
                except PairError as error:
                    problems.append(str(error))
        if problems:
            raise PairError("; ".join(problems))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        luma, thermal = self._pairs[index]
        return Sample(luma.astype(np.float32) / 255, thermal.astype(np.float32) / 255)

    def crops(self, count: int, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw random crops, mirrored at random, half of them with the thermal contrast stretched as on the robot.

        Returns:
            visible_y, thermal: each (count, 1, size, size), float32, 0..1.

        Raises:
            PairError: a pair is smaller than the crops.
        """
        visible = np.empty((count, 1, size, size), np.float32)
        thermal = np.empty_like(visible)
        for i, index in enumerate(rng.integers(len(self), size=count)):
            sample = self[int(index)]
            warm = self._stretch(sample.thermal) if rng.random() < STRETCH_PROBABILITY else sample.thermal
            height, width = warm.shape
            if min(warm.shape) < size:
                raise PairError(f"{self.paths[int(index)].thermal} is {width}x{height}, smaller than crops of {size}")
            top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
            step = -1 if rng.random() < 0.5 else 1
            visible[i, 0] = sample.visible_y[top : top + size, left : left + size][:, ::step]
            thermal[i, 0] = warm[top : top + size, left : left + size][:, ::step]
        return torch.from_numpy(visible), torch.from_numpy(thermal)


def _read_bytes(paths: PairPaths) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    visible, thermal = read_visible(paths.visible), read_thermal(paths.thermal)
    if visible.shape[:2] != thermal.shape:
        raise PairError(f"{paths.visible} is {visible.shape[:2]} but {paths.thermal} is {thermal.shape}; align them")
    if thermal.dtype != np.uint8:
        raise PairError(f"{paths.thermal} holds {thermal.dtype}; convert it to 8 bits")
    return np.rint(rgb_to_luma(visible)).astype(np.uint8), thermal
