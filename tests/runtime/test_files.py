"""Small files around the core: atomic writes, where bundles are, what a result says about its making, luma."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny

from vifa_runtime import models, provenance
from vifa_runtime.bundle import BundleError
from vifa_runtime.files import write_atomically, write_json
from vifa_runtime.luma import rgb_to_luma
from vifa_runtime.models import find_bundle


def test_a_file_is_written_whole_into_a_new_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b.bin", b"data")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"data"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.bin"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    real = getattr(Path, step)

    def fail(self, *arguments):
        if step == "write_bytes":
            real(self, b"ne")  # half of it
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.bin": b"old"}


def test_a_folder_in_the_place_of_the_file_stays(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    seen = []
    replace = Path.replace

    def look_first(self, target):
        seen.append(path.read_bytes())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look_first)
    write_atomically(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"rows": [1]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"rows": [1]}
    assert text.endswith("}\n") and '\n  "rows"' in text


@pytest.fixture
def no_models(tmp_path, monkeypatch):
    """An installation that ships no bundle; returns the prefix of a ROS workspace that may hold some."""
    monkeypatch.setattr(models, "__file__", str(tmp_path / "package" / "models.py"))
    monkeypatch.setattr(models.sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'underlay'}:{tmp_path / 'workspace'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundle_is_found_by_its_folder(no_models):
    write_tiny(no_models / "mine")
    assert find_bundle("mine") == Path("mine")
    assert find_bundle(str(no_models / "mine")) == no_models / "mine"


def test_a_home_folder_is_expanded(no_models, monkeypatch):
    monkeypatch.setenv("HOME", str(no_models))
    write_tiny(no_models / "mine")
    assert find_bundle("~/mine") == no_models / "mine"


@pytest.mark.parametrize("place", ["environment/share/vifa/models", "workspace/share/vifa/models", "models"])
def test_a_shipped_bundle_is_found_by_its_name(no_models, place):
    write_tiny(no_models / place / "shipped")
    (no_models / place / "README.md").write_text("not a bundle")
    assert find_bundle("shipped") == no_models / place / "shipped"


def test_the_source_tree_wins_over_an_installation_and_a_folder_over_both(no_models):
    for place in ("environment/share/vifa/models", "workspace/share/vifa/models", "models"):
        write_tiny(no_models / place / "shipped")
        assert find_bundle("shipped") == no_models / place / "shipped"
    write_tiny(no_models / "shipped")
    assert find_bundle("shipped") == Path("shipped")


@pytest.mark.parametrize("name", ["unknown", "~nobody-of-this-name/x", ""])
def test_a_bundle_that_is_nowhere_names_those_that_ship(no_models, name):
    with pytest.raises(BundleError, match="shipped: none"):
        find_bundle(name)
    for shipped in ("second", "first"):
        write_tiny(no_models / "models" / shipped)
    with pytest.raises(BundleError, match=f"no bundle at {name} and none ships by that name; shipped: first, second"):
        find_bundle(name)


def test_a_result_says_how_it_was_made():
    meta = provenance.describe_run("vifa test", seed=3)
    assert list(meta) == ["command", "machine", "versions", "commit", "seed", "date"]
    assert (meta["command"], meta["seed"]) == ("vifa test", 3)
    assert meta["versions"]["numpy"] == np.__version__
    assert "python" in meta["versions"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", meta["date"])
    assert re.fullmatch(r".+, \d+ cores, \d+ GiB", meta["machine"])


def test_a_result_names_no_host_user_or_path(monkeypatch):
    monkeypatch.setenv("USER", "somebody-secret")
    monkeypatch.setenv("LOGNAME", "somebody-secret")
    text = json.dumps(provenance.describe_run("vifa test"))
    for secret in ("somebody-secret", os.uname().nodename, str(Path.home()), str(Path.cwd())):
        assert secret not in text or len(secret) < 4
    assert not re.search(r"/\w", text)


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout in which provenance believes itself to be."""
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    (root / "package" / "provenance.py").write_text("1")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(root / "package" / "provenance.py"))
    return root


def test_the_commit_of_a_clean_checkout(checkout):
    assert provenance.commit() == git(checkout, "rev-parse", "--short=12", "HEAD")


def test_the_commit_of_a_changed_checkout_has_a_plus(checkout):
    (checkout / "package" / "provenance.py").write_text("2")
    assert provenance.commit() == git(checkout, "rev-parse", "--short=12", "HEAD") + "+"


def test_the_commit_of_somebody_else_around_an_installed_package_is_not_taken(checkout, monkeypatch):
    installed = checkout / ".venv" / "site-packages" / "package" / "provenance.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.commit() == "unknown"


def test_the_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "unknown"


def test_luma_is_the_weighted_sum_of_the_channels():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30]]], np.uint8)
    luma = rgb_to_luma(rgb)
    assert luma.dtype == np.float32
    np.testing.assert_allclose(luma, [[76.245, 149.685, 29.07, 255, 18.15]], rtol=1e-6)
