"""End-to-end latency of the fusion node over real DDS, beside that of a relay that does no work.

Cameras, node (or relay) and listener are processes of their own. Thermal 320x256 mono16 and visible 640x480 at a
working size of 320x256; two fused images at 30 Hz, detections and a mask at 10 Hz. Relay and node take turns in one
run. The relay has the node's inputs and outputs: it waits for both images of a stamp and publishes as much, computed
from nothing.

.venv/bin/python benchmarks/node_latency.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rows import publish
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from vifa.msg import FusionStatus
from vifa_ros.accounting import find_discrepancies
from vifa_ros.conversions import ImageMessage
from vifa_ros.executor import until_interrupted
from vifa_ros.findings import make_detections
from vifa_ros.outputs import DETECTIONS, RELIABLE_QOS
from vifa_ros.players import PlayerNode, PlaySettings, open_source
from vifa_ros.profiles import dds_environment
from vifa_ros.recorder import to_dictionary
from vifa_runtime.bundle import MANIFEST, TaskClass, load_bundle
from vifa_runtime.metrics import Detections
from vifa_runtime.models import find_bundle

THERMAL, VISIBLE, WORKING = (256, 320), (480, 640), (256, 320)
CAMERA_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class Case:
    """What is measured: a bundle, the outputs that are listened to, and pairs a second."""

    bundle: str
    outputs: tuple[str, ...]
    rate: float


CASES = {
    "fused images": Case("nano-fusion", ("saliency/image", "texture/image"), 30.0),
    "detections and masks": Case("nano-two-task", ("road_users/detections", "crop_and_weed/mask"), 10.0),
}


class Pairs:
    """Pairs of a source in the sizes of this benchmark."""

    def __init__(self, folder: Path | None) -> None:
        self._source = open_source(folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        visible, thermal = self._source[index % 50]
        return (
            cv2.resize(visible, VISIBLE[::-1], interpolation=cv2.INTER_AREA),
            cv2.resize(thermal, THERMAL[::-1], interpolation=cv2.INTER_AREA),
        )


class Relay(Node):
    """Waits for both images of a stamp and publishes outputs of the node's types and sizes."""

    def __init__(self, outputs: list[str]) -> None:
        super().__init__("vifa")
        self._waiting: dict[tuple[int, int], Image] = {}
        self._pixels = {"image": np.zeros((*VISIBLE, 3), np.uint8), "mask": np.zeros(VISIBLE, np.uint8)}
        self._images = {"image": ImageMessage("rgb8"), "mask": ImageMessage("mono8")}
        boxes = np.tile(np.float32([10, 10, 60, 90]), (3, 1))
        self._found = Detections(boxes, np.ones(3, np.float32), np.zeros(3, np.int64))
        self._publishers_of = {
            output: self.create_publisher(message_of(output), f"~/{output}", RELIABLE_QOS) for output in outputs
        }
        for stream in ("visible", "thermal"):
            self.create_subscription(Image, f"{stream}/image_raw", self._receive, CAMERA_QOS)

    def _receive(self, message: Image) -> None:
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        if self._waiting.pop(stamp, None) is None:
            self._waiting[stamp] = message
            return
        for output, publisher in self._publishers_of.items():
            kind = output.rpartition("/")[2]
            if kind == DETECTIONS:
                person = (TaskClass("person", (255, 0, 0)),)
                publisher.publish(make_detections(self._found, person, message.header))
            else:
                publisher.publish(self._images[kind].fill(self._pixels[kind], message.header))


class Listener(Node):
    """Remembers when each result arrived, and the node's last status."""

    def __init__(self, outputs: list[str]) -> None:
        super().__init__("listener")
        self.results: dict[str, list[tuple[int, int]]] = {output: [] for output in outputs}
        self.status: FusionStatus | None = None
        self.create_subscription(FusionStatus, "vifa/status", self._remember, 10)
        for output in outputs:
            callback = self._make_callback(output)
            self.create_subscription(message_of(output), f"vifa/{output}", callback, QoSProfile(depth=50))
        self._timer = self.create_timer(0.05, self._look)

    def _remember(self, status: FusionStatus) -> None:
        self.status = status

    def _make_callback(self, output: str) -> Any:
        def receive(message: Any) -> None:
            now = self.get_clock().now().nanoseconds
            self.results[output].append((Time.from_msg(message.header.stamp).nanoseconds, now))

        return receive

    def _look(self) -> None:
        if all(self.count_publishers(f"vifa/{output}") for output in self.results):
            print("ready", flush=True)
            self._timer.cancel()


def message_of(output: str) -> type:
    """The message type of an output."""
    return Detection2DArray if output.endswith(DETECTIONS) else Image


def play(folder: Path | None, rate: float, frames: int, sent: Path) -> None:
    """Be the cameras."""
    rclpy.init()
    pairs = Pairs(folder)
    for index in range(min(frames, 50)):  # before the clock runs
        pairs[index]
    node = PlayerNode(Cached(pairs), PlaySettings(rate=rate, frames=frames, mono16=True))
    if not node.wait_for_listeners(20.0):
        raise SystemExit("nobody listens to the cameras")
    node.play()
    sent.write_text(json.dumps({stream: [stamp for stamp, _ in shots] for stream, shots in node.sent.items()}))
    time.sleep(1.5)  # the last pair's results, and a status after them
    rclpy.try_shutdown()


class Cached:
    """Pairs that are made once."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = [pairs[index] for index in range(50)]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._pairs[index % len(self._pairs)]


def spin(node: Node) -> None:
    """Spin until interrupted."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with until_interrupted():
        executor.spin()


def measure(name: str, case: Case, subject: str, options: argparse.Namespace) -> dict[str, Any]:
    """One round: start the subject (`relay` or `node`) and a listener, play, stop, and read what was heard."""
    frames = round(options.seconds * case.rate)
    environment = {**os.environ, **dds_environment(), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    environment["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    own = [sys.executable, str(Path(__file__).resolve())]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        relay = [*own, "--role", "relay", "--case", name]
        subjects = {"relay": relay, "node": node_command(case, folder, options.threads)}
        listen = [*own, "--role", "listener", "--case", name, "--heard", str(folder / "heard.json")]
        camera = [
            *own,
            "--role",
            "camera",
            "--case",
            name,
            "--frames",
            str(frames),
            "--sent",
            str(folder / "sent.json"),
        ]
        camera += ["--pairs", str(options.pairs)] if options.pairs else []
        with running(subjects[subject], environment), running(listen, environment) as listener:
            wait_for_ready(listener)
            subprocess.run(camera, env=environment, check=True)
        heard, sent = json.loads((folder / "heard.json").read_text()), json.loads((folder / "sent.json").read_text())
    return {"sent": sent, **heard}


def node_command(case: Case, folder: Path, threads: int) -> list[str]:
    """How the fusion node is started, with a copy of the bundle that works at WORKING."""
    copy = folder / "bundle"
    shutil.copytree(find_bundle(case.bundle), copy)
    manifest = yaml.safe_load((copy / MANIFEST).read_text())
    manifest["working_size"] = list(WORKING)
    (copy / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))
    load_bundle(copy)
    parameters = {"bundle": copy, "threads": threads, "status_rate": 5.0}
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return [sys.executable, "-m", "vifa_ros.fusion_node", "--ros-args", "-r", "__node:=vifa", *given]


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A process that is interrupted and waited for at the end of the block."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.send_signal(2)
        process.wait(20)


def wait_for_ready(listener: subprocess.Popen) -> None:
    """Wait until the listener has found the publishers of all outputs."""
    assert listener.stdout is not None
    if listener.stdout.readline().strip() != "ready":
        raise SystemExit("the listener ended before it found the outputs")
    time.sleep(1.0)  # the node looks for listeners at its own pace


def latencies(rounds: list[dict[str, Any]]) -> np.ndarray:
    """Milliseconds from a pair's stamp to the arrival of the last of its outputs."""
    found = []
    for one in rounds:
        last: dict[int, int] = {}
        for results in one["results"].values():
            for stamp, arrival in results:
                last[stamp] = max(last.get(stamp, 0), arrival)
        found += [(arrival - stamp) * 1e-6 for stamp, arrival in last.items()]
    return np.array(found)


def summarise(name: str, node: list[dict[str, Any]], relay: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the results."""
    end_to_end, relayed = latencies(node), latencies(relay)
    stages = [{stage["stage"]: stage for stage in one["status"]["stages"]} for one in node]
    discrepancies = [
        find_discrepancies(
            one["sent"], {o: [stamp for stamp, _ in r] for o, r in one["results"].items()}, one["status"]
        )
        for one in node
    ]
    pipeline = float(np.median([stage["pipeline"]["p50_ms"] for stage in stages]))
    row = {
        "case": name,
        "pairs": sum(len(one["sent"]["visible"]) for one in node),
        "processed": sum(one["status"]["processed"] for one in node),
        "unaccounted": sum(sum(one.values()) for one in discrepancies),
        "e2e_p50_ms": float(np.percentile(end_to_end, 50)),
        "e2e_p99_ms": float(np.percentile(end_to_end, 99)),
        "pipeline_p50_ms": pipeline,
        "relay_p50_ms": float(np.percentile(relayed, 50)),
    }
    row["limit_p50_ms"] = row["pipeline_p50_ms"] + 1.5 * row["relay_p50_ms"]
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def act(options: argparse.Namespace) -> None:
    """Be one of the processes."""
    case = CASES[options.case]
    if options.role == "camera":
        play(options.pairs, case.rate, options.frames, options.sent)
        return
    rclpy.init()
    if options.role == "relay":
        spin(Relay(list(case.outputs)))
    else:
        listener = Listener(list(case.outputs))
        spin(listener)
        status = None if listener.status is None else to_dictionary(listener.status)
        options.heard.write_text(json.dumps({"results": listener.results, "status": status}))
    rclpy.try_shutdown()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=Path, help="folder with vi/ and ir/; the synthetic street by default")
    parser.add_argument("--json", type=Path, default=Path("docs/results/node_latency.json"))
    parser.add_argument("--role", choices=("camera", "relay", "listener"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=tuple(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sent", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--heard", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        act(options)
        return
    rows = []
    for name, case in CASES.items():
        rounds: dict[str, list[dict[str, Any]]] = {"relay": [], "node": []}
        for _ in range(options.rounds):
            for subject, measured in rounds.items():
                measured.append(measure(name, case, subject, options))
        rows.append(summarise(name, rounds["node"], rounds["relay"]))
    publish(rows, options.json)


if __name__ == "__main__":
    main()
