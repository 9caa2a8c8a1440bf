"""`vifa-train` from data to a bundle that the runtime runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible
from vifa_runtime.pipeline import FusionPipeline

RECIPE = {
    "name": "tiny",
    "network": "nano",
    "training": ["train"],
    "validation": ["val"],
    "schedule": {"steps": 20, "batch": 2, "crop": 48, "learning_rate": 3e-3, "validate_every": 10},
    "tasks": {"warm": {"description": "warm things", "loss": {"maximum": 20}}},
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "synthetic"},
}


def vifa_train(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vifa_training.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_from_pairs_to_a_bundle_that_runs(data: Path, tmp_path: Path) -> None:
    recipe, run, bundle = tmp_path / "tiny.yaml", tmp_path / "run", tmp_path / "bundle"
    recipe.write_text(yaml.safe_dump(RECIPE))
    trained = vifa_train("fusion", recipe, "--data", data, "--run", run, "--threads", "1")
    assert trained.returncode == 0, trained.stderr
    exported = vifa_train("export", recipe, "--run", run, "-o", bundle)
    assert exported.returncode == 0, exported.stderr
    loaded = load_bundle(bundle)
    assert loaded.task_names == ["warm"]
    assert "warm things" in (bundle / "README.md").read_text()
    pair = find_pairs(data / "val")[1]  # by night
    visible, thermal = read_visible(pair.visible), read_thermal(pair.thermal)
    pipeline = FusionPipeline(loaded, prepare("onnxruntime", loaded, Options(threads=1)))
    fused = pipeline.process(visible, thermal).fused["warm"]
    hot = thermal > np.percentile(thermal, 98)
    assert fused[hot].mean() > visible[hot].mean() + 10


def test_user_errors_are_one_line(data: Path, tmp_path: Path) -> None:
    for arguments in (
        ("fusion", "no-such-recipe", "--data", data, "--run", tmp_path),
        ("fusion", "nano-fusion", "--data", tmp_path / "nowhere", "--run", tmp_path),
        ("export", "nano-fusion", "--run", tmp_path, "-o", tmp_path / "bundle"),
    ):
        done = vifa_train(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("vifa-train: ")
        assert done.stderr.count("\n") == 1 or "4 problems:" in done.stderr, "a line, or one for each missing folder"
        assert "Traceback" not in done.stderr
