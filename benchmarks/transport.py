"""Share of best-effort VGA images at 30 Hz that reach another process.

A process that only listens, with Fast DDS's defaults and with config/fastdds.xml; then the fusion node as `vifa demo`
runs it: fusing every pair for every task, while a third process listens to the results.

.venv/bin/python benchmarks/transport.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rows import command_line

from vifa_ros.demo import DemoSettings, run_demo
from vifa_ros.profiles import dds_environment
from vifa_runtime.files import write_json
from vifa_runtime.provenance import describe_run

LISTENER = """
import sys, rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = Node("listener")
counts = {"visible": 0, "thermal": 0}
def count(stream):
    def receive(message):
        counts[stream] += 1
    return receive
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
subscriptions = [node.create_subscription(Image, f"{s}/image_raw", count(s), qos) for s in counts]
try:
    rclpy.spin(node)
except KeyboardInterrupt:
    pass
print(counts["visible"], counts["thermal"])
"""


def count_received(environment: dict[str, str], frames: int, rate: float) -> tuple[dict[str, int], dict[str, int]]:
    """Play so many pairs to a listener in another process; return frames sent and received by stream."""
    environment = {**os.environ, **environment, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    environment["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    with tempfile.TemporaryDirectory() as folder:
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTENER], env=environment, stdout=subprocess.PIPE, text=True
        )
        sent = Path(folder) / "sent.json"
        play = ["play", "--rate", str(rate), "--frames", str(frames), "--sent", str(sent)]
        subprocess.run(
            [sys.executable, "-m", "vifa_ros.cli", *play], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        listener.send_signal(signal.SIGINT)
        heard = listener.communicate(timeout=30)[0].split()
        published = {stream: len(stamps) for stream, stamps in json.loads(sent.read_text()).items()}
    return published, dict(zip(("visible", "thermal"), map(int, heard[-2:]), strict=True))


def count_node(frames: int, rate: float) -> dict[str, Any]:
    """Run the demo for so many pairs and return the row of its summary."""
    with tempfile.TemporaryDirectory() as folder:
        settings = DemoSettings(None, seconds=frames / rate, rate=rate, bundle="nano-fusion", output=Path(folder))
        return run_demo(settings)["rows"][0]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--output", type=Path, default=Path("docs/results/transport.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(listener: str, profile: str, sent: dict[str, int], received: dict[str, int], processed: int | None) -> None:
        for stream in sent:
            share = round(received[stream] / sent[stream], 4)
            rows.append({"listener": listener, "profile": profile, "stream": stream, "rate_hz": options.rate,
                         "sent": sent[stream], "received": received[stream], "share": share,
                         "pairs_processed": processed})  # fmt: skip
            print(f"{listener}, {profile}: {stream} {received[stream]} of {sent[stream]}, {100 * share:.1f} %")

    for profile, environment in (("Fast DDS default", {}), ("config/fastdds.xml", dds_environment())):
        add("bare process", profile, *count_received(environment, options.frames, options.rate), None)
    for _ in range(3):
        row = count_node(options.frames, options.rate)
        add("fusion node", "config/fastdds.xml", row["frames_sent"], row["frames_in"], row["processed"])
    write_json(options.output, {"meta": describe_run(command_line(), seed=0), "rows": rows})
    print(f"{options.output} written")


if __name__ == "__main__":
    main()
