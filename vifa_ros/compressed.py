"""JPEG and PNG images of `sensor_msgs/CompressedImage`, as compressed_image_transport sends them."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_ros.conversions import ConversionError
from vifa_runtime.geometry import LARGEST_SIDE

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage

_MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
_DTYPES = (np.uint8, np.uint16)


@dataclass(frozen=True)
class CompressedView:
    """An image that is not decoded yet: that is done by who needs its pixels, and only then."""

    data: memoryview
    what: str

    def to_rgb(self) -> NDArray[np.uint8]:
        """RGB uint8 (H,W,3).

        Raises:
            ConversionError: bytes that no decoder reads.
        """
        # Without the camera's orientation tag: camera_info speaks of the pixels as they are.
        pixels = self._decode(cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        return pixels

    def to_thermal(self) -> NDArray[Any]:
        """Thermal uint8 or uint16 (H,W); gray level of a colour image.

        Raises:
            ConversionError: bytes that no decoder reads, or pixels of another type.
        """
        pixels = self._decode(cv2.IMREAD_UNCHANGED)
        if pixels.dtype not in _DTYPES:
            raise ConversionError(f"{self.what} holds {pixels.dtype} pixels; send 8 or 16 bits")
        if pixels.ndim == 2:
            return pixels
        if pixels.dtype != np.uint8 or pixels.shape[2] == 2:
            raise ConversionError(f"{self.what} has {pixels.shape[2]} channels of {pixels.dtype}; send one")
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY)

    def _decode(self, flags: int) -> NDArray[Any]:
        try:
            pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        except cv2.error as error:
            raise ConversionError(f"{self.what} cannot be decoded: {error}") from None
        if pixels is None:
            raise ConversionError(f"{self.what} cannot be decoded; it is cut off or damaged")
        if max(pixels.shape[:2]) > LARGEST_SIDE:
            raise ConversionError(f"{self.what} has {pixels.shape[1]}x{pixels.shape[0]} pixels, above {LARGEST_SIDE}")
        return pixels


def view_compressed(message: CompressedImage, stream: str) -> CompressedView:
    """Look at a compressed image without decoding it.

    Args:
        message: a JPEG or PNG; what its `format` says besides is not looked at.
        stream: `visible` or `thermal`: what the image is going to be used as.

    Raises:
        ConversionError: neither JPEG nor PNG.
    """
    data = memoryview(message.data)
    kind = next((name for name, magic in _MAGIC.items() if bytes(data[: len(magic)]) == magic), None)
    if kind is None:
        raise ConversionError(
            f"the {stream} image is neither JPEG nor PNG (format {message.format!r:.60}); "
            "compressedDepth, theora and ffmpeg are not read: send jpeg, or png for 16 bits"
        )
    return CompressedView(data, f"the {stream} {kind.upper()}")


def make_jpeg(rgb: NDArray[np.uint8], quality: int, header: Any) -> CompressedImage:
    """An RGB image (H,W,3) as a JPEG of a quality of 1 to 100.

    Raises:
        ConversionError: the encoder refused.
    """
    from sensor_msgs.msg import CompressedImage

    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ConversionError(f"an image of {rgb.shape[1]}x{rgb.shape[0]} pixels cannot be encoded as JPEG")
    data = array.array("B")
    data.frombytes(encoded.data.cast("B"))
    return CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=data)
