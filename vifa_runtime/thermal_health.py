"""Faults of a thermal camera, seen in its raw frames: blank, shutter, frozen, saturated, dead.

    state      its frames are                                       it ends with
    blank      constant, or without a finite pixel                  an image
    shutter    suddenly uniform, against the scene before           clearly more contrast than it had
    frozen     equal to the bit while their stamps go on            a frame that differs
    saturated  in a large part at their highest or lowest value     half that part
    dead       NaN or never changing in some lines or pixels        changes there
    ok         none of these

Where several hold, the state is the first of them in this table. Cameras close a shutter every few minutes to correct
their fixed pattern (FFC, NUC) and meanwhile repeat the last frame or show the shutter: for 0.9 s on a FLIR Lepton
(datasheet 500-0659-00-09, 23 frames at 26 Hz), 0.5 s on a FLIR PathFindIR II (groupgets.com) and an Optris PI, whose
start takes 3 s (evocortex/optris_drivers issue 30), less than 1 s on a Bosch MIC (its user manual).

What cannot be told: a uniform image from the start on, which may be a wall; dead blocks in 8 bits, which look like a
smoothed sky; dead pixels in scenes whose noise is below a level, until something moves; a shutter that opens on a scene
which is as plain.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.thermal import ThermalError, check_image
from vifa_runtime.thermal_changes import DeadPixels, is_scene_end

STATES = ("ok", "blank", "shutter", "frozen", "saturated", "dead")
_LONGEST_SHUTTER = 5.0  # seconds; no camera calibrates that long, so a human must look
_FALL = 0.25  # seconds in which a shutter closes; a robot that turns to a plain wall mostly takes longer
_NOISE_ALONE = 10.0  # times the noise: contrast of a shutter, whose fixed pattern drifts by 0.5 K; noise is 0.05 K
_FEWEST_LEVELS = 8.0  # of a scene; one of fewer is uniform anyway, within rounding
_QUICK_STEP = 8  # repeated frames are looked for on every eighth pixel of every eighth row first
_LARGEST_STEP, _FEWEST_SAMPLES = 4, 64  # all else is measured on every fourth pixel, or more of small images
_BLOCK = 4  # samples on a side; a quarter of the noise is left in their mean
_FEWEST_CLIPPED = 0.01  # share of pixels; far below any threshold
_LIMITS = (0, 255, 1023, 4095, 16383, 65535)  # of numbers of 8, 10, 12, 14 and 16 bits
_FINE = 256.0  # steps of a number in the contrast, from which on they are fine: steps of 0.01 K in 2.6 K


@dataclass(frozen=True)
class HealthSettings:
    """When frames are called faulty.

    Attributes:
        frozen_after: seconds of equal frames. A camera of 9 frames a second sent as 30 repeats for 0.1 s, and most
            shutters are closed for less than 1 s. 0: never, for simulated cameras without noise.
        uniform_contrast: share of the scene's contrast a moment ago below which a frame is uniform, if it also shows
            little more than noise. A shutter shows the fixed pattern: about 0.2 K, of a scene's 2 to 20 K.
        saturated_share: share of pixels at one end. Among 300 real images of streets it is 0.04 at most.
        dead_share: share of pixels that never change. Cameras hide those that they were delivered with.
        invalid_share: share of NaN or infinite pixels. Rectified images have some along their borders.
    """

    frozen_after: float = 1.0
    uniform_contrast: float = 0.1
    saturated_share: float = 0.25
    dead_share: float = 0.01
    invalid_share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.frozen_after < math.inf:
            raise ThermalError(f"thermal frozen_after must be seconds, or 0 for never, got {self.frozen_after}")
        for name in ("uniform_contrast", "saturated_share", "dead_share", "invalid_share"):
            if not 0 < getattr(self, name) < 1:
                raise ThermalError(f"thermal {name} must be a share between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Health:
    """What is known of a thermal camera after a frame.

    Attributes:
        state: one of `STATES`.
        seconds: how long it has been in this state, by the stamps.
        message: what is wrong and the mend, on one line; empty for `ok`.
    """

    state: str = "ok"
    seconds: float = 0.0
    message: str = ""

    @property
    def shows_scene(self) -> bool:
        """Whether the frame shows the scene of its stamp, be it with faults."""
        return self.state in ("ok", "saturated", "dead")


class ThermalWatch:
    """The health of one thermal camera, fed with its raw frames in the order they were taken.

    Memory is that of two frames, whatever comes. Used by one thread at a time.

    Attributes:
        health: after the last frame with a stamp.
        counts: state -> how often it was entered; for `ok` these are the recoveries.
        frames: frames with a stamp.
    """

    _last: NDArray | None  # the last frame that was no repetition, as integers; the rest comes with the first one
    _frame: _Frame
    _changed: NDArray[np.bool_]
    _dead: DeadPixels

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self.settings = settings or HealthSettings()
        self.health = Health()
        self.counts = dict.fromkeys(STATES, 0)
        self.frames = 0
        self.reset()

    def reset(self) -> None:
        """Forget the camera and its scene; the counts and the last health stay."""
        self._last = None
        self._stamp = -math.inf
        self._since: float | None = None  # the state's begin
        self._run_start = 0.0  # stamp of the first of equal frames
        self._contrast = _Contrast(self.settings.uniform_contrast)

    def update(self, image: NDArray, stamp: float | None) -> Health:
        """Take in one frame.

        Args:
            image: shape (H, W), uint8, uint16 or float32, as the camera sent it. With another size or dtype than
                before it is another camera: what was seen is forgotten.
            stamp: seconds. One that goes back begins all times anew. None judges the image by itself, as blank,
                saturated, dead or ok, and changes nothing.

        Returns:
            The camera's health with this frame; with a stamp also kept in `health`.

        Raises:
            ThermalError: another shape or dtype, or no pixel.
        """
        check_image(image)
        if stamp is None or not math.isfinite(stamp):
            frame = _measure(image)
            state = _find_state(frame, self.settings)
            return Health(state, 0.0, _describe(state, 0.0, frame, None))
        bits = image.view(np.uint32) if image.dtype == np.float32 else image  # in which NaN equals NaN
        if self._last is not None and (self._last.shape, self._last.dtype) != (bits.shape, bits.dtype):
            self.reset()
        if stamp < self._stamp:
            self._run_start, self._since = stamp, None
            self._contrast.begin_anew(stamp)
        self._stamp = stamp
        self.frames += 1
        repeated = self._last is not None and _are_equal(bits, self._last)
        if not repeated:
            self._take_in(image, bits)
        self._enter(self._find_state(repeated))
        return self.health

    def _take_in(self, image: NDArray, bits: NDArray) -> None:
        """Measure a frame that is no repetition."""
        self._run_start = self._stamp
        self._frame = _measure(image)
        if self._last is None:
            self._last, self._changed = bits.copy(), np.empty(bits.shape, bool)
            self._dead = DeadPixels(bits.shape, _choose_step(bits.shape))
        else:
            np.not_equal(bits, self._last, out=self._changed)
            self._dead.add(self._changed, image)
            np.copyto(self._last, bits)
        if self._frame.finite > 0:
            self._contrast.follow(self._frame.contrast, image, self._stamp)

    def _find_state(self, repeated: bool) -> str:
        settings, frame = self.settings, self._frame
        uniform = self._contrast.uniform_since is not None
        state = _find_state(frame, settings, self.health.state)
        if state == "blank" and not (uniform and frame.constant and frame.high != 0):  # a shutter without noise
            return state
        if uniform:
            return "shutter"
        if repeated and 0 < settings.frozen_after <= self._stamp - self._run_start:
            return "frozen"
        dead = self._dead
        if state == "ok" and (dead.share > settings.dead_share or dead.rows.any() or dead.columns.any()):
            return "dead"
        return state

    def _enter(self, state: str) -> None:
        since = self._since
        if state == "frozen":
            since = self._run_start
        elif state == "shutter":
            since = self._contrast.uniform_since
        elif state != self.health.state:
            since = None
        self._since = self._stamp if since is None else since
        if state != self.health.state:
            self.counts[state] += 1
        seconds = self._stamp - self._since
        self.health = Health(state, seconds, _describe(state, seconds, self._frame, self._dead))


class _Contrast:
    """The scene's contrast over the last moment, and since when frames have suddenly lacked it."""

    def __init__(self, uniform: float) -> None:
        self.uniform_since: float | None = None
        self._uniform = uniform  # share of the contrast before
        self._recent: deque[tuple[float, float]] = deque(maxlen=16)  # stamps and contrasts; at 60 Hz, of _FALL seconds
        self._before = 0.0  # the contrast that frames had before they became uniform

    def begin_anew(self, stamp: float) -> None:
        """Stamps went back to `stamp`; a uniform scene stays one."""
        self._recent.clear()
        if self.uniform_since is not None:
            self.uniform_since = stamp

    def follow(self, contrast: float, image: NDArray, stamp: float) -> None:
        """Take in a frame and its contrast."""
        if self.uniform_since is not None:
            if contrast < 2 * self._uniform * self._before and contrast <= 2 * _NOISE_ALONE * _find_noise(image):
                return
            self.uniform_since = None
        while len(self._recent) > 1 and stamp - self._recent[0][0] > _FALL:
            self._recent.popleft()
        self._before = max((seen for _, seen in self._recent), default=0.0)
        told = image.dtype == np.float32 or self._before >= _FEWEST_LEVELS
        if told and contrast < self._uniform * self._before and contrast <= _NOISE_ALONE * _find_noise(image):
            self.uniform_since = stamp
        else:
            self._recent.append((stamp, contrast))


class _Frame(NamedTuple):
    """One frame, measured on a part of its pixels.

    Attributes:
        finite: share of pixels that are neither NaN nor infinite, 0..1.
        constant: whether all of these are equal, in the whole image.
        high: the highest value.
        contrast: see `_find_contrast`, in the image's unit.
        clipped: the larger share of pixels at the highest or lowest value, if that is a clipped end; else 0.
        end: which of them.
    """

    finite: float
    constant: bool = False
    high: float = 0.0
    contrast: float = 0.0
    clipped: float = 0.0
    end: str = ""


def _choose_step(shape: tuple[int, int]) -> int:
    return max(1, min(_LARGEST_STEP, min(shape) // _FEWEST_SAMPLES))


def _are_equal(a: NDArray, b: NDArray) -> bool:
    """Whether two images are equal, all of them; with noise the few pixels looked at first already differ."""
    quick = slice(None, None, _QUICK_STEP)
    return np.array_equal(a[quick, quick], b[quick, quick]) and np.array_equal(a, b)


def _measure(image: NDArray) -> _Frame:
    step = _choose_step(image.shape)
    for pixels in (np.ascontiguousarray(image[::step, ::step]), image):
        values = _finite(pixels)
        if values.size > 0:
            break
    else:
        return _Frame(0.0)
    finite = values.size / pixels.size
    low, high = values.min(), values.max()
    if low == high:
        return _Frame(finite, bool((_finite(image) == low).all()), float(high))
    contrast = _find_contrast(pixels)
    shares = {"highest": _clipped_share(values, high, contrast), "lowest": _clipped_share(values, low, contrast)}
    end = max(shares, key=lambda name: shares[name])
    return _Frame(finite, False, float(high), contrast, shares[end], end)


def _finite(pixels: NDArray) -> NDArray:
    if pixels.dtype != np.float32:
        return pixels.ravel()
    finite = np.isfinite(pixels)
    return pixels.ravel() if finite.all() else pixels[finite]


def _find_contrast(sample: NDArray) -> float:
    """Between the 5th and the 95th percentile of the means of blocks, in which there is little noise."""
    size = (max(1, sample.shape[1] // _BLOCK), max(1, sample.shape[0] // _BLOCK))
    means = _finite(cv2.resize(sample, size, interpolation=cv2.INTER_AREA))
    if means.size == 0:
        return 0.0
    fifth = (means.size - 1) // 20
    ends = np.partition(means, (fifth, means.size - 1 - fifth))
    return float(ends[means.size - 1 - fifth]) - float(ends[fifth])


def _find_noise(image: NDArray) -> float:
    """Mean difference between neighbours in a row, 1.1 times the noise's sigma; of whole numbers, rounding added."""
    step = _choose_step(image.shape)
    pixels = np.ascontiguousarray(image[::step, :-1:step])
    beside = np.ascontiguousarray(image[::step, 1::step])
    differences = _finite(cv2.absdiff(pixels, beside)) if pixels.size > 0 else pixels
    rounding = 0.0 if image.dtype == np.float32 else 0.3
    return rounding + (float(differences.mean(dtype=np.float64)) if differences.size > 0 else 0.0)


def _clipped_share(values: NDArray, end: float, contrast: float) -> float:
    """Share of the values that are equal to their lowest or highest, `end`, where that is a clipped end; else 0.

    The range of a sensor need not be known (14 of 16 bits, degrees): in numbers fine enough to show the noise, many
    are equal at a clipped end only. Coarse ones may show a plain wall as their one lowest level; they are taken for
    clipped at the limits of usual converters alone.
    """
    at_end = np.count_nonzero(values == end)
    if at_end < _FEWEST_CLIPPED * values.size or not is_scene_end(values, end):
        return 0.0
    if values.dtype == np.float32:
        some = np.unique(values[:: values.size // 500 | 1])  # an odd step does not run down the same columns
        fine = some.size > 1 and contrast >= _FINE * float(np.diff(some).min())
    else:
        fine = contrast >= _FINE or int(end) in _LIMITS
    return at_end / values.size if fine else 0.0


def _find_state(frame: _Frame, settings: HealthSettings, before: str = "ok") -> str:
    """What a frame tells by itself. A state that was there `before` holds until half of what began it."""
    if frame.finite == 0 or frame.constant:
        return "blank"
    if frame.clipped > settings.saturated_share / (2 if before == "saturated" else 1):
        return "saturated"
    if 1 - frame.finite > settings.invalid_share / (2 if before == "dead" else 1):
        return "dead"
    return "ok"


def _describe(state: str, seconds: float, frame: _Frame, dead: DeadPixels | None) -> str:
    """What is wrong and the mend, for a human, on one line."""
    long = seconds > _LONGEST_SHUTTER
    if state == "blank":
        what = "no finite pixel" if frame.finite == 0 else f"the value {frame.high:g} everywhere"
        return f"thermal image has {what}; check the camera, its cable and the driver's pixel format"
    if state == "shutter":
        mend = "the shutter is stuck or the lens covered: look at the camera" if long else "shutter calibration"
        return f"thermal image is uniform since {seconds:.1f} s; {mend}"
    if state == "frozen":
        mend = "the driver hangs: restart it" if long else "shutter calibration or a hung driver"
        return f"thermal image is frozen since {seconds:.1f} s; {mend}"
    if state == "saturated":
        return (
            f"{frame.clipped:.0%} of the thermal pixels have the {frame.end} value; "
            "choose a wider temperature range on the camera"
        )
    if state == "dead":
        return (
            f"{_describe_dead(frame, dead)}; run the camera's shutter calibration: if that does not help, it is broken"
        )
    return ""


def _describe_dead(frame: _Frame, dead: DeadPixels | None) -> str:
    for name, lines in (("row", dead.rows), ("column", dead.columns)) if dead is not None else ():
        numbers = np.flatnonzero(lines)
        if numbers.size > 0:
            more = f" and {numbers.size - 1} more" if numbers.size > 1 else ""
            return f"thermal {name} {numbers[0]}{more} never change{'' if more else 's'}"
    if dead is None or dead.share / 2 < 1 - frame.finite:
        return f"{1 - frame.finite:.0%} of the thermal pixels are NaN or infinite"
    return f"{dead.share:.1%} of the thermal pixels never change"
