"""`vifa-train stage1`: a bundle's backbone learns new pairs and keeps its key channels."""

import copy
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vifa_runtime.bundle import check_output, load_bundle
from vifa_runtime.models import find_bundle
from vifa_training.backbone_update import layer_drift, write_with_backbone
from vifa_training.bundle_network import network_of
from vifa_training.channels import load_channels
from vifa_training.checkpoint import TrainingError, fingerprint
from vifa_training.commands.add_task import choose_like
from vifa_training.data import open_checked
from vifa_training.distillation.stage1 import WEIGHT
from vifa_training.distillation.stage1 import stage1 as learn
from vifa_training.experiments.schedules import FUSION
from vifa_training.objectives.fusion_loss import FusionWeights

DEFAULT_LOSS = FusionWeights(maximum=20, hot=4, gradient=5, ssim=5, information=4)


def stage1(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of one that ships.")],
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")],
    part: Annotated[list[str], typer.Option(help="New pairs, like cwfid/train; may be given again.")],
    channels: Annotated[
        list[Path], typer.Option(help="Key channels of an earlier data set, of vifa-train channels; one for each.")
    ],
    run: Annotated[Path, typer.Option("--run", "-r", help="Folder of the training; what is there is gone on with.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    preset: Annotated[str, typer.Option(help=f"How long: {', '.join(FUSION)}.")] = "cpu",
    weight: Annotated[float, typer.Option(help="Of Eq. 1 beside the fusion loss.", min=0)] = WEIGHT,
    like: Annotated[
        Optional[str], typer.Option(help="Task whose head is trained with it; the first by default.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for one a core.", min=0)] = 0,
) -> None:
    """Let the shared backbone learn new pairs without labels while its key channels stay what they were (Eq. 1).

    Older tasks see other features after it: the table says how far each layer went. Give each its head anew by
    vifa-train add-task --drop.

    Example: vifa-train stage1 my-bundle --data data --part new --channels old.safetensors -r runs/new -o new-bundle
    """
    if threads:
        torch.set_num_threads(threads)
    if preset not in FUSION:
        raise TrainingError(f"there is no preset {preset!r}; use one of {', '.join(FUSION)}")
    source = load_bundle(find_bundle(bundle))
    check_output(output)
    before, head = network_of(source), choose_like(source, like)
    memories = [load_channels(path, before) for path in channels]
    if memories[-1].backbone != fingerprint(before.backbone):
        raise TrainingError(
            f"{channels[-1]} is of another backbone than {bundle} has; make it again by vifa-train channels, "
            "and give the newest last"
        )
    pairs = open_checked(data, part)
    network = copy.deepcopy(before)
    learn(network, head, pairs, memories, DEFAULT_LOSS, FUSION[preset], run, weight)
    rows = layer_drift(before, network, pairs, memories[-1])
    table = Table(*rows[0], box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console().print(table)
    written = write_with_backbone(source, network, head, part, output)
    print(f"{output}: {', '.join(written.task_names)} on a backbone that learned {', '.join(part)}")
