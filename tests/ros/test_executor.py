"""The executor: slow callbacks run beside, everything else in turn in the spinning thread."""

import threading

import pytest
from rclpy.node import Node
from robot import PATIENCE, Spinner, wait_until

from vifa_ros.executor import LifecycleExecutor, SlowCallbackGroup


@pytest.fixture
def node(ros):
    node = Node("slow")
    yield node
    node.destroy_node()


def test_a_slow_callback_delays_no_other_and_runs_once(node):
    release, slow_threads, ticks = threading.Event(), [], []

    def wait() -> None:
        timer.cancel()
        slow_threads.append(threading.current_thread())
        release.wait(PATIENCE)

    timer = node.create_timer(0.01, wait, callback_group=SlowCallbackGroup())
    node.create_timer(0.01, lambda: ticks.append(threading.current_thread()))
    spinner = Spinner(LifecycleExecutor(), node)
    wait_until(lambda: slow_threads and len(ticks) > 20, "ticks beside the slow callback")
    release.set()
    spinner.stop()
    assert len(slow_threads) == 1 and set(ticks) == {spinner._thread} and slow_threads[0] not in ticks


@pytest.mark.parametrize("group", [SlowCallbackGroup, lambda: None], ids=["slow", "quick"])
def test_what_a_callback_raises_ends_the_spinning(node, group):
    def fail() -> None:
        raise RuntimeError("broken callback")

    node.create_timer(0.01, fail, callback_group=group())
    spinner = Spinner(LifecycleExecutor(), node)
    wait_until(lambda: spinner.crash, "the exception")
    assert "broken callback" in str(spinner.crash)
    spinner.stop()


def test_a_callback_that_is_ready_in_the_moment_of_the_shutdown_is_left_alone(node, monkeypatch):
    executor, ticks = LifecycleExecutor(), []
    executor.add_node(node)
    node.create_timer(0.0, lambda: ticks.append(None))
    may_run = executor.can_execute
    monkeypatch.setattr(executor, "can_execute", lambda entity: executor.shutdown() and may_run(entity))
    executor.spin_once(PATIENCE)
    assert executor._is_shutdown and ticks == []
