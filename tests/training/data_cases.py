"""Small folders in each data set's own published layout, for the tests of data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vifa_runtime.pairs import write_image


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Gray levels, (H,W,3) or (H,W)."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return image if channels == 3 else image[:, :, 0]


def write_pair(visible: Path, thermal: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> None:
    write_image(visible, noise(*size, seed))
    write_image(thermal, noise(*size, seed + 1000, 1))


def write_text(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_folder(
    folder: Path,
    names: Iterable[str],
    labels: str | None = None,
    mask: int | None = None,
    size: tuple[int, int] = (24, 32),
) -> Path:
    """A plain folder; every pair has the YOLO text `labels`, and a mask that is `mask` throughout, where given."""
    for seed, name in enumerate(names):
        write_pair(folder / "vi" / f"{name}.png", folder / "ir" / f"{name}.png", seed, size)
        if labels is not None:
            write_text(folder / "labels" / f"{name}.txt", labels)
        if mask is not None:
            write_image(folder / "masks" / f"{name}.png", np.full(size, mask, np.uint8))
    return folder


def write_m3fd(folder: Path, names: Iterable[str], downloaded: bool = True) -> Path:
    """One car from (8, 6) to (16, 18) in each image of 32x24."""
    vi, ir = ("Vis", "Ir") if downloaded else ("vi", "ir")
    for seed, name in enumerate(names):
        write_pair(folder / vi / f"{name}.png", folder / ir / f"{name}.png", seed)
        if downloaded:
            box = "<xmin>8</xmin><ymin>6</ymin><xmax>16</xmax><ymax>18</ymax>"
            thing = f"<object><name>Car</name><bndbox>{box}</bndbox></object>"
            text = f"<annotation><size><width>32</width><height>24</height></size>{thing}</annotation>"
            write_text(folder / "Annotation" / f"{name}.xml", text)
        else:
            write_text(folder / "labels" / f"{name}.txt", "1 0.375 0.5 0.25 0.5\n")
    return folder


def write_msrs(folder: Path, train: Iterable[str], test: Iterable[str]) -> Path:
    """The segmentation layout; every mask is 2 (person) throughout."""
    for part, names in (("train", train), ("test", test)):
        for seed, name in enumerate(names):
            write_pair(folder / part / "vi" / f"{name}.png", folder / part / "ir" / f"{name}.png", seed)
            write_image(folder / part / "Segmentation_labels" / f"{name}.png", np.full((24, 32), 2, np.uint8))
    return folder


def write_vedai(folder: Path, names: Iterable[str], resolution: int = 512, table: bool = False) -> Path:
    """One truck around (200, 100) in each image, in files of their own or in the one for all."""
    images, annotations = folder / f"Vehicules{resolution}", folder / f"Annotations{resolution}"
    rows = ""
    for seed, name in enumerate(names):
        size = (resolution, resolution)
        write_pair(images / f"{name}_co.png", images / f"{name}_ir.png", seed, size)
        corners = "180 205 221 196 98 80 103 121"
        rows += f"{name} 200.5 100.5 0.7 {corners} 002 1 0\n"
        if not table:
            write_text(annotations / f"{name}.txt", f"200.5 100.5 0.7 2 1 0 {corners}\n")
    if table:
        write_text(annotations / f"annotation{resolution}.txt", rows)
    return folder
