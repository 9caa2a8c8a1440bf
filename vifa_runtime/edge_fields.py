"""Fields of edge directions: what a visible and a thermal image of one scene have in common.

A wall may be brighter than the sky in one image and darker in the other, and its edge strong in one and faint in the
other, but it runs the same way in both. So an edge is a complex number: twice the angle of the gradient, for which
opposite gradients are equal (Granlund, In search of a general picture processing operator, 1978), with a length of
0 to 1 by the gradient's strength among its neighbours. The real part of one field times the other's conjugate is then
1 where two strong edges run along each other, -1 where they cross. Summed, it is a correlation that Fourier transforms
compute for all shifts at once (Fitch et al., Orientation correlation, BMVC 2002).

Places are continuous as in `pixel_maps`: (0, 0) is the outer corner of the first pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import Size

Field = NDArray[np.complex64]
Image = NDArray[np.float32]
Matrix = NDArray[np.float64]

REACH = 4  # pixels: an edge is told from the pixels so near to it
_SMOOTHING = 1.0  # standard deviation, pixels
_NEIGHBOURS = 15  # side of the square, pixels, whose mean strength a gradient is compared with
_FAINT = 1e-3  # of the image's mean squared gradient: what is below does not count as an edge, whatever is around it
_TINY = 1e-12
_COARSER = 1.5  # source pixels a target pixel, above which they are averaged before they are sampled


def edge_field(image: Image) -> Field:
    """The field of an image (h, w), float32; 0 along its border, where gradients are not known."""
    smooth = cv2.GaussianBlur(image, (0, 0), _SMOOTHING)
    across, down = cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
    squared = across * across + down * down
    around = cv2.blur(squared, (_NEIGHBOURS, _NEIGHBOURS))
    field = np.empty(image.shape, np.complex64)
    field.real = across * across - down * down
    field.imag = 2 * across * down
    field /= squared + around + _FAINT * squared.mean() + _TINY
    field[:2] = field[-2:] = 0
    field[:, :2] = field[:, -2:] = 0
    return field


def shrink(image: Image, size: Size) -> Image:
    """An image at a size (height, width) that is not larger, each pixel the mean of those it shows."""
    if image.shape == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.float32)


class Resampler:
    """Brings images of one size by one homography onto a target grid; those much finer are averaged before.

    Attributes:
        inside: shape (H, W), bool: target pixels that see only pixels of the source that it has and that are `valid`,
            and whose edges are told from such pixels alone.
    """

    def __init__(self, matrix: Matrix, target: Size, valid: NDArray[np.bool_]) -> None:
        """Prepare.

        Args:
            matrix: 3x3, from source to target pixels.
            target: (height, width).
            valid: (h, w) of the source.
        """
        height, width = valid.shape
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))) / max(abs(float(matrix[2, 2])), _TINY)
        self._averaged = valid.shape
        if scale * _COARSER < 1:
            self._averaged = (max(8, round(height * scale)), max(8, round(width * scale)))
        averaging = np.diag([width / self._averaged[1], height / self._averaged[0], 1.0])
        self._matrix = _HALF_BACK @ matrix @ averaging @ _HALF  # OpenCV counts from the first pixel's centre
        self._target = target
        share = self._warp(valid.astype(np.float32), cv2.BORDER_CONSTANT)
        kernel = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
        self.inside = cv2.erode((share > 0.999).astype(np.uint8), kernel, borderValue=1).astype(bool)

    def __call__(self, image: Image) -> Image:
        """The image (h, w) as the target sees it, (H, W); outside it, its nearest border pixel is repeated."""
        return self._warp(image, cv2.BORDER_REPLICATE)

    def _warp(self, image: Image, border: int) -> Image:
        small = shrink(image, self._averaged)
        warped: Any = cv2.warpPerspective(
            small, self._matrix, self._target[::-1], flags=cv2.INTER_LINEAR, borderMode=border
        )
        return warped


_HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], np.float64)
_HALF_BACK = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]], np.float64)
