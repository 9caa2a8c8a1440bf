"""A lifecycle node whose transitions run one at a time, beside everything else, and say why they fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from vifa_ros.executor import SlowCallbackGroup


class SerialLifecycleNode(LifecycleNodeMixin, Node):
    """A lifecycle node for a `LifecycleExecutor`.

    A transition runs in a thread of its own, so that state, parameters and diagnostics are answered meanwhile; a second
    one is refused. An exception of a callback becomes an error with its text, where rclpy would swallow it.

    Attributes:
        failure: why the last transition failed; empty after one that did not.
    """

    def __init__(self, name: str, **arguments: Any) -> None:
        Node.__init__(self, name, **arguments)
        LifecycleNodeMixin.__init__(self, callback_group=SlowCallbackGroup())
        self.failure = ""
        self._transition = threading.Lock()
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._change_state_in_turn
        for entered, callback in list(self._callbacks.items()):
            self._callbacks[entered] = partial(self._explain, callback)

    def after_transition(self) -> None:
        """Called when a transition has ended, whatever came of it."""

    @property
    def state_label(self) -> str:
        """The lifecycle state's name."""
        return self._state_machine.current_state[1]

    def start_by_itself(self) -> None:
        """Configure and activate in a thread of its own, as soon as the node spins."""
        self._start_timer = self.create_timer(0.0, self._start)

    def _start(self) -> None:
        self._start_timer.cancel()
        self.run_beside(self._configure_and_activate)

    def run_beside(self, action: Callable[[], Any]) -> None:
        """Run transitions in a thread of its own, after one that runs now."""
        threading.Thread(target=self._run, args=(action,), name="vifa-transition", daemon=True).start()

    def _run(self, action: Callable[[], Any]) -> None:
        try:
            with self._transition:
                self._try(action)
            self.after_transition()
        except (_rclpy.RCLError, _rclpy.InvalidHandle):
            if self.context.ok():  # else the program ends in this very moment
                raise

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except _rclpy.RCLError as error:
            if not self.context.ok():
                raise
            self.get_logger().warning(f"somebody else made a transition first ({error})")

    def _configure_and_activate(self) -> None:
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _change_state_in_turn(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Refuse a transition while another one runs, or that the present state does not allow."""
        response.success = False
        if not self._transition.acquire(blocking=False):
            self.get_logger().warning("another transition is running; this one is refused")
            return response
        try:
            return self._change_state(request, response)
        except _rclpy.RCLError as error:
            self.get_logger().warning(f"transition refused: {error}")
            return response
        finally:
            self._transition.release()
            self.after_transition()

    def _explain(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run a transition's callback; rclpy would swallow its exceptions without a word."""
        try:
            return callback(state)
        except Exception as error:
            self.failure = f"{callback.__name__}: {error}"
            if self.context.ok():  # else the program ends, and nothing can be told any more
                self.get_logger().error(self.failure)
            return TransitionCallbackReturn.ERROR
