"""Where thermal images lie in visible ones: bring them there, blend over their border, and map what is found in them.

An `Alignment` says how the two cameras stand to each other. `fit` makes a `ThermalView` of it for images of one pair
of sizes: all maps are computed then, so that a frame costs one resampling and, where the thermal image covers a part
of the visible one only, one blend.

Coordinates are continuous: x right, y down, (0, 0) the outer corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.camera_model import AlignmentError, Size
from vifa_runtime.distortion import Points
from vifa_runtime.geometry import resize
from vifa_runtime.labels import UNKNOWN
from vifa_runtime.messages import shown
from vifa_runtime.pixel_maps import CameraMap, HomographyMap, PixelMap

MODES = ("none", "resize", "homography", "cameras")
SOFT_BORDER = 16
LARGEST_BORDER = 1000
_DENSE = 1.5  # thermal pixels a visible one: above, bilinear interpolation would skip some, so they are averaged first
_STRIP = 1 << 13  # pixels that are located at a time: bounds the memory that locating takes, to what a cache holds
_NO_FRACTION = np.empty(0, np.uint16)
_PROBES = 16  # places a side at which the density is measured


@dataclass(frozen=True)
class Alignment:
    """How thermal images are brought onto visible ones.

    Attributes:
        mode: `none` (both of one size already show the same), `resize` (the same field of view at any two sizes),
            `homography` or `cameras` (as `pixels` says).
        pixels: the map of the last two modes, None for the others.
        soft_border: pixels over which the fused image fades into the visible one at the thermal image's border.

    Raises:
        AlignmentError: on construction, for an unknown mode, a map that does not belong to it, or a border outside
            0..1000.
    """

    mode: str = "resize"
    pixels: PixelMap | None = None
    soft_border: int = SOFT_BORDER

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise AlignmentError(f"mode {shown(self.mode)} is unknown; use one of {', '.join(MODES)}")
        wanted = {"homography": HomographyMap, "cameras": CameraMap}.get(self.mode)
        if not isinstance(self.pixels, wanted or type(None)):
            needed = "no map" if wanted is None else f"a {wanted.__name__}"
            raise AlignmentError(f"mode {self.mode} needs {needed}, got {type(self.pixels).__name__}")
        border = self.soft_border
        if isinstance(border, bool) or not isinstance(border, int) or not 0 <= border <= LARGEST_BORDER:
            raise AlignmentError(f"soft_border must be a whole number in 0..{LARGEST_BORDER}, got {shown(border)}")

    def fit(self, thermal: Size, visible: Size) -> ThermalView:
        """Compute everything for images of one pair of sizes (height, width); keep it as long as they stay.

        Raises:
            AlignmentError: sizes that this alignment does not fit, or a thermal image that covers no visible pixel.
        """
        if self.mode == "none" and thermal != visible:
            raise AlignmentError(
                f"alignment is none, which needs images of one size, but thermal is {thermal[1]}x{thermal[0]} and "
                f"visible {visible[1]}x{visible[0]}; use resize where both show the same field of view"
            )
        if self.pixels is None:
            return ThermalView(HomographyMap.same_view(thermal, visible), self.soft_border)
        return ThermalView(self.pixels.resized(thermal, visible), self.soft_border)


class ThermalView:
    """Thermal images of one size in visible images of one size. Used by one thread at a time.

    Attributes:
        thermal, visible: their sizes, (height, width).
        is_same_view: whether both images show the same field of view, so that a resize aligns them.
        is_identity: whether pixels stay where they are.
        soft_mask: how much of the fused image is shown, (H, W) float32 in visible pixels: 0 where the thermal image
            has nothing, 1 well inside it, between them along `soft_border` pixels a straight line. The border of the
            visible image is no border of the thermal one, so nothing fades there.
        covers_all: whether `soft_mask` is 1 everywhere.
    """

    def __init__(self, pixels: PixelMap, soft_border: int = SOFT_BORDER) -> None:
        """Compute the maps.

        Args:
            pixels: where thermal pixels lie, made for images of these sizes.
            soft_border: width of the fading border, visible pixels; 0 for a hard one.

        Raises:
            AlignmentError: the thermal image covers no visible pixel.
        """
        self.thermal, self.visible = pixels.thermal, pixels.visible
        self._pixels = pixels
        self.is_same_view = pixels.is_same_view
        self.is_identity = self.is_same_view and self.thermal == self.visible
        self.covers_all = True
        self.soft_mask: NDArray[np.float32] = np.broadcast_to(np.float32(1), self.visible)  # takes no memory
        self._to_visible_masks: NDArray[np.int16] | None = None
        self._to_thermal_masks: NDArray[np.int16] | None = None
        self._averaged: NDArray | None = None  # a buffer
        if not self.is_same_view:
            self._prepare(soft_border)

    def _prepare(self, soft_border: int) -> None:
        places, inside = _locate(self._pixels.to_thermal, self.thermal, self.visible)
        if not inside.any():
            raise AlignmentError(
                "the thermal image covers no pixel of the visible one; check the direction of the alignment "
                "(homography: thermal to visible; extrinsics: visible to thermal) and its units"
            )
        self._sampled = _averaged_size(self._pixels)
        places *= np.divide(self._sampled, self.thermal, dtype=np.float32)[::-1]
        places -= 0.5  # OpenCV counts from the centre of the first pixel
        # Fixed-point maps: remap counts in 1/32 of a pixel with float maps too, and converts them at every call.
        self._maps = cv2.convertMaps(places[:, :, 0], places[:, :, 1], cv2.CV_16SC2)
        self.covers_all = bool(inside.all())
        if not self.covers_all:
            self.soft_mask = soften(inside, soft_border)
            self._outside = 1 - self.soft_mask

    def warp(self, image: NDArray, out: NDArray | None = None) -> NDArray:
        """Bring a thermal image into visible pixels; the image itself where nothing is to do.

        Where the thermal image has nothing, its nearest border pixel is repeated: the network then sees no edge
        along the border, which it would draw into the fused image on both sides of it, and no value that the scene
        does not have. Thermal images much finer than the visible one are averaged first, so that nothing is skipped.

        Args:
            image: shape (h, w) of the size `thermal`, uint8, uint16 or float32.
            out: shape (H, W) of the size `visible`, same dtype; filled and returned where something is to do.

        Raises:
            AlignmentError: an image of another size.
        """
        if image.shape != self.thermal:
            raise AlignmentError(f"this view is for thermal images of {self.thermal}, got {image.shape}; fit anew")
        if self.is_identity:
            return image
        if self.is_same_view:
            return resize(image, self.visible, out=out)
        if self._sampled != self.thermal:
            if self._averaged is None or self._averaged.dtype != image.dtype:
                self._averaged = np.empty(self._sampled, image.dtype)
            size = self._sampled[::-1]
            image = cv2.resize(image, size, dst=self._averaged, interpolation=cv2.INTER_AREA)
        whole, fraction = self._maps
        return cv2.remap(image, whole, fraction, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)

    def blend(self, visible: NDArray, fused: NDArray, out: NDArray | None = None) -> NDArray:
        """As `blend_outside` with `soft_mask`; `fused` itself where the thermal image covers the visible one."""
        if self.covers_all:
            return fused
        return blend_outside(visible, fused, self.soft_mask, out=out, outside=self._outside)

    def to_visible(self, points: NDArray) -> Points:
        """Map points (N, 2) in thermal pixels to visible ones, float64, inside the image or not.

        NaN for a point behind the camera or outside what its lens model can tell.
        """
        return self._pixels.to_visible(points)

    def to_thermal(self, points: NDArray) -> Points:
        """Map points (N, 2) in visible pixels to thermal ones; the inverse of `to_visible`, NaN likewise."""
        return self._pixels.to_thermal(points)

    def boxes_to_visible(self, boxes: NDArray) -> Points:
        """Map boxes (N, 4), x1 y1 x2 y2 in thermal pixels, to the upright ones around them in visible pixels.

        A box takes in its four mapped corners and the middles of its edges, which a lens may bend outwards. It is
        not clipped to the image. A box becomes NaN where any of the eight points does: less of it would be wrong.
        """
        return _map_boxes(boxes, self._pixels.to_visible)

    def boxes_to_thermal(self, boxes: NDArray) -> Points:
        """Map boxes (N, 4) in visible pixels to thermal ones, as `boxes_to_visible`."""
        return _map_boxes(boxes, self._pixels.to_thermal)

    def mask_to_visible(self, mask: NDArray, outside: int = UNKNOWN, out: NDArray | None = None) -> NDArray:
        """Bring class ids into visible pixels: each takes that of the thermal pixel in which its centre lies.

        Args:
            mask: shape (h, w) of the size `thermal`, uint8 or uint16.
            outside: what pixels outside the thermal image get.
            out: shape (H, W), same dtype; filled and returned.

        Raises:
            AlignmentError: a mask of another size.
        """
        if self._to_visible_masks is None:
            self._to_visible_masks = _nearest(self._pixels.to_thermal, self.thermal, self.visible)
        return _pick(mask, self.thermal, self._to_visible_masks, outside, out)

    def mask_to_thermal(self, mask: NDArray, outside: int = UNKNOWN, out: NDArray | None = None) -> NDArray:
        """Bring class ids (H, W) in visible pixels into thermal ones (h, w), as `mask_to_visible`."""
        if self._to_thermal_masks is None:
            self._to_thermal_masks = _nearest(self._pixels.to_visible, self.visible, self.thermal)
        return _pick(mask, self.visible, self._to_thermal_masks, outside, out)


def blend_outside(
    visible: NDArray,
    fused: NDArray,
    mask: NDArray[np.float32],
    out: NDArray | None = None,
    outside: NDArray[np.float32] | None = None,
) -> NDArray:
    """The fused image where there is a thermal one, the visible image elsewhere, and both over the border between.

    Args:
        visible, fused: (H, W, 3) or (H, W), uint8 or float32.
        mask: (H, W) float32, 0..1: the share of `fused`. Where it is 1 `fused` passes to the byte, where it is 0
            `visible`; between, the result is theirs by shares, rounded.
        out: as `visible`, and either of the two may be given; filled and returned.
        outside: `1 - mask`, for those who have it; nothing is allocated then.
    """
    if outside is None:
        outside = 1 - mask
    return cv2.blendLinear(fused, visible, mask, outside, dst=out)


def soften(inside: NDArray[np.bool_], border: int) -> NDArray[np.float32]:
    """Shares (H, W) float32 in 0..1: 0 off `inside`, and `border` pixels along which they rise to 1 from its edge.

    The distance that counts is that to the nearest pixel outside. The image's own border is none.
    """
    if inside.all():
        return np.ones(inside.shape, np.float32)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance / np.float32(border + 1), 1, dtype=np.float32)


def _locate(
    to_source: Callable[[NDArray], Points], source: Size, target: Size
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where the centre of every target pixel lies in a source image, and whether it does.

    Returns:
        Places (H, W, 2), x and y in source pixels, moved to the nearest pixel centre where they lie beyond the
        outermost ones; and (H, W), whether they lay in the image. A pixel that has no place gets its nearest
        neighbour's.
    """
    places, inside = np.empty((*target, 2), np.float32), np.empty(target, bool)
    height, width = source
    rows = max(1, _STRIP // target[1])
    for top in range(0, target[0], rows):
        strip = slice(top, min(target[0], top + rows))
        centres = np.stack(np.meshgrid(np.arange(target[1]), np.arange(strip.start, strip.stop)), axis=-1) + 0.5
        found = to_source(centres.reshape(-1, 2)).reshape(centres.shape)
        inside[strip] = ((found >= 0) & (found <= (width, height))).all(axis=2)
        places[strip] = np.clip(found, 0.5, (width - 0.5, height - 0.5))
    nowhere = np.isnan(places[:, :, 0])
    if nowhere.any() and not nowhere.all():
        _, nearest = cv2.distanceTransformWithLabels(
            nowhere.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        place_of = np.empty((int(nearest.max()) + 1, 2), np.float32)
        place_of[nearest[~nowhere]] = places[~nowhere]
        places[nowhere] = place_of[nearest[nowhere]]
    return places, inside


def _averaged_size(pixels: PixelMap) -> Size:
    """The size at which thermal images are sampled: a side that is much finer than the visible image is as coarse."""
    (height, width), (tall, wide) = pixels.thermal, pixels.visible
    across, down = (np.arange(_PROBES) + 0.5) / _PROBES * wide, (np.arange(_PROBES) + 0.5) / _PROBES * tall
    centres = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    here, right, below = (pixels.to_thermal(centres + step) for step in ((0, 0), (1, 0), (0, 1)))
    spans = np.hypot(right - here, below - here)  # columns and rows that a visible pixel spans
    spans = spans[((here >= 0) & (here <= (width, height))).all(axis=1) & np.isfinite(spans).all(axis=1)]
    if not len(spans):
        return height, width
    columns, rows = np.median(spans, axis=0)
    return (
        max(1, round(height / rows)) if rows > _DENSE else height,
        max(1, round(width / columns)) if columns > _DENSE else width,
    )


def _map_boxes(boxes: NDArray, mapping: Callable[[NDArray], Points]) -> Points:
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    middle, centre = (left + right) / 2, (top + bottom) / 2
    x = np.stack([left, middle, right, right, right, middle, left, left], axis=1)
    y = np.stack([top, top, top, centre, bottom, bottom, bottom, centre], axis=1)
    mapped = mapping(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(-1, 8, 2)
    return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)


def _nearest(to_source: Callable[[NDArray], Points], source: Size, target: Size) -> NDArray[np.int16]:
    """Column and row (H, W, 2) of the source pixel in which each target pixel's centre lies; -1 where there is none."""
    places, inside = _locate(to_source, source, target)
    return np.where(inside[:, :, None], np.floor(places), -1).astype(np.int16)


def _pick(mask: NDArray, size: Size, where: NDArray[np.int16], outside: int, out: NDArray | None) -> NDArray:
    if mask.shape != size:
        raise AlignmentError(f"this view is for masks of {size}, got {mask.shape}; fit anew")
    return cv2.remap(
        mask, where, _NO_FRACTION, cv2.INTER_NEAREST, dst=out, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,)
    )
