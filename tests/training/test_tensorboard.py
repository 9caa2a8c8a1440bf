"""Curves for TensorBoard: written where it is installed, refused by name where it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vifa_training.checkpoint import TrainingError
from vifa_training.tensorboard import tensorboard_writer


def test_without_tensorboard_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"), tensorboard_writer(tmp_path):
        pass


def test_every_number_of_the_log_becomes_a_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard_writer(tmp_path) as observe:
        for step in (10, 20):
            observe({"step": step, "loss": 2.5 / step, "validation": 1.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "validation"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 0.25), (20, 0.125)]
