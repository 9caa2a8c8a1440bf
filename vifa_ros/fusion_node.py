"""The fusion node: two cameras in; per task a fused image out, and what is found in it. See docs/fusion_node.md.

One thread receives, pairs and answers; a transition runs beside it, and the worker's thread owns the engine. What a
frame goes through:
`_receive` looks at it without a copy, the pairing buffer finds its partner, the worker's slot hands the newest pair to
`_fuse`, which converts, runs the pipeline and publishes what somebody listens to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from vifa.msg import FusionStatus, TaskStatus
from vifa_ros import health
from vifa_ros.conversions import ConversionError, read_stamp, view_image
from vifa_ros.executor import LifecycleExecutor, SlowCallbackGroup, until_interrupted
from vifa_ros.outputs import IMAGE, RELIABLE_QOS, TaskOutput
from vifa_ros.pairing import STREAMS, Pair, PairingBuffer
from vifa_ros.parameters import declare_all, engine_options, find_problem, pairing_settings, thermal_settings
from vifa_ros.worker import Worker, WorkerError
from vifa_runtime.backends import prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.geometry import GeometryError
from vifa_runtime.models import find_bundle
from vifa_runtime.pipeline import FusionPipeline, InputError
from vifa_runtime.thermal import ThermalError

BAD_IMAGE = "bad_image"
NOBODY_LISTENS = "nobody_listens"
STOP_TIMEOUT = 10.0


class FusionNode(LifecycleNodeMixin, Node):
    """A lifecycle node around `FusionPipeline`."""

    def __init__(self, name: str = "fusion_node", **arguments: Any) -> None:
        Node.__init__(self, name, **arguments)
        LifecycleNodeMixin.__init__(self, callback_group=SlowCallbackGroup())
        declare_all(self)
        self._transition = threading.Lock()
        self._reporting = threading.Lock()  # held while a status is made, so that no output is destroyed meanwhile
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._change_state_in_turn
        for entered, callback in list(self._callbacks.items()):
            self._callbacks[entered] = partial(self._explain, callback)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

        self._worker: Worker[FusionPipeline, Pair] | None = None
        self._pipeline: FusionPipeline | None = None
        self._camera_info: CameraInfo | None = None
        self._reset_session()
        self._outputs: dict[str, TaskOutput] = {}
        self._inputs: list[Any] = []
        self._status = self.create_publisher(FusionStatus, "~/status", RELIABLE_QOS)
        self._diagnostics = self.create_publisher(health.DiagnosticArray, "/diagnostics", RELIABLE_QOS)
        period = 1.0 / self._value("status_rate")
        self._status_timer = self.create_timer(period, self.publish_status)
        if self._value("autostart"):
            self._autostart = self.create_timer(0.0, self._start_by_itself)

    # Lifecycle: every transition runs in a thread of its own, one at a time.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle and build the engine in the worker's thread; make the outputs."""
        worker = self._worker = Worker(self._build, self._fuse, self._report_failure)
        try:
            pipeline = worker.start(self._value("configure_timeout"))
            self._check_tasks(self._value("tasks"), pipeline)
        except (WorkerError, InputError) as error:
            self._failure = str(error)
            self.get_logger().error(f"configure: {error}")
            worker.stop(0.0)  # it closes its engine by itself, even one that is still to come
            self._worker = None
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        self._outputs = {task.name: TaskOutput(self, task) for task in pipeline.bundle.tasks}
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
        self._worker.accept()
        for stream in STREAMS:
            self._inputs.append(self._subscribe(Image, self._watches[stream].topic, partial(self._receive, stream)))
        self._inputs.append(self._subscribe(CameraInfo, "visible/camera_info", self._receive_camera_info))
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the pair in work is finished, the waiting one dropped."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
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

    def close(self) -> None:
        """Close engine and outputs; safe to call twice."""
        if self._worker is not None and not self._worker.stop(STOP_TIMEOUT):
            self.get_logger().error(f"the engine did not stop within {STOP_TIMEOUT:g} s; it is left behind")
        with self._reporting:
            self._worker = self._pipeline = None
            for output in self._outputs.values():
                output.destroy(self)
            self._outputs = {}

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        threading.Thread(target=self._configure_and_activate, name="vifa-autostart", daemon=True).start()

    def _configure_and_activate(self) -> None:
        with self._transition:
            try:
                if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                    self.trigger_activate()
            except _rclpy.RCLError as error:
                self.get_logger().warning(f"autostart ends: somebody else made a transition first ({error})")
        self.publish_status()

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
            self.publish_status()

    def _explain(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run one of the callbacks above; rclpy would swallow its exceptions without a word."""
        try:
            return callback(state)
        except Exception as error:
            self._failure = f"{callback.__name__}: {error}"
            self.get_logger().error(self._failure)
            return TransitionCallbackReturn.ERROR

    # A frame's way through the node.

    def _receive(self, stream: str, message: Image) -> None:
        watch = self._watches[stream]
        watch.arrivals.append(time.monotonic())
        watch.last_stamp = message.header.stamp
        try:
            stamp = read_stamp(message.header)
            view = view_image(message, stream)
        except ConversionError as error:
            watch.problem = str(error)
            self._pairing.refuse(stream, BAD_IMAGE)
            self.get_logger().error(f"{watch.topic}: {error}", throttle_duration_sec=5.0)
            return
        watch.problem = ""
        worker = self._worker
        for pair in self._pairing.add(stream, stamp, (message.header, view)):
            if worker is not None:  # it may be gone when this frame was on its way while the node was cleaned up
                worker.submit(pair)

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _fuse(self, pipeline: FusionPipeline, pair: Pair) -> str | None:
        """Work on one pair in the worker's thread; see `Worker`."""
        wanted = self._wanted_outputs()
        if not wanted:
            return NOBODY_LISTENS
        fused_only = [task for task, outputs in wanted.items() if outputs == [IMAGE]]
        header, visible = pair.visible
        start = time.perf_counter()
        rgb, thermal = visible.to_rgb(), pair.thermal[1].to_thermal()
        converted = time.perf_counter()
        try:
            stamp = Time.from_msg(header.stamp).nanoseconds * 1e-9
            results = pipeline.process(rgb, thermal, stamp, list(wanted), fused_only)
        except (ThermalError, InputError, GeometryError) as error:
            self._failure = f"pair dropped: {error}"
            self.get_logger().error(self._failure, throttle_duration_sec=5.0)
            return BAD_IMAGE
        self._failure = ""
        fused = time.perf_counter()
        for task, outputs in wanted.items():
            self._outputs[task].publish(outputs, results, header, self._camera_info)
        done = time.perf_counter()
        latency = (self.get_clock().now() - Time.from_msg(header.stamp)).nanoseconds * 1e-6
        self._samples.add(
            {
                "convert": 1e3 * (converted - start),
                **results.milliseconds,
                "publish": 1e3 * (done - fused),
                "latency": latency,
                "skew": abs(pair.skew) * 1e-6,
            }
        )
        return None

    def _wanted_outputs(self) -> dict[str, list[str]]:
        """Tasks that the parameter `tasks` allows and somebody listens to, with the outputs that are listened to."""
        chosen = [name for name in self._value("tasks") if name] or self._outputs
        heard = {task: output.wanted for task, output in self._outputs.items() if task in chosen}
        return {task: outputs for task, outputs in heard.items() if outputs}

    def _report_failure(self, error: BaseException) -> None:
        self._failure = f"the engine failed on a pair: {error}"
        self.get_logger().error(self._failure, throttle_duration_sec=5.0)

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
        message.level, message.message = self._judge(now)
        message.visible, message.thermal = (
            health.stream_status(self._watches[stream], self._pairing.counts(stream), now) for stream in STREAMS
        )
        worker, pipeline = self._worker, self._pipeline
        if worker is not None and pipeline is not None:
            message.bundle, message.backend = pipeline.bundle.name, health.describe_backend(pipeline.backend)
            health.fill_pairs(message, worker.counts(), self._samples)
            wanted = self._wanted_outputs()
            message.tasks = [
                TaskStatus(name=t.name, kind=t.kind, wanted=t.name in wanted, published=self._outputs[t.name].published)
                for t in pipeline.bundle.tasks
            ]
        return message

    def _judge(self, now: float) -> tuple[int, str]:
        """Level and message: the worst thing that is wrong, with its mend."""
        if self._failure:
            return FusionStatus.ERROR, self._failure
        if not self._inputs:
            return FusionStatus.WARN, f"not active (state {self._state_machine.current_state[1]})"
        for watch in self._watches.values():
            if watch.problem:
                return FusionStatus.ERROR, f"{watch.topic}: {watch.problem}"
            if (silence := watch.silence(now, self._activated)) > health.SILENT_AFTER:
                return FusionStatus.WARN, f"no image on {watch.topic} for {silence:.0f} s; is the camera running?"
        counts = [self._pairing.counts(stream) for stream in STREAMS]
        if all(count.received > 10 and count.paired == 0 for count in counts):
            return FusionStatus.WARN, "both cameras deliver but no stamps match; check the clocks, offsets and slop"
        return FusionStatus.OK, ""

    # Parameters and small helpers.

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters}
        problem = find_problem(values, configured=self._worker is not None)
        if problem is None and self._pipeline is not None and "tasks" in values:
            try:
                self._check_tasks(values["tasks"], self._pipeline)
            except InputError as error:
                problem = str(error)
        return SetParametersResult(successful=problem is None, reason=problem or "")

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        names = {parameter.name for parameter in parameters}
        if names & {"slop", "visible_offset", "thermal_offset", "queue_size"}:
            self._pairing.reconfigure(pairing_settings(self._value))
        if "status_rate" in names:
            self._status_timer.timer_period_ns = round(1e9 / self._value("status_rate"))
            self._status_timer.reset()

    def _check_tasks(self, names: list[str], pipeline: FusionPipeline) -> None:
        for name in names:
            if name and name not in pipeline.bundle.task_names:
                known = ", ".join(pipeline.bundle.task_names)
                raise InputError(f"parameter tasks: bundle {pipeline.bundle.name} has no {name!r}; it has {known}")

    def _build(self) -> FusionPipeline:
        """Load the bundle and build the engine; runs in the worker's thread."""
        bundle = load_bundle(find_bundle(self._value("bundle")))
        engine = prepare(self._value("backend"), bundle, engine_options(self._value))
        return FusionPipeline(bundle, engine, thermal_settings(self._value))

    def _reset_session(self) -> None:
        """Forget everything that is counted or remembered since the last activation."""
        self._pairing = PairingBuffer(pairing_settings(self._value))
        self._watches = {
            stream: health.StreamWatch(self.resolve_topic_name(f"{stream}/image_raw")) for stream in STREAMS
        }
        self._samples = health.Samples()
        self._failure = ""
        self._camera_info = None
        self._activated = time.monotonic()

    def _subscribe(self, kind: type, topic: str, callback: Any) -> Any:
        return self.create_subscription(
            kind,
            topic,
            callback,
            QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),  # overrides are written into it
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    node = executor = None
    try:
        rclpy.init(args=arguments)
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
