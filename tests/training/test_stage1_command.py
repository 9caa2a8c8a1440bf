"""`vifa-train stage1`: from a bundle and key channels to a bundle with another backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from task_toys import exported, place
from typer.testing import CliRunner

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BundleError, load_bundle
from vifa_runtime.pipeline import FusionPipeline
from vifa_training.backbone_update import layer_drift
from vifa_training.bundle_network import network_of
from vifa_training.channels import load_channels
from vifa_training.checkpoint import TrainingError
from vifa_training.cli import app
from vifa_training.data.street import StreetData


def vifa_train(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


class Made:
    """`old`, its key channels, and `new` after stage 1 on other streets."""

    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root, self.channels = root, root / "old.safetensors"
        _, bundle = exported("nano")
        place(bundle, root / "old", name="old")
        vifa_train("channels", root / "old", "--data", root, "--part", "street:3", "--images", "2", "-o", self.channels)
        self.options = ["--data", root, "--part", "street:3/7", "--channels", self.channels, "--preset", "smoke"]
        self.printed = vifa_train("stage1", root / "old", *self.options, "-r", root / "run", "-o", root / "new")
        self.old, self.new = load_bundle(root / "old"), load_bundle(root / "new")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("stage1"))


def test_the_backbone_and_the_head_trained_with_it_are_new_and_the_other_head_is_not(made: Made) -> None:
    changed = {path for path in made.old.graphs if made.old.graphs[path] != made.new.graphs[path]}
    assert made.new.graphs.keys() == made.old.graphs.keys()
    assert changed == {"backbone.onnx", "heads/first.onnx"}


def test_the_manifest_says_what_it_learned_and_no_metric_that_is_no_longer_true(made: Made) -> None:
    manifest = made.new.manifest
    assert manifest["name"] == "new" and manifest["metrics"] == [] and made.old.manifest["metrics"]
    assert manifest["provenance"]["data"].endswith("; street:3/7")
    assert manifest["provenance"]["recipe"] == "by-hand; stage 1"
    assert (made.root / "new/README.md").read_text().startswith("# new\n")


def test_the_new_bundle_fuses_as_its_network_does(made: Made) -> None:
    sample = StreetData(1, size=(96, 128))[0]
    results = [
        FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1))).process(
            sample.visible, sample.thermal
        )
        for bundle in (made.old, made.new)
    ]
    for task in ("first", "second"):
        assert np.isfinite(results[1].fused[task]).all()
        assert (results[0].fused[task] != results[1].fused[task]).any()


def test_drift_by_hand_and_in_the_table(made: Made) -> None:
    before, after = network_of(made.old), network_of(made.new)
    memory = load_channels(made.channels, before)
    pairs = StreetData(3, seed=7)
    rows = layer_drift(before, after, pairs, memory, images=1)
    assert [row["layer"] for row in rows] == list(before.distilled_layers)
    with torch.no_grad():
        visible = torch.from_numpy(pairs[0].visible.astype(np.float32) @ np.float32([0.299, 0.587, 0.114]) / 255)
        thermal = torch.from_numpy(pairs[0].thermal.astype(np.float32) / 255)
        old, new = (n.backbone.layers(visible[None, None], thermal[None, None])["stem"][0] for n in (before, after))
    key = memory.layers["stem"].key
    share = float(((new - old)[key] ** 2).sum().sqrt() / (old[key] ** 2).sum().sqrt())
    assert rows[0]["key_drift"] == pytest.approx(share, abs=2e-4) and share > 0
    assert rows[0]["keys"] == int(key.sum()) and "key_drift" in made.printed and "joined" in made.printed


def test_key_channels_of_another_backbone_are_refused(made: Made) -> None:
    with pytest.raises(TrainingError, match=r"old\.safetensors is of another backbone than .*new has"):
        vifa_train("stage1", made.root / "new", *made.options, "-r", made.root / "r2", "-o", made.root / "n2")
    assert not (made.root / "n2").exists()


def test_a_folder_that_is_no_bundle_is_refused_before_anything_is_trained(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(BundleError, match="is no bundle"):
        vifa_train("stage1", made.root / "old", *made.options, "-r", made.root / "r3", "-o", tmp_path)
    assert not (made.root / "r3").exists()


def test_an_unknown_preset_is_named(made: Made) -> None:
    options = [*made.options[:-1], "forever"]
    with pytest.raises(TrainingError, match="no preset 'forever'; use one of smoke, cpu, paper"):
        vifa_train("stage1", made.root / "old", *options, "-r", made.root / "r4", "-o", made.root / "n4")
