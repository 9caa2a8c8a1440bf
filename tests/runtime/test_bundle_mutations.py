"""A thousand bundles from a stranger, in a child process with limits: each a clear refusal or a working load."""

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutation
import pytest
from tiny_bundle import write_with_tasks

MUTANTS = 1000
PROCESSES = 2


def run_child(folder: Path, first: int, last: int) -> list[str]:
    """The lines of the mutants of these seeds."""
    write_with_tasks(folder / "tiny")
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), str(here.parents[1])]
    done = subprocess.run(
        [sys.executable, str(here / "mutation.py"), str(folder), str(first), str(last)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"exit {done.returncode} at {lines[-1] if lines else first}: {done.stderr[-800:]}"
    assert len(lines) == last - first
    return lines


@pytest.mark.timeout(600)
def test_a_stranger_cannot_hurt(tmp_path):
    share = MUTANTS // PROCESSES
    folders = [tmp_path / str(number) for number in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(run_child, folder, n * share, (n + 1) * share) for n, folder in enumerate(folders)]
        lines = [line for job in jobs for line in job.result()]
    outcomes = Counter(line.partition(": ")[2].partition(":")[0] for line in lines)
    assert set(outcomes) == {"works", "refused"}
    assert outcomes["refused"] > MUTANTS / 2 and outcomes["works"] > MUTANTS / 50, outcomes
    done = Counter(line.partition(" ")[2].partition(":")[0] for line in lines)
    assert set(done) == set(mutation.MUTATIONS) and min(done.values()) > MUTANTS / 50
    for what in ("loop", "external data"):
        assert not [line for line in lines if f" {what}: works" in line]


def test_the_limits_hold(tmp_path, monkeypatch):
    """What the test relies on: a child that takes too long or too much dies, and the seed is told."""
    for body, limit in (
        ("import time; time.sleep(60)", "SECONDS = 1"),
        ("bytearray(8 << 30)", "MEMORY = 1 << 30"),
    ):
        source = Path(mutation.__file__).read_text()
        name = limit.partition(" ")[0]
        start = source.index(f"{name} = ")
        source = source.replace(source[start : source.index("\n", start)], limit, 1)
        source = source.replace(
            "    try:\n        bundle = load_bundle", f"    {body}\n    try:\n        bundle = load_bundle"
        )
        (tmp_path / "mutation.py").write_text(source)
        here = Path(__file__).resolve().parent
        write_with_tasks(tmp_path / "tiny")
        paths = os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])
        command = [sys.executable, str(tmp_path / "mutation.py"), str(tmp_path), "1", "3"]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
        assert done.returncode != 0
        assert done.stdout.startswith("1 ") and len(done.stdout.splitlines()) == 1
