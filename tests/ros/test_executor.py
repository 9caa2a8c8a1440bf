"""The executor: slow callbacks run beside, everything else in turn in the spinning thread."""

import threading

import pytest
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from robot import PATIENCE, Spinner, wait_until
from std_msgs.msg import Empty

from vifa_ros.executor import LifecycleExecutor, SlowCallbackGroup

InvalidHandle = rclpy_implementation.InvalidHandle


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


def test_a_callback_that_was_ready_when_it_was_shut_down_is_left_alone(node, monkeypatch):
    """What is handed out after a shutdown would trip over the executor's guard, which is gone."""
    executor, ticks = LifecycleExecutor(), []
    executor.add_node(node)
    node.create_timer(0.001, lambda: ticks.append(None))
    wait = executor.wait_for_ready_callbacks

    def shut_down_and_hand_out(timeout):
        executor._is_shutdown, guard = True, executor._guard
        executor._guard = None
        ready = executor._make_handler(next(node.timers), node, executor._take_timer)
        executor._is_shutdown, executor._guard = False, guard
        wait(timeout)
        executor._is_shutdown = True
        return ready, next(node.timers), node

    monkeypatch.setattr(executor, "wait_for_ready_callbacks", shut_down_and_hand_out)
    executor.spin_once(PATIENCE)
    assert ticks == []


def test_a_shutdown_by_another_thread_while_a_callback_is_begun_ends_quietly(node, monkeypatch):
    """The guard condition that the beginning of a callback triggers is gone by then."""
    executor = LifecycleExecutor()
    executor.add_node(node)
    node.create_timer(0.001, lambda: None)
    take = executor._take_timer
    monkeypatch.setattr(executor, "_take_timer", lambda entity: executor.shutdown() and take(entity))
    executor.spin_once(PATIENCE)
    assert executor._is_shutdown


def test_a_handle_that_a_callback_uses_after_its_end_is_told(node):
    executor, gone = LifecycleExecutor(), node.create_publisher(Empty, "gone", 1)
    executor.add_node(node)
    node.destroy_publisher(gone)
    node.create_timer(0.001, lambda: gone.publish(Empty()))
    with pytest.raises(InvalidHandle):
        executor.spin_once(PATIENCE)


def test_a_shutdown_while_it_collects_what_to_wait_for_ends_quietly(node, monkeypatch):
    executor = LifecycleExecutor()
    executor.add_node(node)
    node.create_timer(0.001, lambda: None)
    may_run = executor.can_execute
    monkeypatch.setattr(executor, "can_execute", lambda entity: executor.shutdown() and may_run(entity))
    executor.spin_once(PATIENCE)
    assert executor._is_shutdown


def test_an_attribute_that_is_missing_otherwise_is_told(node, monkeypatch):
    executor = LifecycleExecutor()
    executor.add_node(node)
    node.create_timer(0.001, lambda: None)
    monkeypatch.setattr(executor, "can_execute", lambda entity: entity.nonsense)
    with pytest.raises(AttributeError, match="nonsense"):
        executor.spin_once(PATIENCE)
