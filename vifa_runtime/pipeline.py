"""From one camera pair to the fused image of every wanted task and what is found in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.backends import Backend
from vifa_runtime.bundle import Bundle
from vifa_runtime.decode import decode_detections, decode_mask, restore_detections
from vifa_runtime.geometry import WorkingGrid, resize
from vifa_runtime.metrics import Detections
from vifa_runtime.thermal import ThermalNormaliser, ThermalSettings


class InputError(ValueError):
    """Images or task names that the pipeline cannot work on; the message says which and why."""


@dataclass(frozen=True)
class Results:
    """What `FusionPipeline.process` gives for one pair, all in the visible image's pixels.

    Images and masks are valid until the next call; detections are the caller's own.

    Attributes:
        fused: task -> fused RGB image, uint8 (H,W,3).
        milliseconds: stage -> time: `normalise`, `align`, those of the back end (see `RawResults`), `restore`,
            `decode.<task>`.
        detections: detection task -> boxes (N,4) float32 clipped to the image, scores (N,) float32 in falling order,
            labels (N,) int64; empty arrays where nothing was found.
        masks: segmentation task -> class ids, uint8 (H,W), 255 where unknown.
        confidences: segmentation task that gives it -> how sure each pixel of the mask is, uint8 (H,W).
    """

    fused: Mapping[str, NDArray[np.uint8]]
    milliseconds: Mapping[str, float]
    detections: Mapping[str, Detections] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    confidences: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class FusionPipeline:
    """Runs one bundle on one back end. Used by one thread at a time; `close` it in the end."""

    def __init__(self, bundle: Bundle, backend: Backend, thermal: ThermalSettings | None = None) -> None:
        self.bundle = bundle
        self.backend = backend
        self.normaliser = ThermalNormaliser(thermal or bundle.thermal)
        self._tasks = {task.name: task for task in bundle.tasks}
        self._buffers: dict[str, NDArray] = {}

    def process(
        self,
        visible: NDArray[np.uint8],
        thermal: NDArray,
        stamp: float | None = None,
        tasks: Sequence[str] | None = None,
        fused_only: Collection[str] = (),
    ) -> Results:
        """Fuse one pair that shows the same field of view, and find in the fused images what the tasks are for.

        Args:
            visible: (H,W,3) RGB uint8.
            thermal: (h,w) uint8, uint16 or float32, any size; resized to the visible image.
            stamp: seconds, for the smoothing of thermal limits; None takes the pair by itself.
            tasks: wanted tasks in any order; None for all. Nothing is computed for others.
            fused_only: tasks of which the fused image is wanted, in `tasks` or not, and nothing else: their task
                graph is not run.

        Raises:
            InputError: an image of another shape or dtype, or a task that the bundle does not have.
            ThermalError: a thermal image without a finite pixel.
            GeometryError: a visible image too large to work on.
        """
        wanted = self._check(visible, tasks, fused_only)
        clock = _Stopwatch()
        with clock("normalise"):
            warm = self.normaliser(thermal, stamp, out=self._buffer("warm", thermal.shape, np.float32))
        with clock("align"):
            grid = self.bundle.grid((visible.shape[0], visible.shape[1]))
            visible, warm = self._align(grid, visible, warm)
        raw = self.backend.run(visible[None], warm[None], wanted, fused_only)
        with clock("restore"):
            fused = {task: self._restore(grid, task, image[0]) for task, image in raw.fused.items()}
        detections, masks, confidences = self._decode(grid, raw.outputs, clock)
        return Results(fused, {**clock.milliseconds, **raw.milliseconds}, detections, masks, confidences)

    def network_inputs(
        self, visible: NDArray[np.uint8], thermal: NDArray
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """What the backbone gets of a pair that is taken by itself: copies of visible (1,H,W,3) and thermal (1,H,W).

        Args:
            visible, thermal: as of `process`.

        Raises:
            InputError, ThermalError, GeometryError: as of `process`.
        """
        self._check(visible, None, ())
        grid = self.bundle.grid((visible.shape[0], visible.shape[1]))
        visible, warm = self._align(grid, visible, self.normaliser(thermal, None))
        return visible[None].copy(), warm[None].copy()

    def close(self) -> None:
        """Give back the engine and the buffers."""
        self.backend.close()
        self._buffers.clear()

    def _check(self, visible: NDArray[np.uint8], tasks: Sequence[str] | None, fused_only: Collection[str]) -> list[str]:
        if visible.ndim != 3 or visible.shape[2] != 3 or visible.dtype != np.uint8:
            raise InputError(f"expected a visible image uint8 (H, W, 3), got {visible.dtype} {visible.shape}")
        names = self.bundle.task_names
        for task in (*(tasks or ()), *fused_only):
            if task not in names:
                raise InputError(f"bundle {self.bundle.name} has no task {task!r}; it has {', '.join(names)}")
        return [name for name in names if tasks is None or name in tasks or name in fused_only]

    def _align(
        self, grid: WorkingGrid, visible: NDArray[np.uint8], warm: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Bring both images onto the network's grid, each contiguous, copying only where something changes."""
        if warm.shape != grid.source:
            warm = resize(warm, grid.source, out=self._buffer("resized", grid.source, np.float32))
        if not grid.is_identity:
            warm = grid.place(warm, out=self._buffer("thermal", grid.padded, np.float32))
            visible = grid.place(visible, out=self._buffer("visible", (*grid.padded, 3), np.uint8))
        return np.ascontiguousarray(visible), np.ascontiguousarray(warm)

    def _restore(self, grid: WorkingGrid, task: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not grid.resizes:
            return grid.restore(image)
        return grid.restore(image, out=self._buffer(f"restored {task}", (*grid.source, 3), np.uint8))

    def _decode(
        self, grid: WorkingGrid, outputs: Mapping[str, Mapping[str, NDArray]], clock: _Stopwatch
    ) -> tuple[dict[str, Detections], dict[str, NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]:
        """Detections, masks and confidences in visible pixels, by task, from what the task graphs gave."""
        detections, masks, confidences = {}, {}, {}
        for name, found in outputs.items():
            with clock(f"decode.{name}"):
                task = self._tasks[name]
                if "boxes" in found:
                    chosen = decode_detections(
                        found["boxes"][0], found["scores"][0], task.score, task.iou, task.max_detections
                    )
                    detections[name] = restore_detections(chosen, grid)
                if "mask" in found:
                    ids = self._buffer(f"ids {name}", grid.padded, np.uint8)
                    mask = decode_mask(found["mask"][0], len(task.classes), out=ids)
                    masks[name] = self._restore_mask(grid, f"mask {name}", mask)
                if "confidence" in found:
                    confidences[name] = self._restore_mask(grid, f"confidence {name}", found["confidence"][0])
        return detections, masks, confidences

    def _restore_mask(self, grid: WorkingGrid, name: str, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not grid.resizes:
            return grid.restore_mask(mask)
        return grid.restore_mask(mask, out=self._buffer(name, grid.source, np.uint8))

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray:
        """A buffer of this name, used again as long as the size stays."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != shape:
            buffer = self._buffers[name] = np.empty(shape, dtype)
        return buffer


class _Stopwatch:
    """Collects the time spent in named stages."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = 1e3 * (time.perf_counter() - start)
