"""The training loop: seeded, resumable to the same numbers, best-on-validation kept.

    for each step:  draw crops by (seed, step) -> the opponent's turn, if any -> loss -> gradient -> clip -> Adam
    now and then:   mean loss over whole validation pairs -> keep the best, remember where we are

One process or several: under `torchrun` each process works on its share of the same crops, and gradients are averaged.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vifa_training.checkpoint import State, TrainingError, alone_in, save_atomically
from vifa_training.data import Augmentation, Batch, DataSet, draw_batch, whole_batch
from vifa_training.networks import Trainable
from vifa_training.objectives import Objective
from vifa_training.schedule import Schedule

CURVE = "curve.jsonl"
_POINTS = 40  # of a learning curve
_REMEMBER_EVERY = 120.0  # seconds after which a checkpoint is written even between two validations


@dataclass
class Progressed:
    """Where a training stands: what `train` returns and `last.safetensors` remembers.

    Attributes:
        step: steps done.
        best, best_step: lowest validation loss, and when that was.
        ended: why no step is left to do; empty while there is one.
        summed: loss of the steps since the learning curve's last point.
    """

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    ended: str = ""
    summed: float = 0.0


def make_fabric(schedule: Schedule, accelerator: str = "auto") -> Fabric:
    """Devices, processes and precision, as the schedule and `torchrun`'s environment say."""
    local, world = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision={"float32": "32-true", "bfloat16": "bf16-mixed"}[schedule.precision],
    )
    fabric.launch()
    return fabric


def train(
    network: Trainable,
    objective: Objective,
    training: DataSet,
    validation: DataSet | None,
    schedule: Schedule,
    run: Path,
    recipe: str = "",
    augmentation: Augmentation | None = None,
    fabric: Fabric | None = None,
    max_minutes: float = math.inf,
    observe: Callable[[dict[str, float]], None] | None = None,
) -> Progressed:
    """Train a network by an objective; continue where `run` stands, to the same numbers as one unbroken training.

    Args:
        network, objective: with fresh weights, made from the schedule's seed.
        training, validation: crops are drawn from the one; the other is looked at whole. Without the other, the last
            weights are the ones that are kept.
        run: folder of `last.safetensors`, `best.safetensors`, `log.jsonl` and the learning curve, `curve.jsonl`.
        recipe: what else, beside the schedule, makes a training another one.
        augmentation: of the crops.
        fabric: of `make_fabric`; made here where it is missing.
        max_minutes: time after which the training rests; run it again to go on.
        observe: told of every line of the log.

    Raises:
        TrainingError: the loss is not finite, `run` holds another training or one is at work in it, or it cannot be
            written.
        DataError: a sample cannot be read.
    """
    fabric = fabric or make_fabric(schedule)
    if schedule.batch % fabric.world_size:
        raise TrainingError(f"{schedule.batch} crops cannot be shared by {fabric.world_size} processes; change batch")
    if any(side % network.size_multiple for side in schedule.crop_sides):
        shown, multiple = "x".join(map(str, schedule.crop_sides)), network.size_multiple
        raise TrainingError(f"crops of {shown} do not fit the network; change crop to multiples of {multiple}")
    deadline = time.monotonic() + 60 * max_minutes
    with alone_in(run) if fabric.is_global_zero else nullcontext():
        session = _Session(network, objective, training, validation, schedule, run, recipe, augmentation, fabric)
        return session.work(deadline, observe)


@torch.no_grad()
def validation_loss(
    network: Trainable, objective: Objective, pairs: DataSet, progress: float = 1.0, limit: int = 0
) -> float:
    """Mean loss over whole pairs, `limit` of them evenly spread (0 for all); leaves the network in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    count = min(limit or len(pairs), len(pairs))
    indices = np.linspace(0, len(pairs) - 1, count).astype(int)
    batches = (whole_batch(pairs[int(index)], network.size_multiple).to(device) for index in indices)
    return sum(float(objective(network, batch, progress)) for batch in batches) / count


def freeze_norms(network: nn.Module) -> None:
    """Let batch norms use their running statistics, and leave these as they are, until the next `network.train()`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@contextmanager
def estimating_norms(network: nn.Module) -> Iterator[list[nn.BatchNorm2d]]:
    """Batch norms take the plain mean of the statistics of all batches that pass inside; gives these norms.

    The network is in training mode there. Norms that it keeps in evaluation mode even so stay as they are.
    """
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain mean
    with torch.no_grad():
        yield norms
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass
class _Session:
    """One call of `train`: what it works with, and the turns it takes."""

    network: Trainable
    objective: Objective
    training: DataSet
    validation: DataSet | None
    schedule: Schedule
    run: Path
    recipe: str
    augmentation: Augmentation | None
    fabric: Fabric

    def __post_init__(self) -> None:
        network = self.network.to(self.fabric.device, memory_format=torch.channels_last)  # is faster
        objective, schedule, fabric = self.objective.to(self.fabric.device), self.schedule, self.fabric
        augmentation = asdict(self.augmentation) if self.augmentation else None
        self.identity = json.dumps([asdict(schedule), self.recipe, augmentation], sort_keys=True)
        self.optimiser = torch.optim.Adam(network.parameter_groups(), lr=schedule.learning_rate)
        opponent = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self.opponent = torch.optim.Adam(opponent, lr=schedule.learning_rate) if opponent else None
        average = get_ema_multi_avg_fn(schedule.ema)
        self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if schedule.ema else None
        for trained in (network, self.average.module if self.average else network):
            trained.precision = fabric.autocast  # of the network alone: losses are differences of near numbers
        modules = {"network": network, "objective": objective} | ({"average": self.average} if self.average else {})
        optimisers = {"optimiser": self.optimiser} | ({"opponent": self.opponent} if self.opponent else {})
        self.state = State(modules, optimisers)
        self.progressed = Progressed(**self.state.load(self.run / "last.safetensors", self.identity))
        for name in ("log.jsonl", CURVE):
            _trim_log(self.run / name, self.progressed.step)

    def work(self, deadline: float, observe: Callable[[dict[str, float]], None] | None) -> Progressed:
        """Take steps until there is none left, or the deadline (of `time.monotonic`) has passed."""
        done, schedule = self.progressed, self.schedule
        self.objective.prepare(self._draw, self._say)
        remembered = time.monotonic()
        with _progress_bar(self.fabric.is_global_zero) as bar:
            shown = bar.add_task("", total=schedule.steps, completed=done.step)
            while not done.ended and time.monotonic() < deadline:
                loss = self._step()
                done.step += 1
                self._draw_curve(loss)
                bar.update(shown, completed=done.step, description=f"loss {loss:.3f}")
                if done.step % schedule.validate_every == 0 or done.step == schedule.steps:
                    row = self._validate(loss)
                    if observe is not None and self.fabric.is_global_zero:
                        observe(row)
                    remembered = time.monotonic()
                elif time.monotonic() - remembered > _REMEMBER_EVERY:
                    self._remember()
                    remembered = time.monotonic()
        if not done.ended:
            self._remember()
            self._say(f"the time is over at step {done.step} of {schedule.steps}; run the same command to go on")
        return done

    def _step(self) -> float:
        """One step, the opponent's turn first; returns the loss."""
        step = self.progressed.step
        progress = step / self.schedule.steps
        self.network.train()
        if progress >= self.schedule.freeze_norms:
            freeze_norms(self.network)
        batch = _share(self._draw(step), self.fabric.global_rank, self.fabric.world_size).to(self.fabric.device)
        if self.opponent is not None:
            loss = self.objective.opponent_loss(self.network, batch, progress)
            if loss is not None:
                self._descend(self.opponent, loss, "the opponent's loss")
        loss = self.objective(self.network, batch, progress)
        value = self._descend(self.optimiser, loss, "the loss")
        if self.average is not None:
            self.average.update_parameters(self.network)
        return value

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor, what: str) -> float:
        """One step of an optimiser along the gradient of `loss`, averaged over all processes."""
        step = self.progressed.step
        value = float(self.fabric.all_reduce(loss.detach(), reduce_op="mean"))
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} became {value} at step {step}; lower the learning rate: the last checkpoint is kept"
            )
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        if self.fabric.world_size > 1:
            flat = self.fabric.all_reduce(torch.cat([p.grad.reshape(-1) for p in parameters]), reduce_op="mean")
            for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)
        torch.nn.utils.clip_grad_norm_(parameters, self.schedule.clip)
        for group in optimiser.param_groups:
            group["lr"] = self.schedule.rate(step) * group.get("share", 1.0)
        optimiser.step()
        return value

    def _draw(self, step: int) -> Batch:
        """The crops of a step; what torch draws after them, like a dropout, is the same whenever the step is done."""
        rng = np.random.default_rng([self.schedule.seed, step % 2**32])
        batch = draw_batch(self.training, self.schedule.batch, self.schedule.crop, rng, self.augmentation)
        torch.manual_seed(int(rng.integers(2**63)))
        return batch

    def _validate(self, loss: float) -> dict[str, float]:
        """Look at the validation pairs, keep the best weights, write the log and the checkpoint."""
        done, schedule = self.progressed, self.schedule
        network = self.network if self.average is None else self.average.module
        progress = done.step / schedule.steps
        if schedule.norm_batches:
            self._estimate_norms(network, progress)
        row = {"step": done.step, "loss": loss, "learning_rate": schedule.rate(done.step - 1)}
        if self.validation is not None:
            pairs = schedule.validation_pairs
            row["validation"] = validation_loss(network, self.objective, self.validation, progress, pairs)
        if self.validation is None or row["validation"] < done.best:
            done.best, done.best_step = row.get("validation", math.inf), done.step
            if self.fabric.is_global_zero:
                save_atomically(network.state_dict(), self.run / "best.safetensors", {"step": str(done.step)})
        if done.step == schedule.steps:
            done.ended = "all steps are done"
        elif schedule.patience and done.step - done.best_step >= schedule.patience * schedule.validate_every:
            done.ended = f"no gain since step {done.best_step}"
        self._log("log.jsonl", row)
        self._remember()
        told = "".join(f", {key} {row[key]:.4f}" for key in ("loss", "validation") if key in row)
        self._say(f"step {done.step}/{schedule.steps}: {told[2:]}")
        return row

    def _draw_curve(self, loss: float) -> None:
        """Add a step's loss; now and then, a point with the mean of all since the point before."""
        done, stretch = self.progressed, max(1, self.schedule.steps // _POINTS)
        done.summed += loss
        if done.step % stretch == 0:
            self._log(CURVE, {"step": done.step, "loss": done.summed / stretch})
            done.summed = 0.0

    def _log(self, name: str, row: dict[str, float]) -> None:
        if self.fabric.is_global_zero:
            with (self.run / name).open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _estimate_norms(self, network: Trainable, progress: float) -> None:
        """Give the batch norms the mean statistics of some training batches, the same whenever it is asked."""
        with estimating_norms(network) as norms:
            for index in range(self.schedule.norm_batches if norms else 0):
                self.objective(network, self._draw(-1 - index).to(self.fabric.device), progress)

    def _remember(self) -> None:
        if self.fabric.is_global_zero:
            self.state.save(self.run / "last.safetensors", self.identity, asdict(self.progressed))

    def _say(self, text: str) -> None:
        self.fabric.print(text, flush=True)


def _share(batch: Batch, rank: int, world: int) -> Batch:
    """The samples of one process: every `world`-th, from `rank` on."""
    if world == 1:
        return batch
    mine = slice(rank, None, world)
    return replace(
        batch,
        visible=batch.visible[mine],
        thermal=batch.thermal[mine],
        boxes=None if batch.boxes is None else batch.boxes[mine],
        labels=None if batch.labels is None else batch.labels[mine],
        mask=None if batch.mask is None else batch.mask[mine],
        fused=None if batch.fused is None else batch.fused[mine],
        tags=batch.tags[mine],
        names=batch.names[mine],
    )


def _progress_bar(shown: bool) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    last = TextColumn("{task.description}")
    return Progress(TextColumn("training"), *columns, last, console=Console(stderr=True), disable=not shown)


def _trim_log(path: Path, step: int) -> None:
    """Drop rows written after the last checkpoint, so that a resumed training logs each step once."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in rows))
