"""`vifa-train stage1`: a bundle's backbone learns new pairs and keeps its key channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vifa_runtime.bundle import check_new_bundle, load_bundle
from vifa_runtime.models import find_bundle
from vifa_training.backbone_update import plan_update, update_backbone
from vifa_training.commands.options import BundleName, Channels, Data, Older, Threads, use_threads
from vifa_training.data import open_checked
from vifa_training.distillation.stage1 import WEIGHT
from vifa_training.experiments.schedules import FUSION
from vifa_training.objectives.fusion_loss import FusionWeights

DEFAULT_LOSS = FusionWeights(maximum=20, hot=4, gradient=5, ssim=5, information=4)


def stage1(
    bundle: BundleName,
    data: Data,
    part: Annotated[list[str], typer.Option(help="New pairs, like cwfid/train; may be given again.")],
    run: Annotated[Path, typer.Option("--run", "-r", help="Folder of the training; what is there is gone on with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    channels: Channels = None,
    older: Older = None,
    preset: Annotated[str, typer.Option(help=f"How long: {', '.join(FUSION)}.")] = "cpu",
    weight: Annotated[float, typer.Option(help="Of Eq. 1 beside the fusion loss.", min=0)] = WEIGHT,
    like: Annotated[
        Optional[str], typer.Option(help="Task whose head is trained with it; the first by default.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Let the shared backbone learn new pairs without labels while its key channels stay what they were (Eq. 1).

    Older tasks see other features after it: tables say how far each layer went, and what older tasks lose. Give each
    its head anew by vifa-train add-task --drop.

    Example: vifa-train stage1 my-bundle --data data --part new --channels old.safetensors -r runs/new -o new-bundle
    """
    use_threads(threads)
    source = load_bundle(find_bundle(bundle))
    check_new_bundle(output)
    update = plan_update(source, like, channels or [], older or [], preset, DEFAULT_LOSS, weight=weight)
    written = update_backbone(update, open_checked(data, part), part, data, run, output, show_update)
    print(f"{output}: {', '.join(written.task_names)} on a backbone that learned {', '.join(part)}")


def show_update(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what changed; nothing where there is no row."""
    if not rows:
        return
    table = Table(*rows[0], title=title, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console().print(table)
