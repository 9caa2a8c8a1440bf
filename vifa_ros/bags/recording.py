"""A folder of pairs as a bag: both cameras' images and camera_info, and what the folder knows as ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vifa_ros.bags import topics
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.messages import (
    IMAGE_CODINGS,
    make_camera_info,
    make_compressed,
    make_detections,
    make_extrinsics,
    make_header,
    make_image,
    make_label_info,
)
from vifa_ros.bags.writing import BagWriter, new_bag
from vifa_ros.pairing import THERMAL, VISIBLE
from vifa_ros.play_plan import THERMAL_ENCODINGS, PlaySettings, Shot, plan, play_thermal
from vifa_runtime.alignment import Alignment
from vifa_runtime.camera_model import Camera
from vifa_runtime.label_folder import CLASS_FILE, MASK_CLASS_FILE, read_classes
from vifa_runtime.labels import read_mask, read_yolo
from vifa_runtime.pairs import IMAGE_SUFFIXES, PairPaths, find_pairs, read_thermal, read_visible
from vifa_runtime.pixel_maps import CameraMap

START = 1_704_067_200_000_000_000  # 2024-01-01, so that the same folder gives the same bag


@dataclass(frozen=True)
class RecordSettings:
    """How a folder is recorded.

    Attributes:
        play: rate, skew, jitter, drops, seed and `mono16`; its number of frames is not looked at.
        images: one of IMAGE_CODINGS.
        quality: of JPEG, 1 to 100.
        storage, compression, overwrite: as of `new_bag`.
        start: where the stamps begin, nanoseconds.
        classes: names of the boxes' classes; empty for those of the folder's own file, if it has one.
        mask_classes: likewise of the masks.
        alignment: one of mode `cameras`, whose calibrations and extrinsics are recorded too; or None.
    """

    play: PlaySettings = field(default_factory=PlaySettings)
    images: str = "raw"
    quality: int = 95
    storage: str = "mcap"
    compression: str = "none"
    overwrite: bool = False
    start: int = START
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    alignment: Alignment | None = None


def record(
    folder: Path, path: Path, settings: RecordSettings, on_step: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write the pairs of a folder, each once and in the order of their names, as a bag.

    Every frame arrives when it was taken. A visible frame comes after its camera_info, and with the boxes and the mask
    that the folder has for it: `labels/<name>.txt` in YOLO's format and `masks/<name>.png`. Both are in its pixels.

    Args:
        folder: holds `vi/` and `ir/`, and maybe `labels/`, `masks/`, `classes.txt` and `mask_classes.txt`.
        path: of the new bag, a folder.
        on_step: called with the pairs that were begun, and those there are.

    Returns:
        A flat row: pairs of the folder, frames by stream, labelled frames, duration in seconds, messages and bytes.

    Raises:
        BagError: `path` is taken or cannot be written, or the settings don't fit what is in the folder.
        PairError: a file of the folder is missing or wrong.
    """
    if settings.images not in IMAGE_CODINGS:
        raise BagError(f"--images is {settings.images!r}; use one of {', '.join(IMAGE_CODINGS)}")
    recorder = _Recorder(folder, settings)
    first, last = None, 0
    with new_bag(path, settings.storage, settings.compression, settings.overwrite) as bag:
        for shot in recorder.shots():
            last = recorder.write(bag, shot)
            first = last if first is None else first
            on_step(shot.index + 1, len(recorder.pairs))
    assert first is not None  # an empty bag is refused
    return {
        "bag": str(path),
        "pairs": len(recorder.pairs),
        "visible": recorder.frames[VISIBLE],
        "thermal": recorder.frames[THERMAL],
        "boxes": bag.counts.get(topics.DETECTIONS, 0),
        "masks": bag.counts.get(topics.MASK, 0),
        "duration_s": round((last - first) * 1e-9, 9),
        "messages": sum(bag.counts.values()),
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
    }


class _Recorder:
    """What a folder holds, and the messages of one frame after the other."""

    def __init__(self, folder: Path, settings: RecordSettings) -> None:
        self.pairs = find_pairs(folder)
        self.frames = {VISIBLE: 0, THERMAL: 0}
        self._settings = settings
        self._labels, self._masks = folder / "labels", folder / "masks"
        masks_alone = self._masks.is_dir() and not self._labels.is_dir()
        self._classes = settings.classes or tuple(read_classes(folder, CLASS_FILE))
        self._mask_classes = settings.mask_classes or tuple(
            read_classes(folder, CLASS_FILE if masks_alone else MASK_CLASS_FILE)
        )
        for names in (self._classes, self._mask_classes):
            if len(set(names)) < len(names):
                raise BagError(f"two classes of {', '.join(names)} share a name; correct the names of the classes")
        self._cameras: dict[str, Camera] = {}
        if settings.alignment is not None:
            pixels = settings.alignment.pixels
            if not isinstance(pixels, CameraMap):
                raise BagError(f"an alignment of mode {settings.alignment.mode} has no calibrations; use mode cameras")
            self._cameras = {VISIBLE: pixels.visible_camera, THERMAL: pixels.thermal_camera}
            self._extrinsics = pixels.extrinsics

    def shots(self) -> Iterator[Shot]:
        """All frames to record, in the order of their times."""
        play = self._settings.play
        return plan(PlaySettings(play.rate, len(self.pairs), play.skew, play.jitter, play.drop, play.mono16, play.seed))

    def write(self, bag: BagWriter, shot: Shot) -> int:
        """Write a frame and what belongs to it; returns its stamp, nanoseconds."""
        stamp = self._settings.start + round(shot.time * 1e9)
        if stamp <= 0:
            raise BagError("stamps would be 0 or less; begin later with --start, or with less --skew")
        if not bag.counts:
            self._write_once(bag, stamp)
        paths = self.pairs[shot.index]
        pixels: NDArray[Any]
        if shot.stream == VISIBLE:
            pixels, encoding = read_visible(paths.visible), "rgb8"
        else:
            pixels = play_thermal(read_thermal(paths.thermal), self._settings.play.mono16)
            encoding = THERMAL_ENCODINGS[pixels.dtype.name]
        header = make_header(stamp, topics.FRAMES[shot.stream])
        size, camera = (pixels.shape[0], pixels.shape[1]), self._cameras.get(shot.stream)
        if camera is not None and camera.size != size:
            raise BagError(
                f"{paths.visible if shot.stream == VISIBLE else paths.thermal} has {size[1]}x{size[0]} pixels, but the "
                f"{shot.stream} camera of the alignment {camera.size[1]}x{camera.size[0]}; use the calibration of these"
            )
        bag.write(topics.INFOS[shot.stream], stamp, make_camera_info(size, camera, header))
        topic, message = self._image(shot.stream, pixels, encoding, header)
        bag.write(topic, stamp, message)
        if shot.stream == VISIBLE:
            self._write_truth(bag, paths, size, stamp, header)
        self.frames[shot.stream] += 1
        return stamp

    def _image(self, stream: str, pixels: NDArray[Any], encoding: str, header: Any) -> tuple[str, Any]:
        """The topic and the message of an image."""
        topic, coding = topics.IMAGES[stream], self._settings.images
        if coding == "raw":
            return topic, make_image(pixels, encoding, header)
        return f"{topic}/compressed", make_compressed(pixels, encoding, coding, self._settings.quality, header)

    def _write_once(self, bag: BagWriter, stamp: int) -> None:
        """Write what holds for the whole bag."""
        header = make_header(stamp, topics.FRAMES[VISIBLE])
        if self._classes and self._labels.is_dir():
            bag.write(topics.LABEL_INFO, stamp, make_label_info(self._classes, header), latched=True)
        if self._mask_classes and self._masks.is_dir():
            bag.write(topics.MASK_LABEL_INFO, stamp, make_label_info(self._mask_classes, header), latched=True)
        if self._cameras:
            message = make_extrinsics(self._extrinsics, topics.FRAMES[THERMAL], topics.FRAMES[VISIBLE], stamp)
            bag.write(topics.TF_STATIC, stamp, message, latched=True)

    def _write_truth(self, bag: BagWriter, paths: PairPaths, size: tuple[int, int], stamp: int, header: Any) -> None:
        """Write the name of a visible frame, and the boxes and the mask that there are for it."""
        bag.write(topics.PAIR_NAME, stamp, make_header(stamp, paths.name))
        labels = self._labels / f"{paths.name}.txt"
        if labels.is_file():
            found = read_yolo(labels, size, len(self._classes) or None)
            bag.write(
                topics.DETECTIONS, stamp, make_detections(found, [1.0] * len(found.labels), self._classes, header)
            )
        mask = next((path for path in self._mask_paths(paths.name) if path.is_file()), None)
        if mask is not None:
            ids = read_mask(mask, len(self._mask_classes) or None)
            if ids.shape != size:
                raise BagError(
                    f"{mask} has {ids.shape[1]}x{ids.shape[0]} pixels, its image {size[1]}x{size[0]}; align them"
                )
            bag.write(topics.MASK, stamp, make_image(ids, "mono8", header))

    def _mask_paths(self, name: str) -> Iterator[Path]:
        return (self._masks / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)
