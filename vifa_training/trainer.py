"""The training loop: seeded, resumable to the same numbers, best-on-validation kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from vifa_training.data import PairFolder
from vifa_training.objectives import FusionWeights, fusion_loss
from vifa_training.networks import FusionNetwork


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says why and what still stands."""


@dataclass(frozen=True)
class Schedule:
    """How long and in what portions to train.

    Attributes:
        steps: optimiser steps in all; the learning rate falls to zero over them by a half cosine.
        batch: crops a step.
        crop: side of a square crop, pixels.
        learning_rate: Adam's, at the first step.
        validate_every: steps between two looks at the validation pairs (and two checkpoints).
        clip: largest gradient norm.
        seed: of weights and crops.
    """

    steps: int
    batch: int = 8
    crop: int = 128
    learning_rate: float = 1e-3
    validate_every: int = 500
    clip: float = 1.0
    seed: int = 0


@dataclass
class Progressed:
    """Where a training stands: what `train` returns and `last.safetensors` remembers."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0


def train_fusion(
    network: FusionNetwork,
    training: PairFolder,
    validation: PairFolder,
    tasks: Mapping[str, FusionWeights],
    schedule: Schedule,
    run: Path,
    report: Callable[[str], None] = print,
) -> Progressed:
    """Train backbone and heads together by the sum of their tasks' fusion losses.

    Continues from `run/last.safetensors` where it exists, to the same numbers as one unbroken training: crops depend
    on the seed and the step alone. Writes `last.safetensors`, `best.safetensors` and `log.jsonl` into `run`.

    Raises:
        TrainingError: the loss is not finite, or `run` holds a training by another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    recipe = json.dumps([asdict(schedule), {task: asdict(w) for task, w in tasks.items()}], sort_keys=True)
    network.to(memory_format=torch.channels_last)  # convolutions on a CPU take up to 1.7 times less time so
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    progressed = _resume(run / "last.safetensors", network, optimiser, recipe)
    _trim_log(run / "log.jsonl", progressed.step)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(TextColumn("training"), *columns, TextColumn("{task.description}")) as bar:
        shown = bar.add_task("", total=schedule.steps, completed=progressed.step)
        while progressed.step < schedule.steps:
            loss = _step(network, optimiser, training, tasks, schedule, progressed.step)
            progressed.step += 1
            bar.update(shown, completed=progressed.step)
            if progressed.step % schedule.validate_every == 0 or progressed.step == schedule.steps:
                score = validation_loss(network, validation, tasks)
                bar.update(shown, description=f"loss {loss:.3f} validation {score:.3f}")
                report(f"step {progressed.step}/{schedule.steps}: loss {loss:.4f}, validation {score:.4f}")
                if score < progressed.best:
                    progressed.best, progressed.best_step = score, progressed.step
                    save_atomically(network.state_dict(), run / "best.safetensors", {"step": str(progressed.step)})
                _log(run / "log.jsonl", {"step": progressed.step, "loss": loss, "validation": score})
                _checkpoint(run / "last.safetensors", network, optimiser, recipe, progressed)
    return progressed


@torch.no_grad()
def validation_loss(network: FusionNetwork, pairs: PairFolder, tasks: Mapping[str, FusionWeights]) -> float:
    """Mean over whole pairs (cropped to the network's size multiple) of the sum of all tasks' losses."""
    network.eval()
    total = 0.0
    for index in range(len(pairs)):
        visible, thermal = (_as_input(image, network.size_multiple) for image in pairs[index])
        fused = network(visible, thermal)
        total += sum(float(fusion_loss(fused[task], visible, thermal, w)) for task, w in tasks.items())
    network.train()
    return total / len(pairs)


def save_atomically(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path`, then rename it into place."""
    beside = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, metadata)
    beside.replace(path)


def load_weights(network: FusionNetwork, path: Path) -> None:
    """Load weights that `train_fusion` wrote.

    Raises:
        TrainingError: no such file, or it belongs to another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read {path} ({error}); train first") from None
    except RuntimeError as error:
        raise TrainingError(f"{path} holds another network: {str(error).splitlines()[-1].strip()}") from None


def _step(
    network: FusionNetwork,
    optimiser: torch.optim.Adam,
    training: PairFolder,
    tasks: Mapping[str, FusionWeights],
    schedule: Schedule,
    step: int,
) -> float:
    rate = 0.5 * schedule.learning_rate * (1 + math.cos(math.pi * step / schedule.steps))
    for group in optimiser.param_groups:
        group["lr"] = rate
    visible, thermal = training.crops(schedule.batch, schedule.crop, np.random.default_rng([schedule.seed, step]))
    fused = network(visible, thermal)
    loss = torch.stack([fusion_loss(fused[task], visible, thermal, w) for task, w in tasks.items()]).sum()
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss became {loss.item()} at step {step}; lower the learning rate and resume")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
    optimiser.step()
    return float(loss.detach())


def _as_input(image: np.ndarray, multiple: int) -> Tensor:
    height, width = (side // multiple * multiple for side in image.shape)
    return torch.from_numpy(image[:height, :width]).reshape(1, 1, height, width)


def _checkpoint(
    path: Path, network: FusionNetwork, optimiser: torch.optim.Adam, recipe: str, progressed: Progressed
) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    save_atomically(tensors, path, {"recipe": recipe, "progressed": json.dumps(asdict(progressed))})


def _resume(path: Path, network: FusionNetwork, optimiser: torch.optim.Adam, recipe: str) -> Progressed:
    if not path.exists():
        return Progressed()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["recipe"] != recipe:
        raise TrainingError(f"{path} belongs to a training by another recipe; choose another run folder")
    tensors = load_file(path)
    network.load_state_dict(
        {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
    )
    state = optimiser.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)
    return Progressed(**json.loads(metadata["progressed"]))


def _log(path: Path, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _trim_log(path: Path, step: int) -> None:
    """Drop rows written after the last checkpoint, so that a resumed training logs each step once."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in rows))
