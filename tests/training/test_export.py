"""Exported graphs against torch and against the colour formula written out in NumPy."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle, Task
from vifa_runtime.pipeline import FusionPipeline
from vifa_training.colour import luma, recolour
from vifa_training.export import backbone_graph, export_bundle, head_graph
from vifa_training.networks import FusionNetwork, build_network

pytestmark = pytest.mark.timeout(600)  # tracing SwinFusion takes a core a hundred seconds

MANIFEST = {
    "name": "tiny",
    "licences": {"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"},
    "provenance": {"data": "none", "seed": 0, "commit": "none", "date": "2026-01-01"},
}
TASKS = [Task("first", "fusion", "one"), Task("second", "fusion", "two")]


@pytest.fixture(scope="module", params=["nano", "tardal", "didfuse", "piafusion", "swinfusion"])
def network(request: pytest.FixtureRequest) -> FusionNetwork:
    torch.manual_seed(0)
    network = build_network(request.param, [task.name for task in TASKS])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    for head in network.heads.values():
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.fixture(scope="module")
def bundle(network: FusionNetwork, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(network, TASKS, tmp_path_factory.mktemp("bundles") / "tiny", MANIFEST, "# tiny\n")


def random_pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height)
    return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 256, (height, width), np.uint8)


@pytest.mark.parametrize("height,width", [(64, 96), (70, 75), (121, 82)])
def test_onnx_runtime_equals_torch_within_a_gray_level(
    network: FusionNetwork, bundle: Bundle, height: int, width: int
) -> None:
    visible, thermal = random_pair(height, width)
    padding = [(0, -side % network.size_multiple) for side in (height, width)]
    rgb = torch.from_numpy(np.pad(visible, [*padding, (0, 0)], "edge")).permute(2, 0, 1)[None] / 255
    warm = torch.from_numpy(np.pad(thermal, padding, "edge"))[None, None] / 255
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))
    results = pipeline.process(visible, thermal)
    with torch.no_grad():
        expected = network(luma(rgb), warm)
    for task, fused_y in expected.items():
        image = (255 * recolour(rgb, fused_y)).round()[0].permute(1, 2, 0).numpy()[:height, :width]
        assert np.abs(image - results.fused[task]).max() <= 1
        assert np.abs(image - visible).max() > 20  # the heads do change the image


def test_recolour_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    rgb, fused_y = rng.random((5, 7, 3)), rng.random((5, 7)) * 1.4 - 0.2
    y = 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]
    expected = np.clip(rgb + (np.clip(fused_y, 0, 1) - y)[..., None], 0, 1)
    ours = recolour(torch.tensor(rgb).permute(2, 0, 1)[None], torch.tensor(fused_y)[None, None])
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_a_head_that_changes_nothing_gives_the_visible_bytes(tmp_path: Path) -> None:
    network = build_network("nano", ["first"])
    bundle = export_bundle(network, TASKS[:1], tmp_path / "tiny", MANIFEST, "card")
    visible, thermal = random_pair(40, 48)
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))
    np.testing.assert_array_equal(pipeline.process(visible, thermal).fused["first"], visible)


def test_adding_a_task_changes_no_byte_of_older_graphs(network: FusionNetwork, bundle: Bundle) -> None:
    if network.name == "swinfusion":
        pytest.skip("tracing it takes minutes, and nothing here depends on the network")
    grown = copy.deepcopy(network)
    grown.add_head("third")
    assert backbone_graph(grown) == bundle.graphs["backbone.onnx"]
    assert head_graph(grown, "first") == bundle.graphs["heads/first.onnx"]


def test_graphs_tell_nothing_about_the_machine(bundle: Bundle) -> None:
    root = str(Path(__file__).resolve().parents[2]).encode()
    for graph in bundle.graphs.values():
        assert root not in graph
        assert b".py" not in graph
