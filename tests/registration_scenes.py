"""Pairs of one warp for the tests of registration: scenes of flat shapes that look different to both cameras."""

import cv2
import numpy as np

VISIBLE, THERMAL = (120, 160), (96, 128)
_FINE = 4  # scenes are drawn so much finer, and cameras average them


def draw_scene(rng, size=VISIBLE, shapes=25):
    """(visible, thermal) gray levels of the same shapes, float32, `_FINE` times as fine as a size (height, width).

    Each shape has a brightness and, independent of it, a warmth: about half of all edges have opposite contrast.
    """
    height, width = size[0] * _FINE, size[1] * _FINE
    visible, thermal = (np.full((height, width), rng.uniform(60, 180), np.float32) for _ in range(2))
    for _ in range(shapes):
        points = rng.uniform(0, 1, 2) * (width, height) + rng.uniform(-0.25, 0.25, (rng.integers(3, 6), 2)) * width
        hull = cv2.convexHull(points.astype(np.float32)).astype(np.int32)
        for image in (visible, thermal):
            cv2.fillPoly(image, [hull], float(rng.uniform(0, 255)))
    return visible, thermal


def see(scene, size, matrix=None, noise=3.0, rng=None):
    """What a camera sees of a scene, uint8 of a size.

    Args:
        matrix: 3x3, from its pixels to the scene's at the size `scene / _FINE`; none for those pixels.
    """
    fine = np.diag([1 / _FINE, 1 / _FINE, 1.0])
    target = (size[0] * _FINE, size[1] * _FINE)
    if matrix is not None:
        whole = np.linalg.inv(fine) @ matrix @ fine  # from the camera's fine pixels to the scene's
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        centred = np.linalg.inv(half) @ np.linalg.inv(whole) @ half
        scene = cv2.warpPerspective(scene, centred, target[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    image = cv2.resize(scene, size[::-1], interpolation=cv2.INTER_AREA)
    if rng is not None:
        image = image + rng.normal(0, noise, size)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def make_pairs(matrix, count=8, seed=0, visible=VISIBLE, thermal=THERMAL, noise=3.0):
    """Pairs [(RGB, thermal)] whose thermal images lie in the visible ones as a matrix, thermal to visible, says."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        bright, warm = draw_scene(rng, visible)
        rgb = np.repeat(see(bright, visible, None, noise, rng)[:, :, None], 3, axis=2)
        pairs.append((rgb, see(warm, thermal, matrix, noise, rng)))
    return pairs


def similarity(scale=1.0, degrees=0.0, right=0.0, down=0.0, visible=VISIBLE, thermal=THERMAL):
    """3x3, thermal to visible pixels: at scale 1 both views are equally wide; the middle moves by (right, down)."""
    factor, angle = scale * visible[1] / thermal[1], np.deg2rad(degrees)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(visible[::-1]) / 2 + (right, down)
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = middle - turn @ (np.array(thermal[::-1]) / 2)
    return matrix


def corner_errors(found, truth, thermal=THERMAL):
    """Visible pixels (4,) between where two matrices put the thermal image's corners."""
    height, width = thermal
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    places = [(corners @ np.asarray(matrix).reshape(3, 3).T) for matrix in (found, truth)]
    return np.hypot(*(places[0][:, :2] / places[0][:, 2:] - places[1][:, :2] / places[1][:, 2:]).T)
