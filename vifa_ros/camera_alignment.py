"""Where the node's alignment comes from: a parameter, a file, or both cameras' camera_info and their mounting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vifa_ros.camera_infos import camera_from_info
from vifa_ros.pairing import THERMAL, VISIBLE
from vifa_ros.transforms import TransformBuffer, TransformError
from vifa_runtime.alignment import SOFT_BORDER, Alignment
from vifa_runtime.alignment_files import load_alignment, load_extrinsics
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.pixel_maps import CameraMap, Extrinsics

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo

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


class AlignmentSource:
    """Gives the alignment of the moment; in mode `cameras` it is made anew only when what it is made of changes."""

    def __init__(self, settings: AlignmentSettings) -> None:
        """Read the files that the settings name.

        Raises:
            AlignmentError: a file that is missing or wrong; the message names the parameter or file, and the mend.
        """
        self._settings = settings
        self._extrinsics: Extrinsics | None = None
        self._alignment: Alignment | None = None
        self._made_of: tuple[Camera, Camera, Extrinsics] | None = None
        if settings.mode == CAMERAS:
            if settings.extrinsics:
                self._extrinsics = load_extrinsics(Path(settings.extrinsics).expanduser())
        elif settings.mode != FILE:
            self._alignment = Alignment(settings.mode, soft_border=settings.soft_border)
        elif settings.file:
            self._alignment = load_alignment(Path(settings.file).expanduser())
        else:
            raise AlignmentError("alignment.mode is file, but alignment.file is empty; name an alignment file")

    @property
    def needs_transforms(self) -> bool:
        """Whether it asks for what /tf_static tells."""
        return self._settings.mode == CAMERAS and self._extrinsics is None

    def find(self, infos: Mapping[str, CameraInfo], transforms: TransformBuffer, stamp: int) -> Alignment:
        """The alignment at a time.

        Args:
            infos: stream -> the last camera_info of that camera, as far as one came.
            transforms: of the frames of these.
            stamp: nanoseconds.

        Raises:
            AlignmentError: what is missing yet, or a calibration that is none; the message names the topic.
        """
        if self._settings.mode != CAMERAS:
            assert self._alignment is not None
            return self._alignment
        for stream in (VISIBLE, THERMAL):
            if stream not in infos:
                raise AlignmentError(f"alignment.mode is cameras, but nothing came on {stream}/camera_info yet")
        extrinsics = self._extrinsics or _look_up(infos, transforms, stamp)
        cameras = (
            named_camera("thermal/camera_info", infos[THERMAL]),
            named_camera("visible/camera_info", infos[VISIBLE]),
        )
        if self._alignment is None or self._made_of != (*cameras, extrinsics):
            pixels = CameraMap(*cameras, extrinsics, self._settings.distance)
            self._alignment = Alignment("cameras", pixels, self._settings.soft_border)
            self._made_of = (*cameras, extrinsics)
        return self._alignment


def named_camera(topic: str, info: CameraInfo) -> Camera:
    """The camera of a camera_info; a refusal names the topic.

    Raises:
        AlignmentError: as of `camera_from_info`.
    """
    try:
        return camera_from_info(info)
    except AlignmentError as error:
        raise AlignmentError(f"{topic}: {error}") from None


def _look_up(infos: Mapping[str, CameraInfo], transforms: TransformBuffer, stamp: int) -> Extrinsics:
    """Where the thermal camera is, by the frames of both camera_infos."""
    thermal, visible = infos[THERMAL].header.frame_id, infos[VISIBLE].header.frame_id
    try:
        return transforms.lookup(thermal, visible, stamp)
    except TransformError as error:
        raise AlignmentError(f"{error}; publish it on /tf_static, or set alignment.extrinsics") from None
