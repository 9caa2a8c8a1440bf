"""The `vifa-train` command: every file of `commands/` is one of its commands."""

import sys

import typer

from vifa_runtime.backends import BackendError
from vifa_runtime.bundle import BundleError
from vifa_runtime.pairs import PairError
from vifa_training.checkpoint import TrainingError
from vifa_training.commands.add_task import add_task, reference, stage2
from vifa_training.commands.channels import channels
from vifa_training.commands.efficiency import EfficiencyError, efficiency
from vifa_training.commands.evaluate import evaluate
from vifa_training.commands.export import export
from vifa_training.commands.fusion import fusion
from vifa_training.commands.import_weights import import_weights
from vifa_training.commands.prepare import prepare
from vifa_training.commands.sequences import app as experiment
from vifa_training.commands.sequences import baseline
from vifa_training.commands.stage1 import stage1
from vifa_training.efficiency.plot import PlotError
from vifa_training.evaluation import EvaluationError
from vifa_training.published_checkpoint import WeightsError
from vifa_training.recipe import RecipeError
from vifa_training.tasks import TaskNetworkError

app = typer.Typer(
    help="Train visible-infrared fusion networks, measure them and export them as bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
MENDABLE = (
    *(RecipeError, PairError, TrainingError, BundleError, BackendError),
    *(WeightsError, EvaluationError, EfficiencyError, PlotError, TaskNetworkError),
)
COMMANDS = (
    *(prepare, fusion, export, channels, stage1, reference, stage2, add_task, baseline),
    *(evaluate, efficiency, import_weights),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(experiment, name="experiment")


def main() -> None:
    """Run the command; errors that a user can mend are one line and exit code 1."""
    try:
        app()
    except MENDABLE as error:
        print(f"vifa-train: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
