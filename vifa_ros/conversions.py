"""Between sensor_msgs/Image and NumPy, without a copy where the memory layout allows it.

Messages are looked at by their fields, so those that are read from a bag without ROS do as well; only making some
needs sensor_msgs.
"""

from __future__ import annotations

import array
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sensor_msgs.msg import Image


@dataclass(frozen=True)
class Encoding:
    """How a pixel lies in memory: element type, channels, and the OpenCV code that makes it RGB or gray."""

    dtype: str
    channels: int
    to_rgb: int | None = None
    to_gray: int | None = None


ENCODINGS = {
    "rgb8": Encoding("u1", 3, None, cv2.COLOR_RGB2GRAY),
    "bgr8": Encoding("u1", 3, cv2.COLOR_BGR2RGB, cv2.COLOR_BGR2GRAY),
    "rgba8": Encoding("u1", 4, cv2.COLOR_RGBA2RGB, cv2.COLOR_RGBA2GRAY),
    "bgra8": Encoding("u1", 4, cv2.COLOR_BGRA2RGB, cv2.COLOR_BGRA2GRAY),
    "mono8": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": Encoding("u2", 1),
    "16UC1": Encoding("u2", 1),
    "32FC1": Encoding("f4", 1),
}


class ConversionError(ValueError):
    """An image message that cannot be used; the message names the field and the mend."""


@dataclass(frozen=True)
class ImageView:
    """Pixels of a message, not copied: shape (H, W) or (H, W, C), in the message's own encoding."""

    pixels: NDArray[Any]
    encoding: str

    def to_rgb(self) -> NDArray[Any]:
        """RGB uint8 (H,W,3) of a visible image; the message's own memory where it is rgb8."""
        code = ENCODINGS[self.encoding].to_rgb
        return self.pixels if code is None else cv2.cvtColor(self.pixels, code)

    def to_thermal(self) -> NDArray[Any]:
        """Thermal uint8, uint16 or float32 (H,W) in machine byte order; gray level of a colour image."""
        code = ENCODINGS[self.encoding].to_gray
        if code is not None:
            return cv2.cvtColor(self.pixels, code)
        return self.pixels.astype(self.pixels.dtype.newbyteorder("="), copy=False)


def view_image(message: Image, stream: str) -> ImageView:
    """Look at a message's pixels without copying them; other encodings go through cv_bridge where it is installed.

    Honours `step` (padded rows) and `is_bigendian`.

    Args:
        message: any raw image.
        stream: `visible` or `thermal`: what the image is going to be used as.

    Raises:
        ConversionError: zero size, a step or data length that does not fit, an encoding nobody here reads, or 16-bit
            and float pixels as a visible image, which have no one way to colour.
    """
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise ConversionError(f"the image is empty ({width}x{height}); check the camera driver")
    known = ENCODINGS.get(message.encoding)
    if known is None:
        return _by_cv_bridge(message, stream)
    if stream == "visible" and known.dtype != "u1":
        raise ConversionError(f"encoding {message.encoding} is no visible image; publish rgb8, bgr8 or mono8")
    order = "|" if known.dtype == "u1" else ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + known.dtype)
    row = width * known.channels * dtype.itemsize
    if step < row:
        raise ConversionError(f"step {step} is too small for {width} pixels of {message.encoding}, which take {row}")
    if len(message.data) < step * height:
        raise ConversionError(
            f"data has {len(message.data)} bytes, but step {step} x height {height} = {step * height}"
        )
    shape: tuple[int, ...] = (height, width, known.channels)
    strides: tuple[int, ...] = (step, known.channels * dtype.itemsize, dtype.itemsize)
    if known.channels == 1:
        shape, strides = shape[:2], strides[:2]
    return ImageView(np.ndarray(shape, dtype, buffer=memoryview(message.data), strides=strides), message.encoding)


def read_stamp(header: Any) -> int:
    """A header's stamp in nanoseconds.

    Raises:
        ConversionError: it is negative, which no clock of ROS can hold.
    """
    if header.stamp.sec < 0:
        raise ConversionError(f"the stamp is negative ({header.stamp.sec} s); check the camera driver's clock")
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class ImageMessage:
    """One Image message, filled again for every frame: its memory is allocated once a size."""

    def __init__(self, encoding: str) -> None:
        """Make an empty message of one of the 8-bit ENCODINGS."""
        from sensor_msgs.msg import Image

        self.message = Image(encoding=encoding)
        self._shape: tuple[int, ...] = ()

    def fill(self, pixels: NDArray[np.uint8], header: Any) -> Image:
        """Copy pixels, (H,W,C) or (H,W) as the encoding says, into the message; publish it before the next call."""
        message = self.message
        if pixels.shape != self._shape:
            message.height, message.width, message.step = (*pixels.shape[:2], pixels.size // pixels.shape[0])
            message.data = array.array("B", bytes(pixels.size))
            self._shape = pixels.shape
        message.header = header
        np.ndarray(pixels.shape, np.uint8, buffer=memoryview(message.data))[:] = pixels
        return message


def make_image(pixels: NDArray[Any], encoding: str, header: Any) -> Image:
    """A new message with a copy of `pixels`, (H,W) or (H,W,C) of the dtype that `encoding` says."""
    from sensor_msgs.msg import Image

    pixels = np.ascontiguousarray(pixels)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.nbytes // pixels.shape[0]  # the stride of a single row may be anything
    message.is_bigendian = int(sys.byteorder == "big")
    data = array.array("B")
    data.frombytes(pixels.data.cast("B"))
    message.data = data
    return message


def _by_cv_bridge(message: Image, stream: str) -> ImageView:
    wanted = "rgb8" if stream == "visible" else "mono16" if "16" in message.encoding else "mono8"
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise ConversionError(
            f"encoding {message.encoding!r} needs cv_bridge, which is not installed; "
            f"install it or publish one of {', '.join(ENCODINGS)}"
        ) from None
    try:
        pixels = CvBridge().imgmsg_to_cv2(message, wanted)
    except Exception as error:  # of a build for NumPy 1 beside NumPy 2, AttributeError and ImportError come as well
        raise ConversionError(f"cv_bridge cannot convert encoding {message.encoding!r}: {error}") from None
    return ImageView(np.ascontiguousarray(pixels), wanted)
