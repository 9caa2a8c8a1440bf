"""How lenses bend what they show: the distortion models of ROS and OpenCV, their inverses, and how far those reach.

All is in units of the focal length, from the image's centre. The pinhole models take eight coefficients in OpenCV's
order (k1, k2, p1, p2, k3, k4, k5, k6; those that a model lacks are 0), the fisheye model four (k1, k2, k3, k4).
A polynomial that fits a lens up to its image's edge may fold back beyond: from there on two directions share a pixel.
The inverses stop short of that and give NaN beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_FLATTEST = 0.01  # share of the centre's magnification; where less is left, pixels say next to nothing about directions
_WIDEST = 100.0  # tangent of the largest angle that a polynomial of a pinhole model is asked for, 89.4 degrees
_DIRECTIONS = 64  # around the axis, in which tangential distortion is looked at
_NEWTON_STEPS = 30
_SOLVED = 1e-11  # error of an inverse


def distort(points: Points, coefficients: Sequence[float]) -> Points:
    """Apply the pinhole models' distortion to (N, 2) in units of the focal length; eight coefficients."""
    _, _, p1, p2, *_ = coefficients
    x, y = points[:, 0], points[:, 1]
    square = x * x + y * y
    radial, _ = _magnification(square, coefficients)
    along = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    down = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return np.stack([along, down]).T  # half the time of stacking along axis 1


def undo_distortion(distorted: Points, coefficients: Sequence[float], widest: float) -> Points:
    """The inverse of `distort` within the radius `widest`, that of `widest_radius`; NaN where there is none.

    The model's Jacobian is symmetric. Where it is positive definite on a disk, no two points of the disk share an
    image, so that whatever Newton's method converges to inside is the one answer. A step that does not help is halved.
    """
    if not any(coefficients):
        return distorted
    points = _undo_radial(distorted, coefficients, widest)
    missing = distorted - distort(points, coefficients)
    error, share = _length(missing), np.ones(len(points))
    tolerance = _SOLVED * np.maximum(1, _length(distorted))
    for _ in range(_NEWTON_STEPS):
        if not (error > tolerance / 1000).any():
            break
        xx, xy, yy = _jacobian(points, coefficients)
        step = np.stack([yy * missing[:, 0] - xy * missing[:, 1], xx * missing[:, 1] - xy * missing[:, 0]], axis=1)
        tried = points + step * (share / (xx * yy - xy * xy))[:, None]
        tried *= np.minimum(1, widest / np.maximum(_length(tried), 1e-300))[:, None]
        tried_missing = distorted - distort(tried, coefficients)
        helps = _length(tried_missing) < error
        points, missing = (np.where(helps[:, None], a, b) for a, b in ((tried, points), (tried_missing, missing)))
        error, share = _length(missing), np.where(helps, np.minimum(1, 2 * share), share / 2)
    is_solved = (error <= tolerance) & (_length(points) < widest)
    return np.where(is_solved[:, None], points, np.nan)


def widest_radius(coefficients: Sequence[float]) -> float:
    """The radius, in units of the focal length, up to which the pinhole models' distortion can be undone.

    Within it the magnification in every direction is above a hundredth of the centre's. Infinite without distortion.
    """
    if not any(coefficients):
        return math.inf
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    above, below = np.array([k3, k2, k1, 1.0]), np.array([k6, k5, k4, 1.0])  # in the square of the radius
    above_slope, below_slope = above * (6, 4, 2, 0), below * (6, 4, 2, 0)  # by the radius, times the radius
    growth = np.convolve(above + above_slope, below) - np.convolve(above, below_slope)  # of the radius, times below²
    enough = growth - _FLATTEST * np.convolve(below, below)
    limit = math.sqrt(min(_first_root(below), _first_root(enough), _WIDEST**2))
    return limit if p1 == p2 == 0 else _widest_tangential(coefficients, limit)


def bend(angle: Points, coefficients: Sequence[float]) -> Points:
    """The fisheye model: distance from the centre, in units of the focal length, of an angle from the axis."""
    k1, k2, k3, k4 = coefficients
    square = angle * angle
    return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))


def undo_bending(distorted: Points, coefficients: Sequence[float], widest: float) -> Points:
    """Unit rays (N, 3) of distorted (N, 2); NaN beyond the angle `widest`, that of `widest_angle`."""
    k1, k2, k3, k4 = coefficients
    angles = np.linspace(0, widest, 2000)
    reached = _length(distorted)
    angle = np.interp(reached, bend(angles, coefficients), angles)
    for _ in range(_NEWTON_STEPS):
        missing = reached - bend(angle, coefficients)
        if not (np.abs(missing) > _SOLVED * 1e-3).any():
            break
        square = angle * angle
        slope = 1 + square * (3 * k1 + square * (5 * k2 + square * (7 * k3 + square * 9 * k4)))
        angle = np.clip(angle + missing / slope, 0, widest)
    is_solved = np.abs(reached - bend(angle, coefficients)) <= _SOLVED * np.maximum(1, reached)
    aside = np.where(reached > 0, np.sin(angle) / np.where(reached > 0, reached, 1), 1)
    rays = np.concatenate([distorted * aside[:, None], np.cos(angle)[:, None]], axis=1)
    return np.where(is_solved[:, None], rays, np.nan)


def widest_angle(coefficients: Sequence[float]) -> float:
    """The angle from the axis, at most pi, up to which the fisheye model can be undone."""
    k1, k2, k3, k4 = coefficients
    slope = [9 * k4, 7 * k3, 5 * k2, 3 * k1, 1 - _FLATTEST]  # in the square of the angle
    return math.sqrt(min(_first_root(slope), math.pi**2))


def _widest_tangential(coefficients: Sequence[float], limit: float) -> float:
    """The radius up to `limit` within which the Jacobian is safely positive definite in every direction."""
    turns = np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    radii = np.concatenate([[0.0], np.geomspace(1e-4, 1, 1000)]) * limit
    points = radii[:, None, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    with np.errstate(all="ignore"):
        xx, xy, yy = _jacobian(points.reshape(-1, 2), coefficients)
        smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    fails = ~(smallest.reshape(len(radii), -1) > _FLATTEST).all(axis=1)
    return float(radii[max(0, int(np.argmax(fails)) - 1)]) if fails.any() else limit


def _magnification(square: Points, coefficients: Sequence[float]) -> tuple[Points, Points]:
    """The radial factor and its derivative, both by the square of the radius."""
    k1, k2, _, _, k3, k4, k5, k6 = coefficients
    above = 1 + square * (k1 + square * (k2 + square * k3))
    below = 1 + square * (k4 + square * (k5 + square * k6))
    above_slope = k1 + square * (2 * k2 + 3 * square * k3)
    below_slope = k4 + square * (2 * k5 + 3 * square * k6)
    factor = above / below
    return factor, (above_slope - factor * below_slope) / below


def _jacobian(points: Points, coefficients: Sequence[float]) -> tuple[Points, Points, Points]:
    """Derivatives of `distort`, each (N,): d along / dx, d along / dy (the same as d down / dx), d down / dy."""
    _, _, p1, p2, *_ = coefficients
    x, y = points[:, 0], points[:, 1]
    factor, slope = _magnification(x * x + y * y, coefficients)
    xx = factor + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = factor + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return xx, xy, yy


def _undo_radial(distorted: Points, coefficients: Sequence[float], widest: float) -> Points:
    """Where the radial part alone would have come from, by a table: a start for Newton's method."""
    radii = np.concatenate([[0.0], np.geomspace(1e-4, 1 - 1e-9, 2000)]) * widest  # `widest` may be a pole
    table = radii * _magnification(radii * radii, coefficients)[0]
    radius = _length(distorted)
    return distorted * (np.interp(radius, table, radii) / np.maximum(radius, 1e-300))[:, None]


def _length(vectors: Points) -> Points:
    return np.hypot(vectors[:, 0], vectors[:, 1])


def _first_root(polynomial: Sequence[float] | NDArray) -> float:
    """The smallest root above 0 of a polynomial (highest power first, its last number above 0); infinite for none."""
    scaled = np.asarray(polynomial, np.float64)[::-1] / polynomial[-1]  # its roots are one over the others
    roots = np.roots(scaled)
    real = roots.real[(roots.real > 1e-12) & (np.abs(roots.imag) <= 1e-6 * np.abs(roots.real))]
    return float(1 / real.max()) if real.size else math.inf
