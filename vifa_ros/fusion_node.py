"""The fusion node: two cameras in; per task a fused image out, and what is found in it. See docs/fusion_node.md.

One thread receives, pairs and answers; a transition runs beside it, and the worker's thread owns the engine. What a
frame goes through: `Cameras` looks at it without a copy and finds its partner, the worker's slot hands the newest pair
to `Fuser`, which converts, runs the pipeline and publishes what somebody listens to.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

from vifa.msg import FusionStatus, TaskStatus
from vifa_ros import health, parameters
from vifa_ros.camera_alignment import AlignmentSettings, AlignmentSource
from vifa_ros.cameras import Cameras
from vifa_ros.colouring import PointColourer
from vifa_ros.executor import LifecycleExecutor, SlowCallbackGroup, until_interrupted
from vifa_ros.fusing import Fuser
from vifa_ros.lifecycle import SerialLifecycleNode
from vifa_ros.losses import STOP
from vifa_ros.outputs import RELIABLE_QOS, TaskOutput
from vifa_ros.pairing import STREAMS, THERMAL, Pair
from vifa_ros.saving import write_snapshot
from vifa_ros.transform_listener import TransformListener
from vifa_ros.transforms import TransformBuffer
from vifa_ros.worker import Worker, WorkerError
from vifa_runtime.alignment import Alignment
from vifa_runtime.backends import prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.models import find_bundle
from vifa_runtime.pipeline import FusionPipeline, InputError
from vifa_runtime.thermal import ThermalError, ThermalNormaliser

STOP_TIMEOUT = 10.0
SWITCH_INTERVAL = 2e-4  # seconds that one thread may keep the interpreter while another wants it; Python's is 5e-3
TICK = 0.02  # seconds between looks at frames that wait and cameras that are silent; well below a camera's period
SAVE_TIMEOUT = 5.0  # seconds that ~/save_frame waits for a pair


class FusionNode(SerialLifecycleNode):
    """A lifecycle node around `FusionPipeline`."""

    def __init__(self, name: str = "fusion_node", **arguments: Any) -> None:
        super().__init__(name, **arguments)
        parameters.declare_all(self)
        self._reporting = threading.Lock()  # held while a status is made, so that no output is destroyed meanwhile
        self._saving = threading.Lock()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

        self._worker: Worker[FusionPipeline, Pair] | None = None
        self._pipeline: FusionPipeline | None = None
        self._alignment = AlignmentSource(AlignmentSettings())
        self._listener: TransformListener | None = None
        self._outputs: dict[str, TaskOutput] = {}
        self._is_enabled = True
        self._reset_session()
        self._status = self.create_publisher(FusionStatus, "~/status", RELIABLE_QOS)
        self._diagnostics = self.create_publisher(health.DiagnosticArray, "/diagnostics", RELIABLE_QOS)
        self._status_timer = self.create_timer(  # also while a simulation's clock stands still, as at a bag's end
            1.0 / self._value("status_rate"), self.publish_status, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.create_timer(TICK, lambda: self.cameras.look())
        self.create_service(SetBool, "~/enable", self._enable)
        self.create_service(Trigger, "~/save_frame", self._save_frame, callback_group=SlowCallbackGroup())
        if self._value("autostart"):
            self.start_by_itself()

    # Lifecycle: every transition runs in a thread of its own, one at a time.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle and build the engine in the worker's thread; make the outputs."""
        try:
            self._alignment = AlignmentSource(parameters.alignment_settings(self._value))
            self._worker = Worker(self._build, self._fuse, self._report_failure)
            pipeline = self._worker.start(self._value("configure_timeout"))
            self._check_tasks(self._value("tasks"), pipeline)
            parameters.declare_rates(self, pipeline.bundle.task_names)
        except (WorkerError, InputError, AlignmentError, ParameterException) as error:
            self.failure = str(error)
            self.get_logger().error(f"configure: {error}")
            if self._worker is not None:
                self._worker.stop(0.0)  # it closes its engine by itself, even one that is still to come
                self._worker = None
            return TransitionCallbackReturn.FAILURE
        self._outputs = {
            task.name: TaskOutput(self, task, lambda: self._value("jpeg_quality"), self._value("points"))
            for task in pipeline.bundle.tasks
        }
        self._reset_session()
        self._pipeline = pipeline
        self.get_logger().info(f"configured: {pipeline.bundle.name} on {health.describe_backend(pipeline.backend)}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras; counts start at zero."""
        assert self._worker is not None
        self._reset_session()
        result = super().on_activate(state)
        for output in self._outputs.values():
            output.begin(self.get_clock().now().to_msg())
        self._worker.accept(parameters.backlog(self._value))
        self.cameras.open(self._worker.submit, self._stop_on_loss)
        if self._value("points"):
            self.cameras.subscribe(PointCloud2, "points", self._colourer.receive)
        if self._value("points") or self._alignment.needs_transforms:
            self._listener = TransformListener(self, self._transforms)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the pair in work is finished, the waiting ones dropped."""
        self.cameras.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._worker is not None:
            self._worker.refuse(STOP_TIMEOUT)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the engine and take the outputs back."""
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the engine from any state."""
        self.on_deactivate(state)
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured, from where the node can be configured again."""
        self.on_shutdown(state)
        return TransitionCallbackReturn.SUCCESS

    def after_transition(self) -> None:
        """Tell the new state at once."""
        self.publish_status()

    def close(self) -> None:
        """Close engine and outputs; safe to call twice."""
        if self._worker is not None and not self._worker.stop(STOP_TIMEOUT):
            self.get_logger().error(f"the engine did not stop within {STOP_TIMEOUT:g} s; it is left behind")
        with self._reporting:
            self._worker = self._pipeline = None
            for output in self._outputs.values():
                output.destroy(self)
            self._outputs = {}

    def _stop_on_loss(self, stream: str) -> None:
        if self._value("on_modality_loss") == STOP:
            topic = self.cameras.watches[stream].topic
            self.failure = f"stopped, as {topic} went silent (on_modality_loss: stop); activate the node again"
            self.run_beside(self.trigger_deactivate)

    # The worker's thread: it builds, runs and closes the engine.

    def _build(self) -> FusionPipeline:
        bundle = load_bundle(find_bundle(self._value("bundle")))
        thermal = parameters.thermal_settings(self._value, bundle.thermal)
        engine = prepare(self._value("backend"), bundle, parameters.engine_options(self._value))
        return FusionPipeline(bundle, engine, thermal)

    def _fuse(self, pipeline: FusionPipeline, pair: Pair) -> str | None:
        return self.fuser(pipeline, pair)

    def _report_failure(self, error: BaseException) -> None:
        self.fuser.problem = f"the engine failed on a pair: {error}"
        self.get_logger().error(self.fuser.problem, throttle_duration_sec=5.0)

    def _find_alignment(self, stamp: int) -> Alignment:
        """The alignment at a stamp; see `Fuser`."""
        return self._alignment.find(self.cameras.infos, self._transforms, stamp)

    # Health.

    def publish_status(self) -> None:
        """Publish ~/status and /diagnostics."""
        with self._reporting:
            status = self.make_status()
            self._status.publish(status)
            self._diagnostics.publish(health.to_diagnostics(status, self.get_fully_qualified_name()))

    def make_status(self) -> FusionStatus:
        """The node's state and counts now."""
        now = time.monotonic()
        message = FusionStatus()
        message.header.stamp = self.get_clock().now().to_msg()
        message.visible, message.thermal = (self.cameras.status(stream, now) for stream in STREAMS)
        message.showing = self._showing()
        worker, pipeline = self._worker, self._pipeline
        if worker is not None and pipeline is not None:
            message.bundle, message.backend = pipeline.bundle.name, health.describe_backend(pipeline.backend)
            message.fallback = pipeline.backend.describe().get("fallback", "")
            health.fill_pairs(message, worker.counts(), self.fuser.samples)
            wanted = self.fuser.wanted_outputs()
            message.tasks = [
                TaskStatus(name=t.name, kind=t.kind, wanted=t.name in wanted, published=self._outputs[t.name].published)
                for t in pipeline.bundle.tasks
            ]
        message.level, message.message = self._judge(now, message)
        message.thermal.problem = message.thermal.problem or self.fuser.watch.health.message
        return message

    def _showing(self) -> str:
        if not self.cameras.is_open or not self._is_enabled:
            return "nothing"
        alone = self.cameras.pairing.alone
        if alone is None and self.fuser.does_without_thermal:
            return "visible_only"
        if alone is not None:
            return f"{alone}_only"
        return "both" if self.cameras.lost is None else "nothing"

    def _judge(self, now: float, status: FusionStatus) -> tuple[int, str]:
        """Level and message: the worst thing that is wrong, with its mend; by what is in the status already."""
        if self.failure:
            return FusionStatus.ERROR, self.failure
        name = self.get_fully_qualified_name()
        if (count := self.get_fully_qualified_node_names().count(name)) > 1:
            return FusionStatus.ERROR, f"{count} nodes are named {name}; services reach any of them: rename all but one"
        if not self.cameras.is_open:
            return FusionStatus.WARN, f"not active (state {self.state_label})"
        is_error, problem = self.cameras.find_problem(now, (status.visible, status.thermal))
        if is_error:  # often the cause of what went wrong with a pair
            return FusionStatus.ERROR, problem
        if self.fuser.problem:
            return FusionStatus.ERROR, self.fuser.problem
        if (health_level := health.thermal_level(thermal := self.fuser.watch.health)) != FusionStatus.OK:
            return health_level, f"{self.cameras.watches[THERMAL].topic}: {thermal.message}"
        if problem:
            return FusionStatus.WARN, problem
        if self._colourer.problem:
            return FusionStatus.WARN, self._colourer.problem
        if not self._is_enabled:
            return FusionStatus.WARN, "disabled by the service ~/enable"
        if status.fallback:
            return FusionStatus.WARN, f"another engine than the wanted one runs, because of {status.fallback}"
        return FusionStatus.OK, ""

    # Services.

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._is_enabled = self.fuser.is_enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def _save_frame(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Save the next pair and everything made of it; runs in a thread of its own."""
        with self._saving:
            response.success, response.message = self._save_next_pair()
        return response

    def _save_next_pair(self) -> tuple[bool, str]:
        if not self.cameras.is_open:
            return False, f"not active (state {self.state_label}); activate the node first"
        snapshot = self.fuser.desk.wait(SAVE_TIMEOUT)
        if snapshot is None:
            with self._reporting:
                problem = self.make_status().message
            return False, f"no pair was processed for {SAVE_TIMEOUT:g} s; {problem or 'are both cameras running?'}"
        folder = Path(self._value("save_folder")).expanduser()
        try:
            return True, str(write_snapshot(folder, snapshot))
        except OSError as error:
            return False, f"save_folder {folder}: {error.strerror or error}"

    # Parameters and small helpers.

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in changed}
        problem = parameters.find_problem(values, configured=self._worker is not None)
        pipeline = self._pipeline
        if problem is None and pipeline is not None:
            try:
                self._check_tasks(values.get("tasks", []), pipeline)
                parameters.thermal_settings(lambda name: values.get(name, self._value(name)), pipeline.bundle.thermal)
            except (InputError, ThermalError) as error:
                problem = str(error)
        return SetParametersResult(successful=problem is None, reason=problem or "")

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        names = {parameter.name for parameter in changed}
        if names & parameters.PAIRING_NAMES:
            self.cameras.pairing.reconfigure(parameters.pairing_settings(self._value))
        self.cameras.policy = parameters.loss_policy(self._value)
        if self._worker is not None:
            self._worker.resize(parameters.backlog(self._value))
        if (pipeline := self._pipeline) is not None and any(name.startswith("thermal.") for name in names):
            settings = parameters.thermal_settings(self._value, pipeline.bundle.thermal)
            pipeline.normaliser = ThermalNormaliser(settings)  # limits that were smoothed by other settings are none
        if "status_rate" in names:
            self._status_timer.timer_period_ns = round(1e9 / self._value("status_rate"))
            self._status_timer.reset()

    def _check_tasks(self, names: list[str], pipeline: FusionPipeline) -> None:
        for name in names:
            if name and name not in pipeline.bundle.task_names:
                known = ", ".join(pipeline.bundle.task_names)
                raise InputError(f"parameter tasks: bundle {pipeline.bundle.name} has no {name!r}; it has {known}")

    def _reset_session(self) -> None:
        """Forget everything that is counted or remembered since the last activation."""
        self.failure = ""
        transports = {stream: self._value(f"{stream}.transport") for stream in STREAMS}
        settings = parameters.pairing_settings(self._value)
        self.cameras = Cameras(self, transports, settings, parameters.loss_policy(self._value))
        self._transforms = TransformBuffer()
        self._colourer = PointColourer(
            self, self._transforms, lambda: self._value("points_slop"), self._value("points_fixed_frame")
        )
        self.fuser = Fuser(self, self.cameras, self._outputs, self._find_alignment, self._colourer)
        self.fuser.is_enabled = self._is_enabled


def main(arguments: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    node = executor = None
    try:
        rclpy.init(args=arguments)
        sys.setswitchinterval(SWITCH_INTERVAL)
        with until_interrupted():
            node = FusionNode()
            executor = LifecycleExecutor()
            executor.add_node(node)
            executor.spin()
    except KeyboardInterrupt:  # before rclpy was up
        pass
    except ParameterException as error:
        raise SystemExit(f"fusion_node: {error}") from None
    finally:
        if node is not None:
            node.close()
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
