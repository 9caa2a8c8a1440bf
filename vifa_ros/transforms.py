"""Transforms between frames at a time, from what is published on /tf and /tf_static, without tf2_ros.

tf2_ros is not on PyPI; where it is installed its answers are the same, but for what `TransformBuffer` says. Stamps
are nanoseconds. A transform tells where a child frame is in its parent: a point p of the child is
`rotation @ p + translation` in the parent.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import AlignmentError, rotation_from_quaternion
from vifa_runtime.pixel_maps import Extrinsics

_LENGTH_ERROR = 0.01  # of a quaternion
_PARALLEL = 1e-6  # radians between rotations below which a straight line is the arc


class TransformError(ValueError):
    """A transform that is none, or that is not known; the message names the frames."""


@dataclass(frozen=True)
class TransformSettings:
    """How long transforms are kept and how far they reach; all times in nanoseconds.

    Attributes:
        span: how much older than the newest transform of a frame its oldest may be.
        capacity: most transforms that are kept of one frame.
        tolerance: how far from a transform of its frame a time may lie where there is nothing to interpolate: before
            the oldest, after the newest, and between the last under one parent and the first under another (of which
            the last one goes first). That transform is taken as it is; nothing is extrapolated.
        jump: a transform this much older than the newest of its frame means that time was set back, as when a bag
            starts again. What is younger than that is late, and takes its place.

    Raises:
        ValueError: a number out of range.
    """

    span: int = 10_000_000_000
    capacity: int = 10_000
    tolerance: int = 100_000_000
    jump: int = 1_000_000_000

    def __post_init__(self) -> None:
        for name, lowest in (("span", 0), ("capacity", 1), ("tolerance", 0), ("jump", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Placement:
    """Where a frame is in its parent: translation in metres, rotation as a unit quaternion (x, y, z, w)."""

    parent: str
    translation: tuple[float, ...]
    rotation: tuple[float, ...]

    def matrix(self) -> NDArray[np.float64]:
        """The 4x4 matrix that brings points of the frame into its parent."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(rotation_from_quaternion(*self.rotation), (3, 3))
        matrix[:3, 3] = self.translation
        return matrix


Climb = dict[str, Placement | None]  # a frame and those above it -> where each is in the next


@dataclass
class History:
    """What is known of one frame: placements by stamp, oldest first; a static one has one, for all times."""

    is_static: bool
    stamps: list[int] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)

    def add(self, stamp: int, placement: Placement, settings: TransformSettings) -> None:
        """Put a placement in its place; instead of the one that has the same stamp, if there is one."""
        if self.is_static:
            self.stamps, self.placements = [stamp], [placement]
            return
        place = bisect_left(self.stamps, stamp)
        same = place < len(self.stamps) and self.stamps[place] == stamp
        self.stamps[place : place + same] = [stamp]
        self.placements[place : place + same] = [placement]
        old = bisect_left(self.stamps, self.stamps[-1] - settings.span)
        old = max(old, len(self.stamps) - settings.capacity)
        del self.stamps[:old], self.placements[:old]

    def find(self, stamp: int, tolerance: int) -> Placement | None:
        """Where the frame is at a time; None where that is not known."""
        if self.is_static:
            return self.placements[0]
        after = bisect_right(self.stamps, stamp)
        before = after - 1
        if 0 < after < len(self.stamps) and self.placements[before].parent == self.placements[after].parent:
            share = (stamp - self.stamps[before]) / (self.stamps[after] - self.stamps[before])
            return interpolate(self.placements[before], self.placements[after], share)
        if after > 0 and stamp - self.stamps[before] <= tolerance:
            return self.placements[before]
        if after < len(self.stamps) and self.stamps[after] - stamp <= tolerance:
            return self.placements[after]
        return None

    def explain(self, stamp: int, tolerance: int) -> str:
        """Why `find` gives nothing."""
        limit = f"more than the {_seconds(tolerance)} allowed"
        if stamp > self.stamps[-1]:
            return f"its newest transform is {_seconds(stamp - self.stamps[-1])} older than asked for, {limit}"
        if stamp < self.stamps[0]:
            return f"its oldest transform is {_seconds(self.stamps[0] - stamp)} younger than asked for, {limit}"
        return f"it changes its parent about then, {limit} away from both transforms"


class TransformBuffer:
    """What was heard of the frames, and the transforms between them. Safe to use from several threads.

    As tf2's buffer: frames are a tree that may change over time, each frame has its own history, translations are
    interpolated along a straight line and rotations along the shortest arc, and a frame that is heard as static and
    as moving is what was heard last. Other than tf2's: within `tolerance` of a transform, and no farther than that
    between two parents, it is taken as it is; a loop on the way up is refused even where the frames meet below it; a
    second transform of one stamp replaces the first; and a jump back in time clears.

    Attributes:
        settings: how long transforms are kept and how far they reach.
        jumps: how often time was found to be set back.
    """

    def __init__(self, settings: TransformSettings | None = None) -> None:
        self.settings = settings or TransformSettings()
        self.jumps = 0
        self._histories: dict[str, History] = {}  # by child
        self._heard: set[str] = set()  # children and parents
        self._lock = threading.Lock()

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: Sequence[float],
        rotation: Sequence[float],
        is_static: bool = False,
    ) -> None:
        """Take in where a frame is in its parent.

        Args:
            parent, child: names of frames; a slash before them is ignored.
            stamp: nanoseconds; of no matter for a static one.
            translation: (x, y, z) in metres.
            rotation: quaternion (x, y, z, w).
            is_static: whether it holds for all times.

        Raises:
            TransformError: empty or equal names, numbers that are not finite, or no unit quaternion.
        """
        parent, child = _name(parent), _name(child)
        if not parent or not child:
            raise TransformError(f"transform of {child!r} in {parent!r}: a name is empty; name both frames")
        if parent == child:
            raise TransformError(f"transform of {child!r} in itself; name the parent frame")
        length = math.hypot(*rotation)
        if not all(map(math.isfinite, translation)) or not abs(length - 1) < _LENGTH_ERROR:
            raise TransformError(
                f"transform of {child!r} in {parent!r} has translation {tuple(translation)} and quaternion "
                f"{tuple(rotation)}; send finite numbers and a quaternion of length 1"
            )
        unit = tuple(value / length for value in rotation)
        placement = Placement(parent, tuple(map(float, translation)), unit)
        with self._lock:
            history = self._histories.get(child)
            if history is None or history.is_static != is_static:
                history = self._histories[child] = History(is_static)
            elif not is_static and history.stamps[-1] - stamp >= self.settings.jump:
                self._forget()
                history = self._histories[child] = History(is_static)
            history.add(stamp, placement, self.settings)
            self._heard |= {parent, child}

    def lookup(self, target: str, source: str, stamp: int) -> Extrinsics:
        """The transform from one frame to another at a time.

        Args:
            target, source: names of frames; a slash before them is ignored. Of two equal ones nothing need be known.
            stamp: nanoseconds.

        Returns:
            That by which a point p of `source` is `rotation @ p + translation` in `target`.

        Raises:
            TransformError: it is not known at that time, or the frames form a loop; the message names what is missing.
        """
        target, source = _name(target), _name(source)
        try:
            with self._lock:
                matrix = self._find(target, source, stamp)
            return Extrinsics(tuple(matrix[:3, :3].ravel().tolist()), tuple(matrix[:3, 3].tolist()))
        except (TransformError, AlignmentError) as error:
            raise TransformError(f"no transform from {source!r} to {target!r}: {error}") from None

    def clear(self) -> None:
        """Forget all but static transforms, because time was set back."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self.jumps += 1
        self._histories = {child: history for child, history in self._histories.items() if history.is_static}
        self._heard = {history.placements[0].parent for history in self._histories.values()}.union(self._histories)

    def _find(self, target: str, source: str, stamp: int) -> NDArray[np.float64]:
        """The 4x4 matrix from one frame to another."""
        if target == source:
            return np.eye(4)
        from_source, from_target = self._climb(source, stamp), self._climb(target, stamp)
        common = next((frame for frame in from_source if frame in from_target), None)
        if common is None:
            raise TransformError(self._explain(from_source, from_target, stamp))
        return _inverse(_product(from_target, common)) @ _product(from_source, common)

    def _climb(self, frame: str, stamp: int) -> Climb:
        """A frame and those above it, as far as they are known at a time."""
        above: Climb = {}
        while True:
            history = self._histories.get(frame)
            placement = history.find(stamp, self.settings.tolerance) if history is not None else None
            above[frame] = placement
            if placement is None:
                return above
            frame = placement.parent
            if frame in above:
                loop = " in ".join(map(repr, [*list(above)[list(above).index(frame) :], frame]))
                raise TransformError(f"the frames form a loop, {loop}; stop one of their publishers")

    def _explain(self, from_source: Climb, from_target: Climb, stamp: int) -> str:
        """Why two frames are not connected."""
        ends, reasons = [list(above)[-1] for above in (from_source, from_target)], []
        for end in ends:
            history = self._histories.get(end)
            if history is not None:
                reasons.append(f"of {end!r}, {history.explain(stamp, self.settings.tolerance)}")
            elif end not in self._heard:
                reasons.append(f"frame {end!r} is unknown on /tf and /tf_static; check its name, or publish it")
        return "; ".join(reasons) or f"nothing links {ends[0]!r} and {ends[1]!r}; publish where one is in the other"


def add_message(buffer: TransformBuffer, transforms: Iterable[Any], is_static: bool) -> list[str]:
    """Take in geometry_msgs/TransformStamped; give the reasons why some were refused."""
    problems = []
    for message in transforms:
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        shift, turn = message.transform.translation, message.transform.rotation
        try:
            buffer.add(
                message.header.frame_id,
                message.child_frame_id,
                stamp,
                (shift.x, shift.y, shift.z),
                (turn.x, turn.y, turn.z, turn.w),
                is_static,
            )
        except TransformError as error:
            problems.append(str(error))
    return problems


def interpolate(first: Placement, second: Placement, share: float) -> Placement:
    """Between two placements in one parent: straight for translations, along the shortest arc for rotations."""
    translation = tuple(a + share * (b - a) for a, b in zip(first.translation, second.translation, strict=True))
    return Placement(first.parent, translation, slerp(first.rotation, second.rotation, share))


def slerp(first: Sequence[float], second: Sequence[float], share: float) -> tuple[float, ...]:
    """Between two unit quaternions along the shortest arc (Shoemake, Animating rotation with quaternion curves, 1985).

    Args:
        first, second: of any one order of components.
        share: of the second, 0..1.
    """
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    if dot < 0:  # both a quaternion and its negative are one rotation; take the nearer
        second, dot = [-value for value in second], -dot
    angle = math.acos(min(1.0, dot))
    if angle < _PARALLEL:
        mixed = tuple((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    else:
        left, right = math.sin((1 - share) * angle), math.sin(share * angle)
        mixed = tuple(left * a + right * b for a, b in zip(first, second, strict=True))
    length = math.hypot(*mixed)
    return tuple(value / length for value in mixed)


def _product(above: Climb, until: str) -> NDArray[np.float64]:
    """The 4x4 matrix from the first frame to one of those above it."""
    matrix = np.eye(4)
    for frame, placement in above.items():
        if frame == until or placement is None:
            break
        matrix = placement.matrix() @ matrix
    return matrix


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def _name(frame: str) -> str:
    return frame[1:] if frame.startswith("/") else frame


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds * 1e-9:.3g} s"
