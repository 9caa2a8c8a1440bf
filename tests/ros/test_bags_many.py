"""`vifa evaluate` on many bags: a report of each and one over all, the same wherever they are evaluated."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from evaluations import run, settings_of, values_of, write_bag_of, write_labels, write_pairs
from processes import run as run_program

from vifa_ros.bags.errors import BagError
from vifa_ros.bags.many import LOCAL, evaluate_many, find_bags, in_processes, on_ray
from vifa_ros.bags.session import METRICS
from vifa_ros.bags.thresholds import Threshold


def pairs_of(folder: Path, target: Path, numbers: range) -> Path:
    """A folder with some of the pairs of another."""
    for source in folder.rglob("*.*"):
        if int(source.stem[:3]) in numbers:
            place = target / source.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    return target


@pytest.fixture(scope="module")
def bags(finding_bundle, tmp_path_factory):
    """A folder with two bags of 3 and 5 pairs, and beside it a bag of all 8."""
    root = tmp_path_factory.mktemp("many")
    folder = write_labels(write_pairs(root / "pairs", 8), finding_bundle)
    for name, numbers in {"first": range(3), "second": range(3, 8)}.items():
        write_bag_of(pairs_of(folder, root / name, numbers), root / "drives" / name)
    write_bag_of(folder, root / "whole")
    return root


def measure(bags: Path, folder: Path, bundle: Path, runner, **options) -> dict:
    settings = settings_of(metrics=METRICS, **options)
    told = evaluate_many(find_bags([bags / "drives"]), folder, [bundle], settings, runner)
    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads(json.dumps(told)) and (folder / "report.html").is_file()
    return report


def lasting(report: dict) -> dict:
    """What is the same in every run."""
    return {key: value for key, value in report.items() if key not in ("meta", "latency")}


def all_reports(folder: Path) -> dict[str, dict]:
    return {
        str(path.relative_to(folder)): lasting(json.loads(path.read_text())) for path in folder.rglob("report.json")
    }


@pytest.fixture(scope="module")
def one_by_one(bags, finding_bundle):
    return measure(bags, bags / "out", finding_bundle, in_processes(1))


def test_metrics_over_all_bags_are_those_of_one_bag_with_all_pairs(one_by_one, bags, finding_bundle, tmp_path):
    whole = run(bags / "whole", tmp_path / "whole", finding_bundle)
    assert {metric for _, metric in values_of(one_by_one)} >= {"en", "vif", "map50_all", "miou"}
    for tag in ("all", "day", "night"):
        assert values_of(one_by_one, tag) == pytest.approx(values_of(whole, tag), abs=1e-12)
    pairs = [{key: row[key] for key in ("tag", "task", "metric", "pairs")} for row in whole["rows"]]
    own = [{key: row[key] for key in ("tag", "task", "metric", "pairs")} for row in one_by_one["rows"]]
    assert sorted(own, key=str) == sorted(pairs, key=str)
    frames = one_by_one["streams"][0]
    assert (frames["stream"], frames["received"], frames["paired"], frames["dropped"]) == ("visible", 8, 8, 0)
    assert frames["rate_hz"] == pytest.approx(10.0)


def test_each_bag_has_its_own_report(one_by_one, bags, finding_bundle, tmp_path):
    for name in ("first", "second"):
        alone = run(bags / "drives" / name, tmp_path / name, finding_bundle)
        assert lasting(json.loads((bags / "out" / name / "report.json").read_text())) == lasting(alone)
    assert [(bag["report"], bag["problem"]) for bag in one_by_one["bags"]] == [("first", ""), ("second", "")]


def test_several_processes_give_the_reports_of_one(one_by_one, bags, finding_bundle, tmp_path):
    measure(bags, tmp_path / "out", finding_bundle, in_processes(2))
    assert all_reports(tmp_path / "out") == all_reports(bags / "out")
    assert len(all_reports(tmp_path / "out")) == 3


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[default]'")
def test_a_ray_cluster_gives_the_reports_of_one_process(one_by_one, bags, finding_bundle, tmp_path, monkeypatch):
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # as where this package is installed
    measure(bags, tmp_path / "out", finding_bundle, on_ray(LOCAL, 1))
    assert all_reports(tmp_path / "out") == all_reports(bags / "out")


def test_a_bag_that_cannot_be_evaluated_is_named_and_the_others_count(bags, finding_bundle, tmp_path):
    (tmp_path / "broken.mcap").write_bytes(b"no bag")
    settings = settings_of(metrics=("en",))
    named = [bags / "drives" / "first", tmp_path / "broken.mcap"]
    report = evaluate_many(named, tmp_path / "out", [finding_bundle], settings, in_processes(1))
    assert [bool(bag["problem"]) for bag in report["bags"]] == [False, True]
    assert any("broken.mcap is left out" in note for note in report["meta"]["notes"])
    assert {row["pairs"] for row in report["rows"] if row["tag"] == "all"} == {3}
    with pytest.raises(BagError, match="no bag could be evaluated"):
        evaluate_many(named[1:] * 2, tmp_path / "none", [finding_bundle], settings, in_processes(1))
    assert not (tmp_path / "none").exists()


def test_limits_hold_for_all_bags_together(one_by_one, bags, finding_bundle, tmp_path):
    value = values_of(one_by_one)["bright", "en"]
    limits = [Threshold("bright", "en", value + more) for more in (-1e-9, 1e-9)]
    report = measure(bags, tmp_path / "out", finding_bundle, in_processes(1), thresholds=limits)
    assert [row["passed"] for row in report["thresholds"]] == [True, False]


def test_bags_of_one_name_get_folders_of_their_own(bags, finding_bundle, tmp_path):
    same = [bags / "drives" / "first"] * 2
    report = evaluate_many(same, tmp_path / "out", [finding_bundle], settings_of(metrics=("en",)), in_processes(1))
    assert [bag["report"] for bag in report["bags"]] == ["first", "first-2"]


def test_a_folder_without_bags_is_refused(tmp_path):
    with pytest.raises(BagError, match="holds none"):
        find_bags([tmp_path])


def test_the_command_takes_a_folder_of_bags(bags, finding_bundle, tmp_path):
    ended = run_program(
        *("vifa_ros.cli", "evaluate", bags / "drives", "-b", finding_bundle, "-o", tmp_path / "out"),
        *("--metrics", "en", "--threads", 1, "--jobs", 2),
    )
    assert ended.returncode == 0, ended.stderr
    assert len(all_reports(tmp_path / "out")) == 3
