"""`vifa evaluate --live`: the report of a bag by what a running node makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.report import check_target, evaluate
from vifa_ros.bags.session import EvaluateSettings
from vifa_ros.listening import listening
from vifa_ros.pairing import REUSE_VISIBLE
from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import find_bundle


def evaluate_live(
    path: Path,
    folder: Path,
    node: str,
    bundle: str | None,
    settings: EvaluateSettings,
    wait: float,
    quiet: float,
    on_ready: Callable[[], object] = lambda: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Collect what a running node publishes while a bag is played into it, and report on it as `evaluate` does.

    Ground truth, sources and the pairs that there should be are of the bag; the node's parameters are its own. The end
    is when the last pair has its result, or when nothing came for a while.

    Args:
        path: of the bag.
        folder: of the report.
        node: its full name, such as /vifa.
        bundle: that it runs; None to take the one that its parameter names.
        settings: the node's parameters in them are not looked at.
        wait: seconds for the node, and then for the first image.
        quiet: seconds without a frame or a result after which the bag has ended.
        on_ready: called when results are listened to; the bag may be played from then on.
        on_step: as of `evaluate`.

    Raises:
        BagError: no such node, another bundle than the node's, nothing was played, or as of `evaluate`.
    """
    check_target(folder)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".live-", dir=folder.absolute().parent) as scratch,
        listening(node, quiet) as listener,
    ):
        values = {**settings.values, **listener.find(wait)}
        if values["pairing"] == REUSE_VISIBLE:
            raise BagError("--live: with pairing reuse_visible several results have one stamp; evaluate without --live")
        place = find_bundle(bundle or values["bundle"])
        loaded = load_bundle(place)
        if loaded.name != listener.bundle:
            raise BagError(f"--live: {listener.name} runs {listener.bundle}, not {loaded.name}; give its --bundle")
        wanted = [name for name in values["tasks"] if name] or loaded.task_names
        tasks = [task for task in loaded.tasks if task.name in wanted]
        listener.listen(tasks, Path(scratch), wait)
        on_ready()
        return evaluate(path, folder, [place], replace(settings, values=values, as_published=True), on_step, listener)
