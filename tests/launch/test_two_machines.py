"""Images from one machine to another with the DDS profiles of config/, as docs/multi_machine.md says.

A machine is a network namespace with a shared memory of its own, on this one; only root can make those.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FRAMES, RATE = 60, 15
NEEDED_BUFFER = 4 * 1024 * 1024  # bytes: four images of 640x480
LIMIT = 100.0  # seconds, as the machine may be busy
SETTLE = 1.0  # seconds in which the last images arrive
OWN_SHARED_MEMORY = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
EAR = Path(__file__).with_name("ear.py")
CONFIG = Path(__file__).resolve().parents[2] / "config"


def ip(arguments: str) -> str:
    """Run `ip` of iproute2; return what it prints."""
    return subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True).stdout


class Machines:
    """Network namespaces with a name and an address each; they go with `remove`."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, name: str) -> None:
        """Make a machine without a network."""
        ip(f"netns add {self.full(name)}")
        self._names.append(name)
        ip(f"-n {self.full(name)} link set lo up")

    def connect(self, one: str, other: str, subnet: str) -> None:
        """A cable between two machines, .1 of a subnet and .2."""
        here, there = f"{one}{other}{os.getpid()}", f"{other}{one}{os.getpid()}"
        ip(f"link add {here} netns {self.full(one)} type veth peer name {there} netns {self.full(other)}")
        for name, cable, address in ((one, here, f"{subnet}.1/24"), (other, there, f"{subnet}.2/24")):
            ip(f"-n {self.full(name)} addr add {address} dev {cable}")
            ip(f"-n {self.full(name)} link set {cable} up")
        for name, cable in ((one, here), (other, there)):
            self._wait_for(name, cable)

    def _wait_for(self, name: str, cable: str) -> None:
        """Wait until a cable carries: Fast DDS looks for networks once, when a process starts."""
        deadline = time.monotonic() + LIMIT
        while "state UP" not in ip(f"-n {self.full(name)} link show {cable}"):
            assert time.monotonic() < deadline, f"{cable} does not come up"
            time.sleep(0.1)

    def full(self, name: str) -> str:
        """Name of a machine's namespace; other runs of the tests have others."""
        return f"vifa-{os.getpid()}-{name}"

    def command(self, name: str, *words: object) -> list[str]:
        """A command that runs on a machine, by this Python."""
        own = ["ip", "netns", "exec", self.full(name), "unshare", "--mount", "sh", "-c", OWN_SHARED_MEMORY, "sh"]
        return [*own, sys.executable, *map(str, words)]

    def remove(self) -> None:
        """Unplug and remove all."""
        for name in self._names:
            ip(f"netns delete {self.full(name)}")


@pytest.fixture
def machines() -> Iterator[Machines]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, ip and unshare")
    if int(Path("/proc/sys/net/core/rmem_max").read_text()) < NEEDED_BUFFER:
        pytest.skip(f"net.core.rmem_max is below {NEEDED_BUFFER}: see docs/multi_machine.md")
    made = Machines()
    try:
        made.add("a")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    yield made
    made.remove()


def play_from_a_to_b(machines: Machines, profile: str, known_to_b: str = "") -> dict[str, int]:
    """Play two cameras on `a`; return how many images of each `b` heard.

    Args:
        profile: of both, a file of config/.
        known_to_b: ROS_STATIC_PEERS of `b`.
    """
    both = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "FASTRTPS_DEFAULT_PROFILES_FILE": str(CONFIG / profile)}
    variables = {
        name: {**os.environ, **both, "ROS_STATIC_PEERS": peers} for name, peers in (("a", ""), ("b", known_to_b))
    }
    listening = machines.command("b", EAR)
    playing = machines.command("a", "-m", "vifa_ros.cli", "play", "--rate", RATE, "--frames", FRAMES)
    with subprocess.Popen(
        listening, env=variables["b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ear:
        subprocess.run(playing, env=variables["a"], check=True, capture_output=True, timeout=LIMIT)
        time.sleep(SETTLE)
        printed, _ = ear.communicate(timeout=LIMIT)
    return json.loads(printed)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["fastdds.xml", "fastdds_network.xml"])
def test_best_effort_images_reach_the_other_machine(machines: Machines, profile: str) -> None:
    """With the socket buffers of most systems, and without the profile, a fifth to a third of them is lost."""
    machines.add("b")
    machines.connect("a", "b", "10.200.1")
    for name, other in (("a", 2), ("b", 1)):  # multicast wants a route, too
        ip(f"-n {machines.full(name)} route add default via 10.200.1.{other}")
    heard = play_from_a_to_b(machines, profile)
    assert all(count >= 0.95 * FRAMES for count in heard.values()), heard


@pytest.mark.slow
def test_a_machine_of_another_subnet_is_found_where_it_is_named(machines: Machines) -> None:
    """Multicast ends at the router; one of the two has to name the other."""
    for name in ("b", "r"):
        machines.add(name)
    for name, subnet in (("a", "10.200.1"), ("b", "10.200.2")):
        machines.connect("r", name, subnet)
        ip(f"-n {machines.full(name)} route add default via {subnet}.1")
    forward = ["ip", "netns", "exec", machines.full("r"), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
    subprocess.run(forward, check=True)
    heard = play_from_a_to_b(machines, "fastdds.xml", known_to_b="10.200.1.2")
    assert all(count >= 0.95 * FRAMES for count in heard.values()), heard
