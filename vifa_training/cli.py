"""The `vifa-train` command."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer

from vifa_runtime.bundle import BundleError
from vifa_runtime.pairs import PairError
from vifa_runtime.provenance import commit, today
from vifa_training.card import model_card
from vifa_training.data import PairFolder
from vifa_training.export import export_bundle
from vifa_training.networks import build_network
from vifa_training.recipe import Recipe, RecipeError, load_recipe
from vifa_training.trainer import TrainingError, load_weights, train_fusion

app = typer.Typer(
    help="Train visible-infrared fusion networks and export them as bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")]
RunOption = Annotated[Path, typer.Option("--run", "-r", help="Folder of checkpoints and log; resumed where it exists.")]


@app.command()
def fusion(
    recipe: RecipeArgument,
    data: Annotated[Path, typer.Option(help="Folder that holds the recipe's data sets.")],
    run: RunOption,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for one a core.")] = 0,
) -> None:
    """Train a fusion network by its unsupervised loss.

    Example: vifa-train fusion nano-fusion --data ../shared/data --run runs/nano-fusion
    """
    plan = load_recipe(recipe)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(plan.schedule.seed)
    network = build_network(plan.network, [task.name for task in plan.tasks])
    training, validation = PairFolder(data, plan.training), PairFolder(data, plan.validation)
    print(
        f"{plan.network}: {sum(p.numel() for p in network.parameters()):,} parameters; "
        f"{len(training)} training and {len(validation)} validation pairs"
    )
    weights = {task.name: weight for task, weight in plan.tasks.items()}
    done = train_fusion(network, training, validation, weights, plan.schedule, run)
    print(f"best validation loss {done.best:.4f} at step {done.best_step}: {run / 'best.safetensors'}")


@app.command()
def export(
    recipe: RecipeArgument,
    run: RunOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle; an older one is replaced.")],
    metrics: Annotated[Optional[Path], typer.Option(help="JSON of benchmarks/fusion_quality.py, for the card.")] = None,
) -> None:
    """Write the best weights of a run as a bundle.

    Example: vifa-train export nano-fusion --run runs/nano-fusion -o models/nano-fusion
    """
    plan = load_recipe(recipe)
    network = build_network(plan.network, [task.name for task in plan.tasks])
    load_weights(network, run / "best.safetensors")
    rows = _read_rows(metrics, plan) if metrics else []
    manifest = {
        "name": plan.name,
        "metrics": [{key: row[key] for key in ("data", "task", "metric", "value")} for row in rows],
        "licences": dict(plan.licences),
        "provenance": {
            "data": ", ".join(plan.training),
            "recipe": recipe,
            "seed": plan.schedule.seed,
            "commit": commit(),
            "date": today(),
        },
    }
    card = model_card(plan, network, manifest)
    bundle = export_bundle(network, list(plan.tasks), output, manifest, card)
    print(f"{output}: {', '.join(bundle.task_names)}, {sum(map(len, bundle.graphs.values())):,} bytes of graphs")


def _read_rows(path: Path, plan: Recipe) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text())["rows"]
        return [row for row in rows if row["task"] in {task.name for task in plan.tasks}]
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{path} is no metrics file ({error}); run benchmarks/fusion_quality.py") from None


def main() -> None:
    """Run the command; errors that a user can mend are one line and exit code 1."""
    try:
        app()
    except (RecipeError, PairError, TrainingError, BundleError) as error:
        print(f"vifa-train: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
