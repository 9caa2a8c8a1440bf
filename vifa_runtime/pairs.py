"""Image pairs on disk: which visible image belongs to which thermal one, and how they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vifa_runtime.files import write_atomically

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VISIBLE_FOLDERS = ("vi", "visible")
THERMAL_FOLDERS = ("ir", "thermal")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class PairPaths:
    """One visible and one thermal image file that show the same moment."""

    name: str
    visible: Path
    thermal: Path


class PairError(ValueError):
    """Files that cannot be paired or read; the message names them and says how to mend it."""


def find_pairs(folder: Path) -> list[PairPaths]:
    """List the pairs of a folder that holds `vi/` and `ir/` (or `visible/` and `thermal/`), sorted by name.

    Raises:
        PairError: a sub-folder is missing, a name has no partner, or nothing is there.
    """
    return match_pairs(_subfolder(folder, VISIBLE_FOLDERS), _subfolder(folder, THERMAL_FOLDERS))


def match_pairs(visible: Path, thermal: Path) -> list[PairPaths]:
    """Pair the images of two folders (or two single files) by file name without suffix, sorted by name.

    Raises:
        PairError: names every file that has no partner or shares its name with another.
    """
    if visible.is_file() and thermal.is_file():
        return [PairPaths(visible.stem, visible, thermal)]
    visible_files, thermal_files = _images_by_name(visible), _images_by_name(thermal)
    lonely = [str(visible_files[n]) for n in sorted(visible_files.keys() - thermal_files.keys())]
    lonely += [str(thermal_files[n]) for n in sorted(thermal_files.keys() - visible_files.keys())]
    if lonely:
        shown = ", ".join(lonely[:5]) + (f" and {len(lonely) - 5} more" if len(lonely) > 5 else "")
        raise PairError(f"no partner of the same name for {shown}; add or remove these files")
    if not visible_files:
        raise PairError(f"no images in {visible}; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return [PairPaths(name, visible_files[name], thermal_files[name]) for name in sorted(visible_files)]


def find_part(root: Path, part: str) -> list[PairPaths]:
    """List the pairs of `root/<folder>`, or of one part of a folder that has no split: `<folder>@train|val|test`.

    Parts hold 8:1:1 of the pairs, in the order of a hash of their names, so they stay the same on every machine.

    Raises:
        PairError: as `find_pairs`, or the part is unknown.
    """
    folder, _, name = part.partition("@")
    pairs = find_pairs(root / folder)
    if not name:
        return pairs
    if name not in PARTS:
        raise PairError(f"{part}: the part {name!r} is unknown; use one of {', '.join(PARTS)}")
    chosen = set(choose_names([pair.name for pair in pairs], name))
    return [pair for pair in pairs if pair.name in chosen]


def choose_names(names: Sequence[str], part: str) -> list[str]:
    """Choose one part (of `PARTS`) of all names, sorted; see `find_part`."""
    shuffled = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    tenth = len(shuffled) // 10
    bounds = {"train": (2 * tenth, len(shuffled)), "val": (0, tenth), "test": (tenth, 2 * tenth)}[part]
    return sorted(shuffled[slice(*bounds)])


def spread_evenly(pairs: Sequence[PairPaths], most: int) -> list[PairPaths]:
    """At most so many of the pairs, evenly spread over them, in their order."""
    kept = min(most, len(pairs))
    return [pairs[index * len(pairs) // kept] for index in range(kept)]


def read_visible(path: Path) -> NDArray[np.uint8]:
    """Read a visible image as uint8 RGB of shape (H, W, 3); gray files repeat their one channel.

    Raises:
        PairError: the file is missing or no readable image.
    """
    return np.ascontiguousarray(decode_image(path, cv2.IMREAD_COLOR)[:, :, ::-1])


def read_thermal(path: Path) -> NDArray[Any]:
    """Read a thermal image in its own depth, shape (H, W): uint8, uint16 (raw counts) or float32 (degrees).

    Raises:
        PairError: the file is missing, no readable image, or of another depth.
    """
    image = decode_image(path, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3:
        if image.shape[2] < 3 or image.dtype != np.uint8:
            raise PairError(f"{path} has shape {image.shape} of {image.dtype}; expected one thermal channel")
        image = cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise PairError(f"{path} holds {image.dtype}; expected 8-bit, 16-bit or 32-bit float pixels")
    return image


def write_image(path: Path, rgb: NDArray[Any]) -> None:
    """Write an RGB (H, W, 3) or gray (H, W) image beside `path`, then rename it into place.

    Args:
        rgb: uint8, or what else the format holds: PNG uint16, TIFF float32.

    Raises:
        PairError: the suffix names no format that can be written.
        OSError: the folder cannot be written.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise PairError(f"{path} has no image suffix; use one of {', '.join(IMAGE_SUFFIXES)}")
    encoded = cv2.imencode(path.suffix, rgb[:, :, ::-1] if rgb.ndim == 3 else rgb)[1]
    write_atomically(path, encoded.tobytes())


def decode_image(path: Path, flags: int) -> NDArray[Any]:
    """Read an image file as OpenCV decodes it, by its `IMREAD` flags.

    Raises:
        PairError: the file is missing, empty or no readable image.
    """
    data = read_bytes(path)
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:  # such as a header that promises more pixels than OpenCV accepts
        image = None
    if image is None:
        raise PairError(f"{path} is not a readable image; replace or remove it")
    return image


def read_bytes(path: Path) -> NDArray[np.uint8]:
    """Read a file that must not be empty, as (N,) uint8.

    Raises:
        PairError: it is missing or empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PairError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise PairError(f"{path} is empty; replace or remove it")
    return np.frombuffer(data, np.uint8)


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise PairError(f"{folder} has no folder {' or '.join(f'{n}/' for n in names)}; expected vi/ and ir/")


def _images_by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairError(f"{folder} does not exist or is not a folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise PairError(f"{path} and {files[path.stem]} share a name; keep one of them")
        files[path.stem] = path
    return files
