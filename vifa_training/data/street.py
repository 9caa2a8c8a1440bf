"""Synthetic streets with boxes and masks, made from a seed: data for tests, demos and first trainings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vifa_runtime.pairs import PARTS
from vifa_runtime.street import CLASSES, MASK_CLASSES, Street
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings
from vifa_training.data.base import DataError, Sample
from vifa_training.data.cache import SampleCache
from vifa_training.data.pair_files import day_or_night

FRAMES = 5  # of one street, before the next one: so many streets are seen that none is learnt by heart
FAR_APART = 7919  # steps between two frames of a street, so that everyone has moved; a prime


class StreetData:
    """Pairs of many streets, half of them by night, each with boxes, a mask and the tag `day` or `night`.

    Thermal images are normalised one by one, as the robot does without stamps. Parts never share a street.
    """

    classes: Sequence[str] = CLASSES
    mask_classes: Sequence[str] = MASK_CLASSES

    def __init__(self, count: int, seed: int = 0, part: str = "", size: tuple[int, int] = (240, 320)) -> None:
        """Prepare `count` pairs; of the same seed, each part gives 8:1:1 of that many.

        Args:
            count: of the pairs of all parts.
            seed: 0 and above; other seeds give other streets.
            part: `train`, `val`, `test`, or empty for a set of its own.
            size: (height, width), pixels; 64 and above each.

        Raises:
            DataError: the part is unknown, or no pair would be left.
        """
        if part and part not in PARTS:
            raise DataError([f"street: the part {part!r} is unknown; use one of {', '.join(PARTS)}"])
        if part:
            count = count // 10 if part != "train" else count - 2 * (count // 10)
        if count < 1:
            raise DataError([f"street: there is no pair in the part {part or 'all'!r}; ask for 10 or more"])
        self.size = size
        self._seeds = np.random.SeedSequence([seed, ("", *PARTS).index(part)]).generate_state(-(-count // FRAMES))
        # A night name ends in N, a day name in D, as in MSRS.
        self.names = [f"street{i // FRAMES:04}-{i % FRAMES}{'N' if self._night(i) else 'D'}" for i in range(count)]
        self._cache = SampleCache()
        self._street: tuple[int, Street] | None = None  # the last one: its frames are often asked for in a row
        self._normalise = ThermalNormaliser(ThermalSettings(mode="percentile"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._cache.get(index, self._make)

    def _make(self, index: int) -> Sample:
        number, night = index // FRAMES, self._night(index)
        if self._street is None or self._street[0] != number:
            self._street = number, Street(int(self._seeds[number]), self.size, day_frames=1)
        # Streets change between day and night at every frame.
        made = self._street[1].labelled(2 * (index % FRAMES) * FAR_APART + night)
        thermal = np.rint(255 * self._normalise(made.thermal)).astype(np.uint8)
        tags = day_or_night(self.names[index])
        return Sample(self.names[index], made.visible, thermal, made.boxes, made.labels, made.mask, tags)

    def _night(self, index: int) -> bool:
        return index % 2 == 1
