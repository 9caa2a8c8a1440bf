"""Bundles: the folder that a training run writes and a robot loads.

    bundle.yaml             what it is, checked against bundle.schema.json, with the SHA-256 of every other file
    backbone.onnx           visible, thermal -> features
    heads/<task>.onnx       visible, features -> fused
    tasks/<task>.onnx       fused image -> boxes and scores, or a mask; for tasks that find something in it

Loading runs nothing and unpickles nothing: text is parsed by a safe YAML loader without aliases, sums are compared,
and every graph passes `graph_check` before an engine sees it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import yaml

from vifa_runtime.files import whole_folder
from vifa_runtime.geometry import WorkingGrid
from vifa_runtime.graph_check import GraphError, check_backbone, check_head, check_task
from vifa_runtime.palette import Colour, default_colours
from vifa_runtime.plain_yaml import PlainLoader
from vifa_runtime.thermal import ThermalError, ThermalSettings

MANIFEST = "bundle.yaml"
BACKBONE = "backbone.onnx"
IMAGES = ("visible", "thermal")  # inputs of the backbone
LARGEST_MANIFEST = 1 << 20
LARGEST_FILE = 1 << 29
_NAME = "[a-z0-9][a-z0-9_.-]{0,99}"  # of a bundle, as bundle.schema.json has it


class BundleError(ValueError):
    """A bundle that must not be loaded; the message names the file, the reason and the mend."""


@dataclass(frozen=True)
class TaskClass:
    """One class that a task finds: its name, and the colour it is drawn in, (red, green, blue) of 0..255."""

    name: str
    colour: Colour


@dataclass(frozen=True)
class Task:
    """One task of a bundle.

    Attributes:
        name: of the task, as in its topics and files.
        kind: `fusion`, or what its graph does with the fused image: `detection` or `segmentation`.
        description: what its fused image is for.
        classes: in the order of labels and of ids in a mask; none for `fusion`.
        score: of `detection`: boxes are kept that score above this, 0..1.
        iou: of `detection`: of two boxes of one class that overlap by more than this, the better one is kept, 0..1.
        max_detections: of `detection`: the best so many of an image are kept.
    """

    name: str
    kind: str
    description: str = ""
    classes: tuple[TaskClass, ...] = ()
    score: float = 0.25
    iou: float = 0.45
    max_detections: int = 100

    @property
    def head(self) -> str:
        """Path of its head graph inside the bundle."""
        return f"heads/{self.name}.onnx"

    @property
    def graph(self) -> str | None:
        """Path of its task graph inside the bundle; None for `fusion`, which has none."""
        return None if self.kind == "fusion" else f"tasks/{self.name}.onnx"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory: settings, tasks in order, and the bytes of every graph by path."""

    name: str
    network: str
    size_multiple: int
    aspect: str
    working_size: tuple[int, int] | None
    thermal: ThermalSettings
    tasks: tuple[Task, ...]
    manifest: Mapping[str, Any] = field(repr=False)
    graphs: Mapping[str, bytes] = field(repr=False)

    @property
    def task_names(self) -> list[str]:
        """Names of all tasks, in the bundle's order."""
        return [task.name for task in self.tasks]

    def with_tasks(self, tasks: Sequence[Task]) -> Bundle:
        """The same in memory with these tasks, and no other graphs than they need."""
        wanted = {BACKBONE, *(task.head for task in tasks), *(task.graph for task in tasks)}
        graphs = {path: graph for path, graph in self.graphs.items() if path in wanted}
        return replace(self, tasks=tuple(tasks), graphs=graphs)

    def grid(self, source: tuple[int, int]) -> WorkingGrid:
        """The grid this bundle works on for images of `source` (height, width)."""
        return WorkingGrid.fit(source, multiple=self.size_multiple, working=self.working_size, aspect=self.aspect)


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: a missing or altered file, a path outside the folder, an unknown format or field, or a graph
            that breaks its contract.
    """
    manifest = _read_manifest(folder)
    contents = {name: _read_verified(folder, name, digest) for name, digest in manifest["files"].items()}
    tasks = _read_tasks(folder, manifest["tasks"])
    multiple = int(manifest["size_multiple"])  # the schema lets 4.0 through as an integer
    graphs = {}
    for path in [BACKBONE, *(task.head for task in tasks), *(task.graph for task in tasks if task.graph)]:
        if path not in contents:
            raise BundleError(f"{folder / MANIFEST}: files does not list {path}; export the bundle again")
        graphs[path] = contents[path]
    try:
        thermal = ThermalSettings(**manifest["thermal"])
    except ThermalError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}") from None
    _check_graphs(folder, graphs, tasks, multiple)
    size = manifest["working_size"]
    return Bundle(
        name=manifest["name"],
        network=manifest["network"],
        size_multiple=multiple,
        aspect=manifest["aspect"],
        working_size=None if size is None else (int(size[0]), int(size[1])),
        thermal=thermal,
        tasks=tasks,
        manifest=manifest,
        graphs=graphs,
    )


def write_bundle(folder: Path, manifest: Mapping[str, Any], contents: Mapping[str, bytes]) -> Bundle:
    """Write a bundle beside `folder`, verify it, then put it in place; an older one there is replaced whole.

    Args:
        manifest: everything of bundle.yaml but `format` and `files`, which are added here.
        contents: bytes of every other file by path, README.md among them where there is one.

    Raises:
        BundleError: what was given does not make a valid bundle; `folder` is left as it was.
    """
    for name in contents:
        _check_name(folder, name)
    _check_place(folder)
    with whole_folder(folder) as beside:
        for name, data in contents.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
        whole = {"format": 1, **manifest, "files": sums}
        text = yaml.dump(whole, Dumper=_ManifestDumper, sort_keys=False, allow_unicode=True, width=100)
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        return load_bundle(beside)


def check_new_bundle(folder: Path) -> None:
    """Refuse a folder that cannot become a bundle of the folder's name; for those who ask before long work.

    Raises:
        BundleError: something that is no bundle is there, or a bundle cannot be called so.
    """
    _check_place(folder)
    if not re.fullmatch(_NAME, folder.resolve().name):
        raise BundleError(
            f"a bundle is called as its folder, in small letters, digits and _.-, and {folder.name} is not; "
            "choose another output folder"
        )


def _check_place(folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is no bundle; choose another output folder")


def _read_tasks(folder: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[Task, ...]:
    """The tasks of a manifest that the schema has passed."""
    tasks = []
    for number, entry in enumerate(entries):
        where = f"{folder / MANIFEST}: tasks/{number}"
        for key in ("score", "iou"):
            if math.isnan(entry.get(key, 0)):  # which is neither below the schema's minimum nor above its maximum
                raise BundleError(f"{where}/{key} must be a number in 0..1, got nan")
        classes = _read_classes(f"{where}/classes", entry.get("classes", ()))
        task = Task(**{**entry, "classes": classes})
        tasks.append(replace(task, max_detections=int(task.max_detections)))  # the schema lets 20.0 through
    if len({task.name for task in tasks}) != len(tasks):
        raise BundleError(f"{folder / MANIFEST}: two tasks share a name; rename one")
    return tuple(tasks)


def _read_classes(where: str, entries: Sequence[Mapping[str, Any]]) -> tuple[TaskClass, ...]:
    """Classes of a task; those without a colour get the default one of their place."""
    names = [entry["name"] for entry in entries]
    if len(set(names)) != len(names):
        raise BundleError(f"{where}: two classes share a name; rename one")
    colours = [
        entry.get("colour", default) for entry, default in zip(entries, default_colours(len(entries)), strict=True)
    ]
    return tuple(TaskClass(name, (int(r), int(g), int(b))) for name, (r, g, b) in zip(names, colours, strict=True))


def _check_graphs(folder: Path, graphs: Mapping[str, bytes], tasks: Sequence[Task], multiple: int) -> None:
    try:
        path = BACKBONE
        features = check_backbone(graphs[path], multiple)
        for task in tasks:
            path = task.head
            check_head(graphs[path], features, multiple)
            if task.graph:
                path = task.graph
                check_task(graphs[path], task.kind, len(task.classes), multiple)
    except GraphError as error:
        raise BundleError(f"{folder / path}: {str(error)[:300]}") from None


class _ManifestDumper(yaml.SafeDumper):
    """Writes what `PlainLoader` reads: a value that occurs twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    data = _read_inside(folder, MANIFEST, LARGEST_MANIFEST)
    try:
        manifest = yaml.load(data.decode(), PlainLoader)
    except Exception as error:  # PyYAML lets built-in errors of half a dozen types through
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path} is not valid YAML: {reason}; copy the bundle again") from None
    if isinstance(manifest, dict) and manifest.get("format") != 1:
        raise BundleError(f"{path}: format {manifest.get('format')!r:.40} is unknown; this version reads format 1")
    schema = json.loads(files("vifa_runtime").joinpath("bundle.schema.json").read_text())
    worst = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    if worst is not None:
        where = "/".join(str(part) for part in worst.absolute_path) or "top level"
        raise BundleError(f"{path}: {where}: {worst.message[:200]}")
    return manifest


def _read_verified(folder: Path, name: str, digest: str) -> bytes:
    """Read one listed file and compare its sum."""
    _check_name(folder, name)
    data = _read_inside(folder, name, LARGEST_FILE)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{folder / name} does not match its SHA-256 in {MANIFEST}; copy the bundle again")
    return data


def _check_name(folder: Path, name: str) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise BundleError(f"{folder / MANIFEST}: {name!r} points outside the bundle; such bundles are not loaded")


def _read_inside(folder: Path, name: str, largest: int) -> bytes:
    """Read a regular file of at most `largest` bytes that lies inside the folder when all links are followed."""
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise BundleError(f"{path} links to outside the bundle; such bundles are not loaded")
        if not path.is_file():
            raise BundleError(f"{path} is no regular file; such bundles are not loaded")
        if path.stat().st_size > largest:
            raise BundleError(f"{path} is larger than {largest} bytes; such bundles are not loaded")
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"cannot read {path}: {reason}; copy the whole bundle again") from None
