"""Bundles: the folder that a training run writes and a robot loads.

    bundle.yaml             what it is, checked against bundle.schema.json, with the SHA-256 of every other file
    backbone.onnx           visible, thermal -> features
    heads/<task>.onnx       visible, features -> fused

Loading runs nothing and unpickles nothing: text is parsed by the safe YAML loader, sums are compared, and every graph
passes `graph_check` before an engine sees it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import yaml

from vifa_runtime.geometry import WorkingGrid
from vifa_runtime.graph_check import GraphError, check_backbone, check_head
from vifa_runtime.thermal import ThermalError, ThermalSettings

MANIFEST = "bundle.yaml"
BACKBONE = "backbone.onnx"
LARGEST_MANIFEST = 1 << 20
LARGEST_FILE = 1 << 29


class BundleError(ValueError):
    """A bundle that must not be loaded; the message names the file, the reason and the mend."""


@dataclass(frozen=True)
class Task:
    """One task of a bundle: its name, kind (`fusion`) and what its fused image is for."""

    name: str
    kind: str
    description: str = ""

    @property
    def head(self) -> str:
        """Path of its head graph inside the bundle."""
        return f"heads/{self.name}.onnx"


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

    def grid(self, source: tuple[int, int]) -> WorkingGrid:
        """The grid this bundle works on for images of `source` (height, width)."""
        return WorkingGrid.fit(source, multiple=self.size_multiple, working=self.working_size, aspect=self.aspect)


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: a missing or altered file, a path outside the folder, an unknown format or field, or a graph
            that breaks its contract.
    """
    manifest = _read_manifest(folder / MANIFEST)
    contents = {name: _read_verified(folder, name, digest) for name, digest in manifest["files"].items()}
    tasks = tuple(Task(**entry) for entry in manifest["tasks"])
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise BundleError(f"{folder / MANIFEST}: two tasks share a name; rename one")
    graphs = {}
    for path in [BACKBONE, *(task.head for task in tasks)]:
        if path not in contents:
            raise BundleError(f"{folder / MANIFEST}: files does not list {path}; export the bundle again")
        graphs[path] = contents[path]
    try:
        thermal = ThermalSettings(**manifest["thermal"])
        path = BACKBONE
        features = check_backbone(graphs[BACKBONE], manifest["size_multiple"])
        for path in [task.head for task in tasks]:
            check_head(graphs[path], features, manifest["size_multiple"])
    except ThermalError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}") from None
    except GraphError as error:
        raise BundleError(f"{folder / path}: {error}") from None
    size = manifest["working_size"]
    return Bundle(
        name=manifest["name"],
        network=manifest["network"],
        size_multiple=manifest["size_multiple"],
        aspect=manifest["aspect"],
        working_size=None if size is None else (size[0], size[1]),
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
    if folder.exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        raise BundleError(f"{folder} exists and is no bundle; choose another output folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, data in contents.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
        text = yaml.safe_dump({"format": 1, **manifest, "files": sums}, sort_keys=False, allow_unicode=True, width=100)
        (beside / MANIFEST).write_text(text)
        bundle = load_bundle(beside)
        beside.chmod(0o755)
        if folder.exists():
            old = beside.with_name(beside.name + ".old")
            folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return bundle


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise BundleError(f"{path} is larger than {LARGEST_MANIFEST} bytes; this is no bundle manifest")
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; is this the bundle's folder?") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None
    if isinstance(manifest, dict) and manifest.get("format") != 1:
        raise BundleError(f"{path}: format {manifest.get('format')!r} is unknown; this version reads format 1")
    schema = json.loads(files("vifa_runtime").joinpath("bundle.schema.json").read_text())
    worst = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    if worst is not None:
        where = "/".join(str(part) for part in worst.absolute_path) or "top level"
        raise BundleError(f"{path}: {where}: {worst.message[:200]}")
    return manifest


def _read_verified(folder: Path, name: str, digest: str) -> bytes:
    """Read one listed file after checking that it lies inside the folder; compare its sum."""
    pure = PurePosixPath(name)
    path = folder / pure
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise BundleError(f"{folder / MANIFEST}: {name!r} points outside the bundle; such bundles are not loaded")
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise BundleError(f"{path} links to outside the bundle; such bundles are not loaded")
        if path.stat().st_size > LARGEST_FILE:
            raise BundleError(f"{path} is larger than {LARGEST_FILE} bytes; such bundles are not loaded")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; copy the bundle again") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path} does not match its SHA-256 in {MANIFEST}; copy the bundle again")
    return data
