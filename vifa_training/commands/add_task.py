"""`vifa-train reference`, `stage2` and `add-task`: from a bundle and labelled pairs to a bundle with one more task."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.models import find_bundle
from vifa_training.add_task import (
    check_addition,
    choose_like,
    learn_head,
    learn_reference,
    measure,
    write_with_task,
)
from vifa_training.backbone_update import plan_update, update_backbone
from vifa_training.bundle_network import network_of
from vifa_training.checkpoint import TrainingError
from vifa_training.commands.options import BundleName, Channels, Older, Threads, use_threads
from vifa_training.commands.stage1 import show_update
from vifa_training.data import DataSet
from vifa_training.objectives.fusion_loss import FusionWeights
from vifa_training.task_data import open_labelled
from vifa_training.task_recipe import PRESETS, TaskRecipe, load_task_recipe

Recipe = Annotated[str, typer.Argument(help="A task recipe file, or the name of a shipped one (msrs-detection).")]
Data = Annotated[Path, typer.Option(help="Folder that holds the recipe's data sets.")]
Run = Annotated[Path, typer.Option("--run", "-r", help="Folder of the trainings; what is there is gone on with.")]
Preset = Annotated[str, typer.Option(help=f"How long: {', '.join(PRESETS)}.")]
Like = Annotated[Optional[str], typer.Option(help="Task whose head the reference starts from; the first by default.")]
Drop = Annotated[str, typer.Option(help="Tasks to leave out of the new bundle, with commas between.")]


def reference(
    bundle: BundleName,
    recipe: Recipe,
    data: Data,
    run: Run,
    preset: Preset = "cpu",
    like: Like = None,
    threads: Threads = 0,
) -> None:
    """Train the reference model of a task: the whole fusion network and the task network as one (Eq. 2).

    Example: vifa-train reference nano-fusion msrs-detection --data ../shared/data --run runs/msrs
    """
    source, plan, pairs = _open(bundle, recipe, data, threads)
    learn_reference(network_of(source), choose_like(source, like), plan, plan.preset(preset), pairs, run)
    print(f"{run / 'reference/best.safetensors'} holds the reference model; vifa-train stage2 teaches a head by it")


def stage2(
    bundle: BundleName,
    recipe: Recipe,
    data: Data,
    run: Run,
    preset: Preset = "cpu",
    like: Like = None,
    drop: Drop = "",
    threads: Threads = 0,
) -> None:
    """Teach a thin head on the bundle's frozen backbone what the reference model fuses (Eq. 3).

    Example: vifa-train stage2 nano-fusion msrs-detection --data ../shared/data --run runs/msrs
    """
    if not (run / "reference/best.safetensors").exists():
        raise TrainingError(f"{run} holds no reference model; run vifa-train reference first")
    source, plan, pairs = _open(bundle, recipe, data, threads)
    check_addition(source, plan, _names(drop))
    network, schedules = network_of(source), plan.preset(preset)
    model = learn_reference(network, choose_like(source, like), plan, schedules, pairs, run)
    learn_head(network, plan, schedules, model, pairs, run)
    print(f"{run / 'stage2/best.safetensors'} holds the head; vifa-train add-task puts it into a bundle")


def add_task(
    bundle: BundleName,
    recipe: Recipe,
    data: Data,
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    preset: Preset = "cpu",
    like: Like = None,
    drop: Drop = "",
    train_backbone: Annotated[
        bool, typer.Option("--train-backbone", help="Let the backbone learn the new pairs first (stage 1, Eq. 1).")
    ] = False,
    channels: Channels = None,
    older: Older = None,
    threads: Threads = 0,
) -> None:
    """Add a task to a bundle; its backbone and the graphs of its other tasks stay byte for byte as they are.

    With --train-backbone the backbone changes, and a table says what that cost the older tasks.

    Example: vifa-train add-task nano-fusion msrs-detection --data ../shared/data --run runs/msrs -o my-bundle
    """
    source, plan, pairs = _open(bundle, recipe, data, threads)
    left_out = _names(drop)
    check_addition(source, plan, left_out, output)
    validation = open_labelled(data, plan.validation, plan)
    schedules = plan.preset(preset)
    if train_backbone:
        update = plan_update(
            source, like, channels or [], older or [], preset, FusionWeights(**plan.fusion_loss), left_out
        )
        source = update_backbone(update, pairs, [plan.training], data, run / "stage1", run / "backbone", show_update)
    elif channels or older:
        raise TrainingError("--channels and --older go with --train-backbone; leave them out, or give it too")
    network = network_of(source)
    model = learn_reference(network, choose_like(source, like), plan, schedules, pairs, run)
    learn_head(network, plan, schedules, model, pairs, run)
    metrics = measure(network, model.task, plan, validation)
    written = write_with_task(source, network, model.task, plan, output, metrics, left_out)
    shown = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in metrics)
    print(f"{output}: {', '.join(written.task_names)}; {plan.task} on {plan.validation}: {shown}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _open(bundle: str, recipe: str, data: Path, threads: int) -> tuple[Bundle, TaskRecipe, DataSet]:
    use_threads(threads)
    source, plan = load_bundle(find_bundle(bundle)), load_task_recipe(recipe)
    return source, plan, open_labelled(data, plan.training, plan)
