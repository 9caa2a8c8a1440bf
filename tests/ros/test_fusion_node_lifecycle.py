"""The fusion node's lifecycle, over its services as a manager uses them."""

import itertools
import shutil
import threading
import time

import numpy as np
import pytest
from images import build_message, expected_bright, random_thermal, random_visible
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.parameter import Parameter
from robot import PATIENCE, drops, laws_hold, wait_until

from vifa_ros import fusion_node
from vifa_ros.conversions import view_image
from vifa_ros.outputs import TaskOutput

SLOW = 5.0  # seconds that the slow engine takes to load
CYCLE = {"configure": "inactive", "activate": "active", "deactivate": "inactive", "cleanup": "unconfigured"}
WAY_TO = {"unconfigured": [], "inactive": ["configure"], "active": ["configure", "activate"]}


def go_to(robot, state: str) -> None:
    for transition in WAY_TO[state]:
        assert robot.change_state(transition)


def fuse_one(robot, stamp: float) -> None:
    """Listen, show a pair and check its result."""
    visible, thermal = random_visible(), random_thermal()
    robot.listen("bright")
    robot.connect_cameras()
    robot.show_pair(visible, thermal, stamp)
    np.testing.assert_array_equal(robot.wait_for_image("bright", stamp), expected_bright(visible, thermal))


class Engines:
    """Wraps `prepare`: remembers the threads in which engines were built and closed.

    Slow ones take `SLOW` seconds at least, and are not there before `release`.
    """

    def __init__(self, monkeypatch, slow: bool = False) -> None:
        self._seconds = SLOW if slow else 0.0
        self._may_be_built = threading.Event()
        if not slow:
            self.release()
        self.built_in: list[threading.Thread] = []
        self.closed_in: list[threading.Thread] = []
        self._prepare = fusion_node.prepare
        monkeypatch.setattr(fusion_node, "prepare", self.prepare)

    def release(self) -> None:
        self._seconds = 0.0
        self._may_be_built.set()

    def prepare(self, *arguments):
        time.sleep(self._seconds)
        self._may_be_built.wait(PATIENCE)
        engine = self._prepare(*arguments)
        close = engine.close

        def remember_and_close() -> None:
            self.closed_in.append(threading.current_thread())
            close()

        engine.close = remember_and_close
        self.built_in.append(threading.current_thread())
        return engine


def test_it_starts_by_itself(start_robot):
    robot = start_robot()
    robot.wait_for_state("active")
    fuse_one(robot, 1.0)


def test_without_autostart_it_waits_for_a_manager(start_robot):
    robot = start_robot(autostart=False)
    status = robot.wait_for_status(lambda _: len(robot.statuses) > 5, "some status")
    assert robot.state() == "unconfigured"
    assert (status.level, status.message) == (status.WARN, "not active (state unconfigured)")


def test_it_can_be_taken_through_all_states_twice_and_shut_down(start_robot, monkeypatch):
    engines = Engines(monkeypatch)
    robot = start_robot(autostart=False)
    for cycle in range(2):
        for transition, state in CYCLE.items():
            assert robot.change_state(transition), (cycle, transition)
            assert robot.state() == state
            if state == "active":
                fuse_one(robot, 1.0 + cycle)
        assert engines.closed_in == engines.built_in
    assert robot.change_state("shutdown_unconfigured")
    assert robot.state() == "finalized"


def test_it_can_be_activated_again_without_loading_again(start_robot, monkeypatch):
    engines = Engines(monkeypatch)
    robot = start_robot()
    fuse_one(robot, 1.0)
    assert robot.change_state("deactivate") and robot.change_state("activate")
    fuse_one(robot, 2.0)
    assert len(engines.built_in) == 1 and engines.closed_in == []


@pytest.mark.parametrize("state", WAY_TO)
def test_it_can_be_shut_down_from_any_state(start_robot, monkeypatch, state):
    engines = Engines(monkeypatch)
    robot = start_robot(autostart=False)
    go_to(robot, state)
    assert robot.change_state(f"shutdown_{state}")
    assert robot.state() == "finalized"
    assert engines.closed_in == engines.built_in


def test_counts_start_at_zero_when_it_is_activated(robot):
    fuse_one(robot, 1.0)
    assert robot.change_state("deactivate") and robot.change_state("activate")
    status = robot.wait_for_status(lambda status: status.level == status.OK, "an active status")
    assert (status.visible.received, status.formed, status.processed) == (0, 0, 0)
    assert [task.published for task in status.tasks] == [0, 0]


def test_nothing_is_received_while_it_is_inactive(robot):
    fuse_one(robot, 1.0)
    assert robot.change_state("deactivate")
    robot.show_pair(random_visible(), random_thermal(), 2.0)
    first = len(robot.statuses)
    status = robot.wait_for_status(lambda _: len(robot.statuses) > first + 5, "some status")
    assert (status.visible.received, status.processed) == (1, 1)
    assert status.message == "not active (state inactive)"


def test_the_waiting_pair_is_dropped_and_the_running_one_finished_when_it_is_deactivated(robot, monkeypatch):
    may_go_on, is_running = threading.Event(), threading.Event()
    process = fusion_node.FusionPipeline.process

    def process_when_told(self, *arguments):
        is_running.set()
        may_go_on.wait(PATIENCE)
        return process(self, *arguments)

    monkeypatch.setattr(fusion_node.FusionPipeline, "process", process_when_told)
    robot.listen("bright")
    robot.connect_cameras()
    robot.show_pair(random_visible(), random_thermal(), 1.0)
    assert is_running.wait(PATIENCE)
    robot.show_pair(random_visible(), random_thermal(), 2.0)
    robot.wait_for_status(lambda status: status.in_flight == 2, "both pairs to be in flight")
    answer = robot.change_state_async("deactivate")
    robot.wait_for_status(lambda status: drops(status.dropped) == {"deactivated": 1}, "the waiting pair to be dropped")
    may_go_on.set()
    assert robot.wait_for_answer(answer, "deactivate").success
    status = robot.wait_for_status(lambda status: status.in_flight == 0, "the end of work")
    assert (status.formed, status.processed) == (2, 1)
    assert all(laws_hold(status) for status in robot.statuses)


# Requests that must be refused.


@pytest.mark.parametrize(
    ("state", "transition"),
    [(state, t) for state in WAY_TO for t in CYCLE if (t, state) not in
     {("configure", "unconfigured"), ("activate", "inactive"), ("cleanup", "inactive"), ("deactivate", "active")}],
)  # fmt: skip
def test_a_transition_that_the_state_does_not_allow_is_refused(start_robot, state, transition):
    robot = start_robot(autostart=False)
    go_to(robot, state)
    assert not robot.change_state(transition)
    assert robot.state() == state


@pytest.mark.parametrize("transition", [Transition(id=99), Transition(label="fly"), Transition(id=60)])
def test_a_transition_that_does_not_exist_is_refused(start_robot, transition):
    robot = start_robot(autostart=False)
    assert not robot.call(ChangeState, "change_state", ChangeState.Request(transition=transition)).success
    assert robot.state() == "unconfigured"


def test_autostart_leaves_a_node_alone_that_somebody_else_configured_first(start_robot, monkeypatch):
    run, may_go_on, has_ended = fusion_node.FusionNode._run, threading.Event(), threading.Event()

    def run_late(self, action) -> None:
        may_go_on.wait(PATIENCE)
        run(self, action)
        has_ended.set()

    monkeypatch.setattr(fusion_node.FusionNode, "_run", run_late)
    robot = start_robot()
    assert robot.change_state("configure")
    may_go_on.set()
    assert has_ended.wait(PATIENCE)
    assert robot.state() == "inactive"


def test_autostart_fires_once_however_slow_it_is(start_robot, monkeypatch):
    start, calls = fusion_node.FusionNode._configure_and_activate, []

    def start_slowly(self) -> None:
        calls.append(time.monotonic())
        time.sleep(0.3)
        start(self)

    monkeypatch.setattr(fusion_node.FusionNode, "_configure_and_activate", start_slowly)
    robot = start_robot()
    robot.wait_for_state("active")
    assert len(calls) == 1


# An engine that is slow, or that fails.


def test_everything_else_is_answered_while_a_slow_engine_loads(start_robot, monkeypatch):
    engines = Engines(monkeypatch, slow=True)
    robot = start_robot(autostart=False)
    answer = robot.change_state_async("configure")
    robot.wait_for_state("configuring")
    first = len(robot.statuses)
    assert not robot.change_state("configure"), "a second transition is refused"
    assert robot.set_parameter("slop", 0.1).successful
    assert robot.get_parameter("slop").double_value == 0.1
    assert not robot.set_parameter("bundle", "other").successful, "the engine is being built from it"
    status = robot.wait_for_status(lambda _: len(robot.statuses) > first + 5, "some status")
    assert (status.level, status.message) == (status.WARN, "not active (state configuring)")
    assert robot.state() == "configuring"
    assert engines.built_in == [] and not answer.done(), "all this happened while the engine was loading"
    engines.release()
    assert robot.wait_for_answer(answer, "configure").success
    assert robot.change_state("activate")
    fuse_one(robot, 1.0)


def test_a_manager_is_answered_while_autostart_loads_a_slow_engine(start_robot, monkeypatch):
    engines = Engines(monkeypatch, slow=True)
    robot = start_robot()
    robot.wait_for_state("configuring")
    assert not robot.change_state("configure")
    assert engines.built_in == []
    engines.release()
    robot.wait_for_state("active")


def test_configure_gives_up_after_its_time_limit_and_can_be_tried_again(start_robot, monkeypatch):
    engines = Engines(monkeypatch, slow=True)
    robot = start_robot(autostart=False, configure_timeout=0.2)
    assert not robot.change_state("configure")
    assert engines.built_in == [], "the answer came before the engine"
    assert robot.state() == "unconfigured"
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert status.message == "the engine was not ready after 0.2 s; raise configure_timeout"
    engines.release()
    wait_until(lambda: engines.closed_in and engines.closed_in == engines.built_in, "the late engine to be closed")
    assert robot.set_parameter("configure_timeout", PATIENCE).successful
    assert robot.change_state("configure") and robot.change_state("activate")
    fuse_one(robot, 1.0)


def test_a_wrong_bundle_is_a_failure_that_a_parameter_can_mend(start_robot, tiny_bundle):
    robot = start_robot(bundle="/nowhere")
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert status.message.startswith("no bundle at /nowhere and none ships by that name")
    assert robot.state() == "unconfigured"
    assert not robot.change_state("configure")
    assert robot.set_parameter("bundle", str(tiny_bundle)).successful
    assert robot.change_state("configure") and robot.change_state("activate")
    assert robot.wait_for_status(lambda status: status.level == status.OK, "all to be well").bundle == "tiny"
    fuse_one(robot, 1.0)


def test_a_tampered_bundle_is_a_failure_that_names_the_file(start_robot, tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "tampered")
    (tmp_path / "tampered" / "heads" / "dim.onnx").write_bytes(b"something else")
    robot = start_robot(bundle=str(tmp_path / "tampered"))
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert "heads/dim.onnx does not match its SHA-256" in status.message


def test_a_transition_that_fails_says_why_and_leaves_a_node_to_configure_again(start_robot):
    setting = "qos_overrides./explained/visible/image_raw.subscription.reliability"
    robot = start_robot("/explained", **{setting: "nonsense"})
    status = robot.wait_for_status(lambda status: status.level == status.ERROR, "an error")
    assert status.message.startswith("on_activate: ") and "nonsense" in status.message
    assert robot.state() == "unconfigured"
    assert robot.change_state("configure")


def test_a_status_made_during_cleanup_does_not_see_half_of_it(robot, monkeypatch):
    is_wanted = TaskOutput.wanted.fget
    monkeypatch.setattr(TaskOutput, "wanted", property(lambda self: time.sleep(0.05) or is_wanted(self)))
    for _ in range(5):
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert robot.change_state(transition)
    robot.check_alive()


def test_frames_that_were_on_their_way_during_cleanup_are_harmless(robot):
    cameras = robot.node.cameras
    assert robot.change_state("deactivate") and robot.change_state("cleanup")
    for stream, pixels, encoding in (("visible", random_visible(), "rgb8"), ("thermal", random_thermal(), "mono8")):
        cameras.receive(stream, view_image, build_message(encoding, pixels))
    assert robot.change_state("configure") and robot.change_state("activate")
    fuse_one(robot, 1.0)


def test_it_can_be_taken_through_all_states_in_a_flood_of_images(start_robot):
    robot, is_over = start_robot(status_rate=50.0), threading.Event()
    robot.listen("bright")
    robot.connect_cameras()
    visible, thermal = random_visible(), random_thermal()

    def flood() -> None:
        for number in itertools.count():
            if is_over.wait(0.001):
                return
            robot.show_pair(visible, thermal, 1.0 + 0.01 * number)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        for _ in range(25):
            for transition in ("deactivate", "cleanup", "configure", "activate"):
                assert robot.change_state(transition)
    finally:
        is_over.set()
        flooding.join()
    fuse_one(robot, 1e6)
    assert all(laws_hold(status) for status in robot.statuses)


def test_a_program_that_ends_during_a_transition_raises_nothing(tiny_bundle):
    """Nothing can be published any more; a thread that ended with a traceback would look like a fault."""
    context = Context()
    context.init()
    values = {"autostart": False, "bundle": str(tiny_bundle), "threads": 1}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = fusion_node.FusionNode("ending", context=context, parameter_overrides=overrides)
    node._run(lambda: context.shutdown() or node.trigger_configure())
    node.close()
    node.destroy_node()
