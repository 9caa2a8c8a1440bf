"""What the worker's thread does with one pair: convert, run the pipeline, publish what somebody listens to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from vifa_ros.cameras import BAD_IMAGE, Cameras, Frame
from vifa_ros.colouring import PlacedCloud, PointColourer, PointSource
from vifa_ros.conversions import ConversionError, ImageView
from vifa_ros.health import Samples
from vifa_ros.losses import find_alone
from vifa_ros.outputs import POINTS, TaskOutput
from vifa_ros.pairing import THERMAL, VISIBLE, Pair
from vifa_ros.parameters import rate_name
from vifa_ros.rates import RateLimiter
from vifa_ros.saving import SnapshotDesk, take_snapshot
from vifa_runtime.alignment import Alignment
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.geometry import GeometryError
from vifa_runtime.pipeline import FusionPipeline, InputError, Results
from vifa_runtime.thermal import ThermalError, to_celsius
from vifa_runtime.thermal_health import HealthSettings, ThermalWatch

DISABLED = "disabled"
NOBODY_LISTENS = "nobody_listens"
NOT_DUE = "not_due"
NO_CALIBRATION = "no_calibration"


class Fuser:
    """Works on one pair after the other, in the worker's thread; made anew at each activation."""

    def __init__(
        self,
        node: Node,
        cameras: Cameras,
        outputs: Mapping[str, TaskOutput],
        find_alignment: Callable[[int], Alignment],
        colourer: PointColourer | None = None,
    ) -> None:
        """Make a fuser whose samples are empty.

        Args:
            outputs: task -> where its results go.
            find_alignment: gives the alignment at a stamp, or raises an AlignmentError that says what is missing.
            colourer: holds the points to colour; None where none come in.
        """
        self.samples = Samples()
        self.desk = SnapshotDesk()
        self.is_enabled = True
        self.problem = ""
        self.watch = ThermalWatch(HealthSettings(frozen_after=node.get_parameter("thermal.frozen_after").value))
        self._node, self._cameras, self._outputs = node, cameras, outputs
        self._find_alignment, self._colourer = find_alignment, colourer
        self._rates = RateLimiter()
        self._frame_id = ""

    def __call__(self, pipeline: FusionPipeline, pair: Pair) -> str | None:
        """Work on one pair; returns None when it is processed, else the reason why it was dropped."""
        reason = self._work_on(pipeline, pair)
        if pair.thermal is not None and isinstance(pair.thermal.view, ImageView):  # results don't wait for this
            self._watch_thermal(pair.thermal.view.to_thermal(), pair)
        return reason

    def _work_on(self, pipeline: FusionPipeline, pair: Pair) -> str | None:
        if not self.is_enabled:
            return DISABLED
        wanted, saves = self.wanted_outputs(), self.desk.is_wanted
        if saves:
            wanted = {task: wanted.get(task, []) for task in self._outputs}
        elif not wanted:
            return NOBODY_LISTENS
        elif not (wanted := self._choose_due(wanted, pair.stamp * 1e-9)):
            return NOT_DUE
        try:
            pipeline.alignment = self._find_alignment(pair.stamp)
        except AlignmentError as error:
            return self._drop(NO_CALIBRATION, error)
        try:
            self._fuse(pipeline, pair, wanted, saves)
        except (ConversionError, ThermalError, InputError, GeometryError) as error:
            return self._drop(BAD_IMAGE, error)
        self.problem = ""
        return None

    @property
    def does_without_thermal(self) -> bool:
        """Whether results are made of the visible image alone, as the thermal camera does not show the scene."""
        return not self.watch.health.shows_scene and find_alone(self._cameras.policy[0], THERMAL) == VISIBLE

    def wanted_outputs(self) -> dict[str, list[str]]:
        """Tasks that the parameter `tasks` allows and somebody listens to, with the outputs that are listened to."""
        chosen = [name for name in self._node.get_parameter("tasks").value if name] or self._outputs
        heard = {task: output.wanted for task, output in self._outputs.items() if task in chosen}
        return {task: outputs for task, outputs in heard.items() if outputs}

    def _watch_thermal(self, thermal: NDArray[Any], pair: Pair) -> None:
        with suppress(ThermalError):  # told by the pipeline, where somebody wants results
            self.watch.update(thermal, (pair.stamp - pair.skew) * 1e-9)

    def _choose_due(self, wanted: dict[str, list[str]], stamp: float) -> dict[str, list[str]]:
        rate = {task: self._node.get_parameter(rate_name(task)).value for task in wanted}
        return {task: outputs for task, outputs in wanted.items() if self._rates.is_due(task, stamp, rate[task])}

    def _drop(self, reason: str, error: Exception) -> str:
        self.problem = f"pair dropped: {error}"
        self._node.get_logger().error(self.problem, throttle_duration_sec=5.0)
        return reason

    def _fuse(self, pipeline: FusionPipeline, pair: Pair, wanted: dict[str, list[str]], saves: bool) -> None:
        header = self._make_header(pair)
        start = time.perf_counter()
        rgb = None if pair.visible is None else pair.visible.view.to_rgb()
        thermal = None if pair.thermal is None else pair.thermal.view.to_thermal()
        if thermal is not None and not isinstance(pair.thermal.view, ImageView):
            self._watch_thermal(thermal, pair)
        if rgb is not None and self.does_without_thermal:
            thermal = None
        converted = time.perf_counter()
        fused_only = [] if saves else [task for task in wanted if self._outputs[task].needs_image_only(wanted[task])]
        results = pipeline.process(rgb, thermal, pair.stamp * 1e-9, list(wanted), fused_only)
        fused = time.perf_counter()
        has_points = any(POINTS in outputs for outputs in wanted.values())
        placed = self._place_cloud(pipeline, pair, thermal, header.frame_id, results) if has_points else None
        for task, outputs in wanted.items():
            if outputs:
                self._outputs[task].publish(outputs, results, header, self._cameras.infos.get(VISIBLE), placed)
        published = time.perf_counter()
        if saves:
            self._save(pipeline, rgb, thermal, results, pair)
        self.samples.add(
            {
                "convert": 1e3 * (converted - start),
                **results.milliseconds,
                "pipeline": 1e3 * (fused - converted),
                "publish": 1e3 * (published - fused),
                "latency": (self._node.get_clock().now() - Time.from_msg(header.stamp)).nanoseconds * 1e-6,
                "skew": abs(pair.skew) * 1e-6,
            }
        )

    def _place_cloud(
        self, pipeline: FusionPipeline, pair: Pair, thermal: NDArray[Any] | None, frame: str, results: Results
    ) -> PlacedCloud | None:
        """The cloud that waits, placed in this pair's images, with the temperatures that the thermal camera saw."""
        assert self._colourer is not None

        def find_source() -> PointSource:
            temperatures = None
            if thermal is not None:
                degrees = to_celsius(thermal, pipeline.normaliser.settings)
                temperatures = pipeline.thermal_in_visible(thermal if degrees is None else degrees)
            height, width = next(iter(results.fused.values())).shape[:2]
            info = self._cameras.infos.get(VISIBLE)
            return PointSource(frame, pair.stamp, info, (height, width), temperatures, pipeline.covered)

        return self._colourer.take(pair.stamp, find_source)

    def _save(
        self,
        pipeline: FusionPipeline,
        rgb: NDArray[np.uint8] | None,
        thermal: NDArray[Any] | None,
        results: Results,
        pair: Pair,
    ) -> None:
        tasks = [task for task in pipeline.bundle.tasks if task.name in results.fused]
        self.desk.leave(take_snapshot(rgb, thermal, results, tasks, pair.stamp))

    def _make_header(self, pair: Pair) -> Header:
        """The visible image's header; where it is lost, the thermal image's stamp in the visible camera's frame."""
        visible: Frame | None = pair.visible
        if visible is not None:
            self._frame_id = visible.header.frame_id
            return visible.header
        header = pair.thermal.header
        return Header(stamp=header.stamp, frame_id=self._frame_id or header.frame_id)
