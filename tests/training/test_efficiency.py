"""What a shared backbone saves: the paper's figures, counts by hand and by another counter, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from vifa_training.commands import efficiency as command
from vifa_training.efficiency.costs import cost_of, peak_mib
from vifa_training.efficiency.counting import Operations, count_operations, peak_bytes
from vifa_training.efficiency.published import PAPER, doubts
from vifa_training.efficiency.report import markdown, sheets
from vifa_training.efficiency.rows import efficiency_rows
from vifa_training.efficiency.timing import TimingSettings, measure, measure_network
from vifa_training.networks import NETWORKS, build_network

PAPERS_COUNT = {  # network -> one and two tasks at 512x512; facts of the VIFA paper, two tasks of DIDFuse by its count
    "piafusion": (286.89, 291.73),
    "tardal": (72.43, 77.34),
    "didfuse": (91.28, 110.91),
    "swinfusion": (237.42, 238.52),
}
LIMITS = {"piafusion": 4.70, "tardal": 3.99, "didfuse": 2.77, "swinfusion": 4.91}  # five tasks
FULL_AT_VGA = {"piafusion": 361, "tardal": 91, "didfuse": 114, "swinfusion": 350}  # measured on other models, 1e9
PARAMS = {
    "piafusion": (1_176_097, 18_497),
    "tardal": (296_577, 18_817),
    "didfuse": (260_935, 75_076),
    "swinfusion": (965_251, 4_201),
}


class Tiny(nn.Module):
    """One of everything that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(4)
        self.slope = nn.PReLU()
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False)
        self.linear = nn.Linear(12, 5)
        self.token_norm = nn.LayerNorm(5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1,2,8,6) -> (1,2,16,5)."""
        image = self.up(self.slope(self.norm(self.conv(image))))  # (1,2,16,12)
        tokens = F.relu(self.token_norm(self.linear(image)))  # (1,2,16,5)
        attention = (tokens @ tokens.transpose(-1, -2)).softmax(dim=-1)  # (1,2,16,16)
        return attention @ tokens


def test_every_kind_of_operation_by_hand() -> None:
    conv, up, linear = 48 * 4 * 2 * 9, 48 * 4 * 2 * 4, 32 * 12 * 5
    batch_norm, slope, layer_norm, softmax = 4 * 48 * 4, 48 * 4, 4 * 32 * 5, 32 * (3 * 16 - 1)
    attention = 2 * 2 * 16 * 16 * 5
    biases, relu = 48 * 4 + 32 * 5, 32 * 5
    counted = count_operations(Tiny().to("meta"), torch.empty(1, 2, 8, 6, device="meta"))
    layers = conv + up + linear
    of_others = batch_norm + slope + layer_norm + softmax
    assert counted == Operations(layers, layers + of_others, layers + attention, of_others + biases + relu)


def test_a_constant_convolution_is_no_layer() -> None:
    class Shift(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return F.conv2d(image, torch.ones(3, 1, 2, 2))

    assert count_operations(Shift(), torch.zeros(1, 1, 5, 5)) == Operations(products=16 * 3 * 4)


def test_a_mean_costs_what_goes_in_and_moving_nothing() -> None:
    class Mean(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([F.pad(torch.roll(image, 1, 2), (1, 1)).mean(dim=(2, 3))] * 2)

    assert count_operations(Mean(), torch.zeros(1, 2, 4, 4)) == Operations(other=2 * 4 * 6)


def test_memory_by_hand() -> None:
    first, second = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1)
    image = torch.zeros(1, 1, 10, 10)

    def run() -> torch.Tensor:
        hidden = first(image)  # 3200 bytes
        hidden = hidden.relu_().view(1, 8, 100).view(1, 8, 10, 10)
        result = second(hidden)  # 800 bytes, and the hidden ones are still there
        del hidden
        return result + result  # 800 more, without the hidden ones

    assert peak_bytes(run) == 4000


def test_memory_of_a_growing_chain() -> None:
    def run() -> torch.Tensor:
        small = torch.zeros(100)
        large = small.repeat(4)  # 400 + 1600
        del small
        return large * 2 + large  # 1600 x 3

    assert peak_bytes(run) == 4800


@pytest.mark.parametrize("name", PAPERS_COUNT)
def test_the_papers_figures(name: str) -> None:
    cost = cost_of(name, (512, 512))
    assert (cost.params, cost.head_params) == PARAMS[name]
    assert (cost.gmac_paper(1), cost.gmac_paper(2)) == pytest.approx(PAPERS_COUNT[name], abs=0.01)
    assert 2 * cost.gmac_paper(1) == pytest.approx(PAPER[name].gmac_separate, abs=0.02)
    assert cost.limit(5) == pytest.approx(LIMITS[name], abs=0.005)


@pytest.mark.parametrize("name", FULL_AT_VGA)
def test_the_full_count_agrees_with_what_was_known(name: str) -> None:
    assert cost_of(name, (480, 640)).gmac(1) == pytest.approx(FULL_AT_VGA[name], rel=0.005)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_full_count_agrees_with_torchs_own_counter(name: str) -> None:
    network = build_network(name, ["a", "b", "c"]).eval()
    images = torch.rand(1, 1, 32, 48), torch.rand(1, 1, 32, 48)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*images)
    assert round(1e9 * cost_of(name, (32, 48)).gmac(3)) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_agree_with_shapes_seen_by_hooks(name: str) -> None:
    network = build_network(name, ["a"]).eval()
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0, 0].numel() * module.weight.numel() * len(output)
        elif isinstance(module, nn.ConvTranspose2d):
            total += inputs[0][0, 0].numel() * module.weight.numel() * len(output)
        elif isinstance(module, nn.Linear):
            total += inputs[0].numel() * module.out_features

    for module in network.modules():
        module.register_forward_hook(add)
    network(torch.rand(1, 1, 32, 48), torch.rand(1, 1, 32, 48))
    assert cost_of(name, (32, 48)).whole.layers == total


def test_costs_grow_by_a_head_a_task() -> None:
    cost = cost_of("tardal", (32, 32))
    network = build_network("tardal", ["a", "b", "c"])
    assert cost.params_of(3) == sum(p.numel() for p in network.parameters())
    assert cost.gmac(3) - cost.gmac(1) == pytest.approx(2 * 18_720 * 1024 / 1e9)
    assert cost.limit(1) == 1


def test_sizes_are_rounded_up_as_the_runtime_pads() -> None:
    assert cost_of("swinfusion", (27, 30)) == cost_of("swinfusion", (32, 32))


def test_sharing_saves_the_weights_of_backbones() -> None:
    separate, shared = peak_mib("piafusion", 3, (16, 16))
    backbone = 4 * (PARAMS["piafusion"][0] - PARAMS["piafusion"][1]) / 2**20
    assert separate - shared == pytest.approx(2 * backbone, rel=0.01)


class Clockwork:
    """An engine that uses a known amount of processor time: 6 a backbone, 2 a head."""

    def separate(self, tasks: int) -> None:
        _work(8 * tasks)

    def shared(self, tasks: int) -> None:
        _work(6 + 2 * tasks)

    def head_share(self) -> float:
        return 0.25


def _work(units: int) -> None:
    for _ in range(units):
        sum(range(60_000))


def test_measured_ratio_of_known_work() -> None:
    times = measure(Clockwork(), [1, 2, 4], TimingSettings((0, 0), repeats=9, least_seconds=0))
    found = {tasks: times.summary(tasks) for tasks in (1, 2, 4)}
    assert found[4]["rounds"] == 9
    assert found[4]["head_percent"] == 25
    assert [found[tasks]["ratio"] for tasks in (1, 2, 4)] == pytest.approx([1, 1.6, 32 / 14], rel=0.25)
    assert found[4]["ratio_low"] <= found[4]["ratio"] <= found[4]["ratio_high"]
    assert found[4]["ratio"] == pytest.approx(found[4]["separate_ms"] / found[4]["shared_ms"], rel=0.25)


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_engines_run_separate_and_shared_networks(engine: str) -> None:
    times = measure_network("nano", engine, [1, 2], TimingSettings((64, 96), repeats=15, least_seconds=0))
    assert times.separate[2].shape == times.shared[2].shape == (15, 2)
    assert np.median(times.separate[2][:, 0]) > 1.4 * np.median(times.separate[1][:, 0])
    assert np.all((times.head_share > 0) & (times.head_share < 1))
    assert len(times.head_share) == 15


def test_an_export_that_fails_costs_only_its_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("no such operator\nand much more")

    monkeypatch.setattr("vifa_training.efficiency.timing.export_bundle", refuse)
    said: list[str] = []
    settings = TimingSettings((16, 16), repeats=1, least_seconds=0)
    row = efficiency_rows(["nano"], [1], (16, 16), settings, progress=said.append)[0]
    assert "torch_ratio" in row and "onnx_ratio" not in row
    assert said[-1] == "nano: left out of onnx: nano can't be exported: ValueError: no such operator"
    text = markdown({"meta": {"repeats": 1, "threads": 1, "note": ""}, "rows": [row]})
    assert "| ONNX Runtime |" not in text
    assert "the export failed: nano in ONNX Runtime." in text.replace("\n", " ")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return efficiency_rows(["tardal", "didfuse", "nano"], [1, 2], (64, 64), None, progress=lambda line: None)


def test_rows_are_flat_and_complete(rows: list[dict]) -> None:
    assert [(row["network"], row["tasks"]) for row in rows] == [
        (network, tasks) for network in ("tardal", "didfuse", "nano") for tasks in (1, 2)
    ]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert list(rows[0])[:6] == ["network", "tasks", "params", "head_params", "gmac_paper", "gmac"]
    assert all(isinstance(value, (str, int, float, type(None))) for row in rows for value in row.values())


def test_rows_say_what_the_paper_says(rows: list[dict]) -> None:
    one, two = rows[0], rows[1]
    assert (one["published_gmac"], one["published_gmac_separate"]) == (72.43, 72.43)
    assert (two["published_gmac"], two["published_gmac_separate"], two["published_speed_up"]) == (77.34, 144.86, 1.85)
    assert one["published_speed_up"] is None
    assert rows[-1]["published_gmac"] is None
    assert two["mib"] == pytest.approx(two["published_mib"], abs=0.005)
    assert two["mib_separate"] == pytest.approx(two["published_mib_separate"], abs=0.005)


def test_what_the_paper_cannot_have_measured_is_named(rows: list[dict]) -> None:
    found = doubts(rows)
    assert (
        "didfuse: the published speed-up 1.85 is above the 1.66 that the operations of backbone and head allow."
        in found
    )
    assert not any(text.startswith("tardal: the published speed-up") for text in found)
    assert doubts([row for row in rows if row["network"] == "nano"]) == []


def test_markdown_has_every_row_and_doubt(rows: list[dict]) -> None:
    result = {"meta": {"repeats": 3, "threads": 1, "note": "Busy."}, "rows": rows}
    assert len(sheets(result)) == 3
    text = markdown(result, level=3)
    assert text.startswith("### Operations")
    assert "| didfuse | 2 | " in text
    assert all(f"- {doubt}" in text.replace("\n  ", " ") for doubt in doubts(rows))
    widths = {line.count("|") for line in text.split("### ")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1


app = typer.Typer()
app.command()(command.efficiency)


def run(*arguments: str | Path) -> object:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_json_goes_alone_to_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--networks", "nano", "--tasks", "2,1", "--size", "64x48", "--no-time", "--json")
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert {"command", "machine", "versions", "commit", "seed", "date"} <= set(result["meta"])
    assert [(row["tasks"], row["size"]) for row in result["rows"]] == [(1, "64x48"), (2, "64x48")]
    assert list(tmp_path.iterdir()) == []


def test_everything_into_a_folder(tmp_path: Path) -> None:
    arguments = ("--networks", "nano", "--tasks", "1", "--size", "64x64", "--time-size", "64x64", "--repeats", "1")
    done = run(*arguments, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "efficiency.json",
        "efficiency.md",
        "efficiency.png",
    ]
    assert (tmp_path / "out" / "efficiency.png").read_bytes().startswith(b"\x89PNG")
    row = json.loads((tmp_path / "out" / "efficiency.json").read_text())["rows"][0]
    assert row["time_size"] == "64x64"
    assert row["torch_ratio"] > 0 and row["onnx_ratio"] > 0
    assert "Speed-up by sharing the backbone" in (tmp_path / "out" / "efficiency.md").read_text()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ("--networks", "nano", "--tasks", "1", "--size", "64x64", "--no-time", "-o", tmp_path)
    assert "pip install 'vifa-perception[training]'" in str(run(*arguments).exception)
    assert run(*arguments, "--no-plot").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["efficiency.json", "efficiency.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--networks", "giant"), "--networks: no network is called 'giant'"),
        (("--tasks", "0"), "--tasks: '0' is no list"),
        (("--tasks", "2,many"), "--tasks: '2,many'"),
        (("--size", "512"), "--size: '512' is no width x height"),
        (("--time-size", "8x8"), "--time-size: '8x8'"),
    ],
)
def test_options_that_cannot_be_understood(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, "--no-plot", "--json", *(() if "--time-size" in arguments else ("--no-time",)))
    assert isinstance(done.exception, command.EfficiencyError)
    assert str(done.exception).startswith(message)
