"""What a schedule may ask of the training loop: a warm-up, norms, augmentation, shares of the rate, no validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import WEIGHTS, log_of, new_network, run_training
from torch import Tensor, nn

from vifa_training import trainer
from vifa_training.checkpoint import TrainingError, load_weights
from vifa_training.data import Augmentation, Batch, open_data
from vifa_training.networks import FusionNetwork, Trainable, build_network
from vifa_training.objectives import Objective, SharedObjective
from vifa_training.schedule import Schedule
from vifa_training.trainer import train


@pytest.mark.parametrize(
    ("decay", "shares"),
    [("constant", [1, 1, 1, 1]), ("linear_second_half", [1, 1, 1, 0.5]), ("steps", [1, 1, 0.1, 0.1])],
)
def test_the_rate_rises_in_the_warm_up_to_what_the_decay_gives(decay: str, shares: list[float]) -> None:
    schedule = Schedule(steps=4, learning_rate=0.8, warm_up=3, decay=decay, milestones=(2,))
    risen = [0.25, 0.5, 0.75, 1.0]
    assert [schedule.rate(step) for step in range(4)] == pytest.approx(
        [0.8 * a * b for a, b in zip(risen, shares, strict=True)]
    )
    assert Schedule(steps=4, learning_rate=0.8, decay="constant").rate(0) == 0.8, "no warm-up by default"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crop": 0}, "schedule.crop"),
        ({"crop": [64]}, "schedule.crop must be one or two whole numbers"),
        ({"crop": []}, "schedule.crop"),
        ({"crop": [64, 64, 64]}, "schedule.crop"),
        ({"crop": [64, 64.0]}, "schedule.crop"),
        ({"crop": 64.5}, "schedule.crop"),
        ({"crop": "64"}, "schedule.crop"),
        ({"warm_up": -1}, "schedule.warm_up"),
        ({"norm_batches": 0.5}, "schedule.norm_batches"),
        ({"learning_rate": "1e-3"}, "schedule.learning_rate must be a number"),
        ({"ema": "0.9"}, "schedule.ema"),
        ({"freeze_norms": "1"}, "schedule.freeze_norms"),
    ],
)
def test_what_yaml_may_hold_for_a_number_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Schedule(**{"steps": 10} | change)


def test_crops_of_two_sides_are_height_and_width(data: Path, tmp_path: Path) -> None:
    schedule = Schedule(steps=1, batch=2, crop=[32, 48], validate_every=1)
    assert schedule.crop_sides == (32, 48) and schedule.enlarged(2).crop == (64, 96)
    assert Schedule(steps=1, crop=40).enlarged(3).crop == (120, 120)

    class Shapes(Objective):
        def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
            shapes.append(tuple(batch.visible.shape))
            return network(batch.visible_y, batch.thermal)["saliency"].mean()

    shapes: list[tuple[int, ...]] = []
    run_training(data, tmp_path, schedule, objective=Shapes())
    assert shapes[0] == (2, 3, 32, 48)


def test_crops_that_the_network_cannot_take_are_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="crops of 32x36 do not fit the network; change crop to multiples of 8"):
        run_training(data, tmp_path / "run", Schedule(steps=1, crop=(32, 36)))
    assert not (tmp_path / "run").exists()


def test_without_validation_pairs_the_last_weights_are_kept(data: Path, tmp_path: Path) -> None:
    network = new_network()
    schedule = Schedule(steps=5, batch=2, crop=32, validate_every=2, patience=1)
    done = train(network, SharedObjective(WEIGHTS), open_data(data, "train"), None, schedule, tmp_path)
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in network.state_dict().items())
    assert (done.step, done.best_step, done.ended) == (5, 5, "all steps are done")
    assert [sorted(row) for row in log_of(tmp_path)] == [["learning_rate", "loss", "step"]] * 3
    again = train(new_network(), SharedObjective(WEIGHTS), open_data(data, "train"), None, schedule, tmp_path)
    assert again == done


def test_another_augmentation_is_another_training(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path, augmentation=Augmentation(mirror=0.25))
    run_training(data, tmp_path, augmentation=Augmentation(mirror=0.25))
    for other in (None, Augmentation(mirror=0.75), Augmentation(mirror=0.25, scale=(0.5, 1.0))):
        with pytest.raises(TrainingError, match="another recipe"):
            run_training(data, tmp_path, augmentation=other)


def test_the_augmentation_is_what_crops_are_drawn_by(data: Path, tmp_path: Path) -> None:
    class Means(Objective):
        def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
            if network.training:
                drawn.append(batch.visible.clone())
            return network(batch.visible_y, batch.thermal)["saliency"].mean()

    drawn: list[Tensor] = []
    schedule = Schedule(steps=1, batch=2, crop=32, validate_every=1)
    for mirror in (0.0, 1.0):
        augmentation = Augmentation(mirror=mirror, stretch=0)
        run_training(data, tmp_path / str(mirror), schedule, objective=Means(), augmentation=augmentation)
    assert torch.equal(drawn[0], drawn[1].flip(3)) and not torch.equal(*drawn)


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


class Drawn(SharedObjective):
    """Remembers the batches that it was asked for, and how the network stood then."""

    def __init__(self) -> None:
        super().__init__(WEIGHTS)
        self.seen: list[tuple[bool, bool, Batch]] = []

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        self.seen.append((torch.is_grad_enabled(), network.training, batch))
        return super().forward(network, batch, progress)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_norms_get_the_plain_mean_over_the_batches_that_are_drawn_for_them(
    data: Path, tmp_path: Path, ema: float
) -> None:
    schedule = Schedule(steps=2, batch=2, crop=32, validate_every=2, norm_batches=3, ema=ema)
    network, objective = new_network("tardal"), Drawn()
    run_training(data, tmp_path, schedule, network=network, objective=objective)
    states = [(grads, training) for grads, training, _ in objective.seen]
    assert states == [(True, True)] * 2 + [(False, True)] * 3 + [(False, False)] * 4  # steps, norms, validation
    batches = [batch for *_, batch in objective.seen[2:5]]
    assert len({float(batch.thermal.sum()) for batch in [*batches, objective.seen[0][2]]}) == 4, "of their own"
    kept = new_network("tardal")
    load_weights(kept, tmp_path / "best.safetensors")
    first = kept.backbone.first[0]
    with torch.no_grad():
        made = [first(torch.cat([batch.thermal, batch.visible_y], dim=1)) for batch in batches]
    means = torch.stack([some.mean(dim=(0, 2, 3)) for some in made]).mean(dim=0)
    variances = torch.stack([some.transpose(0, 1).flatten(1).var(dim=1) for some in made]).mean(dim=0)
    norm = kept.backbone.first[1]
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert all(int(norm.num_batches_tracked) == 3 for norm in norms_of(kept))
    assert {norm.momentum for norm in norms_of(network)} == {0.1}, "training goes on as before"


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_norms_do_not_keep_a_resumed_training_from_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    schedule = Schedule(steps=5, batch=2, crop=32, validate_every=2, norm_batches=2, ema=ema)
    run_training(data, tmp_path / "whole", schedule, network=new_network("tardal"))
    interrupt_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run_training(data, tmp_path / "broken", schedule, network=new_network("tardal"))
    monkeypatch.undo()
    run_training(data, tmp_path / "broken", schedule, network=new_network("tardal"))
    for name in ("last", "best"):
        whole, broken = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "broken"))
        assert all(torch.equal(tensor, broken[key]) for key, tensor in whole.items())


def interrupt_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    step = trainer._Session._step

    def interrupted(self: trainer._Session) -> float:
        if self.progressed.step == at:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(trainer._Session, "_step", interrupted)


def test_norms_that_a_network_keeps_from_training_are_not_estimated(data: Path, tmp_path: Path) -> None:
    class Half(FusionNetwork):
        def train(self, mode: bool = True) -> Half:
            super().train(mode)
            self.backbone.eval()
            return self

    network = new_network("tardal")
    network.__class__ = Half
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms_of(network.backbone)]
    old = [norm.running_mean.clone() for norm in norms_of(network.heads)]
    run_training(data, tmp_path, Schedule(steps=2, batch=2, crop=32, validate_every=1, norm_batches=2), network=network)
    for (mean, variance), norm in zip(before, norms_of(network.backbone), strict=True):
        assert torch.equal(mean, norm.running_mean) and torch.equal(variance, norm.running_var)
    assert not any(
        torch.equal(mean, norm.running_mean) for mean, norm in zip(old, norms_of(network.heads), strict=True)
    )


class Careless(Trainable):
    """A convolution and a dropout, as DeepLabV3+ has one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Conv2d(1, 4, 3), nn.Dropout(0.5)


class Spread(Objective):
    def forward(self, network: Careless, batch: Batch, progress: float) -> Tensor:
        return (network.drop(network.layer(batch.thermal)).mean(dim=(1, 2, 3)) - 1).square().mean()


def test_a_dropout_does_not_keep_a_resumed_training_from_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> nn.Module:
        torch.manual_seed(0)
        network = Careless()
        schedule = Schedule(steps=6, batch=2, crop=32, validate_every=2, norm_batches=1, learning_rate=0.01)
        train(network, Spread(), open_data(data, "train"), None, schedule, folder)
        return network

    whole = run(tmp_path / "whole")
    interrupt_at(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.undo()
    broken = run(tmp_path / "broken")
    assert torch.equal(whole.layer.weight, broken.layer.weight)
    assert (tmp_path / "whole/log.jsonl").read_text() == (tmp_path / "broken/log.jsonl").read_text()
    losses = [row["loss"] for row in log_of(tmp_path / "whole")]
    assert len(set(losses)) == 3


def test_parameters_get_their_share_of_the_rate(data: Path, tmp_path: Path) -> None:
    class Shared(Careless):
        def parameter_groups(self) -> list[dict]:
            return [{"params": [self.layer.weight], "share": 0.1}, {"params": [self.layer.bias], "share": 1.0}]

    torch.manual_seed(0)
    network = Shared()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    schedule = Schedule(steps=1, batch=2, crop=32, validate_every=1, learning_rate=0.01)
    train(network, Spread(), open_data(data, "train"), None, schedule, tmp_path)
    moved = {name: float((p - before[name]).detach().abs().max()) for name, p in network.named_parameters()}
    assert moved == {"layer.weight": pytest.approx(0.001, rel=1e-2), "layer.bias": pytest.approx(0.01, rel=1e-2)}


def test_a_checkpoint_of_other_layers_is_refused(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path)
    torch.manual_seed(0)
    other = build_network("nano", [*WEIGHTS, "another"])
    with pytest.raises(TrainingError, match=r"last\.safetensors belongs to another network; choose another run"):
        run_training(data, tmp_path, network=other)
