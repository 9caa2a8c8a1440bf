"""`vifa-train import-weights`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from vifa_training.import_weights import DEFAULT_TASK, bundle_imported, import_network, save_imported
from vifa_training.networks import count_parameters
from vifa_training.published_checkpoint import WeightsError


def import_weights(
    network: Annotated[str, typer.Argument(help="didfuse, piafusion, swinfusion or tardal.")],
    checkpoint: Annotated[list[Path], typer.Argument(help="The authors' file; of didfuse, encoder and decoder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    tasks: Annotated[
        str, typer.Option(help="Tasks, with commas between; each gets the published head.")
    ] = DEFAULT_TASK,
    bundle: Annotated[Optional[Path], typer.Option(help="Folder of a bundle to export as well.")] = None,
    licence: Annotated[Optional[str], typer.Option(help="Licence of the weights, as their authors state it.")] = None,
) -> None:
    """Take over the weights that a network's authors published. Nothing in their files is executed.

    Example: vifa-train import-weights didfuse Encoder.pkl Decoder.pkl -o runs/didfuse.safetensors --tasks people,cars
    """
    if bundle and not licence:
        raise WeightsError("--bundle needs --licence: who runs a bundle must know under which terms its weights came")
    imported = import_network(network, checkpoint, [task.strip() for task in tasks.split(",")])
    save_imported(imported, output)
    for reason in dict.fromkeys(imported.dropped.values()):
        names = [name for name, why in imported.dropped.items() if why == reason]
        print(f"left out, {reason}: {', '.join(names)}")
    for remark in imported.remarks:
        print(f"note: {remark}")
    heads = ", ".join(imported.network.heads)
    print(f"{output}: {network}, {count_parameters(imported.network):,} parameters, tasks {heads}")
    if bundle and licence:
        written = bundle_imported(imported, bundle, licence)
        print(f"{bundle}: {', '.join(written.task_names)}, {sum(map(len, written.graphs.values())):,} bytes of graphs")
