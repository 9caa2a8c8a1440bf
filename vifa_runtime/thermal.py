"""Thermal normalisation: counts, degrees or gray levels of any depth become 0..1, without flicker.

Cameras that deliver 8 bits have chosen their own gain, so `auto` passes those through, scaled only. Raw 16-bit and
float images use a small part of their range that drifts with the scene: `auto` follows it by percentiles, smoothed
over time. The smoothed limits are an explicit state of one object; a gap in the stamps or a scene cut resets it.

Radiometric cameras send numbers that are linear in temperature, so two settings tell the degrees of any of them,
Celsius = value * scale + offset:

    camera, as it sends                             scale      offset    source
    32FC1 in Celsius (Seek's float thermography)    1          0         seekcamera-python, FrameFormat
    32FC1 in kelvin                                 1          -273.15
    FLIR Lepton 2.5 and 3.5 TLinear, Duo TIFF       0.01       -273.15   Duo manual, 5.1.7.3; flirpy issue 86
    FLIR Ax5 (A15, A35, A65) TLinear, Duo Pro R     0.04, 0.4  -273.15   FLIR support on TemperatureLinearResolution
    FLIR A655sc and such, IRFormat 10 mK, 100 mK    0.01, 0.1  -273.15   forums.ni.com, message 4147724
    Optris PI and Xi                                0.1        -100      evocortex/optris_drivers issue 21
    InfiRay P2 (16 bits, high gain)                 1/64       -273.15   ks00x/p2proviewer issue 3

Which of two resolutions an Ax5 or A655sc sends is a setting of the camera. Counts without a scale of their own (FLIR
raw, any camera's automatic gain) have no linear relation to temperature; leave `scale` at 0 for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MODES = ("auto", "percentile", "min_max", "fixed")
POLARITIES = ("white_hot", "black_hot")
DTYPES = (np.uint8, np.uint16, np.float32)
_LARGEST = 1e30  # of any setting
_SMALLEST_SPAN = 1e-30  # between limits; images that span less are constant
_GRID = 4  # limits are measured on every fourth pixel of every fourth row
_TILES = (8, 8)  # of CLAHE, OpenCV's default: 80 x 64 pixels each in an image of 640 x 512
_SCALES = (1e-6, 1e6)  # Celsius a count that a camera can mean; keeps limits in counts finite
_HOTTEST = 1e4  # Celsius; above what any thermal camera measures
_ABSOLUTE_ZERO = -273.15


class ThermalError(ValueError):
    """A thermal image that cannot be normalised; the message says why."""


@dataclass(frozen=True)
class ThermalSettings:
    """How thermal images become 0..1.

    Attributes:
        mode: `auto` (8-bit scaled by 255, all else as `percentile`), `percentile`, `min_max`, or `fixed`.
        low_percentile, high_percentile: what becomes 0 and 1 in mode `percentile`.
        minimum, maximum: what becomes 0 and 1 in mode `fixed`: degrees Celsius where `scale` is set, else in the
            image's own unit (and 1 and 0 where that is `black_hot`).
        time_constant: seconds in which the limits take over 63 % of a change.
        max_gain_step: largest relative change of gain from one frame to the next, 0..1.
        max_gap: seconds between stamps after which the state is forgotten.
        min_overlap: the state is forgotten when measured and smoothed limits overlap less than this share (0..1).
        polarity: `white_hot`, or `black_hot` for cameras that send warm as dark, of any depth. Results are always
            warm = bright; the percentiles count from the coldest pixel in both.
        clahe: clip limit of contrast limited adaptive histogram equalisation on the result, in 8 x 8 tiles, as
            OpenCV counts it (1 changes little, 2 to 4 is usual); 0 switches it off.
        scale, offset: degrees Celsius are value * scale + offset; for cameras see above. Scale 0: not known.
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
    polarity: str = "white_hot"
    clahe: float = 0.0
    scale: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("mode", "polarity") and not abs(value) <= _LARGEST:  # so NaN is refused too
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
        if self.polarity not in POLARITIES:
            raise ThermalError(f"thermal polarity {self.polarity!r} is unknown; use one of {', '.join(POLARITIES)}")
        if not 0 <= self.clahe <= 256:  # of 256 gray levels: nothing is clipped above that
            raise ThermalError(f"thermal clahe must be a clip limit of at most 256, or 0 for off, got {self.clahe}")
        if self.scale != 0:
            self._check_degrees()
        elif self.offset != 0:
            raise ThermalError(f"thermal offset {self.offset} needs the camera's scale too; set both, or neither")

    def _check_degrees(self) -> None:
        if not _SCALES[0] <= self.scale <= _SCALES[1]:
            raise ThermalError(
                f"thermal scale must be 0 (not known) or {_SCALES[0]:g} to {_SCALES[1]:g} Celsius, got {self.scale}"
            )
        if self.polarity == "black_hot":
            raise ThermalError("thermal polarity black_hot has no degrees; set scale to 0, or polarity to white_hot")
        if self.mode == "fixed" and not _ABSOLUTE_ZERO <= self.minimum < self.maximum <= _HOTTEST:
            raise ThermalError(
                f"thermal minimum and maximum are Celsius where scale is set, {_ABSOLUTE_ZERO:g} to {_HOTTEST:g}, "
                f"got {self.minimum} and {self.maximum}"
            )

    def from_celsius(self, degrees: float) -> float:
        """Degrees Celsius in the image's own unit; as they are where `scale` is 0."""
        return degrees if self.scale == 0 else (degrees - self.offset) / self.scale


def to_celsius(
    image: NDArray, settings: ThermalSettings, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32] | None:
    """Temperatures of a raw thermal image, where they are known.

    Args:
        image: shape (H, W), uint8, uint16 or float32, as the camera sent it.
        settings: of which `scale` and `offset` are used.
        out: shape (H, W), float32; filled and returned where given.

    Returns:
        Shape (H, W), float32, degrees Celsius, NaN where the image is NaN or infinite; None where `scale` is 0.

    Raises:
        ThermalError: another shape or dtype, or no pixel.
    """
    check_image(image)
    if settings.scale == 0:
        return None
    if out is None:
        out = np.empty(image.shape, np.float32)
    with np.errstate(over="ignore"):  # finite numbers that are no temperatures
        np.multiply(image, np.float32(settings.scale), out=out, casting="unsafe")
        np.add(out, np.float32(settings.offset), out=out)
    if image.dtype == np.float32:
        np.putmask(out, ~np.isfinite(out), np.nan)
    return out


def check_image(image: NDArray) -> None:
    """Refuse what is no thermal image.

    Raises:
        ThermalError: a shape other than (H, W), no pixel, or a dtype other than uint8, uint16 and float32.
    """
    if image.ndim != 2 or image.size == 0:
        raise ThermalError(f"expected a thermal image of shape (H, W), got shape {image.shape}")
    if image.dtype not in DTYPES:
        raise ThermalError(f"expected uint8, uint16 or float32 thermal pixels, got {image.dtype}")


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
            Shape (H, W), float32, 0..1, warm is bright. A constant image that is measured (not 8-bit in mode `auto`,
            not mode `fixed`) becomes 0 and leaves the state alone.

        Raises:
            ThermalError: another shape or dtype, no pixel, or no finite pixel.
        """
        check_image(image)
        if out is None:
            out = np.empty(image.shape, np.float32)
        low, high = self._choose_limits(image, stamp)
        if not high - low > _SMALLEST_SPAN:
            out.fill(0)
            return out
        gain, coldest = 1.0 / (high - low), low
        if self.settings.polarity == "black_hot":
            gain, coldest = -gain, high
        with np.errstate(over="ignore"):  # pixels far outside the limits; they are clipped
            np.multiply(image, np.float32(gain), out=out, casting="unsafe")
        np.subtract(out, np.float32(coldest * gain), out=out)
        np.clip(out, 0, 1, out=out)
        dead = self._find_dead(image) if image.dtype == np.float32 else None
        if dead is not None:
            np.putmask(out, dead, 0)
        if self.settings.clahe > 0:
            _equalise(out, self.settings.clahe)
            if dead is not None:
                np.putmask(out, dead, 0)  # again: equalising lifts 0 too
        return out

    def _find_dead(self, image: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self._dead is None or self._dead.shape != image.shape:
            self._dead = np.empty(image.shape, bool)
        np.isfinite(image, out=self._dead)
        return np.logical_not(self._dead, out=self._dead)

    def _choose_limits(self, image: NDArray, stamp: float | None) -> tuple[float, float]:
        settings = self.settings
        if settings.mode == "fixed":
            _sample(image)
            return settings.from_celsius(settings.minimum), settings.from_celsius(settings.maximum)
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
    percentiles = settings.low_percentile, settings.high_percentile
    if settings.polarity == "black_hot":  # count from the coldest pixel, which is the brightest
        percentiles = 100 - settings.high_percentile, 100 - settings.low_percentile
    low, high = np.percentile(sample, percentiles)
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


def _equalise(image: NDArray[np.float32], clip_limit: float) -> None:
    """CLAHE in place, on 8 bits.

    With 16 bits OpenCV's histogram has 65536 bins for the few thousand pixels of a tile, so every clip limit below
    about 13 does the same, full equalisation of the noise, and takes 10 ms at 640 x 512 instead of 0.8.
    """
    levels = cv2.convertScaleAbs(image, alpha=255.0)
    levels = cv2.createCLAHE(clip_limit, _TILES).apply(levels)
    np.multiply(levels, np.float32(1 / 255), out=image)
