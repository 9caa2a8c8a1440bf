"""Alignment and calibration files: read so that a wrong one is refused by name, and written whole or not at all.

An alignment file holds one of the modes of `Alignment`; config/alignment_homography.yaml and
config/alignment_cameras.yaml explain every key. A calibration file is what ROS's camera_calibration writes. Where an
alignment file wants a calibration or the extrinsics, it holds them in place, or names a file that lies beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from vifa_runtime.alignment import MODES, SOFT_BORDER, Alignment
from vifa_runtime.camera_model import AlignmentError, Camera, Size, check_numbers, check_size
from vifa_runtime.files import write_atomically
from vifa_runtime.messages import shown
from vifa_runtime.pixel_maps import CameraMap, Extrinsics, HomographyMap, PixelMap
from vifa_runtime.plain_yaml import PlainLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_FILE = 1 << 20
ORIGINS = ("corner", "centre")
_SIZE_KEYS = ("image_width", "image_height")
_CAMERA_KEYS = (*_SIZE_KEYS, "camera_matrix", "distortion_model", "distortion_coefficients")
_UNUSED_KEYS = {"rectification_matrix": (3, 3), "projection_matrix": (3, 4)}  # for rectified images; these are raw
_EXTRINSIC_KEYS = ("rotation", "translation")
_MODE_KEYS = {
    "none": (),
    "resize": (),
    "homography": ("thermal", "visible", "homography"),
    "cameras": ("thermal", "visible", "extrinsics", "distance"),
}


def load_alignment(path: Path) -> Alignment:
    """Read an alignment file.

    Raises:
        AlignmentError: a file that cannot be read or is none; the message names the file, the key and the mend.
    """
    with _named(path):
        content = _read(path)
        mode = content.get("mode")
        if mode not in MODES:
            raise AlignmentError(f"mode must be one of {', '.join(MODES)}, got {shown(mode)}")
        optional = ("soft_border", "origin") if mode == "homography" else ("soft_border",)
        _check_keys(content, ("mode", *_MODE_KEYS[mode]), optional)
        pixels: PixelMap | None = None
        if mode == "homography":
            pixels = _homography(content)
        elif mode == "cameras":
            pixels = CameraMap(
                _part(path, content, "thermal", _camera),
                _part(path, content, "visible", _camera),
                _part(path, content, "extrinsics", _extrinsics),
                content["distance"],
            )
        return Alignment(mode, pixels, content.get("soft_border", SOFT_BORDER))


def load_camera(path: Path) -> Camera:
    """Read a calibration file in ROS's format.

    Raises:
        AlignmentError: as of `load_alignment`.
    """
    with _named(path):
        return _camera(_read(path))


def load_extrinsics(path: Path) -> Extrinsics:
    """Read a file that holds `rotation` and `translation`.

    Raises:
        AlignmentError: as of `load_alignment`.
    """
    with _named(path):
        return _extrinsics(_read(path))


def write_alignment(path: Path, alignment: Alignment) -> None:
    """Write an alignment file that `load_alignment` reads as the same alignment, atomically.

    Raises:
        OSError: it cannot be written; what was there is left.
    """
    content: dict[str, Any] = {"mode": alignment.mode}
    pixels = alignment.pixels
    if isinstance(pixels, HomographyMap):
        content["thermal"] = _size_content(pixels.thermal)
        content["visible"] = _size_content(pixels.visible)
        content["origin"] = "corner"
        content["homography"] = _matrix_content(pixels.matrix, 3)
    elif isinstance(pixels, CameraMap):
        content["thermal"] = _camera_content(pixels.thermal_camera)
        content["visible"] = _camera_content(pixels.visible_camera)
        content["extrinsics"] = {
            "rotation": _matrix_content(pixels.extrinsics.rotation, 3),
            "translation": list(pixels.extrinsics.translation),
        }
        content["distance"] = pixels.distance
    content["soft_border"] = alignment.soft_border
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    write_atomically(path, text.encode())


def _homography(content: Mapping[str, Any]) -> HomographyMap:
    origin = content.get("origin", "corner")
    if origin not in ORIGINS:
        raise AlignmentError(f"origin must be one of {', '.join(ORIGINS)}, got {shown(origin)}")
    sizes = []
    for which in ("thermal", "visible"):
        with _named(which):
            size = _mapping(content[which])
            _check_keys(size, _SIZE_KEYS)
            sizes.append(check_size((size["image_height"], size["image_width"])))
    matrix = _matrix("homography", content["homography"], 3, 3)
    make = HomographyMap if origin == "corner" else HomographyMap.from_centres
    return make(matrix, *sizes)


def _camera(content: Mapping[str, Any]) -> Camera:
    _check_keys(content, _CAMERA_KEYS, ("camera_name", *_UNUSED_KEYS))
    for key, (rows, columns) in _UNUSED_KEYS.items():
        if key in content:
            _matrix(key, content[key], rows, columns)
    coefficients = content["distortion_coefficients"]
    data = coefficients.get("data") if isinstance(coefficients, dict) else None
    count = len(data) if isinstance(data, list) else 0  # which must be said by `cols` too
    return Camera(
        check_size((content["image_height"], content["image_width"])),
        _matrix("camera_matrix", content["camera_matrix"], 3, 3),
        content["distortion_model"],
        _matrix("distortion_coefficients", coefficients, 1, count),
    )


def _extrinsics(content: Mapping[str, Any]) -> Extrinsics:
    _check_keys(content, _EXTRINSIC_KEYS)
    translation = content["translation"]
    if not _is_row(translation):
        raise AlignmentError(f"translation must be three numbers [x, y, z] in metres, got {shown(translation)}")
    return Extrinsics(
        _matrix("rotation", content["rotation"], 3, 3),
        check_numbers("translation", translation, 3),
    )


def _part(path: Path, content: Mapping[str, Any], key: str, parse: Any) -> Any:
    """What `parse` makes of a part of a file, in place or in a file beside it that the part names."""
    value = content[key]
    with _named(key):
        if not isinstance(value, str):
            return parse(_mapping(value))
        pure = PurePosixPath(value)
        if not value.isprintable() or pure.is_absolute() or ".." in pure.parts or "\\" in value:
            raise AlignmentError(f"{shown(value)} does not lie beside this file; copy it there and give its name")
        with _named(value):
            return parse(_read(path.parent / value))


def _matrix(key: str, value: Any, rows: int, columns: int) -> tuple[float, ...]:
    """The numbers row by row of a matrix as ROS writes it: {rows, cols, data}."""
    with _named(key):
        content = _mapping(value)
        _check_keys(content, ("rows", "cols", "data"))
        if not _is_row(content["data"]):
            raise AlignmentError(f"data must be a list of numbers row by row, got {shown(content['data'])}")
        shape = content["rows"], content["cols"]
        if any(isinstance(side, bool) or not isinstance(side, int) for side in shape) or shape != (rows, columns):
            raise AlignmentError(
                f"rows and cols must be {rows} and {columns}, got {shown(shape[0])} and {shown(shape[1])}"
            )
        return check_numbers("data", content["data"], rows * columns)


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(number, list) for number in value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise AlignmentError(f"expected keys with values, got {shown(value)}; see config/alignment_*.yaml")
    return value


def _check_keys(content: Mapping[str, Any], required: Collection[str], optional: Collection[str] = ()) -> None:
    missing = [key for key in required if key not in content]
    if missing:
        raise AlignmentError(f"{', '.join(missing)} missing; add it")
    unknown = [key for key in content if key not in required and key not in optional]
    if unknown:
        known = ", ".join((*required, *optional))
        raise AlignmentError(f"unknown key {shown(unknown[0])}; remove it, or use one of {known}")


def _size_content(size: Size) -> dict[str, int]:
    return {"image_width": size[1], "image_height": size[0]}


def _matrix_content(numbers: tuple[float, ...], rows: int) -> dict[str, Any]:
    return {"rows": rows, "cols": len(numbers) // rows, "data": list(numbers)}


def _camera_content(camera: Camera) -> dict[str, Any]:
    return {
        **_size_content(camera.size),
        "camera_matrix": _matrix_content(camera.matrix, 3),
        "distortion_model": camera.model,
        "distortion_coefficients": _matrix_content(camera.coefficients, 1),
    }


@contextmanager
def _named(name: object) -> Iterator[None]:
    """Put a name before the message of a refusal."""
    try:
        yield
    except AlignmentError as error:
        raise AlignmentError(f"{name}: {error}") from None


class _Loader(PlainLoader):
    """As `PlainLoader`, and reads 1e-5 as a number."""


# PyYAML follows YAML 1.1, in which a number without a point or without the exponent's sign is a text. C++ writes both.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def _read(path: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file of at most a megabyte."""
    try:
        if not path.is_file():
            raise AlignmentError(
                "is no regular file; check the path" if path.exists() else "is missing; check the path"
            )
        if path.stat().st_size > LARGEST_FILE:
            raise AlignmentError(f"is larger than {LARGEST_FILE} bytes; this is no alignment file")
        data = path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise AlignmentError(f"cannot be read: {getattr(error, 'strerror', None) or error}; check the path") from None
    try:
        content = yaml.load(data.decode(), _Loader)
    except Exception as error:  # PyYAML lets built-in errors of half a dozen types through
        reason = "".join(c if c.isprintable() else " " for c in " ".join(str(error).split()))
        raise AlignmentError(f"is no valid YAML: {reason:.200}; mend it or copy it again") from None
    return _mapping(content)
