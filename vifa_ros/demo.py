"""The demo: player, fusion node and recorder as separate processes over real DDS, and what came of it."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vifa_ros.accounting import find_discrepancies, sum_drops, transport_lost
from vifa_ros.outputs import DETECTIONS, IMAGE, MASK
from vifa_ros.pairing import STREAMS
from vifa_ros.players import open_source
from vifa_ros.profiles import dds_environment
from vifa_runtime.files import write_json
from vifa_runtime.pairs import read_visible, write_image
from vifa_runtime.provenance import describe_run
from vifa_runtime.render import contact_sheet
from vifa_runtime.thermal import ThermalNormaliser

NODE = "/vifa"
READY_TIMEOUT = 90.0
DRAIN = 1.5  # seconds between the last frame and the last look at the node's counts
SHEET_ROWS = 6


class DemoError(RuntimeError):
    """A demo that did not work; the message says which process failed and why."""


@dataclass(frozen=True)
class DemoSettings:
    """What to play, where to write, for how long.

    Attributes:
        pairs: folder with `vi/` and `ir/`; None for the synthetic street.
        seconds: how long to play.
        rate: pairs a second.
        bundle: folder or shipped name.
        output: folder of summary.json and contact_sheet.png.
    """

    pairs: Path | None
    seconds: float
    rate: float
    bundle: str
    output: Path


def run_demo(settings: DemoSettings) -> dict[str, Any]:
    """Run the three processes; write and return the summary.

    Raises:
        DemoError: a process ended early, or a task published nothing.
        PairError: the folder holds no pairs.
    """
    source = open_source(settings.pairs)
    with tempfile.TemporaryDirectory(prefix="vifa-demo-") as scratch:
        folder = Path(scratch)
        _run_processes(settings, folder)
        sent = {stream: [tuple(e) for e in entries] for stream, entries in _read(folder / "sent.json").items()}
        heard = _read(folder / "recorder.json")
        summary = summarise(settings, sent, heard)
        write_json(settings.output / "summary.json", summary)
        silent = dict.fromkeys(name.partition("/")[0] for name, entries in heard["results"].items() if not entries)
        if silent:
            reason = heard["status"]["message"] or "no reason known"
            raise DemoError(f"nothing was published for {', '.join(silent)}: {reason}")
        sheet = _draw_sheet(source, sent, list(summary["rows"][0]["published"]), folder)
    write_image(settings.output / "contact_sheet.png", sheet)
    return summary


def summarise(settings: DemoSettings, sent: dict[str, Any], heard: dict[str, Any]) -> dict[str, Any]:
    """The demo's one row, made from the player's list, the recorder's results and the node's last status."""
    status, results = heard["status"], heard["results"]
    stamps = {stream: [stamp for stamp, _ in entries] for stream, entries in sent.items()}
    arrived = {output: [stamp for stamp, _ in entries] for output, entries in results.items()}
    latency = [1e-6 * (arrival - stamp) for entries in results.values() for stamp, arrival in entries]
    discrepancies = find_discrepancies(stamps, arrived, status)
    row = {
        "frames_sent": {stream: len(stamps[stream]) for stream in STREAMS},
        "frames_in": {stream: status[stream]["received"] for stream in STREAMS},
        "transport_lost": sum(transport_lost(stamps, status, stream) for stream in STREAMS),
        "pairs": status["formed"],
        "processed": status["processed"],
        "published": _count_by_task(arrived, IMAGE),
        "detections": _count_by_task(arrived, DETECTIONS),
        "masks": _count_by_task(arrived, MASK),
        "dropped": sum_drops(status),
        "unaccounted": sum(discrepancies.values()),
        "unaccounted_by_check": {check: count for check, count in discrepancies.items() if count},
        "fps": round(status["processed"] / settings.seconds, 2),
        "latency_ms": _percentiles(latency),
        "stage_ms": {stage["stage"]: round(stage["p50_ms"], 3) for stage in status["stages"]},
        "bundle": status["bundle"],
        "backend": status["backend"],
        "source": "synthetic street" if settings.pairs is None else settings.pairs.name,
    }
    return {"meta": describe_run("vifa demo", seed=0), "rows": [row]}


def _count_by_task(arrived: dict[str, list[int]], output: str) -> dict[str, int]:
    """Task -> messages of one kind of output that arrived."""
    return {name.partition("/")[0]: len(stamps) for name, stamps in arrived.items() if name.endswith(f"/{output}")}


def _run_processes(settings: DemoSettings, folder: Path) -> None:
    environment = {
        "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)),
        **os.environ,
        **dds_environment(),
    }
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    node = [
        "vifa_ros.fusion_node",
        "--ros-args",
        "-r",
        f"__node:={NODE[1:]}",
        "-p",
        f"bundle:={settings.bundle}",
        "-p",
        "status_rate:=5.0",
    ]
    recorder = ["vifa_ros.recorder", "--node", NODE, "--output", str(folder)]
    frames = max(1, round(settings.seconds * settings.rate))
    player = [
        "vifa_ros.cli",
        "play",
        "--rate",
        str(settings.rate),
        "--frames",
        str(frames),
        "--sent",
        str(folder / "sent.json"),
    ]
    if settings.pairs is not None:
        player.append(str(settings.pairs))
    with (
        _process("node", node, environment, folder) as running,
        _process("recorder", recorder, environment, folder) as ear,
    ):
        _wait_for_line(ear, "ready", running, folder)
        with _process("player", player, environment, folder) as playing:
            if playing.wait(settings.seconds + READY_TIMEOUT) != 0:
                raise DemoError(_last_words("player", folder))
        running.poll()
        if running.returncode is not None:
            raise DemoError(_last_words("node", folder))
        threading.Event().wait(DRAIN)
        ear.send_signal(signal.SIGINT)
        if ear.wait(READY_TIMEOUT) != 0:
            raise DemoError(_last_words("recorder", folder))


@contextmanager
def _process(name: str, module: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen]:
    """Run `python -m module`; its messages go to a file, and it is gone when the block ends."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_line(process: subprocess.Popen, line: str, other: subprocess.Popen, folder: Path) -> None:
    """Wait until `process` prints `line`; fail when it prints another one, when one ends, or after `READY_TIMEOUT`."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    for _ in range(int(READY_TIMEOUT / 0.1)):
        try:
            said = lines.get(timeout=0.1).strip()
            if said == line:
                return
            raise DemoError(f"the node cannot run: {said}")
        except queue.Empty:
            pass
        if process.poll() is not None:
            raise DemoError(_last_words("recorder", folder))
        if other.poll() is not None:
            raise DemoError(_last_words("node", folder))
    raise DemoError(f"the node was not ready after {READY_TIMEOUT:g} s: {_last_words('node', folder)}")


def _pump(stream: TextIO, lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)


def _last_words(name: str, folder: Path) -> str:
    lines = (folder / f"{name}.log").read_text().strip().splitlines()
    return f"the {name} failed: {lines[-1] if lines else 'it said nothing'}"


def _draw_sheet(source: Any, sent: dict[str, Any], tasks: list[str], folder: Path) -> np.ndarray:
    """Rows of visible, thermal and each task's picture as the recorder kept it, spread over the whole session."""
    indices = dict(sent["visible"])
    stamps = sorted({int(path.stem.rpartition("_")[2]) for path in folder.glob("*.png")})
    complete = [s for s in stamps if s in indices and all((folder / f"{task}_{s}.png").exists() for task in tasks)]
    if not complete:
        raise DemoError("no pair came back for every task, so there is nothing to draw; look at summary.json")
    chosen = [complete[i] for i in np.linspace(0, len(complete) - 1, min(SHEET_ROWS, len(complete))).astype(int)]
    normalise = ThermalNormaliser()
    rows = []
    for stamp in chosen:
        visible, thermal = source[indices[stamp]]
        pictures = [read_visible(folder / f"{task}_{stamp}.png") for task in tasks]
        rows.append([visible, normalise(thermal), *pictures])
    return contact_sheet(rows, ["visible", "thermal", *tasks])


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
