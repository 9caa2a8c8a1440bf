"""The training loop: it learns, it resumes to the same numbers, and it says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vifa_runtime.metrics import fusion_vif
from vifa_training import trainer
from vifa_training.data import PairFolder
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.networks import FusionNetwork, build_network
from vifa_training.trainer import Schedule, TrainingError, load_weights, train_fusion

TASKS = {"saliency": FusionWeights(maximum=20, gradient=5, ssim=5, information=6)}
SHORT = Schedule(steps=6, batch=2, crop=32, validate_every=2)


def new_network() -> FusionNetwork:
    torch.manual_seed(0)
    return build_network("nano", list(TASKS))


def train(data: Path, run: Path, schedule: Schedule = SHORT, network: FusionNetwork | None = None) -> FusionNetwork:
    network = network or new_network()
    train_fusion(network, PairFolder(data, ["train"]), PairFolder(data, ["val"]), TASKS, schedule, run)
    return network


def test_training_beats_the_average_on_pairs_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    schedule = Schedule(steps=120, batch=4, crop=64, learning_rate=3e-3, validate_every=60)
    network = train(data, tmp_path, schedule)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    untrained = trainer.validation_loss(new_network(), PairFolder(data, ["val"]), TASKS)
    assert log[-1]["validation"] < 0.9 * untrained
    ours, average = [], []
    for visible, thermal in PairFolder(data, ["val"]):
        tensors = (torch.from_numpy(image)[None, None] for image in (visible, thermal))
        with torch.no_grad():
            fused = network(*tensors)["saliency"][0, 0].clamp(0, 1).numpy()
        ours.append(fusion_vif(255 * visible, 255 * thermal, 255 * fused))
        average.append(fusion_vif(255 * visible, 255 * thermal, 127.5 * (visible + thermal)))
    assert np.mean(ours) > np.mean(average)


def test_an_interrupted_training_ends_with_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, tmp_path / "whole").state_dict()
    step = trainer._step

    def interrupted(*arguments: object) -> float:
        if arguments[-1] == 5:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]  # handed through as it came

    monkeypatch.setattr(trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken")
    monkeypatch.undo()
    resumed = train(data, tmp_path / "broken").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/log.jsonl").read_text() == (tmp_path / "broken/log.jsonl").read_text()


def test_the_best_weights_on_validation_are_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([3.0, 1.0, 2.0])
    seen = []

    def score(network: FusionNetwork, *_: object) -> float:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(trainer, "validation_loss", score)
    train(data, tmp_path)
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in seen[1].items())


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, tmp_path, Schedule(steps=2, batch=2, crop=32, validate_every=2))
    kept = (tmp_path / "best.safetensors").read_bytes()
    network = new_network()
    with torch.no_grad():
        network.backbone.stem.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss became nan at step 0"):
        train(data, tmp_path / "other", network=network)
    assert (tmp_path / "best.safetensors").read_bytes() == kept
    assert not (tmp_path / "other" / "best.safetensors").exists()


def test_a_run_of_another_recipe_is_not_continued(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        train(data, tmp_path, Schedule(steps=8, batch=2, crop=32, validate_every=2))


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    train(data, tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_weights_of_another_network_are_refused(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        load_weights(build_network("nano", ["other"]), tmp_path / "best.safetensors")
    with pytest.raises(TrainingError, match="train first"):
        load_weights(new_network(), tmp_path / "nothing.safetensors")
