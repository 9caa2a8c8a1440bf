"""From a backbone and pairs to key channels, to a file and back, to a table and a picture."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from channel_cases import made_up
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from task_toys import InMemory, exported, lively_network, noise_sample, place
from typer.testing import CliRunner

from vifa_training.channels import Choice, KeyChannels, analyse, choose, load_channels, remember, save_channels
from vifa_training.channels.entropy import entropy
from vifa_training.channels.fsim import fsim_matrix
from vifa_training.channels.report import heat_map, layer_rows, mean_similarity, summary
from vifa_training.checkpoint import TrainingError, fingerprint
from vifa_training.cli import app
from vifa_training.data import whole_batch
from vifa_training.networks import NETWORKS, FusionNetwork

PAIRS = InMemory(*(noise_sample(f"p{i}", 32 + 8 * i, 48, i) for i in range(4)))


def nano(kill: int | None = None) -> FusionNetwork:
    """With a dead channel in its first layer."""
    network = lively_network("nano", ["a"])
    if kill is not None:
        with torch.no_grad():
            network.backbone.stem.weight[kill] = 0
            network.backbone.stem.bias[kill] = 0
    return network


def test_values_are_the_means_over_the_drawn_pairs_whatever_their_sizes() -> None:
    network, choice = nano(), Choice(images=3, seed=5)
    found = analyse(network, PAIRS, "noise", choice)
    drawn = np.random.default_rng(5).choice(4, 3, replace=False)
    for layer in ("stem", "far2"):
        maps = []
        for index in drawn:
            batch = whole_batch(PAIRS[int(index)], network.size_multiple)
            with torch.no_grad():
                maps.append(network.backbone.layers(batch.visible_y, batch.thermal)[layer][0])
        assert len({some.shape for some in maps}) == 3
        own = found.layers[layer]
        wanted = torch.stack([fsim_matrix(some) for some in maps]).mean(dim=0).float()
        torch.testing.assert_close(own.similarity, wanted)
        torch.testing.assert_close(own.entropy, torch.stack([entropy(some) for some in maps]).mean(dim=0).float())
        again = choose(own.similarity, own.entropy, choice)
        assert torch.equal(again.clusters, own.clusters) and torch.equal(again.key, own.key)
        assert torch.equal(own.importance, torch.where(own.key, own.entropy, 0))
    assert list(found.layers) == list(network.distilled_layers)
    assert (found.images, found.data, found.network) == (3, "noise", "nano")
    assert found.backbone == fingerprint(network.backbone)


def test_the_draw_follows_the_seed_and_takes_all_where_there_are_fewer() -> None:
    network, pairs = nano(), InMemory(*PAIRS.samples)
    one, same, other = (analyse(network, pairs, "noise", Choice(images=2, seed=seed)) for seed in (0, 0, 3))
    assert one.identity == same.identity != other.identity
    pairs.read = [0] * 4
    assert analyse(network, pairs, "noise", Choice(images=128)).images == 4
    assert pairs.read == [1, 1, 1, 1]


def test_a_dead_channel_is_no_key() -> None:
    layer = analyse(nano(kill=5), PAIRS, "noise", Choice(images=2)).layers["stem"]
    assert layer.dead[5] and not layer.key[5]
    assert layer.entropy[5] == layer.importance[5] == 0
    assert layer.similarity[5, 5] == 1 and torch.isfinite(layer.similarity).all()
    assert not layer.dead.all() and layer.importance.sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_every_network_is_looked_at(name: str) -> None:
    network = lively_network(name, ["a"])
    found = analyse(network, InMemory(noise_sample("p", 24, 32)), "noise", Choice(images=1))
    assert {layer: len(some.key) for layer, some in found.layers.items()} == dict(network.distilled_layers)
    for some in found.layers.values():
        assert torch.equal(some.similarity, some.similarity.T)
        assert (some.similarity.diagonal() == 1).all()
        assert ((some.entropy >= 0) & (some.entropy <= 8)).all()


def test_layers_of_two_by_two_pixels_are_compared_and_smaller_ones_refused_by_name() -> None:
    network = nano()
    found = analyse(network, InMemory(noise_sample("small", 16, 16)), "noise", Choice())
    assert torch.isfinite(found.layers["far2"].similarity).all()
    with pytest.raises(TrainingError, match="layer eighth on tiny: maps of 2x1 pixels are too small"):
        analyse(network, InMemory(noise_sample("tiny", 8, 16)), "noise", Choice())


def test_a_backbone_with_broken_weights_is_refused_by_layer_and_pair() -> None:
    network = nano()
    with torch.no_grad():
        network.backbone.far1.weight[3] = float("nan")
    with pytest.raises(TrainingError, match=r"layer far1 on p\d: there are values that are not finite"):
        analyse(network, PAIRS, "noise", Choice(images=1))


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(TrainingError, match="number of images must be 1 or more"):
        Choice(images=0)
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(TrainingError, match=r"threshold must be in 0\.\.1"):
            Choice(threshold=threshold)
    with pytest.raises(TrainingError, match="no clustering is called 'best'; choose of leaders, linked, mutual"):
        Choice(clustering="best")
    with pytest.raises(TrainingError, match="empty: there is no pair"):
        analyse(nano(), InMemory(), "empty", Choice())


def equal(one: KeyChannels, other: KeyChannels) -> bool:
    kinds = ("similarity", "entropy", "clusters", "key", "importance")
    return replace(one, layers={}) == replace(other, layers={}) and all(
        torch.equal(getattr(layer, kind), getattr(other.layers[name], kind))
        for name, layer in one.layers.items()
        for kind in kinds
    )


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    network, path = nano(), tmp_path / "runs/one.safetensors"
    found = made_up(network, Choice(images=7, seed=3, threshold=0.8, clustering="mutual"))
    save_channels(found, path)
    again = load_channels(path, network)
    assert equal(found, again)
    assert list(again.layers) == list(network.distilled_layers)
    assert again.identity == found.identity
    torch.testing.assert_close(load_file(path)["stem.importance"], found.importance["stem"])


def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_channels(made_up(lively_network("tardal", ["a"])), path)
    with pytest.raises(
        TrainingError, match=r"one.safetensors is of the network tardal, not of this nano.*first \(32 f"
    ):
        load_channels(path, nano())
    network = nano()
    found = made_up(network)
    save_channels(replace(found, network="nano2"), path)
    with pytest.raises(TrainingError, match="is of the network nano2, not of this nano; make it again"):
        load_channels(path, network)
    save_channels(replace(found, layers={k: v for k, v in found.layers.items() if k != "near"}), path)
    with pytest.raises(TrainingError, match=r"channels that differ: near \(none for 32\)"):
        load_channels(path, network)


def test_what_is_remembered_is_looked_at_again_only_for_other_weights_pairs_or_choices(tmp_path: Path) -> None:
    network, path, choice = nano(), tmp_path / "run/one.safetensors", Choice(images=1)
    pairs = InMemory(noise_sample("p", 16, 16))
    first = remember(network, pairs, path, choice=choice)
    assert equal(remember(network, pairs, path, choice=choice), first) and pairs.read == [1]
    assert remember(network, pairs, path, choice=Choice(images=1, threshold=0.5)).choice.threshold == 0.5
    assert pairs.read == [2]
    other = InMemory(noise_sample("q", 16, 16))
    remember(network, other, path, choice=choice)
    assert other.read == [1]
    with torch.no_grad():
        network.backbone.stem.bias += 0.1
    assert remember(network, other, path, choice=choice).backbone == fingerprint(network.backbone) != first.backbone
    assert other.read == [2]


@pytest.mark.parametrize("fault", ["missing", "text", "weights", "truncated", "tensor", "shape", "nan", "version"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, fault: str) -> None:
    network, path = nano(), tmp_path / "one.safetensors"
    save_channels(made_up(network), path)
    if fault == "missing":
        path.unlink()
    elif fault == "text":
        path.write_text("no channels")
    elif fault == "weights":
        save_file({"weight": torch.ones(2)}, path)
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors, about = load_file(path), metadata_of(path)
        if fault == "tensor":
            del tensors["near.key"]
        elif fault == "shape":
            tensors["near.similarity"] = tensors["near.similarity"][:, :-1].contiguous()
        elif fault == "nan":
            tensors["near.entropy"][2] = float("nan")
        else:
            about["channels"] = about["channels"].replace('"format": 1', '"format": 2')
        save_file(tensors, path, about)
    with pytest.raises(TrainingError, match=r"one\.safetensors.*; make it again by vifa-train channels"):
        load_channels(path, network)


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def test_rows_count_what_the_tensors_hold() -> None:
    network = nano()
    found, before = made_up(network), made_up(network, seed=1)
    rows = layer_rows(found, before)
    assert [row["layer"] for row in rows] == list(network.distilled_layers)
    layer, row = found.layers["near"], rows[2]
    assert (row["channels"], row["dead"]) == (32, 1)
    assert row["clusters"] == len(set(layer.clusters.tolist())) and row["keys"] == int(layer.key.sum())
    pairs = [float(layer.similarity[i, j]) for i in range(32) for j in range(i)]
    assert row["similarity"] == pytest.approx(np.mean(pairs), abs=6e-4)
    assert row["similarity_before"] == mean_similarity(before.layers["near"].similarity) != row["similarity"]
    assert (row["entropy_low"], row["entropy_high"]) == (0, round(float(layer.entropy.max()), 2))
    assert mean_similarity(torch.ones(1, 1)) is None


def test_the_summary_names_every_channel_once_and_the_keys_in_bold() -> None:
    found = made_up(nano())
    text = summary(found)
    line = next(line for line in text.splitlines() if line.startswith("features: "))
    named = [word.strip("*.;") for word in line.removeprefix("features: ").split() if not word.startswith("(")]
    assert sorted(map(int, named)) == list(range(16))
    assert line.count("**") == 2 * int(found.layers["features"].key.sum())


def test_the_picture_has_a_panel_a_layer_and_two_beside_an_earlier_one() -> None:
    network = nano()
    found = made_up(network)
    single, both = (imread(io.BytesIO(heat_map(found, before))) for before in (None, made_up(network, seed=1)))
    assert single.shape[1] == both.shape[1] and both.shape[0] > 1.4 * single.shape[0]
    assert single[..., :3].std() > 0.1


def test_the_command_from_a_bundle_to_a_file_a_summary_and_a_picture(data: Path, tmp_path: Path) -> None:
    network, bundle = exported("nano")
    folder, output = place(bundle, tmp_path / "tiny"), tmp_path / "runs/one.safetensors"
    given = ["channels", str(folder), "--data", str(data), "--part", "val", "--images", "2", "--threads", "1"]
    done = CliRunner().invoke(app, [*given, "-o", str(output), "--heatmap", str(tmp_path / "one.png")])
    assert done.exit_code == 0, done.output
    found = load_channels(output, network)
    assert (found.images, found.data) == (2, "val")
    assert "far2" in done.output and "2 pairs of val" in done.output
    assert output.with_suffix(".md").read_text() == summary(found)
    assert imread(tmp_path / "one.png").shape[0] > 100
    again = [*given, "-o", str(tmp_path / "two.safetensors"), "--threshold", "0.7", "--clusters", "linked"]
    done = CliRunner().invoke(app, [*again, "--compare", str(output), "--json"])
    assert done.exit_code == 0 and '"similarity_before"' in done.output
    two = load_channels(tmp_path / "two.safetensors", network)
    assert two.choice == Choice(2, 0, 0.7, "linked")
    torch.testing.assert_close(two.layers["near"].similarity, found.layers["near"].similarity)
    assert sum(map(int, two.layers["near"].key)) < sum(map(int, found.layers["near"].key))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "one.pt"], r"one\.pt must end in \.safetensors"),
        (["-o", "one.safetensors", "--clusters", "all"], "no clustering is called 'all'"),
        (["-o", "one.safetensors", "--compare", "none.safetensors"], r"cannot read none\.safetensors"),
    ],
)
def test_the_command_refuses_before_it_begins(options: list[str], message: str, tmp_path: Path) -> None:
    folder = place(exported("nano")[1], tmp_path / "tiny")
    done = CliRunner().invoke(app, ["channels", str(folder), "--data", str(tmp_path), "--part", "none", *options])
    with pytest.raises(TrainingError, match=message):
        raise done.exception
