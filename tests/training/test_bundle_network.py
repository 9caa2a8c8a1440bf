"""A bundle's graphs back as a network of torch: it fuses what the bundle fuses, or the bundle is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from task_toys import exported, lively_network, noise_sample, place
from torch import nn

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BACKBONE, Bundle, Task, load_bundle
from vifa_runtime.half_weights import half_weights
from vifa_runtime.pipeline import FusionPipeline
from vifa_training.bundle_network import READABLE, network_of, read_weights
from vifa_training.checkpoint import TrainingError
from vifa_training.export import export_bundle, head_graph
from vifa_training.networks import FusionNetwork, count_layers, deepen
from vifa_training.pictures import Fused

SAMPLE = noise_sample("p", 88, 120, seed=5)


def runtimes_images(bundle: Bundle) -> dict[str, np.ndarray]:
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))
    return pipeline.process(SAMPLE.visible, SAMPLE.thermal).fused


@pytest.mark.parametrize("name", READABLE)
def test_the_network_of_a_bundle_fuses_as_the_one_that_was_exported(name: str) -> None:
    network, bundle = exported(name)
    found = network_of(bundle)
    assert type(found) is type(network) and list(found.heads) == ["first", "second"] and not found.training
    images = []
    for task in network.heads:
        images.append(Fused(network, task).luma(SAMPLE))
        np.testing.assert_allclose(Fused(found, task).luma(SAMPLE), images[-1], rtol=0, atol=1e-5)
    assert 255 * np.abs(images[0] - images[1]).mean() > 1, "each task its own head"


@pytest.mark.parametrize("name", READABLE)
def test_it_fuses_as_the_bundle_does_on_a_robot(name: str) -> None:
    _, bundle = exported(name)
    found = network_of(bundle)
    for task, image in runtimes_images(bundle).items():
        difference = np.abs(Fused(found, task)(SAMPLE).astype(int) - image)
        assert difference.max() <= 1 and difference.mean() < 0.01


def test_its_graphs_are_those_of_the_bundle_again() -> None:
    """As ONNX Runtime computes them: nothing is lost however often a bundle is taken up and written."""
    _, bundle = exported("nano")
    found, features = network_of(bundle), noise_features(bundle)
    for task in bundle.tasks:
        images = [run_head(graph, features) for graph in (bundle.graphs[task.head], head_graph(found, task.name))]
        np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("name", READABLE)
def test_a_head_of_more_layers_is_read_back_with_all_of_them(name: str, tmp_path: Path) -> None:
    network, bundle = copy.deepcopy(exported(name))
    deepen(network, "second", 2)
    for layer in network.heads["second"].more:
        nn.init.normal_(layer.weight, std=0.05)
    grown = export_bundle(network, bundle.tasks, tmp_path / "grown", bundle.manifest | {"name": "grown"}, "card")
    found = network_of(grown)
    assert [count_layers(found.heads[task]) - count_layers(network.heads["first"]) for task in found.heads] == [0, 2]
    for task in network.heads:
        expected = Fused(network, task).luma(SAMPLE)
        np.testing.assert_allclose(Fused(found, task).luma(SAMPLE), expected, rtol=0, atol=1e-5)


def noise_features(bundle: Bundle) -> dict[str, np.ndarray]:
    """What the bundle's backbone gives of the sample, and the sample itself."""
    session = onnxruntime.InferenceSession(bundle.graphs[BACKBONE], providers=["CPUExecutionProvider"])
    visible, thermal = SAMPLE.visible[None], SAMPLE.thermal[None] / np.float32(255)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"visible": visible, "thermal": thermal})
    return {"visible": visible, **dict(zip(names, found, strict=True))}


def run_head(graph: bytes, features: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["fused"], {given.name: features[given.name] for given in session.get_inputs()})[0]


@pytest.mark.parametrize("name", ["nano", "tardal"])
def test_weights_stored_as_float16_are_read_as_they_are_computed_with(name: str) -> None:
    network, bundle = exported(name)
    halved = replace(bundle, graphs={path: half_weights(graph) for path, graph in bundle.graphs.items()})
    found = network_of(halved)
    differences = []
    for task, image in runtimes_images(halved).items():
        assert np.abs(Fused(found, task)(SAMPLE).astype(int) - image).max() <= 1
        differences.append(np.abs(Fused(found, task).luma(SAMPLE) - Fused(network, task).luma(SAMPLE)).max())
    assert 0 < max(differences) < 0.01, "no more than rounding"


@pytest.mark.parametrize(("name", "bias"), [("nano", 0.0), ("tardal", 0.125)])
def test_biases_that_are_zero_or_equal_come_back(name: str, bias: float, tmp_path: Path) -> None:
    """A graph stores equal tensors once and may leave zeros out."""
    network = lively_network(name, ["first"])
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            nn.init.constant_(parameter, bias)
    found = network_of(write(network, tmp_path))
    np.testing.assert_allclose(
        Fused(found, "first").luma(SAMPLE), Fused(network, "first").luma(SAMPLE), rtol=0, atol=1e-5
    )


def write(network: FusionNetwork, folder: Path) -> Bundle:
    _, pattern = exported("nano")
    manifest = {key: pattern.manifest[key] for key in ("licences", "provenance")} | {"name": "tiny"}
    return export_bundle(network, [Task(task, "fusion", task) for task in network.heads], folder, manifest, "card")


def test_norms_come_back_as_norms_that_change_nothing() -> None:
    network, bundle = exported("tardal")
    inputs = torch.randn(1, 64, 4, 4)
    found = [module for module in network_of(bundle).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(found) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) > 0
    for norm in found:
        some = inputs[:, : norm.num_features]
        torch.testing.assert_close(norm(some), some, rtol=1e-6, atol=1e-6)


def test_every_weight_of_a_graph_is_found_by_its_name() -> None:
    network, bundle = exported("nano")
    found = read_weights(bundle.graphs[BACKBONE])
    for name, parameter in network.backbone.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach())


# Refusals


@pytest.mark.parametrize("name", ["resnet", "didfuse", "swinfusion"])
def test_a_network_that_cannot_be_read_back_is_refused_by_name(name: str, tmp_path: Path) -> None:
    _, bundle = exported("nano")
    theirs = load_bundle(place(bundle, tmp_path / "theirs", name="theirs", network=name))
    with pytest.raises(TrainingError, match=f"bundle theirs holds the network '{name}', .*; use a bundle of nano, "):
        network_of(theirs)


@pytest.mark.parametrize(("claimed", "real"), [("nano", "tardal"), ("tardal", "nano")])
def test_a_bundle_of_another_network_than_it_says_is_refused(claimed: str, real: str) -> None:
    _, bundle = exported(real)
    with pytest.raises(TrainingError, match=r"tiny/backbone\.onnx has no weight .*; it was not exported by this"):
        network_of(replace(bundle, network=claimed))


def test_a_head_of_another_shape_is_refused_by_its_file() -> None:
    (_, nano), (_, tardal) = exported("nano"), exported("tardal")
    graphs = {**nano.graphs, "heads/second.onnx": tardal.graphs["heads/second.onnx"]}
    with pytest.raises(TrainingError, match=r"tiny/heads/second\.onnx has no weight"):
        network_of(replace(nano, graphs=graphs))


def test_a_backbone_that_computes_something_else_with_our_weights_is_refused() -> None:
    _, bundle = exported("nano")
    model = onnx.load_model_from_string(bundle.graphs[BACKBONE])
    activations = [node for node in model.graph.node if node.op_type == "Relu"]
    activations[0].op_type = "Abs"
    with pytest.raises(TrainingError, match=r"bundle tiny: feature \w+ differs by .* from its graph's"):
        network_of(replace(bundle, graphs={**bundle.graphs, BACKBONE: model.SerializeToString()}))
