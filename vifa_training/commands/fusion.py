"""`vifa-train fusion`: train a fusion network by a recipe."""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track

from vifa_training.commands.options import Threads, use_threads
from vifa_training.data import open_checked
from vifa_training.networks import build_network, count_parameters
from vifa_training.recipe import load_recipe
from vifa_training.tensorboard import tensorboard_writer
from vifa_training.trainer import make_fabric, train


def fusion(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    data: Annotated[Path, typer.Option(help="Folder that holds the recipe's data sets.")],
    run: Annotated[
        Path, typer.Option("--run", "-r", help="Folder of checkpoints and log; a training in it is gone on with.")
    ],
    max_minutes: Annotated[float, typer.Option(help="Rest after so long; run again to go on.", min=0)] = math.inf,
    threads: Threads = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Write curves for TensorBoard into the run's folder.")] = False,
) -> None:
    """Train a fusion network; run it again to resume, and under torchrun on several devices or machines.

    Example: vifa-train fusion nano-fusion --data ../shared/data --run runs/nano-fusion
    """
    plan = load_recipe(recipe)
    use_threads(threads)
    torch.manual_seed(plan.schedule.seed)
    fabric = make_fabric(plan.schedule, accelerator)
    network = build_network(plan.network, [task.name for task in plan.tasks])
    objective = plan.build_objective()
    training, validation = (
        open_checked(data, parts, track=_tracked(name, fabric.is_global_zero))
        for name, parts in (("training", plan.training), ("validation", plan.validation))
    )
    fabric.print(
        f"{plan.network}: {count_parameters(network):,} parameters; "
        f"{len(training)} training and {len(validation)} validation pairs"
    )
    with ExitStack() as stack:
        observe = stack.enter_context(tensorboard_writer(run)) if tensorboard else None
        done = train(
            network,
            objective,
            training,
            validation,
            plan.schedule,
            run,
            plan.identity,
            fabric=fabric,
            max_minutes=max_minutes,
            observe=observe,
        )
    if math.isfinite(done.best):
        fabric.print(f"best validation loss {done.best:.4f} at step {done.best_step}: {run / 'best.safetensors'}")


def _tracked(name: str, shown: bool) -> Callable[[Iterable], Iterable]:
    return lambda items: track(items, description=f"reading {name} pairs", disable=not shown, transient=True)
