"""Ten minutes of cameras that stall, restart, jump in time, change size and encoding, and send what is no image.

The node runs in a process of its own; this one is the cameras, the listener and the judge. Between two faults both
cameras are good for a while, so each fault shows how long the node takes to give results again. At every status both
laws of accounting are checked, and the node's memory, threads and file descriptors are counted.

.venv/bin/python benchmarks/soak.py [--seconds 600] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rows import publish
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vifa.msg import FusionStatus
from vifa_ros.conversions import make_image
from vifa_ros.pairing import STREAMS, THERMAL, VISIBLE
from vifa_ros.profiles import dds_environment

RATE = 15.0
FAULT_SECONDS, GOOD_SECONDS = 2.0, 4.0
WARM_UP = 60.0  # seconds after which memory must stand still
CAMERA_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass
class Shot:
    """One frame to be published; a fault changes it, or leaves it out by `is_sent`."""

    pixels: np.ndarray
    encoding: str
    offset: float = 0.0
    is_sent: bool = True
    spoil: Callable[[Image], None] = field(default=lambda message: None)


def good(stream: str, rng: np.random.Generator) -> Shot:
    """A frame as it should be."""
    if stream == VISIBLE:
        return Shot(rng.integers(0, 256, (480, 640, 3), np.uint8), "rgb8")
    return Shot(rng.integers(7000, 9000, (256, 320), np.uint16), "mono16")


def stall(*streams: str) -> Callable[[str, Shot, int], None]:
    """Cameras that send nothing."""
    return lambda stream, shot, number: setattr(shot, "is_sent", shot.is_sent and stream not in streams)


def jump(seconds: float, *streams: str) -> Callable[[str, Shot, int], None]:
    """Cameras whose clock is wrong."""
    return lambda stream, shot, number: setattr(shot, "offset", seconds if stream in streams else 0.0)


def shrink(stream: str, shot: Shot, number: int) -> None:
    """Images of another size every few frames."""
    step = 1 + number // 5 % 3
    shot.pixels = np.ascontiguousarray(shot.pixels[::step, ::step])


def recode(stream: str, shot: Shot, number: int) -> None:
    """Images of another encoding every few frames."""
    turn = number // 5 % 3
    if stream == VISIBLE and turn:
        shot.pixels, shot.encoding = [(shot.pixels, "bgr8"), (shot.pixels[:, :, 0].copy(), "mono8")][turn - 1]
    elif stream == THERMAL and turn:
        degrees = (shot.pixels / 100).astype(np.float32)
        shot.pixels, shot.encoding = [(degrees, "32FC1"), ((shot.pixels >> 6).astype(np.uint8), "mono8")][turn - 1]


def spoil(stream: str, shot: Shot, number: int) -> None:
    """Messages that are no images, in turn: a wrong step, too little data, no pixels, an unknown encoding."""
    changes = [
        {"step": 1},
        {"data": b"\0" * 9},
        {"height": 0},
        {"encoding": "nonsense"},
    ]

    def change(message: Image) -> None:
        for name, value in changes[number % len(changes)].items():
            setattr(message, name, value)

    shot.spoil = change


def repeat(stream: str, shot: Shot, number: int) -> None:
    """A driver that stamps every frame with the same time."""
    shot.spoil = lambda message: setattr(message.header.stamp, "sec", 1) or setattr(message.header.stamp, "nanosec", 5)


def blind(stream: str, shot: Shot, number: int) -> None:
    """A thermal camera without a finite pixel."""
    if stream == THERMAL:
        shot.pixels, shot.encoding = np.full((256, 320), np.nan, np.float32), "32FC1"


FAULTS: dict[str, Callable[[str, Shot, int], None]] = {
    "visible stalls": stall(VISIBLE),
    "thermal stalls": stall(THERMAL),
    "both stall": stall(*STREAMS),
    "restart": stall(*STREAMS),  # and their publishers are made anew
    "clocks jump ahead": jump(3600.0, *STREAMS),
    "clocks jump back": jump(-3600.0, *STREAMS),
    "one clock jumps": jump(-3600.0, VISIBLE),
    "sizes change": shrink,
    "encodings change": recode,
    "no images": spoil,
    "stamps stand still": repeat,
    "thermal is blind": blind,
}


class Bench(Node):
    """Cameras, listener and judge of one node under test."""

    def __init__(self, process: subprocess.Popen, seed: int) -> None:
        super().__init__("soak")
        self.process = process
        self.statuses = 0
        self.broken_laws: list[str] = []
        self.results: list[int] = []  # stamps, nanoseconds
        self.last: FusionStatus | None = None
        self._rng = np.random.default_rng(seed)
        self._shots = {stream: [good(stream, self._rng) for _ in range(8)] for stream in STREAMS}
        self._cameras: dict[str, Any] = {}
        self.create_subscription(FusionStatus, "vifa/status", self._judge, 50)
        for task in ("saliency", "texture"):
            self.create_subscription(Image, f"vifa/{task}/image", self._take, 50)
        self.restart()

    def restart(self) -> None:
        """Make the cameras' publishers anew."""
        for camera in self._cameras.values():
            self.destroy_publisher(camera)
        self._cameras = {s: self.create_publisher(Image, f"{s}/image_raw", CAMERA_QOS) for s in STREAMS}

    def show(self, number: int, fault: Callable[[str, Shot, int], None] | None) -> None:
        """Publish one frame of each camera, changed by a fault."""
        now = self.get_clock().now().nanoseconds
        for stream, camera in self._cameras.items():
            kept = self._shots[stream][number % 8]
            shot = Shot(kept.pixels, kept.encoding)
            if fault is not None:
                fault(stream, shot, number)
            if shot.is_sent:
                stamp = Time(nanoseconds=now + round(shot.offset * 1e9)).to_msg()
                message = make_image(shot.pixels, shot.encoding, Header(stamp=stamp, frame_id=stream))
                shot.spoil(message)
                camera.publish(message)

    def resources(self) -> dict[str, float]:
        """The node's memory in MB, threads and file descriptors."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        numbers = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "Threads"))}
        descriptors = sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())
        return {"mb": int(numbers["VmRSS"]) / 1024, "threads": int(numbers["Threads"]), "descriptors": descriptors}

    def _take(self, message: Image) -> None:
        self.results.append(Time.from_msg(message.header.stamp).nanoseconds)

    def _judge(self, status: FusionStatus) -> None:
        self.statuses, self.last = self.statuses + 1, status
        for stream in (status.visible, status.thermal):
            if stream.received != stream.paired + sum(d.count for d in stream.dropped) + stream.waiting:
                self.broken_laws.append(f"frames: {stream}")
        if status.formed != status.processed + sum(d.count for d in status.dropped) + status.in_flight:
            self.broken_laws.append(f"pairs: {status}")


def run(bench: Bench, executor: SingleThreadedExecutor, seconds: float, seed: int) -> dict[str, Any]:
    """Fault after fault in random order, with good input between; returns the row of the results."""
    choose, recoveries, samples = random.Random(seed), [], []
    order: list[str] = []
    number, start = 0, time.monotonic()

    def film(duration: float, fault: Callable[[str, Shot, int], None] | None) -> None:
        nonlocal number
        end = time.monotonic() + duration
        while (now := time.monotonic()) < end:
            bench.show(number, fault)
            number += 1
            while (left := now + 1 / RATE - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)

    film(5.0, None)
    while time.monotonic() - start < seconds:
        if not order:
            order = choose.sample(list(FAULTS), len(FAULTS))
        name = order.pop()
        film(FAULT_SECONDS, FAULTS[name])
        if name == "restart":
            bench.restart()
            film(0.0, None)
        bench.results.clear()
        begin, stamp = time.monotonic(), bench.get_clock().now().nanoseconds
        found = None
        while time.monotonic() - begin < GOOD_SECONDS:
            film(1 / RATE, None)
            if found is None and any(stamp <= result < stamp + 60e9 for result in bench.results):
                found = time.monotonic() - begin
        recoveries.append((found if found is not None else float("inf"), name))
        samples.append((time.monotonic() - start, bench.resources()))
        print(f"{samples[-1][0]:5.0f} s: {name:20} back after {recoveries[-1][0]:.2f} s, {samples[-1][1]}", flush=True)
    return summarise(bench, recoveries, samples)


def summarise(
    bench: Bench, recoveries: list[tuple[float, str]], samples: list[tuple[float, dict[str, float]]]
) -> dict[str, Any]:
    """The row of the results."""
    warm = [sample for when, sample in samples if when >= WARM_UP] or [sample for _, sample in samples]
    part = max(1, len(warm) // 5)
    early, late = warm[:part], warm[-part:]
    assert bench.last is not None
    worst, name = max(recoveries)
    row = {
        "seconds": round(samples[-1][0]),
        "faults": len(recoveries),
        "statuses": bench.statuses,
        "broken_laws": len(bench.broken_laws),
        "processed": bench.last.processed,
        "recovery_p50_s": round(float(np.median([seconds for seconds, _ in recoveries])), 3),
        "recovery_max_s": round(worst, 3),
        "slowest": name,
        "memory_growth_mb": round(float(np.median([s["mb"] for s in late]) - np.median([s["mb"] for s in early])), 2),
    }
    for what in ("threads", "descriptors"):
        row[f"{what}_grown"] = int(np.median([s[what] for s in late]) - np.median([s[what] for s in early]))
    for law in bench.broken_laws[:3]:
        print(f"broken: {law}")
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="hold", help="on_modality_loss of the node")
    parser.add_argument("--json", type=Path, default=Path("docs/results/soak.json"))
    options = parser.parse_args()
    os.environ.update(dds_environment(), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    parameters = ["-p", "threads:=1", "-p", "status_rate:=20.0", "-p", f"on_modality_loss:={options.policy}"]
    command = [sys.executable, "-m", "vifa_ros.fusion_node", "--ros-args", "-r", "__node:=vifa", *parameters]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    rclpy.init()
    bench = Bench(process, options.seed)
    executor = SingleThreadedExecutor()
    executor.add_node(bench)
    try:
        while bench.last is None or not bench.last.tasks:
            executor.spin_once(timeout_sec=0.1)
        row = run(bench, executor, options.seconds, options.seed)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        rclpy.try_shutdown()
    publish([{"policy": options.policy, **row}], options.json)


if __name__ == "__main__":
    main()
