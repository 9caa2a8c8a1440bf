"""Thermal normalisation: counts, degrees or gray levels of any depth become 0..1, without flicker.

Cameras that deliver 8 bits have chosen their own gain, so `auto` passes those through, scaled only. Raw 16-bit and
float images use a small part of their range that drifts with the scene: `auto` follows it by percentiles, smoothed
over time. The smoothed limits are an explicit state of one object; a gap in the stamps or a scene cut resets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MODES = ("auto", "percentile", "min_max", "fixed")
DTYPES = (np.uint8, np.uint16, np.float32)
_LARGEST = 1e30  # of any setting
_SMALLEST_SPAN = 1e-30  # between limits; images that span less are constant
_GRID = 4  # limits are measured on every fourth pixel of every fourth row


class ThermalError(ValueError):
    """A thermal image that cannot be normalised; the message says why."""


@dataclass(frozen=True)
class ThermalSettings:
    """How thermal images become 0..1.

    Attributes:
        mode: `auto` (8-bit scaled by 255, all else as `percentile`), `percentile`, `min_max`, or `fixed`.
        low_percentile, high_percentile: what becomes 0 and 1 in mode `percentile`.
        minimum, maximum: what becomes 0 and 1 in mode `fixed`, in the image's own unit.
        time_constant: seconds in which the limits take over 63 % of a change.
        max_gain_step: largest relative change of gain from one frame to the next, 0..1.
        max_gap: seconds between stamps after which the state is forgotten.
        min_overlap: the state is forgotten when measured and smoothed limits overlap less than this share (0..1).
    """

    mode: str = "auto"
    low_percentile: float = 1.0
    high_percentile: float = 99.5
    minimum: float = 0.0
    maximum: float = 65535.0
    time_constant: float = 1.0
    max_gain_step: float = 0.03
    max_gap: float = 1.0
    min_overlap: float = 0.25

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "mode" and not abs(value) <= _LARGEST:  # so NaN is refused too
                raise ThermalError(f"thermal {name} must be a number of at most {_LARGEST:g}, got {value!r:.40}")
        if self.mode not in MODES:
            raise ThermalError(f"thermal mode {self.mode!r} is unknown; use one of {', '.join(MODES)}")
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ThermalError(
                f"thermal percentiles must satisfy 0 <= low < high <= 100, "
                f"got {self.low_percentile} and {self.high_percentile}"
            )
        if not self.minimum < self.maximum:
            raise ThermalError(f"thermal minimum {self.minimum} must be below maximum {self.maximum}")
        if min(self.time_constant, self.max_gain_step, self.max_gap) <= 0:
            raise ThermalError("thermal time_constant, max_gain_step and max_gap must be above 0")


class ThermalNormaliser:
    """Turns thermal images into 0..1 and remembers the smoothed limits between frames."""

    def __init__(self, settings: ThermalSettings | None = None) -> None:
        self.settings = settings or ThermalSettings()
        self.limits: tuple[float, float] | None = None
        self.resets = 0
        self._stamp: float | None = None
        self._dead: NDArray[np.bool_] | None = None  # a buffer: the pixels that are NaN or infinite

    def reset(self) -> None:
        """Forget the smoothed limits; the next frame is normalised by its own."""
        self.limits = self._stamp = None

    def __call__(
        self, image: NDArray, stamp: float | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalise one image.

        Args:
            image: shape (H, W), uint8, uint16 or float32; NaN and infinity count as the coldest value.
            stamp: seconds; None uses and changes no state.
            out: shape (H, W), float32; filled and returned where given.

        Returns:
            Shape (H, W), float32, 0..1, warm is bright. A constant image becomes 0 and leaves the state alone.

        Raises:
            ThermalError: another shape or dtype, no pixel, or no finite pixel.
        """
        if image.ndim != 2 or image.size == 0:
            raise ThermalError(f"expected a thermal image of shape (H, W), got shape {image.shape}")
        if image.dtype not in DTYPES:
            raise ThermalError(f"expected uint8, uint16 or float32 thermal pixels, got {image.dtype}")
        if out is None:
            out = np.empty(image.shape, np.float32)
        low, high = self._choose_limits(image, stamp)
        if not high - low > _SMALLEST_SPAN:
            out.fill(0)
            return out
        gain = 1.0 / (high - low)
        with np.errstate(over="ignore"):  # pixels far outside the limits; they are clipped
            np.multiply(image, np.float32(gain), out=out, casting="unsafe")
        np.subtract(out, np.float32(low * gain), out=out)
        np.clip(out, 0, 1, out=out)
        if image.dtype == np.float32:
            self._blacken_dead_pixels(image, out)
        return out

    def _blacken_dead_pixels(self, image: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        if self._dead is None or self._dead.shape != image.shape:
            self._dead = np.empty(image.shape, bool)
        np.isfinite(image, out=self._dead)
        np.logical_not(self._dead, out=self._dead)
        np.putmask(out, self._dead, 0)

    def _choose_limits(self, image: NDArray, stamp: float | None) -> tuple[float, float]:
        settings = self.settings
        if settings.mode == "fixed":
            _sample(image)
            return settings.minimum, settings.maximum
        if settings.mode == "auto" and image.dtype == np.uint8:
            return 0.0, 255.0
        measured = _measure_limits(image, settings)
        if stamp is None or not measured[1] - measured[0] > _SMALLEST_SPAN:
            return measured
        elapsed = None if self._stamp is None else stamp - self._stamp
        self._stamp = stamp
        if self.limits is None or elapsed is None:
            self.limits = measured
        elif not 0 <= elapsed <= settings.max_gap or _overlap(measured, self.limits) < settings.min_overlap:
            self.limits = measured
            self.resets += 1
        else:
            self.limits = _approach(self.limits, measured, elapsed, settings)
        return self.limits


def _measure_limits(image: NDArray, settings: ThermalSettings) -> tuple[float, float]:
    sample = _sample(image)
    if settings.mode == "min_max":
        return float(sample.min()), float(sample.max())
    low, high = np.percentile(sample, [settings.low_percentile, settings.high_percentile])
    return float(low), float(high)


def _sample(image: NDArray) -> NDArray:
    """The finite pixels of every fourth row and column, or of the whole image where there are none."""
    sparse = image[::_GRID, ::_GRID]
    if image.dtype != np.float32:
        return sparse
    for pixels in (sparse, image):
        finite = pixels[np.isfinite(pixels)]
        if finite.size > 0:
            return finite
    raise ThermalError("the thermal image has no finite pixel")


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two intervals, 0..1."""
    union = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / union


def _approach(
    limits: tuple[float, float], measured: tuple[float, float], elapsed: float, settings: ThermalSettings
) -> tuple[float, float]:
    """Move centre and span towards the measured ones; the span by at most `max_gain_step`."""
    share = 1 - math.exp(-elapsed / settings.time_constant)
    span, target = limits[1] - limits[0], measured[1] - measured[0]
    step = 1 + settings.max_gain_step
    new_span = min(max(span + share * (target - span), span / step), span * step)
    centre = (limits[0] + limits[1]) / 2
    centre += share * ((measured[0] + measured[1]) / 2 - centre)
    return centre - new_span / 2, centre + new_span / 2
