"""Published checkpoints: every layout read, everything that does not fit told, nothing in a pickle run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

from vifa_runtime.bundle import load_bundle
from vifa_training.checkpoint import TrainingError, load_weights
from vifa_training.commands.import_weights import import_weights
from vifa_training.import_weights import import_network
from vifa_training.networks import FusionNetwork, build_network
from vifa_training.published_checkpoint import WeightsError

Tensors = dict[str, Tensor]


def swin_block(theirs: str, ours: str, end: str = "") -> dict[str, str]:
    return {
        f"{ours}.norm1": f"{theirs}.norm1{end}",
        f"{ours}.attention.position_bias": f"{theirs}.attn{end}.relative_position_bias_table",
        f"{ours}.attention.query": f"{theirs}.attn{end}.q",
        f"{ours}.attention.key_value": f"{theirs}.attn{end}.kv",
        f"{ours}.attention.project": f"{theirs}.attn{end}.proj",
        f"{ours}.norm2": f"{theirs}.norm2{end}",
        f"{ours}.perceptron.0": f"{theirs}.mlp{end}.fc1",
        f"{ours}.perceptron.2": f"{theirs}.mlp{end}.fc2",
    }


# Our module -> the authors', written from their code and not from `published_layouts`.
NAMES: dict[str, dict[str, str]] = {
    "didfuse": {
        "backbone.first.0": "cov1.cov1.1",
        "backbone.first.1": "cov1.cov1.2",
        "backbone.first.2": "cov1.cov1.3",
        **{f"backbone.second.{i}": f"cov2.cov2.{i}" for i in range(3)},
        **{f"backbone.base.{i}": f"cov3.cov3.{i}" for i in range(2)},
        **{f"backbone.detail.{i}": f"cov4.cov4.{i}" for i in range(2)},
        **{f"backbone.decoder1.{i}": f"cov5.cov5.{i}" for i in range(3)},
        **{f"heads.fused.hidden.{i}": f"cov6.cov6.{i}" for i in range(3)},
        "heads.fused.output.0": "cov7.cov7.1",
        "heads.fused.output.1": "cov7.cov7.2",
    },
    "piafusion": {
        "backbone.visible.0": "encoder.vi_conv1",
        "backbone.visible.1": "encoder.vi_conv2.conv.1",
        "backbone.visible.2": "encoder.vi_conv3.conv.1",
        "backbone.visible.3": "encoder.vi_conv4.conv.1",
        "backbone.visible.4": "encoder.vi_conv5.conv.1",
        "backbone.thermal.0": "encoder.ir_conv1",
        "backbone.thermal.1": "encoder.ir_conv2.conv.1",
        "backbone.thermal.2": "encoder.ir_conv3.conv.1",
        "backbone.thermal.3": "encoder.ir_conv4.conv.1",
        "backbone.thermal.4": "encoder.ir_conv5.conv.1",
        "backbone.decoder.0": "decoder.conv1.conv.1",
        "backbone.decoder.1": "decoder.conv2.conv.1",
        "backbone.decoder.2": "decoder.conv3.conv.1",
        "heads.fused.hidden": "decoder.conv4.conv.1",
        "heads.fused.output": "decoder.conv5",
    },
    "tardal": {
        "backbone.first.0": "encoder.0",
        "backbone.first.1": "encoder.1",
        **{f"backbone.dense.{i}.{j}": f"dense.{i}.{j}" for i in range(3) for j in range(2)},
        "backbone.funnel1.0": "fuse.0.0",
        "backbone.funnel2.0": "fuse.1.0",
        "backbone.funnel2.1": "fuse.1.1",
        "heads.fused.hidden.0": "fuse.2.0",
        "heads.fused.hidden.1": "fuse.2.1",
        "heads.fused.output": "fuse.3.0",
    },
    "swinfusion": {
        "backbone.shallow1": "conv_first1_A",
        "backbone.shallow2": "conv_first2_A",
        "backbone.embedding_norm": "patch_embed.norm",
        "backbone.extracted_norm_thermal": "norm_Ex_A",
        "backbone.extracted_norm_visible": "norm_Ex_B",
        "backbone.fused_norm_thermal": "norm_Fusion_A",
        "backbone.fused_norm_visible": "norm_Fusion_B",
        "backbone.merge": "conv_after_body_Fusion",
        "backbone.reconstructed_norm": "norm_Re",
        "backbone.narrow": "conv_last1",
        "heads.fused.hidden": "conv_last2",
        "heads.fused.output": "conv_last3",
    },
}
for n in range(4):
    NAMES["swinfusion"] |= swin_block(f"layers_Ex_A.0.residual_group.blocks.{n}", f"backbone.extract_thermal.{n}")
    NAMES["swinfusion"] |= swin_block(f"layers_Ex_B.0.residual_group.blocks.{n}", f"backbone.extract_visible.{n}")
    NAMES["swinfusion"] |= swin_block(f"layers_Re.0.residual_group.blocks.{n}", f"backbone.reconstruct.{n}")
for s, n in ((0, 0), (0, 1), (1, 0), (1, 1)):
    theirs, ours = f"layers_Fusion.{s}.residual_group", f"backbone.fusions.{s}"
    NAMES["swinfusion"] |= swin_block(f"{theirs}_A.blocks.{n}", f"{ours}.thermal.{n}")
    NAMES["swinfusion"] |= swin_block(f"{theirs}_B.blocks.{n}", f"{ours}.visible.{n}")
    NAMES["swinfusion"] |= swin_block(f"{theirs}.blocks.{n}", f"{ours}.cross_thermal.{n}", "_A")
    NAMES["swinfusion"] |= swin_block(f"{theirs}.blocks.{n}", f"{ours}.cross_visible.{n}", "_B")

PARAMETERS = {"didfuse": 260_935, "piafusion": 1_176_097, "tardal": 296_577, "swinfusion": 973_681}  # as published
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "attn_mask", "relative_position_index")
WRAPPERS: dict[str, list[Callable[[Tensors], dict]]] = {
    "didfuse": [lambda weights: {"weight": weights, "epoch": 120}],
    "piafusion": [lambda weights: weights],
    "tardal": [
        lambda weights: weights,
        lambda weights: {"fuse": weights, "disc": {"t": {"conv": torch.zeros(2)}, "d": {}}},
        lambda weights: {"g": weights, "d": {}, "opt": {"g": {"state": {}}}},
    ],
    "swinfusion": [lambda weights: weights, lambda weights: {"params": weights}],
}
CASES = [(name, index) for name, wrappers in WRAPPERS.items() for index in range(len(wrappers))]


def random_network(name: str) -> FusionNetwork:
    """One whose every tensor differs from a fresh network's."""
    torch.manual_seed(3)
    network = build_network(name, ["fused"])
    for tensor in network.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(41))
    return network


def as_published(network: FusionNetwork) -> Tensors:
    """Its tensors under the authors' names, with what their networks hold besides."""
    published = {}
    for key, tensor in network.state_dict().items():
        module = max((m for m in NAMES[network.name] if key == m or key.startswith(m + ".")), key=len)
        published[NAMES[network.name][module] + key.removeprefix(module)] = tensor.clone()
    if network.name == "swinfusion":
        for key in [key for key in published if ".attn.q." in key]:
            stacked = torch.cat([published.pop(key), published.pop(key.replace(".q.", ".kv."))])
            published[key.replace(".q.", ".qkv.")] = stacked
        published |= {"conv_first1_B.weight": torch.rand(30, 1, 3, 3), "conv_first1_B.bias": torch.rand(30)}
        published |= {"conv_first2_B.weight": torch.rand(30, 30, 3, 3), "conv_first2_B.bias": torch.rand(30)}
        block = "layers_Ex_A.0.residual_group.blocks.1"
        published[f"{block}.attn_mask"] = torch.zeros(256, 64, 64)
        published[f"{block}.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
    return published


def write(name: str, published: Tensors, folder: Path, wrapper: int = 0, zipped: bool = True) -> list[Path]:
    """The files that the authors of `name` would have written."""
    parts = {"checkpoint.pth": published}
    if name == "didfuse":
        encoder = {key: t for key, t in published.items() if key.startswith(("cov1", "cov2", "cov3", "cov4"))}
        rest = {key: t for key, t in published.items() if key not in encoder}
        parts = {"Encoder.pkl": encoder, "Decoder.pkl": rest}
    for file, weights in parts.items():
        torch.save(WRAPPERS[name][wrapper](weights), folder / file, _use_new_zipfile_serialization=zipped)
    return [folder / file for file in parts]


def equal(one: FusionNetwork, other: FusionNetwork, task: str) -> bool:
    """Whether `other`'s backbone and head of `task` are those of `one`, which has the task `fused`."""
    expected = {key.replace("heads.fused.", f"heads.{task}."): t for key, t in one.state_dict().items()}
    return all(torch.equal(other.state_dict()[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_layouts_here_have_the_published_size(name: str) -> None:
    published = as_published(random_network(name))
    assert sum(t.numel() for key, t in published.items() if not key.endswith(BUFFERS)) == PARAMETERS[name]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name,wrapper", CASES)
def test_every_layout_is_taken_over_whole(name: str, wrapper: int, zipped: bool, tmp_path: Path) -> None:
    network = random_network(name)
    files = write(name, as_published(network), tmp_path, wrapper, zipped)
    imported = import_network(name, files, ["people", "cars"])
    assert list(imported.network.heads) == ["people", "cars"]
    assert equal(network, imported.network, "people") and equal(network, imported.network, "cars")
    assert not imported.network.training and not imported.remarks
    image = torch.rand(2, 1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(*image)["fused"], imported.network(*image)["people"])


def test_heads_of_two_tasks_share_no_memory(tmp_path: Path) -> None:
    files = write("tardal", as_published(random_network("tardal")), tmp_path)
    one, two = import_network("tardal", files, ["a", "b"]).network.heads.values()
    one.output.weight.data.zero_()
    assert two.output.weight.abs().sum() > 0


def test_encoder_and_decoder_in_any_order_and_under_data_parallel(tmp_path: Path) -> None:
    network = random_network("didfuse")
    files = write("didfuse", as_published(network), tmp_path)
    for file in files:
        content = torch.load(file, weights_only=True)
        content["weight"] = {f"module.{key}": tensor for key, tensor in content["weight"].items()}
        torch.save(content, file)
    imported = import_network("didfuse", files[::-1])
    assert equal(network, imported.network, "fused")
    assert imported.dropped == {"epoch": "beside the weights"}


def test_what_swinfusion_does_not_use_is_named(tmp_path: Path) -> None:
    imported = import_network("swinfusion", write("swinfusion", as_published(random_network("swinfusion")), tmp_path))
    block = "layers_Ex_A.0.residual_group.blocks.1"
    unused = {f"conv_first{n}_B.{part}" for n in (1, 2) for part in ("weight", "bias")}
    assert set(imported.dropped) == unused | {f"{block}.attn_mask", f"{block}.attn.relative_position_index"}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_does_not_fit_is_told_at_once(name: str, tmp_path: Path) -> None:
    published = as_published(random_network(name))
    floats = [key for key in published if key.endswith((".weight", ".bias")) and "_B." not in key]
    missing, longer, infinite, counted, surplus = *floats[:4], "surplus.weight"
    shape = tuple(published[longer].shape)
    del published[missing]
    published[longer] = torch.cat([published[longer], published[longer][:1]])
    published[infinite].view(-1)[0] = torch.nan
    published[counted] = published[counted].to(torch.int64)
    published[surplus] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        import_network(name, write(name, published, tmp_path))
    told = str(caught.value)
    assert f"missing: {missing}; unknown: {surplus}; unfit: " in told
    assert f"{longer} has the shape {tuple(published[longer].shape)}, not {shape}" in told
    assert f"{infinite} holds values that are not finite" in told
    assert f"{counted} is torch.int64, not torch.float32" in told
    assert told.count("has the shape") == 1 and "\n" not in told


@pytest.mark.parametrize("name", ["didfuse", "tardal"])
def test_batch_norms_without_counters_are_taken(name: str, tmp_path: Path) -> None:
    network = random_network(name)
    published = {key: t for key, t in as_published(network).items() if not key.endswith("num_batches_tracked")}
    imported = import_network(name, write(name, published, tmp_path))
    assert "counters start at 0" in imported.remarks[0]
    state, own = imported.network.state_dict(), network.state_dict()
    assert all(torch.equal(t, own[key]) for key, t in state.items() if not key.endswith("num_batches_tracked"))
    assert all(int(t) == 0 for key, t in state.items() if key.endswith("num_batches_tracked"))


def test_the_same_file_twice_is_told(tmp_path: Path) -> None:
    encoder, _ = write("didfuse", as_published(random_network("didfuse")), tmp_path)
    with pytest.raises(WeightsError, match=r"in both files: cov1\.cov1\.1\.weight,.*missing: cov5\.cov5\.0\.weight"):
        import_network("didfuse", [encoder, encoder])


@pytest.mark.parametrize("use_eval,remarks", [(True, 0), (False, 1)])
def test_weights_meant_for_training_mode_come_with_a_warning(use_eval: bool, remarks: int, tmp_path: Path) -> None:
    torch.save({**as_published(random_network("tardal")), "use_eval": use_eval}, tmp_path / "tardal-dt.pth")
    imported = import_network("tardal", [tmp_path / "tardal-dt.pth"])
    assert len(imported.remarks) == remarks and "use_eval" in imported.dropped


class Harmful:
    """Unpickles by running a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_harmful_pickle_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    marker, file = tmp_path / "was_run", tmp_path / "tardal.pth"
    weights = as_published(random_network("tardal"))
    torch.save({"fuse": weights, "opt": Harmful(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=rf"^{file} is refused: it wants to call posix\.system") as caught:
        import_network("tardal", [file])
    assert not marker.exists() and "\n" not in str(caught.value)
    torch.load(file, weights_only=False)  # the same file does harm where pickles are trusted
    assert marker.exists()


def test_a_pickled_network_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(build_network("tardal", ["a"]), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"it wants to call vifa_training\.networks\.tardal\.TarDAL,"):
        import_network("tardal", [tmp_path / "whole.pth"])


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^{file} ") as caught:
        import_network("tardal", [file])
    assert "\n" not in str(caught.value)


def test_user_errors_name_what_is_wrong(tmp_path: Path) -> None:
    torch.save({"generator": as_published(random_network("tardal"))}, tmp_path / "wrapped.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name, files, tasks, told in (
        ("nano", ["a.pth"], ["a"], "no published weights are known for 'nano'; choose one of didfuse, piafusion"),
        ("didfuse", ["a.pkl"], ["a"], r"didfuse takes 2 file\(s\) \(encoder, decoder\), not 1"),
        ("tardal", ["a.pth"], ["a"], r"cannot read .*a\.pth: No such file"),
        ("tardal", ["wrapped.pth"], ["a"], "no weights at its top or under 'fuse' or under 'g'; it holds generator"),
        ("tardal", ["list.pth"], ["a"], "holds no weights by name but a list"),
        ("tardal", ["a.pth"], ["A b"], "'A b' is no task name"),
        ("tardal", ["a.pth"], ["a", "a"], "distinct task names"),
    ):
        with pytest.raises(WeightsError, match=told):
            import_network(name, [tmp_path / file for file in files], tasks)


def command(*arguments: str | Path) -> tuple[str, BaseException | None]:
    """Output and exception of the command, as `vifa-train import-weights` runs it."""
    app = typer.Typer()
    app.command()(import_weights)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.output, done.exception


def test_the_command_writes_what_training_reads(tmp_path: Path) -> None:
    network = random_network("swinfusion")
    files = write("swinfusion", as_published(network), tmp_path)
    output = tmp_path / "new" / "swinfusion.safetensors"
    printed, failed = command("swinfusion", *files, "-o", output, "--tasks", "people, cars")
    assert failed is None
    assert "left out, their forward pass never uses it: conv_first1_B.weight, conv_first1_B.bias" in printed
    assert "tasks people, cars" in printed
    fresh = build_network("swinfusion", ["people", "cars"])
    load_weights(fresh, output)
    assert equal(network, fresh, "people") and equal(network, fresh, "cars")
    with safe_open(output, "pt") as file:
        assert file.metadata()["network"] == "swinfusion"
        assert "checkpoint.pth (SHA-256 " in file.metadata()["origin"]


def test_the_command_exports_a_bundle_under_the_authors_licence(tmp_path: Path) -> None:
    files = write("tardal", as_published(random_network("tardal")), tmp_path)
    output, bundle = tmp_path / "tardal.safetensors", tmp_path / "bundle"
    _, failed = command("tardal", *files, "-o", output, "--bundle", bundle)
    assert isinstance(failed, WeightsError) and "--licence" in str(failed)
    assert not output.exists() and not bundle.exists()
    _, failed = command("tardal", *files, "-o", output, "--bundle", bundle, "--licence", "GPL-3.0")
    assert failed is None
    loaded = load_bundle(bundle)
    assert loaded.task_names == ["fused"]
    assert loaded.manifest["licences"]["weights"] == "GPL-3.0"
    assert "github.com/JinyuanLiu-CV/TarDAL" in loaded.manifest["provenance"]["recipe"]
    assert "GPL-3.0" in (bundle / "README.md").read_text()


def test_the_output_is_safetensors_or_nothing(tmp_path: Path) -> None:
    files = write("tardal", as_published(random_network("tardal")), tmp_path)
    cases = (
        (tmp_path / "a.pth", WeightsError, ".safetensors"),
        (files[0] / "a.safetensors", TrainingError, "cannot write"),
    )
    for output, error, told in cases:
        _, failed = command("tardal", *files, "-o", output)
        assert isinstance(failed, error) and told in str(failed)
