"""Folders of labelled pairs, bags of them, and what `vifa evaluate` makes of these, for its tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vifa_ros.bags.node_values import read_values
from vifa_ros.bags.recording import RecordSettings, record
from vifa_ros.bags.report import evaluate
from vifa_ros.bags.session import METRICS, EvaluateSettings
from vifa_ros.play_plan import PlaySettings
from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, load_bundle
from vifa_runtime.files import write_atomically
from vifa_runtime.labels import Labels, format_yolo
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible, write_image
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.scoring import for_evaluation

SIZE = (48, 64)
CLASSES = ("red", "green", "blue")
MASK_CLASSES = ("dark", "bright")


def pipeline_of(bundle: Bundle, threads: int = 1) -> FusionPipeline:
    return FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=threads)))


def write_pairs(folder: Path, count: int = 6, depth: type = np.uint8, size: tuple[int, int] = SIZE) -> Path:
    """Pairs of noise, the odd ones dark, named 000D, 001N, ..."""
    rng = np.random.default_rng(1)
    for index in range(count):
        name = f"{index:03}{'DN'[index % 2]}"
        visible = rng.integers(0, 60 if index % 2 else 256, (*size, 3), np.uint8)
        thermal = rng.integers(0, 256, size, np.uint8)
        if depth != np.uint8:
            thermal = (20_000 + (30 + 5 * index) * thermal.astype(int)).astype(depth)
        write_image(folder / "vi" / f"{name}.png", visible)
        write_image(folder / "ir" / f"{name}.png", thermal)
    return folder


def write_labels(folder: Path, bundle: Path, unlabelled: int = 1, unmasked: int = 2) -> Path:
    """Boxes near some of those that `cells` finds, none of class blue, for all but the last; masks near `glare`'s."""
    pipeline = pipeline_of(for_evaluation(load_bundle(bundle)))
    pairs = find_pairs(folder)
    for index, pair in enumerate(pairs):
        results = pipeline.process(read_visible(pair.visible), read_thermal(pair.thermal))
        found = results.detections["cells"]
        chosen = np.flatnonzero(found.labels < 2)[index::17]
        boxes = (found.boxes[chosen] + [1, index % 3, 0, 1]).clip(0).astype(np.float32)
        if index < len(pairs) - unlabelled:
            text = format_yolo(Labels(boxes, found.labels[chosen]), SIZE)
            write_atomically(folder / "labels" / f"{pair.name}.txt", text.encode())
        if index < len(pairs) - unmasked:
            mask = results.masks["glare"].copy()
            mask[: 5 + index] = 1 - mask[: 5 + index]
            mask[-3:] = 255
            write_image(folder / "masks" / f"{pair.name}.png", mask)
    return folder


def write_bag_of(folder: Path, path: Path, rate: float = 10.0, **options: Any) -> Path:
    play = {key: options.pop(key) for key in ("skew", "jitter", "drop") if key in options}
    classes = options.pop("classes", CLASSES if (folder / "labels").is_dir() else ())
    mask_classes = options.pop("mask_classes", MASK_CLASSES if (folder / "masks").is_dir() else ())
    settings = RecordSettings(PlaySettings(rate, None, **play), classes=classes, mask_classes=mask_classes, **options)
    record(folder, path, settings)
    return path


def settings_of(values: dict[str, Any] | None = None, **options: Any) -> EvaluateSettings:
    return EvaluateSettings(**{"values": read_values(None) | {"threads": 1} | (values or {}), **options})


def run(bag: Path, folder: Path, *bundles: Path, **options: Any) -> dict[str, Any]:
    """Evaluate by all metrics, and give report.json."""
    told = evaluate(bag, folder, bundles, settings_of(**{"metrics": METRICS, **options}))
    report = json.loads((folder / "report.json").read_text())
    assert {key: report[key] for key in told} == json.loads(json.dumps(told)), "it gives what it has written"
    return report


def values_of(report: dict[str, Any], tag: str = "all", bundle: str | None = None) -> dict[tuple[str, str], float]:
    """(task, metric) -> value."""
    rows = [row for row in report["rows"] if row["tag"] == tag and bundle in (None, row["bundle"])]
    return {(row["task"], row["metric"]): row["value"] for row in rows}
