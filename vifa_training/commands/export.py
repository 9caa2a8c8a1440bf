"""`vifa-train export`: from a training run to a bundle."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from vifa_runtime.provenance import commit, today
from vifa_training.card import model_card
from vifa_training.checkpoint import load_weights
from vifa_training.data import open_data
from vifa_training.evaluation import read_metric_rows
from vifa_training.export import export_bundle
from vifa_training.networks import build_network
from vifa_training.recipe import load_recipe


def export(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    run: Annotated[Path, typer.Option("--run", "-r", help="Folder of the training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle; an older one is replaced.")],
    data: Annotated[
        Optional[Path], typer.Option(help="Folder of the data sets; says how many epochs the steps were.")
    ] = None,
    metrics: Annotated[Optional[Path], typer.Option(help="JSON of vifa-train evaluate, for the card.")] = None,
) -> None:
    """Write the best weights of a run as a bundle.

    Example: vifa-train export nano-fusion --run runs/nano-fusion -o models/nano-fusion
    """
    plan = load_recipe(recipe)
    network = build_network(plan.network, [task.name for task in plan.tasks])
    load_weights(network, run / "best.safetensors")
    rows = read_metric_rows(metrics, plan.name, [task.name for task in plan.tasks]) if metrics else []
    provenance = {
        "data": ", ".join(plan.training),
        "recipe": recipe,
        "seed": plan.schedule.seed,
        "commit": commit(),
        "date": today(),
    }
    if data is not None:
        pairs = sum(len(open_data(data, part)) for part in plan.training)
        provenance["epochs"] = round(plan.schedule.steps * plan.schedule.batch / pairs, 1)
    manifest = {
        "name": plan.name,
        "metrics": rows,
        "licences": dict(plan.licences),
        "provenance": provenance,
    }
    bundle = export_bundle(network, list(plan.tasks), output, manifest, model_card(plan, network, manifest))
    print(f"{output}: {', '.join(bundle.task_names)}, {sum(map(len, bundle.graphs.values())):,} bytes of graphs")
