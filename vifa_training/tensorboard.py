"""Curves for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vifa_training.checkpoint import TrainingError


@contextmanager
def tensorboard_writer(run: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """What `trainer.train` takes as `observe`: writes every line of the log as curves into `run/tensorboard`.

    Raises:
        TrainingError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("TensorBoard is not installed; pip install tensorboard") from None
    writer = SummaryWriter(str(run / "tensorboard"))

    def observe(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, int(row["step"]))

    try:
        yield observe
    finally:
        writer.close()
