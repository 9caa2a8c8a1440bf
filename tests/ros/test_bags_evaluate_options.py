"""`vifa evaluate` as a command: thresholds, the node's parameters, two bundles compared, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags import camera_entries, write_bag
from evaluations import SIZE, run, values_of, write_bag_of, write_labels, write_pairs
from typer.testing import CliRunner

from vifa_ros.bags import comparing
from vifa_ros.bags.comparing import Comparison, Resampling
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.node_values import read_values
from vifa_ros.bags.tallies import Scratch, TaskTally
from vifa_ros.bags.thresholds import Threshold, check_thresholds, judge, known_metrics, parse_threshold, read_thresholds
from vifa_ros.cli import USER_ERRORS, app
from vifa_ros.parameters import BY_NAME, to_yaml
from vifa_runtime.bundle import Task, TaskClass, load_bundle, write_bundle
from vifa_runtime.metrics import match_image, mean_iou, paired_bootstrap, pool_matches, pooled_map50
from vifa_runtime.scoring import TaskScore

METRICS = ("en", "vif", "map", "miou")


@pytest.fixture(scope="module")
def street(tmp_path_factory, finding_bundle):
    """A bag of eight labelled pairs, half of them at night."""
    root = tmp_path_factory.mktemp("street")
    return write_bag_of(write_labels(write_pairs(root / "pairs", 8), finding_bundle, 0, 0), root / "bag")


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory, finding_bundle, tiny_bundle):
    """As `finding_bundle`, but its tasks subtract the thermal image."""
    bundle = load_bundle(finding_bundle)
    dim = load_bundle(tiny_bundle).graphs["heads/dim.onnx"]
    graphs = {path: dim if path.startswith("heads/") else graph for path, graph in bundle.graphs.items()}
    manifest = {key: value for key, value in bundle.manifest.items() if key not in ("format", "files")}
    folder = tmp_path_factory.mktemp("other") / "other"
    write_bundle(folder, {**manifest, "name": "other"}, graphs)
    return folder


def command(*words):
    """Exit code and lines of the command; one that is refused gives 1 and the one line that `vifa` would print."""
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    if isinstance(done.exception, USER_ERRORS):
        return 1, [str(done.exception)]
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.splitlines()


# Thresholds


def test_thresholds_decide_the_exit_code_and_have_a_line_each(street, finding_bundle, tmp_path):
    words = [street, "--bundle", finding_bundle, "--output", tmp_path / "out", "--metrics", "en,map"]
    code, lines = command(*words)
    report = json.loads((tmp_path / "out/report.json").read_text())
    values = values_of(report)
    assert code == 0 and lines[-1] == f"{tmp_path}/out/report.html and {tmp_path}/out/report.json written"
    value = values["cells", "map50_all"]
    given = ["--fail-below", f"cells:map50_all={value}", "--fail-above", "bright:en@night=8"]
    code, lines = command(*words, *given)
    assert code == 0, "a value at the limit passes"
    assert f"passed: map50_all of cells, all: {value:.4f}, wanted at least {value:g}" in lines
    (tmp_path / "limits.yaml").write_text("- {task: bright, metric: en, above: 1.5, tag: day}\n")
    code, lines = command(
        *words, *given, "--fail-below", "cells:ap50_red=1.1", "--thresholds", tmp_path / "limits.yaml"
    )
    assert code == 1 and "8 visible and 8 thermal images; dropped: none" in lines
    assert sum(line.startswith("failed: ") for line in lines) == 2
    day = values_of(report, "day")["bright", "en"]
    assert f"failed: en of bright, day: {day:.4f}, wanted at most 1.5" in lines
    rows = json.loads((tmp_path / "out/report.json").read_text())["thresholds"]
    assert [(row["metric"], row["tag"], row["passed"]) for row in rows] == [
        ("en", "day", False), ("map50_all", "all", True), ("ap50_red", "all", False), ("en", "night", True),
    ]  # fmt: skip
    page = (tmp_path / "out/report.html").read_text()
    assert "2 of 4 thresholds not held" in page


def test_what_has_no_value_fails(finding_bundle, tmp_path):
    bag = write_bag(tmp_path / "bag", camera_entries(3, size=SIZE))
    words = [bag, "--bundle", finding_bundle, "--output", tmp_path / "out", "--metrics", "en,map"]
    code, lines = command(*words, "--fail-below", "cells:map50_all=0", "--fail-above", "bright:en@dusk=9")
    assert code == 1
    assert "failed: map50_all of cells, all: not measured, wanted at least 0" in lines
    assert "failed: en of bright, dusk: not measured, wanted at most 9" in lines
    assert any(line.startswith("not measured: map of cells: the bag has no topic") for line in lines)


@pytest.mark.parametrize(
    "text", ["", "cells", "cells:map50_all", "cells=1", "cells:map=x", "cells:map=nan", ":en=1", "a:b=1=2", "a:b@=1"]
)
def test_texts_that_are_no_thresholds_are_refused(text):
    with pytest.raises(BagError, match=r"--fail-below: .* is no threshold; write one like road_users:map50_all=0\.4"):
        parse_threshold(text, "below")


def test_texts_of_thresholds():
    assert parse_threshold("a:b=0.25", "below") == Threshold("a", "b", 0.25)
    assert parse_threshold("road users:ap50_big car@wet night=-1e3", "above") == Threshold(
        "road users", "ap50_big car", -1000, "above", "wet night"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no list"),
        ("{task: a}", "holds no list"),
        ("- [", "is no YAML"),
        ("- {task: a, below: 1}", "entry 1 must be like"),
        ("- {task: a, metric: b, below: 1, colour: red}", "entry 1 must be like"),
        (
            "- {task: a, metric: b, below: 1}\n- {task: a, metric: b}",
            "entry 2 must be like .*give one of below and above",
        ),
        ("- {task: a, metric: b, below: 1, above: 2}", "give one of below and above"),
        ("- {task: a, metric: b, below: high}", "below must be a number, got 'high'"),
        ("- {task: a, metric: b, above: .inf}", "above must be a number"),
        ("- {task: 1, metric: b, above: 2}", "task, metric and tag are texts"),
    ],
)
def test_files_that_hold_no_thresholds_are_refused(tmp_path, text, expected):
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(BagError, match=expected) as caught:
        read_thresholds(tmp_path / "limits.yaml")
    assert "limits.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_thresholds_that_can_never_be_judged_are_refused_before_anything_is_read(finding_bundle, tmp_path):
    words = [tmp_path / "nowhere", "--bundle", finding_bundle, "--output", tmp_path / "out"]
    expected = {
        "cats:map50_all=1": "threshold cats:map50_all=1: the bundle has no task cats; it has bright, cells, glare",
        "cells:map50=1": "threshold cells:map50=1: of cells, en, sf, vif, ssim, map50_all, map50_95_all, ap50_red, "
        "ap50_green, ap50_blue is measured; see --metrics",
        "bright:miou=1": "threshold bright:miou=1: of bright, en, sf, vif, ssim is measured; see --metrics",
    }
    for text, line in expected.items():
        assert command(*words, "--fail-below", text) == (1, [line])


def test_every_row_of_a_report_can_be_given_a_threshold(street, finding_bundle, tmp_path):
    report, tasks = run(street, tmp_path / "out", finding_bundle, metrics=METRICS), load_bundle(finding_bundle).tasks
    for task in tasks:
        measured = {row["metric"] for row in report["rows"] if row["task"] == task.name}
        undefined = {row["metric"] for row in report["undefined"] if row["task"] == task.name}
        assert measured | undefined == set(known_metrics(task, METRICS))
    limits = [Threshold(row["task"], row["metric"], row["value"], tag=row["tag"]) for row in report["rows"]]
    check_thresholds(limits, tasks, METRICS)
    assert all(row["passed"] for row in judge(limits, report["rows"], "finding"))
    above = [replace(limit, limit=limit.limit - 1e-9, side="above") for limit in limits]
    assert not any(row["passed"] for row in judge(above, report["rows"], "finding"))


# The node's parameters


def test_the_nodes_own_file_gives_the_nodes_defaults(tmp_path):
    (tmp_path / "vifa.yaml").write_text(to_yaml())
    assert read_values(tmp_path / "vifa.yaml") == read_values(None) == {n: p.default for n, p in BY_NAME.items()}


def test_options_go_before_the_file_and_the_file_before_the_defaults(street, finding_bundle, tmp_path):
    parameters = {
        "bundle": str(finding_bundle), "threads": 1, "slop": 0.07, "max_lag": 1, "tasks": ["cells"],
        "cells": {"max_rate_hz": 5.0}, "alignment.mode": "none", "thermal": {"mode": "min_max"},
    }  # fmt: skip
    (tmp_path / "node.yaml").write_text(yaml.dump({"/front/fusion": {"ros__parameters": parameters}}))
    words = [street, "--output", tmp_path / "out", "--params", tmp_path / "node.yaml", "--metrics", "en"]
    code, _ = command(*words, "--slop", "0.02", "--alignment", "resize")
    assert code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["meta"]["settings"]["parameters"] == {
        "bundle": str(finding_bundle), "threads": 1, "slop": 0.02, "max_lag": 1.0, "tasks": ["cells"],
        "thermal.mode": "min_max",
    }  # fmt: skip
    assert {row["task"] for row in report["rows"]} == {"cells"}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"slopp": 1.0}, "the node has no parameter slopp; see docs/fusion_node.md"),
        ({"slop": "wide"}, "slop must be a double, got 'wide'"),
        ({"slop": -1.0}, "slop is -1.0; use a value from 0 to 10"),
        ({"queue_size": 2.5}, "queue_size must be a integer, got 2.5"),
        ({"queue_size": True}, "queue_size must be a integer, got True"),
        ({"tasks": [1]}, r"tasks must be a string array, got \[1\]"),
        ({"thermal": {"mode": "hot"}}, "thermal.mode is 'hot'; use one of bundle, auto"),
    ],
)
def test_a_parameter_that_the_node_would_refuse_is_refused(tmp_path, parameters, expected):
    path = tmp_path / "node.yaml"
    path.write_text(yaml.dump({"node": {"ros__parameters": parameters}}))
    with pytest.raises(BagError, match=expected) as caught:
        read_values(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "node: {slop: 1.0}", "node: {ros__parameters: 5}"])
def test_a_file_that_holds_no_parameters_is_refused(tmp_path, text):
    (tmp_path / "node.yaml").write_text(text)
    with pytest.raises(BagError, match="is no parameter file: it holds no ros__parameters"):
        read_values(tmp_path / "node.yaml")
    with pytest.raises(BagError, match="--params: cannot read nowhere: No such file"):
        read_values(Path("nowhere"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metrics", "vif,beauty"], "--metrics: 'beauty' is unknown; use some of en, sf, vif"),
        (["--metrics", ""], "--metrics: '' is unknown"),
        (["--output-bag", "png"], "--output-bag is 'png'; use one of raw, jpeg"),
        (["--pairing", "any"], "--pairing: pairing is 'any'; use one of nearest"),
        (["--alignment", "nowhere.yaml"], "nowhere.yaml"),
        (["--tags", "nowhere.yaml"], "--tags: cannot read nowhere.yaml"),
        (["--labels", "nowhere"], "--labels: nowhere is no folder; give one that holds labels/ or masks/"),
        (["--visible", "/nothing"], "--visible: .* has no topic /nothing"),
        (["--detections", "/nothing"], "--detections: .* holds no messages of /nothing"),
        (["--backend", "abacus"], "abacus"),
        (["--compare", "nowhere"], "no bundle at nowhere"),
        (["--thresholds", "nowhere.yaml"], "--thresholds: cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(street, finding_bundle, tmp_path, words, expected):
    code, lines = command(street, "--bundle", finding_bundle, "--output", tmp_path / "out", *words)
    assert code == 1 and len(lines) == 1
    assert re.search(expected, lines[0]), lines
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_tasks_that_are_in_no_bundle_are_refused(street, finding_bundle, tiny_bundle, tmp_path):
    with pytest.raises(BagError, match="bundle finding has no task sky; it has bright, cells, glare"):
        run(street, tmp_path / "out", finding_bundle, values={"tasks": ["sky"]})
    values = {"tasks": ["cells", "glare"]}
    report = run(street, tmp_path / "out", finding_bundle, values=values, metrics=("en",))
    assert {row["task"] for row in report["frames"]} == {"cells", "glare"}


# Two bundles


def test_two_bundles_are_compared_pair_by_pair(street, finding_bundle, other_bundle, tmp_path):
    alone = [run(street, tmp_path / "one", bundle, metrics=METRICS) for bundle in (finding_bundle, other_bundle)]
    report = run(street, tmp_path / "out", finding_bundle, other_bundle, metrics=METRICS, resamples=50)
    for name, own in zip(("finding", "other"), alone, strict=True):
        assert [row for row in report["rows"] if row["bundle"] == name] == own["rows"], "as if it were alone"
    for row in report["comparison"]:
        first, second = (values_of(own, row["tag"])[row["task"], row["metric"]] for own in alone)
        assert (row["first"], row["second"]) == pytest.approx((first, second), abs=1e-12)
        assert row["difference"] == pytest.approx(second - first, abs=1e-12)
        assert row["low"] <= row["high"]
    compared = {(row["task"], row["metric"], row["tag"]) for row in report["comparison"]}
    fusion = {(task, metric) for task in ("bright", "cells", "glare") for metric in ("en", "vif")}
    wanted = fusion | {("cells", "map50_all"), ("glare", "miou")}
    assert compared == {(*one, tag) for one in wanted for tag in ("all", "day", "night")}
    both = [[row for row in report["frames"] if row["bundle"] == name] for name in ("finding", "other")]
    for row, first, second in zip(report["differences"], *both, strict=True):
        assert (row["index"], row["task"], row["tag"]) == (first["index"], first["task"], first["tag"])
        for metric in ("en", "vif", "map50_all", "miou"):
            assert (metric in row) is (metric in first)
            if metric in row:
                assert row[metric] == second[metric] - first[metric]


def test_the_interval_is_the_paired_bootstraps(street, finding_bundle, other_bundle, tmp_path):
    """Once more by hand: blocks of one pair, day and night drawn apart, the same draws for both."""
    report = run(street, tmp_path / "out", finding_bundle, other_bundle, metrics=METRICS, resamples=200, seed=3)
    vif = {
        name: np.array([r["vif"] for r in report["frames"] if (r["bundle"], r["task"]) == (name, "bright")])
        for name in ("finding", "other")
    }
    tags = ["day", "night"] * 4
    expected = paired_bootstrap(
        {name: lambda chosen, own=own: float(own[chosen].mean()) for name, own in vif.items()},
        8, "finding", 200, seed=3, groups=tags,
    )["other"].difference  # fmt: skip
    row = next(r for r in report["comparison"] if (r["task"], r["metric"], r["tag"]) == ("bright", "vif", "all"))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected[:3], abs=1e-12)
    assert not row["low"] <= 0 <= row["high"], "adding and subtracting are told apart"
    again = run(street, tmp_path / "again", finding_bundle, other_bundle, metrics=METRICS, resamples=200, seed=3)
    assert again["comparison"] == report["comparison"] and again["differences"] == report["differences"]


def test_a_bundle_beside_itself_does_not_differ(street, finding_bundle, tmp_path):
    report = run(street, tmp_path / "out", finding_bundle, finding_bundle, metrics=METRICS, resamples=20)
    assert list(report["meta"]["bundles"]) == ["finding", "finding-2"]
    assert report["comparison"] and all(
        (row["difference"], row["low"], row["high"]) == (0, 0, 0) for row in report["comparison"]
    )


def test_bundles_without_a_task_in_common_are_refused(street, finding_bundle, tiny_bundle, tmp_path):
    values = {"tasks": ["cells"]}
    with pytest.raises(BagError, match="bundle tiny has no task cells; it has bright, dim"):
        run(street, tmp_path / "out", finding_bundle, tiny_bundle, values=values)
    report = run(street, tmp_path / "out", finding_bundle, tiny_bundle, metrics=("en",), resamples=5)
    assert {row["task"] for row in report["comparison"]} == {"bright"}, "the one that both have"
    bundle = load_bundle(tiny_bundle)
    manifest = {key: value for key, value in bundle.manifest.items() if key not in ("format", "files")}
    graphs = {"backbone.onnx": bundle.graphs["backbone.onnx"], "heads/dim.onnx": bundle.graphs["heads/dim.onnx"]}
    write_bundle(tmp_path / "dim", {**manifest, "tasks": manifest["tasks"][1:]}, graphs)
    with pytest.raises(BagError, match=r"--compare: finding \(bright, cells, glare\) and tiny \(dim\) have no task"):
        run(street, tmp_path / "out", finding_bundle, tmp_path / "dim")


@pytest.fixture
def new_tally(tmp_path):
    """A function that makes a tally for a comparison, of a task of this kind with these classes."""
    scratch = Scratch(tmp_path)

    def make(kind, *names):
        return TaskTally(Task("task", kind, classes=tuple(TaskClass(name, (0, 0, 0)) for name in names)), scratch, True)

    yield make
    scratch.close()


def compare(first, second, statistic):
    """The row of all pairs, and what `paired_bootstrap` gives for the statistic of each tally's pairs."""
    (row,) = Comparison(["all"] * 20, Resampling(300, 1, 2.0)).rows(first, second)
    both = {"first": statistic(first), "second": statistic(second)}
    return row, paired_bootstrap(both, 20, "first", 300, seed=1, block=2)["second"].difference


def test_a_resample_without_a_class_is_left_out(new_tally):
    """The second class is in one image only: without it, mAP would be another quantity."""
    box, images = np.array([[0, 0, 10, 10]], np.float32), {}
    tallies = [new_tally("detection", "a", "b") for _ in range(2)]
    for shift, tally in zip((0, 3), tallies, strict=True):
        for index in range(20):
            label = np.array([int(index == 7)])
            found = (box + shift * (index % 3), np.array([0.125 + index / 64]), label)
            images.setdefault(id(tally), []).append(match_image(found, (box, label), 2))
            tally.add("all", TaskScore({}, images[id(tally)][-1]))

    def statistic(tally):
        matches = pool_matches(images[id(tally)], 2)
        return lambda chosen: pooled_map50(matches, chosen) if 7 in chosen else float("nan")

    row, expected = compare(*tallies, statistic)
    assert [row[key] for key in ("difference", "low", "high")] == pytest.approx(expected[:3])
    assert expected.left_out > 50 and row["difference"] < 0 and row["metric"] == "map50_all"


def test_masks_of_a_resample_are_pooled(new_tally):
    rng, tallies = np.random.default_rng(0), [new_tally("segmentation", "a", "b") for _ in range(2)]
    for shift, tally in zip((0, 3), tallies, strict=True):
        for _ in range(20):
            tally.add("all", TaskScore({}, None, np.diag(rng.integers(1, 50, 2)) + shift))
    row, expected = compare(
        *tallies, lambda tally: lambda chosen: mean_iou(sum(tally.confusions[index] for index in chosen))
    )
    assert [row[key] for key in ("difference", "low", "high")] == pytest.approx(expected[:3])
    assert row["difference"] < -0.05 and row["metric"] == "miou"


def test_what_cannot_be_compared_has_no_row_but_a_reason(new_tally, monkeypatch):
    image = match_image(([], [], []), ([[0, 0, 5, 5]], [0]), 2)
    first, second, third = (new_tally("detection", *names) for names in ("ab", "ac", "ab"))
    for tally in (first, second, third):
        tally.add("x", TaskScore({}, image))
    third.add("x", TaskScore({}, image))
    monkeypatch.setattr(comparing, "MOST_DETECTIONS", -1)
    comparison = Comparison(["x"] * 2, Resampling(5))
    assert [*comparison.rows(first, second), *comparison.rows(first, third), *comparison.rows(first, first)] == []
    assert [row["reason"] for row in comparison.undefined] == [
        "not compared: the classes are a, b and a, c",
        "not compared: labels are known for different pairs",
        "not compared: there are more than -1 detections, too many to draw resamples of",
    ]


@pytest.mark.parametrize(
    ("rate", "count", "block"), [(30, 3000, 30), (30, 100, 10), (2, 5, 1), (0, 50, 1), (10.4, 5000, 10)]
)
def test_neighbours_of_a_second_are_drawn_together_as_far_as_that_leaves_a_choice(rate, count, block):
    assert Resampling(rate=rate).block(count) == block
