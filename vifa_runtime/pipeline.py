"""From one camera pair to the fused image of every wanted task and what is found in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.alignment import Alignment, ThermalView
from vifa_runtime.backends import Backend
from vifa_runtime.bundle import Bundle
from vifa_runtime.decode import decode_detections, decode_mask, restore_detections
from vifa_runtime.geometry import WorkingGrid
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

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        thermal: ThermalSettings | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        """Make a pipeline that owns `backend`.

        Args:
            thermal: how thermal images are normalised; None for the bundle's own settings.
            alignment: how they are brought onto visible ones; None where both show the same field of view.
        """
        self.bundle = bundle
        self.backend = backend
        self.normaliser = ThermalNormaliser(thermal or bundle.thermal)
        self.alignment = alignment or Alignment()  # may be set anew between two pairs
        self._view: ThermalView | None = None
        self._view_of: Alignment | None = None
        self._visible_size: tuple[int, int] | None = None
        self._tasks = {task.name: task for task in bundle.tasks}
        self._buffers: dict[str, NDArray] = {}

    def process(
        self,
        visible: NDArray[np.uint8] | None,
        thermal: NDArray | None,
        stamp: float | None = None,
        tasks: Sequence[str] | None = None,
        fused_only: Collection[str] = (),
    ) -> Results:
        """Fuse one pair, and find in the fused images what the tasks are for.

        A network wants both images. Where the thermal image shows nothing, or is missing, it gets the visible
        image's luma in its place, so that what it fuses looks like the visible image; where the visible image is
        missing, it gets the thermal one in gray.

        Args:
            visible: (H,W,3) RGB uint8; None where that camera is lost. Results are then of the size of the last one,
                or of the thermal image where there was none.
            thermal: (h,w) uint8, uint16 or float32, any size that the alignment fits; None where that camera is lost.
            stamp: seconds, for the smoothing of thermal limits; None takes the pair by itself.
            tasks: wanted tasks in any order; None for all. Nothing is computed for others.
            fused_only: tasks of which the fused image is wanted, in `tasks` or not, and nothing else: their task
                graph is not run.

        Raises:
            InputError: an image of another shape or dtype, no image, or a task that the bundle does not have.
            ThermalError: a thermal image without a finite pixel.
            GeometryError: a visible image too large to work on, or sizes that the alignment does not fit.
        """
        wanted = self._check(visible, thermal, tasks, fused_only)
        clock = _Stopwatch()
        with clock("normalise"):
            warm = None if thermal is None else self._normalise(thermal, stamp)
        with clock("align"):
            grid = self.bundle.grid(self._choose_size(visible, thermal))
            view = None if warm is None else self._see(warm, grid.source)
            shown = self._to_gray(view, warm) if visible is None else visible
            seen, felt = self._place(grid, shown, self._fill(grid, view, shown, warm))
        raw = self.backend.run(seen[None], felt[None], wanted, fused_only)
        with clock("restore"):
            fused = {task: self._restore(grid, view, task, image[0], shown) for task, image in raw.fused.items()}
        found = self._decode(grid, raw.outputs, clock)
        return Results(fused, {**clock.milliseconds, **raw.milliseconds}, *found)

    def close(self) -> None:
        """Give back the engine and the buffers."""
        self.backend.close()
        self._buffers.clear()

    def thermal_in_visible(self, image: NDArray) -> NDArray:
        """Bring an image of the last pair's thermal camera into visible pixels: temperatures, for instance.

        Args:
            image: (h,w) of that thermal image's size, uint8, uint16 or float32.

        Returns:
            (H,W) of the same dtype; where the thermal camera sees nothing, its nearest border pixel is repeated.

        Raises:
            InputError: there was no pair yet.
        """
        if self._view is None:
            raise InputError("no pair was fused yet, so nothing says how thermal images lie in visible ones")
        return self._view.warp(image)

    @property
    def covered(self) -> NDArray[np.float32] | None:
        """Shares (H,W), 0 where the last pair's thermal camera sees nothing; None where it sees all that is visible."""
        return None if self._view is None or self._view.covers_all else self._view.soft_mask

    def _check(
        self,
        visible: NDArray[np.uint8] | None,
        thermal: NDArray | None,
        tasks: Sequence[str] | None,
        fused_only: Collection[str],
    ) -> list[str]:
        if visible is None and thermal is None:
            raise InputError("neither a visible nor a thermal image is given; give one at least")
        if visible is not None and (visible.ndim != 3 or visible.shape[2] != 3 or visible.dtype != np.uint8):
            raise InputError(f"expected a visible image uint8 (H, W, 3), got {visible.dtype} {visible.shape}")
        names = self.bundle.task_names
        for task in (*(tasks or ()), *fused_only):
            if task not in names:
                raise InputError(f"bundle {self.bundle.name} has no task {task!r}; it has {', '.join(names)}")
        return [name for name in names if tasks is None or name in tasks or name in fused_only]

    def _normalise(self, thermal: NDArray, stamp: float | None) -> NDArray[np.float32]:
        return self.normaliser(thermal, stamp, out=self._buffer("warm", thermal.shape, np.float32))

    def _choose_size(self, visible: NDArray[np.uint8] | None, thermal: NDArray | None) -> tuple[int, int]:
        """Height and width of the results: the visible image's, where it is missing the last one's."""
        if visible is not None:
            self._visible_size = (visible.shape[0], visible.shape[1])
        if self._visible_size is None:
            assert thermal is not None  # _check wants one of both
            return thermal.shape[0], thermal.shape[1]
        return self._visible_size

    def _see(self, warm: NDArray[np.float32], visible: tuple[int, int]) -> ThermalView:
        """How the thermal image lies in a visible one of this size; computed once an alignment and pair of sizes."""
        view, thermal = self._view, (warm.shape[0], warm.shape[1])
        if view is None or self._view_of is not self.alignment or (view.thermal, view.visible) != (thermal, visible):
            self._view_of = self.alignment
            view = self._view = self._view_of.fit(thermal, visible)
        return view

    def _to_gray(self, view: ThermalView | None, warm: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        """The thermal image as a gray RGB one, in the place of a visible image that is missing; black around it."""
        assert view is not None and warm is not None
        heat = view.warp(warm, out=self._buffer("aligned", view.visible, np.float32))
        if not view.covers_all:
            heat = np.multiply(heat, view.soft_mask, out=self._buffer("filled", view.visible, np.float32))
        gray = cv2.convertScaleAbs(heat, dst=self._buffer("gray", view.visible, np.uint8), alpha=255)
        shown = self._buffer("shown", (*view.visible, 3), np.uint8)
        cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB, dst=shown)
        return shown

    def _fill(
        self, grid: WorkingGrid, view: ThermalView | None, shown: NDArray[np.uint8], warm: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """The thermal image that the network gets: the visible one's luma wherever there is no thermal image."""
        if view is not None and view.is_same_view and grid.resizes and warm is not None:
            return warm  # resized once, onto the grid
        if view is None or warm is None:
            return self._luma(shown)
        heat = view.warp(warm, out=self._buffer("aligned", grid.source, np.float32))
        if view.covers_all:
            return heat
        return view.blend(self._luma(shown), heat, out=self._buffer("filled", grid.source, np.float32))

    def _luma(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Luma of an RGB image in whole gray levels, as 0..1."""
        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY, dst=self._buffer("gray", rgb.shape[:2], np.uint8))
        return np.multiply(gray, np.float32(1 / 255), out=self._buffer("luma", rgb.shape[:2], np.float32))

    def _place(
        self, grid: WorkingGrid, visible: NDArray[np.uint8], warm: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Bring both images onto the network's grid, each contiguous, copying only where something changes."""
        if not grid.is_identity:
            warm = grid.place(warm, out=self._buffer("thermal", grid.padded, np.float32))
            visible = grid.place(visible, out=self._buffer("visible", (*grid.padded, 3), np.uint8))
        return np.ascontiguousarray(visible), np.ascontiguousarray(warm)

    def _restore(
        self, grid: WorkingGrid, view: ThermalView | None, task: str, image: NDArray[np.uint8], shown: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """A fused image in visible pixels, and the visible image itself where the thermal one shows nothing."""
        out = self._buffer(f"restored {task}", (*grid.source, 3), np.uint8) if grid.resizes else None
        fused = grid.restore(image, out=out)
        if view is None or view.covers_all:
            return fused
        return view.blend(shown, fused, out=self._buffer(f"blended {task}", (*grid.source, 3), np.uint8))

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
