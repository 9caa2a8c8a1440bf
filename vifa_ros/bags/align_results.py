"""What an alignment is made from where there is no bag, and what comes of it: its file, its picture and its row."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vifa_runtime.alignment import Alignment
from vifa_runtime.alignment_files import write_alignment
from vifa_runtime.camera_model import AlignmentError
from vifa_runtime.pairs import find_pairs, read_thermal, read_visible, spread_evenly, write_image
from vifa_runtime.registration import Registration
from vifa_runtime.registration_frames import Frames
from vifa_runtime.registration_overlay import render_alignment
from vifa_runtime.thermal import ThermalError
from vifa_runtime.time_offset import TimeOffset

Tell = Callable[[float, float], None]  # done, total


def frames_of_folder(folder: Path, most: int, tell: Tell) -> Frames:
    """At most so many pairs of a folder with vi/ and ir/, evenly spread.

    Raises:
        PairError: there are none, or one cannot be read.
        RegistrationError: images of several sizes.
        ThermalError: a thermal image without a finite pixel; the message names it.
    """
    frames = Frames()
    pairs = spread_evenly(find_pairs(folder), most)
    for number, pair in enumerate(pairs):
        try:
            frames.add(read_visible(pair.visible), read_thermal(pair.thermal), pair.name)
        except ThermalError as error:
            raise ThermalError(f"{pair.thermal}: {error}") from None
        tell(number + 1, len(pairs))
    return frames


def write_results(output: Path, frames: Frames, result: Registration, soft_border: int) -> None:
    """Write the picture, beside the alignment file, and that file; each whole or not at all.

    Raises:
        AlignmentError: they cannot be written.
    """
    try:
        write_image(output.with_suffix(".png"), render_alignment(frames, result.pixels))
        write_alignment(output, Alignment("homography", result.pixels, soft_border))
    except OSError as error:
        raise AlignmentError(f"cannot write {output}: {error.strerror}; choose another place") from None


def make_row(source: Path, output: Path, result: Registration, offset: TimeOffset | None) -> dict[str, Any]:
    """What was found, flat: lengths in visible pixels; scale 1 where both fields of view are equally large.

    Scale, rotation and movement are those at the thermal image's middle.
    """
    pixels, sure = result.pixels, result.confidence
    (height, width), (tall, wide) = pixels.thermal, pixels.visible
    middle, beside, below = pixels.to_visible(np.add([(0, 0), (1, 0), (0, 1)], (width / 2, height / 2)))
    right, down = middle - (wide / 2, tall / 2)
    slopes = np.array([beside - middle, below - middle])
    scale = math.sqrt(np.linalg.det(slopes) * width / wide * height / tall)
    found = {
        "source": str(source),
        "alignment": str(output),
        "picture": str(output.with_suffix(".png")),
        "model": result.model,
        "scale": round(scale, 4),
        "rotation_deg": round(math.degrees(math.atan2(slopes[0, 1], slopes[0, 0])), 3),
        "right_px": round(right, 2),
        "down_px": round(down, 2),
        "pairs": sure.frames,
        "agreeing": round(sure.agreeing, 3),
        "peak_ratio": round(sure.peak_ratio, 3),
        "spread_px": round(sure.spread, 2),
        "halves_px": round(sure.halves, 2),
        "overlap": round(sure.overlap, 3),
        "correlation": round(sure.correlation, 4),
    }
    keys = ("thermal_offset_s", "offset_spread_s", "offset_correlation", "offset_peak_ratio", "offset_seconds")
    if offset is None:
        return {**found, **dict.fromkeys(keys)}
    values = offset.seconds, offset.spread, offset.correlation, offset.peak_ratio, offset.duration
    return {**found, **{key: round(value, 4) for key, value in zip(keys, values, strict=True)}}
