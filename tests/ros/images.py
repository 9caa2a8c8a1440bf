"""Image messages built byte by byte, independently of the package, and what the tiny bundle makes of pairs."""

import array
import struct

import numpy as np
from sensor_msgs.msg import Image

# encoding -> struct code of one value, and the channels of a pixel in memory order (`y`: the gray level)
LAYOUTS = {
    "rgb8": ("B", "rgb"),
    "bgr8": ("B", "bgr"),
    "rgba8": ("B", "rgba"),
    "bgra8": ("B", "bgra"),
    "mono8": ("B", "y"),
    "8UC1": ("B", "y"),
    "mono16": ("H", "y"),
    "16UC1": ("H", "y"),
    "32FC1": ("f", "y"),
}
VISIBLE_ENCODINGS = [encoding for encoding, (code, _) in LAYOUTS.items() if code == "B"]
COLOUR_ENCODINGS = [encoding for encoding, (_, channels) in LAYOUTS.items() if len(channels) > 1]


def build_message(encoding: str, pixels: np.ndarray, padding: int = 0, big_endian: bool = False) -> Image:
    """A message whose rows end in `padding` bytes of rubbish.

    Args:
        pixels: RGB (H,W,3) for the colour encodings, else values (H,W).
    """
    code, channels = LAYOUTS[encoding]
    height, width = pixels.shape[:2]
    data = bytearray()
    for row in pixels:
        values = [_channel(pixel, name) for pixel in row for name in channels]
        data += struct.pack(f"{'>' if big_endian else '<'}{len(values)}{code}", *values)
        data += b"\xa5" * padding
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=len(data) // height,
        data=array.array("B", data),
    )


def random_visible(height: int = 6, width: int = 10, seed: int = 0) -> np.ndarray:
    """RGB (H,W,3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def random_thermal(height: int = 6, width: int = 10, seed: int = 1) -> np.ndarray:
    """Gray levels (H,W) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def expected_bright(visible: np.ndarray, thermal: np.ndarray) -> np.ndarray:
    """What task `bright` of the tiny bundle makes of RGB (H,W,3) and thermal levels (H,W)."""
    return np.clip(visible.astype(int) + thermal.astype(int)[:, :, None], 0, 255).astype(np.uint8)


def expected_dim(visible: np.ndarray, thermal: np.ndarray) -> np.ndarray:
    """What task `dim` makes of them."""
    return np.clip(visible.astype(int) - thermal.astype(int)[:, :, None], 0, 255).astype(np.uint8)


def _channel(pixel: np.ndarray, name: str) -> float:
    if name == "y":
        return pixel.item()
    return 77 if name == "a" else int(pixel["rgb".index(name)])
