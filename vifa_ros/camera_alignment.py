"""Where the node's alignment comes from: a parameter, a file, or both cameras' camera_info and their mounting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sensor_msgs.msg import CameraInfo

from vifa_ros.camera_infos import camera_from_info
from vifa_runtime.alignment import SOFT_BORDER, Alignment
from vifa_runtime.alignment_files import load_alignment, load_extrinsics
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.pixel_maps import CameraMap, Extrinsics

FILE, CAMERAS = "file", "cameras"
ALIGNMENTS = ("resize", "none", FILE, CAMERAS)


@dataclass(frozen=True)
class AlignmentSettings:
    """As the parameters `alignment.*` say; see docs/fusion_node.md."""

    mode: str = "resize"
    file: str = ""
    extrinsics: str = ""
    distance: float = 10.0
    soft_border: int = SOFT_BORDER


def load_fixed(settings: AlignmentSettings) -> tuple[Alignment | None, Extrinsics | None]:
    """What is known before the first message: an alignment, or None in mode cameras; and the extrinsics of a file.

    Raises:
        AlignmentError: a file that is missing or wrong; the message names the parameter, the file and the mend.
    """
    if settings.mode == FILE:
        if not settings.file:
            raise AlignmentError("alignment.mode is file, but alignment.file is empty; name an alignment file")
        return load_alignment(Path(settings.file).expanduser()), None
    if settings.mode == CAMERAS:
        file = Path(settings.extrinsics).expanduser()
        return None, load_extrinsics(file) if settings.extrinsics else None
    return Alignment(settings.mode, soft_border=settings.soft_border), None


class CameraAlignment:
    """Makes the alignment of mode `cameras` from what has arrived, and makes it anew only when that changes."""

    def __init__(self, settings: AlignmentSettings) -> None:
        self._settings = settings
        self._made_of: tuple[Camera, Camera, Extrinsics] | None = None
        self._alignment: Alignment | None = None

    def update(self, thermal: CameraInfo, visible: CameraInfo, extrinsics: Extrinsics) -> Alignment:
        """The alignment by both calibrations; the very same object as long as they stay.

        Raises:
            AlignmentError: a camera_info without a calibration, or a plane that the thermal camera cannot see.
        """
        cameras = _named("thermal/camera_info", thermal), _named("visible/camera_info", visible)
        if self._alignment is None or self._made_of != (*cameras, extrinsics):
            pixels = CameraMap(*cameras, extrinsics, self._settings.distance)
            self._alignment = Alignment("cameras", pixels, self._settings.soft_border)
            self._made_of = (*cameras, extrinsics)
        return self._alignment


def _named(topic: str, info: CameraInfo) -> Camera:
    try:
        return camera_from_info(info)
    except AlignmentError as error:
        raise AlignmentError(f"{topic}: {error}") from None
