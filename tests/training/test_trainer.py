"""The training loop: it learns, it resumes to the same numbers, and it says what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vifa_runtime.metrics import fusion_vif
from vifa_training import checkpoint, trainer
from vifa_training.checkpoint import TrainingError, alone_in, load_weights
from vifa_training.data import Batch, DataError, DataSet, open_data, whole_batch
from vifa_training.networks import FusionNetwork, build_network
from vifa_training.objectives import FusionWeights, Objective, SharedObjective
from vifa_training.schedule import Schedule
from vifa_training.trainer import Progressed, freeze_norms, train, validation_loss

WEIGHTS = {"saliency": FusionWeights(maximum=20, gradient=5, ssim=5, information=6)}
SHORT = Schedule(steps=6, batch=2, crop=32, validate_every=2)


def new_network(name: str = "nano") -> FusionNetwork:
    torch.manual_seed(0)
    return build_network(name, list(WEIGHTS))


def run_training(data: Path, run: Path, schedule: Schedule = SHORT, **options: object) -> tuple[nn.Module, Progressed]:
    network = options.pop("network", None) or new_network()
    objective = options.pop("objective", None) or SharedObjective(WEIGHTS)
    done = train(network, objective, open_data(data, "train"), open_data(data, "val"), schedule, run, **options)
    return network, done


def log_of(run: Path, name: str = "log.jsonl") -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_training_beats_the_average_on_pairs_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    schedule = Schedule(steps=120, batch=4, crop=64, learning_rate=3e-3, validate_every=60)
    network, _ = run_training(data, tmp_path, schedule)
    untrained = validation_loss(new_network(), SharedObjective(WEIGHTS), open_data(data, "val"))
    assert log_of(tmp_path)[-1]["validation"] < 0.9 * untrained
    ours, average = [], []
    pairs = open_data(data, "val")
    for batch in (whole_batch(pairs[index], 4) for index in range(len(pairs))):
        with torch.no_grad():
            fused = network.eval()(batch.visible_y, batch.thermal)["saliency"]
        visible, thermal, fused = (255 * image[0, 0].numpy() for image in (batch.visible_y, batch.thermal, fused))
        ours.append(fusion_vif(visible, thermal, fused))
        average.append(fusion_vif(visible, thermal, (visible + thermal) / 2))
    assert np.mean(ours) > np.mean(average)


def test_the_learning_curve_is_the_mean_loss_of_forty_stretches(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, step = [], trainer._Session._step

    def noted(self: trainer._Session) -> float:
        losses.append(step(self))
        return losses[-1]

    monkeypatch.setattr(trainer._Session, "_step", noted)
    run_training(data, tmp_path, replace(SHORT, steps=83, batch=1))
    rows = log_of(tmp_path, "curve.jsonl")
    assert [row["step"] for row in rows] == list(range(2, 83, 2))
    assert [row["loss"] for row in rows] == pytest.approx(np.mean(np.reshape(losses[:82], (41, 2)), axis=1))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_interrupted_training_ends_with_the_same_numbers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    schedule = replace(SHORT, ema=ema)
    whole, _ = run_training(data, tmp_path / "whole", schedule)
    step = trainer._Session._step

    def interrupted(self: trainer._Session) -> float:
        if self.progressed.step == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(trainer._Session, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(data, tmp_path / "broken", schedule)
    monkeypatch.undo()
    resumed, _ = run_training(data, tmp_path / "broken", schedule)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for name in ("log.jsonl", "curve.jsonl"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "broken" / name).read_text()
    best = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_process_killed_in_its_midst_is_gone_on_with(data: Path, tmp_path: Path) -> None:
    """A real process under SIGKILL: whatever it leaves behind, the rest of the training uses or does again."""
    schedule = Schedule(steps=400, batch=2, crop=32, validate_every=2)
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; import test_trainer as t\n"
        f"t.run_training(Path(sys.argv[2]), Path(sys.argv[3]), {schedule!r})\n"
    ).replace("Schedule(", "t.Schedule(")
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(data), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    process.kill()
    errors = process.communicate()[1]
    assert said.startswith("step 2/400"), errors
    reached = json.loads(load_metadata(tmp_path / "run/last.safetensors")["progressed"])["step"]
    assert 0 < reached < 400
    _, done = run_training(data, tmp_path / "run", schedule, max_minutes=0)
    assert done.step == reached and [row["step"] for row in log_of(tmp_path / "run")] == [*range(2, reached + 1, 2)]


def load_metadata(path: Path) -> dict[str, str]:
    with checkpoint.safe_open(path, "pt") as file:
        return file.metadata()


def test_the_best_weights_on_validation_are_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = score_by(monkeypatch, [3.0, 1.0, 2.0])
    _, done = run_training(data, tmp_path)
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[name], tensor) for name, tensor in seen[1].items())
    assert (done.best, done.best_step, done.ended) == (1.0, 4, "all steps are done")


def score_by(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, Tensor]]:
    """Let validations give these scores; returns the weights that they saw."""
    given, seen = iter(scores), []

    def score(network: FusionNetwork, *_: object) -> float:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(given)

    monkeypatch.setattr(trainer, "validation_loss", score)
    return seen


def test_it_stops_early_when_nothing_is_gained(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score_by(monkeypatch, [1.0, 2.0, 2.0, 0.5, 0.1])
    _, done = run_training(data, tmp_path, Schedule(steps=20, batch=2, crop=32, validate_every=2, patience=2))
    assert (done.step, done.best_step, done.ended) == (6, 2, "no gain since step 2")
    _, again = run_training(data, tmp_path, Schedule(steps=20, batch=2, crop=32, validate_every=2, patience=2))
    assert again == done, "an ended training is not gone on with"


def test_it_rests_when_the_time_is_over_and_goes_on_later(data: Path, tmp_path: Path, capfd) -> None:
    _, done = run_training(data, tmp_path, max_minutes=0)
    assert (done.step, done.ended) == (0, "")
    assert "the time is over at step 0 of 6; run the same command to go on" in capfd.readouterr().out
    whole, _ = run_training(data, tmp_path / "whole")
    rested, done = run_training(data, tmp_path)
    assert done.step == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rested.parameters(), strict=True))


def test_averaged_weights_are_what_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decay, seen = 0.5, []
    step = trainer._Session._step

    def watched(self: trainer._Session) -> float:
        value = step(self)
        seen.append({name: tensor.clone() for name, tensor in self.network.named_parameters()})
        return value

    monkeypatch.setattr(trainer._Session, "_step", watched)
    run_training(data, tmp_path, Schedule(steps=3, batch=2, crop=32, validate_every=3, ema=decay))
    best = load_file(tmp_path / "best.safetensors")
    for name, tensor in best.items():
        expected = seen[0][name]
        for later in seen[1:]:
            expected = decay * expected + (1 - decay) * later[name]
        torch.testing.assert_close(tensor, expected)


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(data, tmp_path, Schedule(steps=2, batch=2, crop=32, validate_every=2))
    kept = (tmp_path / "best.safetensors").read_bytes()
    network = new_network()
    with torch.no_grad():
        network.backbone.stem.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss became nan at step 0"):
        run_training(data, tmp_path / "other", network=network)
    assert (tmp_path / "best.safetensors").read_bytes() == kept
    assert not (tmp_path / "other" / "best.safetensors").exists()


def test_a_full_disk_ends_the_training_and_keeps_what_was_there(data: Path, tmp_path: Path) -> None:
    """The kernel refuses to write files beyond a size, from step 4 on: what a full disk does, in a real process."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_trainer as t\n"
        "def fill(row):\n"
        "    if row['step'] == 4: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))\n"
        "schedule = t.Schedule(steps=400, batch=2, crop=32, validate_every=2)\n"
        "t.run_training(Path(sys.argv[2]), Path(sys.argv[3]), schedule, observe=fill)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(data), str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert re.search(r"TrainingError: cannot write .*File too large.*what is there is kept", ended.stderr), ended.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "log.jsonl",
    ]
    load_weights(new_network(), tmp_path / "run/best.safetensors")
    assert json.loads(load_metadata(tmp_path / "run/last.safetensors")["progressed"])["step"] == 4


def test_an_image_that_cannot_be_read_is_told_by_path(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    broken = tmp_path / "data/train/ir/003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"003\.png"):
        run_training(tmp_path / "data", tmp_path / "run", Schedule(steps=60, batch=4, crop=32, validate_every=60))


def test_a_run_of_another_recipe_is_not_continued(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        run_training(data, tmp_path, Schedule(steps=8, batch=2, crop=32, validate_every=2))
    with pytest.raises(TrainingError, match="another recipe"):
        run_training(data, tmp_path, recipe="other losses")


def test_two_trainings_do_not_write_into_one_run(data: Path, tmp_path: Path) -> None:
    with alone_in(tmp_path / "run"), pytest.raises(TrainingError, match=r"another training is at work in .*run; wait"):
        run_training(data, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    assert run_training(data, tmp_path / "run")[1].ended, "the other one's end frees it"


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    run_training(data, tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_weights_of_another_network_are_refused(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path)
    with pytest.raises(TrainingError, match="another network"):
        load_weights(build_network("nano", ["other"]), tmp_path / "best.safetensors")
    with pytest.raises(TrainingError, match="train first"):
        load_weights(new_network(), tmp_path / "nothing.safetensors")


def test_a_damaged_checkpoint_is_named_with_its_mend(data: Path, tmp_path: Path) -> None:
    run_training(data, tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"cannot read .*last\.safetensors .*; remove it to begin again"):
        run_training(data, tmp_path)
    with pytest.raises(TrainingError, match=r"cannot read .*best\.safetensors .*; train first"):
        load_weights(new_network(), tmp_path / "best.safetensors")


class Duel(Objective):
    """The network's loss is its mean luma times a scale, which is the opponent's only parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
        return self.scale * network(batch.visible_y, batch.thermal)["saliency"].mean()

    def opponent_loss(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor | None:
        return (self.scale - 3) ** 2 if progress >= 0.5 else None


def test_the_opponent_takes_its_turn_and_only_its_own_loss_moves_it(data: Path, tmp_path: Path) -> None:
    objective, scales = Duel(), []
    schedule = Schedule(steps=6, batch=2, crop=32, validate_every=1, learning_rate=0.1, decay="constant")
    run_training(
        data, tmp_path, schedule, objective=objective, observe=lambda row: scales.append(float(objective.scale))
    )
    assert scales[:3] == [1.0, 1.0, 1.0], "it rests for the first half"
    np.testing.assert_allclose(scales[3:], [1.1, 1.2, 1.3], atol=2e-3)  # Adam's first steps are of the rate's length
    resumed = Duel()
    run_training(data, tmp_path, schedule, objective=resumed)
    assert torch.equal(resumed.scale, objective.scale), "it is part of the checkpoint"


def test_mixed_precision_learns_as_full_precision_does(data: Path, tmp_path: Path) -> None:
    schedule = Schedule(steps=20, batch=2, crop=32, validate_every=20)
    losses = {}
    for precision in ("float32", "bfloat16"):
        run_training(data, tmp_path / precision, replace(schedule, precision=precision))
        losses[precision] = log_of(tmp_path / precision)[-1]["validation"]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path) -> None:
    """Under torchrun each process takes half of the same crops; the curves agree to rounding."""
    schedule = Schedule(steps=12, batch=4, crop=32, validate_every=2)
    run_training(data, tmp_path / "one", schedule)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, torch; torch.set_num_threads(1)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; import test_trainer as t\n"
        f"fabric = t.trainer.make_fabric(t.{schedule!r}, 'cpu')\n"
        "assert fabric.world_size == 2\n"
        f"t.run_training(Path({str(data)!r}), Path({str(tmp_path / 'two')!r}), t.{schedule!r}, fabric=fabric)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for key in ("loss", "validation"):
        np.testing.assert_allclose([row[key] for row in two], [row[key] for row in one], rtol=1e-3)
    weights = [load_file(tmp_path / name / "best.safetensors") for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=1e-3, rtol=1e-2)


def test_frozen_norms_learn_by_the_statistics_they_have(data: Path, tmp_path: Path) -> None:
    """From half of the steps on, statistics stand still, scale and offset learn, and the loss is the evaluation's."""
    schedule = Schedule(steps=8, batch=2, crop=32, validate_every=1, freeze_norms=0.5)
    network, norms = new_network("tardal"), []

    def watch(_: dict[str, float]) -> None:
        norms.append({name: tensor.clone() for name, tensor in network.backbone.first[1].state_dict().items()})

    run_training(data, tmp_path, schedule, network=network, observe=watch)
    still = [torch.equal(a["running_mean"], b["running_mean"]) for a, b in pairwise(norms)]
    assert still == [False, False, False, True, True, True, True], "the fifth step is the first of the second half"
    assert not any(torch.equal(a["weight"], b["weight"]) for a, b in pairwise(norms))
    freeze_norms(network.train())
    image = torch.rand(1, 1, 32, 32)
    features = network.backbone(image, image)["funnel2"]
    assert torch.equal(features, network.eval().backbone(image, image)["funnel2"])
    assert network.train().backbone.first[1].training, "until training goes on"


def test_a_batch_that_cannot_be_shared_is_refused(data: Path, tmp_path: Path) -> None:
    class Three:
        world_size = 3

    with pytest.raises(TrainingError, match="8 crops cannot be shared by 3 processes"):
        run_training(data, tmp_path, Schedule(steps=1), fabric=Three())


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("cosine", {0: 1.0, 50: 0.5, 100: 0.0}),
        ("linear_second_half", {0: 1.0, 50: 1.0, 75: 0.5, 100: 0.0}),
        ("steps", {0: 1.0, 39: 1.0, 40: 0.1, 79: 0.1, 80: 0.01}),
        ("constant", {0: 1.0, 99: 1.0}),
    ],
)
def test_learning_rates_fall_as_said(decay: str, rates: dict[int, float]) -> None:
    schedule = Schedule(steps=100, learning_rate=0.5, decay=decay, milestones=(40, 80))
    for step, share in rates.items():
        assert schedule.rate(step) == pytest.approx(0.5 * share, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "schedule.steps"),
        ({"batch": 1.5}, "schedule.batch"),
        ({"learning_rate": 0}, "schedule.learning_rate"),
        ({"ema": 1.0}, "schedule.ema"),
        ({"decay": "exponential"}, "schedule.decay must be one of cosine"),
        ({"precision": "float16"}, "schedule.precision"),
        ({"milestones": (5, 3)}, "schedule.milestones must ascend"),
        ({"patience": -1}, "schedule.patience"),
        ({"freeze_norms": 0}, "schedule.freeze_norms"),
        ({"freeze_norms": 1.5}, "schedule.freeze_norms"),
    ],
)
def test_a_schedule_out_of_range_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Schedule(**{"steps": 10} | change)


def test_validation_looks_at_pairs_spread_evenly(data: Path) -> None:
    class Names(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[float] = []

        def forward(self, network: FusionNetwork, batch: Batch, progress: float) -> Tensor:
            assert not network.training
            self.seen.append(float(batch.thermal.mean()))
            return torch.tensor(len(self.seen), dtype=torch.float32)

    pairs: DataSet = open_data(data, "train")
    means: Callable[[int], float] = lambda index: float(whole_batch(pairs[index], 4).thermal.mean())  # noqa: E731  (short)
    objective = Names()
    assert validation_loss(new_network(), objective, pairs, limit=3) == 2.0, "the mean of 1, 2, 3"
    assert objective.seen == [means(0), means(5), means(11)]
