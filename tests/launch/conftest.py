"""What the tests of launch files share: a node that listens beside what is launched, and what a fusion node offers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import reduce
from operator import or_
from typing import Any

import pytest
import rclpy
from offers import Offer, offer
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

PATIENCE = 60.0  # seconds: generous, as the machine may be busy; only a failing test waits so long
SETTLE = 0.5  # seconds in which a server sees its client, too; an answer that it sends before is lost


class Listener(Node):
    """A node that spins in a thread of its own."""

    def __init__(self) -> None:
        super().__init__("listener")
        self._known: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def collect(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        """A list that fills with what comes on a topic."""
        heard: list[Any] = []
        self.create_subscription(kind, topic, heard.append, qos)
        return heard

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Call a service as soon as it is there; return the answer."""
        if service not in self._known:
            client = self.create_client(kind, service)
            self.wait_until(client.service_is_ready, f"the service {service}")
            time.sleep(SETTLE)
            self._known[service] = client
        future = self._known[service].call_async(request)
        self.wait_until(future.done, f"an answer of {service}")
        return future.result()

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until `condition()` is true and return it; fail with `what` was waited for after PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
            time.sleep(0.02)
        return value

    def stop(self) -> None:
        """Stop spinning and destroy the node."""
        self._executor.shutdown()
        self._thread.join()
        self.destroy_node()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener; ROS is initialised for it."""
    rclpy.init()
    node = Listener()
    yield node
    node.stop()
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def offered() -> Offer:
    """What the node shows with any of the shipped bundles and every input in use."""
    compressed = {f"{camera}.transport": "compressed" for camera in ("visible", "thermal")}
    every = [
        offer("nano-fusion", points=True, use_sim_time=True),
        offer("nano-two-task", points=True, **compressed),
    ]
    return Offer(*(reduce(or_, (getattr(one, field.name) for one in every)) for field in fields(Offer)))
