"""The extended data set of section 3.3: pairs, and beside each the image that a reference model fused for the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.files import write_atomically
from vifa_training.data import DataError, DataSet, Sample

_LEVELS = 65535  # of a 16-bit image: steps of a 257th of a gray level


class ExtendedData:
    """A data set with a fused luma to imitate beside each pair, kept as 16-bit PNG under the names of the samples."""

    def __init__(self, dataset: DataSet, fuse: Callable[[Sample], NDArray[np.float32]], folder: Path) -> None:
        """Make what `folder` lacks by `fuse`: sample -> luma (H,W), 0..1. A folder belongs to one `fuse`.

        Raises:
            DataError: two samples share a name.
        """
        self.classes, self.mask_classes, self.names = dataset.classes, dataset.mask_classes, dataset.names
        self._dataset, self._folder = dataset, folder
        if twice := sorted(name for name, count in Counter(self.names).items() if count > 1):
            raise DataError([f"two samples are called {name}; rename one" for name in twice])
        for index, name in enumerate(self.names):
            if not self._path(name).exists():
                levels = np.rint(_LEVELS * fuse(dataset[index])).astype(np.uint16)
                write_atomically(self._path(name), cv2.imencode(".png", levels)[1].tobytes())

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample, path = self._dataset[index], self._path(self.names[index])
        levels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if levels is None or levels.dtype != np.uint16 or levels.shape != sample.thermal.shape:
            raise DataError([f"{path} is no image of this pair; remove {self._folder}, and it is made again"])
        return replace(sample, fused=np.float32(levels) / np.float32(_LEVELS))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"
