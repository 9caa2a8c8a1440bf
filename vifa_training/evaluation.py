"""How good bundles are beside the trivial baselines, measured by pair as on a robot's bag (`vifa_runtime.scoring`).

Rows are `{data, split, network, metric, value, epochs, task, pairs, bundle}`. A bundle has rows for every task; the
baselines have neither task nor bundle, and 0 epochs. Metrics of fused images are means over the pairs; where a part of
the data has labels for a task, its boxes and masks are measured too, over all labelled pairs together.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle
from vifa_runtime.files import write_atomically
from vifa_runtime.label_folder import LabelFolder
from vifa_runtime.metrics import ImageMatches
from vifa_runtime.metrics.buffers import Buffers
from vifa_runtime.pairs import PARTS, PairError, PairPaths, find_part, read_thermal, read_visible
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.processes import map_in_processes
from vifa_runtime.scoring import (
    EXTENDED_METRICS,
    Sources,
    TaskScore,
    detection_values,
    for_evaluation,
    gray_levels,
    gray_thermal,
    measure_pair,
    segmentation_values,
)

BASELINES = ("average", "maximum", "visible", "thermal")
METRICS = EXTENDED_METRICS
_CHUNK = 4  # pairs a process takes at once: preparing the engines again for the next ones takes little beside it


class EvaluationError(ValueError):
    """Bundles, pairs or result files that cannot be evaluated; the message names them and the mend."""


@dataclass(frozen=True)
class Method:
    """What fused an image: one task of a bundle, or a baseline.

    Attributes:
        network: the bundle's network, or the baseline's name.
        task, bundle: names; None for a baseline.
        epochs: how long the network was trained, where the bundle's provenance says so; 0 for a baseline.
        classes: names of what the task finds, in the order of labels.
    """

    network: str
    task: str | None = None
    bundle: str | None = None
    epochs: float | None = 0
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageScore:
    """Every metric of one fused image.

    Attributes:
        data, split: the data set and which part of it: train, val, test or all.
        image: name of the pair.
        values: metric of the fused image -> value.
        matches, confusion: of what was found in it; None where the image has no labels for the task.
    """

    data: str
    split: str
    image: str
    method: Method
    values: Mapping[str, float]
    matches: ImageMatches | None = field(default=None, compare=False)
    confusion: NDArray[np.int64] | None = field(default=None, compare=False)


def evaluate(
    bundles: Sequence[Bundle],
    root: Path,
    parts: Sequence[str],
    jobs: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[ImageScore]:
    """Fuse every pair by every task of every bundle and every baseline, and measure the fused lumas.

    Each pair is fused by itself, whatever came before it. Where a part has `labels/` or `masks/`, what tasks find is
    matched to them.

    Args:
        bundles: may be none, for the baselines alone.
        root: folder that holds the data sets.
        parts: folders in it, or parts of them (see `vifa_runtime.pairs.find_part`).
        jobs: processes; 1 stays in this one.
        advance: called with the pairs done and the pairs in all.

    Raises:
        EvaluationError: two bundles share a name, a part is empty, or a pair cannot be measured.
        PairError: files that cannot be paired or read.
        BackendError: the engine cannot run a bundle.
    """
    names = [bundle.name for bundle in bundles]
    if len(set(names)) != len(names):
        raise EvaluationError(f"two bundles share a name ({', '.join(names)}); give one of them")
    found = {part: find_part(root, part) for part in dict.fromkeys(parts)}
    for part, pairs in found.items():
        if not pairs:
            raise EvaluationError(f"{root / part} holds no pair: a part of a folder needs 10 pairs; use the folder")
    chunks = [
        _Chunk(split_of(root, part), root / part.partition("@")[0], pairs[start : start + _CHUNK])
        for part, pairs in found.items()
        for start in range(0, len(pairs), _CHUNK)
    ]
    scores: list[ImageScore] = []
    done, total = 0, sum(map(len, found.values()))
    advance(done, total)
    with closing(map_in_processes(partial(_measure_chunk, tuple(bundles)), chunks, jobs)) as results:
        for chunk, measured in zip(chunks, results, strict=True):
            scores += measured
            done += len(chunk.pairs)
            advance(done, total)
    return scores


def baselines(visible: NDArray, thermal: NDArray) -> dict[str, NDArray]:
    """The fused images of BASELINES, in whole gray levels, of sources (H,W) in whole gray levels."""
    return {
        "average": np.rint((visible + thermal) / 2),
        "maximum": np.maximum(visible, thermal),
        "visible": visible,
        "thermal": thermal,
    }


def methods(bundles: Iterable[Bundle]) -> list[Method]:
    """Every task of every bundle, then the baselines."""
    trained = [
        Method(bundle.network, task.name, bundle.name, epochs, tuple(known.name for known in task.classes))
        for bundle in bundles
        for epochs in [bundle.manifest["provenance"].get("epochs")]
        for task in bundle.tasks
    ]
    return trained + [Method(name) for name in BASELINES]


def split_of(root: Path, part: str) -> tuple[str, str]:
    """Data set and split that a part of `root` names: `msrs/test` and `msrs@test` are ("msrs", "test").

    A part that names no split is "all" of its data set; where it names no folder, `root` is the data set.
    """
    name, _, split = part.partition("@")
    folder = Path(name)
    if not split and folder.name in PARTS:
        folder, split = folder.parent, folder.name
    return folder.as_posix() if folder != Path() else root.resolve().name, split or "all"


def mean_rows(scores: Iterable[ImageScore]) -> list[dict[str, Any]]:
    """One row for each data set, method and metric, in the order measured, not rounded.

    Means of the fused images' metrics over the images, and after them what was found against all images' labels; what
    is not defined on them has no row.
    """
    groups: dict[tuple[str, str, Method], list[ImageScore]] = {}
    for score in scores:
        groups.setdefault((score.data, score.split, score.method), []).append(score)
    return [
        {
            "data": data,
            "split": split,
            "network": method.network,
            "metric": metric,
            "value": value,
            "epochs": method.epochs,
            "task": method.task,
            "pairs": pairs,
            "bundle": method.bundle,
        }
        for (data, split, method), own in groups.items()
        for metric, (value, pairs) in _pooled(method, own).items()
        if np.isfinite(value)
    ]


def _pooled(method: Method, scores: Sequence[ImageScore]) -> dict[str, tuple[float, int]]:
    """Metric -> its value over all images of one method, and of how many images it is."""
    found = [({metric: float(np.mean([one.values[metric] for one in scores])) for metric in METRICS}, len(scores))]
    matches = [one.matches for one in scores if one.matches is not None]
    confusions = [one.confusion for one in scores if one.confusion is not None]
    if matches:
        found.append((detection_values(method.classes, matches), len(matches)))
    if confusions:
        found.append((segmentation_values(method.classes, np.sum(confusions, axis=0)), len(confusions)))
    return {metric: (value, pairs) for values, pairs in found for metric, value in values.items()}


def describe_bundles(bundles: Iterable[Bundle]) -> dict[str, dict[str, Any]]:
    """Bundle name -> its network and where it comes from, for the `meta` of a result."""
    return {bundle.name: {"network": bundle.network, **bundle.manifest["provenance"]} for bundle in bundles}


def write_csv(path: Path, scores: Iterable[ImageScore]) -> None:
    """Write one line an image and method, atomically.

    Raises:
        OSError: it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["data", "split", "image", "network", "task", "bundle", *METRICS])
    for score in scores:
        method = score.method
        values = [f"{score.values[metric]:.6f}" for metric in METRICS]
        table.writerow([score.data, score.split, score.image, method.network, method.task, method.bundle, *values])
    write_atomically(path, text.getvalue().encode())


def read_metric_rows(path: Path, bundle: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Read the rows of one bundle's tasks as its manifest keeps them, to 4 decimals: `{data, task, metric, value}`.

    `data` names the split too: `msrs/test`.

    Raises:
        EvaluationError: the file is no result of `vifa-train evaluate`, or has no row of the bundle.
    """
    try:
        rows = json.loads(path.read_text())["rows"]
        own = [
            {"data": place_of(row), "task": row["task"], "metric": row["metric"], "value": round(row["value"], 4)}
            for row in rows
            if row["bundle"] == bundle and row["task"] in tasks
        ]
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}; run vifa-train evaluate --json") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise EvaluationError(f"{path} is no metrics file ({reason}); run vifa-train evaluate --json") from None
    if not own:
        raise EvaluationError(f"{path} has no row of {bundle} ({', '.join(tasks)}); evaluate that bundle first")
    return own


def place_of(row: Mapping[str, Any]) -> str:
    """The data set and split of a row in one word, as manifests have it."""
    return row["data"] if row["split"] == "all" else f"{row['data']}/{row['split']}"


@dataclass(frozen=True)
class _Chunk:
    """A few pairs of one (data, split), and the folder that holds them and their labels."""

    place: tuple[str, str]
    folder: Path
    pairs: Sequence[PairPaths]


def _measure_chunk(bundles: Sequence[Bundle], chunk: _Chunk) -> list[ImageScore]:
    """Scores of a chunk. Engines are prepared for it alone, so no process keeps any."""
    cv2.setNumThreads(1)
    lenient = [for_evaluation(bundle) for bundle in bundles]
    pipelines = [FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1))) for bundle in lenient]
    labels = [LabelFolder(chunk.folder, bundle.tasks) for bundle in lenient]
    scores: list[ImageScore] = []
    buffers = Buffers()
    for pair in chunk.pairs:
        try:
            measured = _measure_pair(pipelines, labels, pair, buffers)
        except PairError:
            raise
        except ValueError as error:  # too small a picture, or one that the pipeline refuses
            raise EvaluationError(f"cannot evaluate {pair.visible} with {pair.thermal}: {error}") from None
        named = zip(methods(bundles), measured, strict=True)
        scores += [
            ImageScore(*chunk.place, pair.name, method, one.fusion, one.matches, one.confusion) for method, one in named
        ]
    for pipeline in pipelines:
        pipeline.close()
    return scores


def _measure_pair(
    pipelines: Sequence[FusionPipeline], labels: Sequence[LabelFolder], pair: PairPaths, buffers: Buffers
) -> list[TaskScore]:
    """What one pair adds, in the order of `methods`."""
    rgb, raw = read_visible(pair.visible), read_thermal(pair.thermal)
    sources = Sources(gray_levels(rgb), gray_thermal(raw, rgb.shape[:2]), buffers)
    found: list[TaskScore] = []
    for pipeline, folder in zip(pipelines, labels, strict=True):
        given = folder.read(pair.name, rgb.shape[:2])
        found += measure_pair(pipeline.bundle, sources, pipeline.process(rgb, raw), *given, METRICS).values()
    copied = baselines(sources.visible, sources.thermal).values()
    return found + [TaskScore(sources.measure(image, METRICS)) for image in copied]
