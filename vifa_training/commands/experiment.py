"""`vifa-train experiment`: the paper's comparisons on folds of real data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vifa_runtime.files import write_json
from vifa_training.checkpoint import TrainingError
from vifa_training.commands.options import Data, Threads, use_threads, with_options
from vifa_training.experiments import DEFAULT_TASKS
from vifa_training.experiments.head_depth import run_head_depth
from vifa_training.experiments.report import print_rows, run_meta, task_rows
from vifa_training.experiments.schedules import FUSION
from vifa_training.experiments.tasks import SHARED, TasksExperiment, run_fold
from vifa_training.networks import NETWORKS
from vifa_training.task_recipe import PRESETS, load_task_recipe

app = typer.Typer(
    help="Run one of the paper's comparisons; run it again to go on where it stopped.", no_args_is_help=True
)

Network = Annotated[str, typer.Argument(help=f"A fusion network: {', '.join(NETWORKS)}.")]
Run = Annotated[Path, typer.Option("--run", "-r", help="Folder of all trainings; what is there is not done again.")]
TaskNames = Annotated[str, typer.Option("--task", help="Task recipes, with commas between.")]
Preset = Annotated[str, typer.Option(help=f"How long: {', '.join(PRESETS)}.")]
Folds = Annotated[int, typer.Option(help="Contiguous blocks, each held out once.", min=2)]
OnlyFold = Annotated[int, typer.Option(help="Do this fold alone and no table; 0 for all.", min=0)]
MorePairs = Annotated[str, typer.Option(help="Parts without labels for the shared backbone.")]
Json = Annotated[Optional[Path], typer.Option("--json", help="Write the rows as JSON.")]


@dataclass(frozen=True)
class ExperimentOptions:
    """What every experiment is asked for."""

    network: Network
    data: Data
    run: Run
    task: TaskNames = DEFAULT_TASKS
    preset: Preset = "cpu"
    folds: Folds = 4
    more_pairs: MorePairs = "roadscene@train"
    threads: Threads = 0

    def make_experiment(self) -> TasksExperiment:
        """The experiment that they describe; see `make_experiment`."""
        return make_experiment(**vars(self))

    def chosen_folds(self, only_fold: int) -> Sequence[int]:
        """The folds to work on: that one, or all where it is 0."""
        return [only_fold] if only_fold else range(1, self.folds + 1)


@app.command()
@with_options
def tasks(options: ExperimentOptions, only_fold: OnlyFold = 0, json: Json = None) -> None:
    """Visible, thermal and average alone, Base, Ref and VIFA on the same folds for as many steps.

    Example: vifa-train experiment tasks nano --data ../shared/data --run runs/tasks --json docs/results/tasks.json
    """
    experiment = options.make_experiment()
    for fold in options.chosen_folds(only_fold):
        run_fold(experiment, fold)
    if not only_fold:
        pool_folds(experiment, json, "vifa-train experiment tasks")


@app.command()
@with_options
def head_depth(
    options: ExperimentOptions,
    fold: Annotated[int, typer.Option(help="The block that is held out.", min=1)] = 1,
    depths: Annotated[str, typer.Option(help="Layers of the head, with commas between.")] = "1,2,3,4,5",
    json: Json = None,
) -> None:
    """The paper's Figure 4: task performance by the number of task-specific layers.

    Example: vifa-train experiment head-depth nano --data ../shared/data --run runs/tasks
    """
    experiment = options.make_experiment()
    rows = run_head_depth(experiment, fold, _parse_depths(depths))
    report_rows(experiment, rows, json, "vifa-train experiment head-depth")


def pool_folds(experiment: TasksExperiment, json: Optional[Path], command: str) -> None:
    """Print what the held-out folds give together, and write it where it is wanted."""
    report_rows(experiment, task_rows(experiment), json, command)


def report_rows(
    experiment: TasksExperiment, rows: Sequence[dict[str, Any]], json: Optional[Path], command: str
) -> None:
    """Print rows, and write them where that is wanted.

    Raises:
        TrainingError: the file cannot be written.
    """
    print_rows(rows)
    if json is None:
        return
    try:
        write_json(json, {"meta": run_meta(command, experiment), "rows": rows})
    except OSError as error:
        raise TrainingError(f"cannot write {json}: {error.strerror}; choose another file and run again") from None


def make_experiment(
    network: str, data: Path, run: Path, task: str, preset: str, folds: int, more_pairs: str = "", threads: int = 0
) -> TasksExperiment:
    """The experiment that the options describe.

    Raises:
        TrainingError, RecipeError: it cannot be run so.
    """
    use_threads(threads)
    if network not in NETWORKS:
        raise TrainingError(f"no fusion network is called {network!r}; use one of {', '.join(NETWORKS)}")
    if folds < 2:
        raise TrainingError(f"--folds must be 2 or more, got {folds}")
    recipes = [load_task_recipe(name.strip()) for name in task.split(",")]
    if len({recipe.name for recipe in recipes}) != len(recipes):
        raise TrainingError(f"two task recipes of {task} share a name; give each once")
    if len({recipe.task for recipe in recipes}) != len(recipes):
        raise TrainingError(f"two task recipes of {task} are of one task; rename it in one of the files")
    for recipe in recipes:
        recipe.preset(preset)
        if recipe.task == SHARED:
            raise TrainingError(f"recipe {recipe.name}: the backbone's own head is called {SHARED}; rename the task")
    if preset not in FUSION:
        raise TrainingError(f"no shared backbone is trained by preset {preset!r}; use one of {', '.join(FUSION)}")
    more = [part for part in more_pairs.split(",") if part]
    return TasksExperiment(network, recipes, preset, FUSION[preset], more, folds, data, run)


def _parse_depths(text: str) -> list[int]:
    try:
        depths = [int(depth) for depth in text.split(",")]
    except ValueError:
        depths = []
    if not depths or min(depths) < 1:
        raise TrainingError(f"--depths must be whole numbers of 1 or more with commas between, got {text!r}")
    return sorted(set(depths))
