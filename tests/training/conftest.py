"""A tiny data folder of synthetic streets, for real trainings of seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from task_toys import TOYS

from vifa_runtime.pairs import write_image
from vifa_runtime.street import Street
from vifa_runtime.thermal import ThermalNormaliser
from vifa_training.tasks import TASK_NETWORKS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train` with 12 and `val` with 4 pairs of 96x128 pixels, by day and night, of different streets."""
    root = tmp_path_factory.mktemp("data")
    for part, seed, count in (("train", 1, 12), ("val", 2, 4)):
        street = Street(seed=seed, size=(96, 128), day_frames=1)
        normalise = ThermalNormaliser()
        for index in range(count):
            visible, thermal = street[7 * index]
            write_image(root / part / "vi" / f"{index:03}.png", visible)
            write_image(root / part / "ir" / f"{index:03}.png", np.rint(255 * normalise(thermal)).astype(np.uint8))
    return root


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """Task networks that learn in a moment are known by name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, network in TOYS.items():
            patch.setitem(TASK_NETWORKS, name, network)
        yield
