"""The bundles in models/: they load, are described, and fuse. What their numbers are worth, benchmarks/ measures."""

from pathlib import Path

import numpy as np
import pytest

from vifa_runtime.bundle import load_bundle
from vifa_runtime.models import DEFAULT_BUNDLE
from vifa_runtime.street import Street

MODELS = Path(__file__).resolve().parents[2] / "models"
MEGABYTE = 1e6
EVERY = pytest.mark.parametrize("folder", sorted(MODELS.iterdir()), ids=lambda path: path.name)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_default_bundle_ships():
    assert (MODELS / DEFAULT_BUNDLE / "bundle.yaml").is_file()


def test_bundles_are_as_small_as_promised():
    assert size(MODELS / "nano-fusion") < MEGABYTE
    assert size(MODELS) < 25 * MEGABYTE


@EVERY
def test_every_file_is_listed_and_there_is_a_model_card(folder):
    bundle = load_bundle(folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {*bundle.manifest["files"], "bundle.yaml"}
    card = (folder / "README.md").read_text()
    assert bundle.name == folder.name
    assert all(task in card for task in bundle.task_names)
    assert all(task.description for task in bundle.tasks)


@EVERY
@pytest.mark.parametrize("shape", [(480, 640), (123, 157)])
def test_every_bundle_fuses_day_and_night(folder, shape, make_pipeline):
    pipeline, street = make_pipeline(load_bundle(folder)), Street(size=shape, day_frames=1)
    for index in (0, 1):
        visible, thermal = street[index]
        fused = {task: image.copy() for task, image in pipeline.process(visible, thermal, index / 15).fused.items()}
        assert list(fused) == pipeline.bundle.task_names
        for image in fused.values():
            assert (image.shape, image.dtype) == (visible.shape, np.uint8)
            assert image.std() > 1
        first, *others = fused.values()
        assert all((first != other).any() for other in others)  # or a head too many was trained


def test_the_two_task_bundle_finds_on_the_backbone_of_nano_fusion(make_pipeline):
    bundle = load_bundle(MODELS / "nano-two-task")
    assert bundle.graphs["backbone.onnx"] == load_bundle(MODELS / "nano-fusion").graphs["backbone.onnx"]
    kinds = {task.name: (task.kind, [known.name for known in task.classes]) for task in bundle.tasks}
    assert kinds == {
        "crop_and_weed": ("segmentation", ["soil", "crop", "weed"]),
        "road_users": ("detection", ["person", "bicycle", "car"]),
    }
    visible, thermal = Street(size=(480, 640), day_frames=1)[0]
    results = make_pipeline(bundle).process(visible, thermal)
    assert results.masks["crop_and_weed"].shape == (480, 640) and results.masks["crop_and_weed"].max() <= 2
    assert list(results.detections) == ["road_users"]
    assert "AGPL-3.0" in bundle.manifest["licences"]["weights"]
