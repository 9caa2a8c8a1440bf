"""Engines on disk: one file each, which says in its head what it was built from and for.

    VIFA ENGINE 1
    {"calibration": "", "capability": "8.7", "gpu": "Orin", "graph": "<SHA-256>", ..., "sha256": "<of what follows>"}
    <bytes of the engine>

An engine is a program: TensorRT runs what is in it. The sum in the head finds damage, not malice, so **the folder of
engines must be trusted**, like the folder of any program: nobody else may write to it, and engines of strangers do not
belong into it. Bundles may come from anywhere; engines are built from them on the machine that runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vifa_runtime.backends import BackendError
from vifa_runtime.files import write_atomically

RECIPE = 1  # raised when graphs are rewritten or built in another way, so that older engines are built again
MAGIC = b"VIFA ENGINE 1\n"
LARGEST_HEAD = 1 << 16
LARGEST_ENGINE = 1 << 32

Size = tuple[int, int]


class EngineError(ValueError):
    """A file that is no whole engine, or one for something else; the message goes on after the file's name."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine is built from and for. It fits where all of this is the same.

    Attributes:
        graph: SHA-256 of the graph, as it lies in the bundle.
        tensorrt: version of TensorRT.
        gpu: name of the GPU.
        capability: compute capability, like `8.7`.
        precision: `fp32`, `fp16` or `int8`.
        size: of the images, WIDTHxHEIGHT; all shapes follow from it.
        recipe: number of the way in which graphs become engines.
        calibration: SHA-256 of the pairs that INT8 was calibrated with; empty where there were none. Only who builds
            compares it.
    """

    graph: str
    tensorrt: str
    gpu: str
    capability: str
    precision: str
    size: str
    recipe: int = RECIPE
    calibration: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file, by what bundle and user choose: one of another machine is found, and refused by name."""
        return f"{self.graph[:16]}-{self.size}-{self.precision}.engine"


_WORDS = {
    "recipe": "was built by another version of vifa (recipe {0}, this one has {1})",
    "graph": "was built from another graph (SHA-256 {0}, this one has {1})",
    "tensorrt": "was built by TensorRT {0}, here is {1}",
    "gpu": "was built for the GPU {0}, here is {1}",
    "capability": "was built for compute capability {0}, here is {1}",
    "precision": "was built in {0}, wanted is {1}",
    "size": "was built for images of {0}, wanted is {1}",
    "calibration": "was calibrated with other pairs (SHA-256 {0}, these have {1})",
}


def default_folder(kind: str = "engines") -> Path:
    """The user's cache of engines, or of what another kind of engine keeps."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "vifa" / kind  # noqa: PTH111 (raises where there is no home)


def size_text(size: Size) -> str:
    """(height, width) as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def built_sizes(folder: Path, graph: str, precision: str) -> list[Size]:
    """Sizes (height, width) for which a folder has engines of a graph (its SHA-256), by their names; sorted."""
    pattern = re.compile(rf"{graph[:16]}-(\d{{1,5}})x(\d{{1,5}})-{precision}\.engine")
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    found = (pattern.fullmatch(name) for name in names)
    return sorted((int(match[2]), int(match[1])) for match in found if match)


def make_folder(folder: Path) -> None:
    """Make the folder of engines, for this user alone, where it is missing.

    Raises:
        BackendError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(f"cannot make {folder}: {error.strerror}; choose another folder with --engines") from None


def write_engine(folder: Path, key: EngineKey, engine: bytes) -> Path:
    """Write an engine with its head, atomically; returns the file.

    Raises:
        BackendError: the folder cannot be written.
    """
    path = folder / key.file_name
    try:
        write_atomically(path, seal(asdict(key), engine))
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; choose another folder with --engines") from None
    return path


def read_engine(folder: Path, key: EngineKey, compare_calibration: bool = False) -> bytes:
    """Read the engine that fits a key; nothing of it was run.

    Raises:
        EngineError: it is not there, is damaged, or was built from or for something else: the first thing that differs.
        BackendError: the file cannot be read.
    """
    path = folder / key.file_name
    try:
        if not path.is_file():
            raise EngineError("does not exist")
        if path.stat().st_size > LARGEST_ENGINE:
            raise EngineError("is larger than any engine")
        head, engine = unseal(path.read_bytes())
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}") from None
    wanted = asdict(key)
    if head.keys() != wanted.keys() or any(type(head[name]) is not type(wanted[name]) for name in wanted):
        raise EngineError("has no complete head; it was written by another version of vifa or changed by hand")
    for name, words in _WORDS.items():
        if head[name] != wanted[name] and (name != "calibration" or compare_calibration):
            raise EngineError(words.format(_shown(head[name]), _shown(wanted[name])))
    return engine


def seal(head: Mapping[str, Any], content: bytes) -> bytes:
    """Bytes of a file: magic, head as one line of JSON with the content's SHA-256, content."""
    line = json.dumps({**head, "sha256": hashlib.sha256(content).hexdigest()}, sort_keys=True)
    return MAGIC + line.encode() + b"\n" + content


def unseal(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Head, without the sum, and content of `seal`.

    Raises:
        EngineError: it is another file, or a damaged one.
    """
    if not data.startswith(MAGIC):
        raise EngineError("is no engine of vifa")
    end = data.find(b"\n", len(MAGIC), len(MAGIC) + LARGEST_HEAD)
    try:
        head = json.loads(data[len(MAGIC) : end])
    except (ValueError, RecursionError):
        head = None
    if end < 0 or not isinstance(head, dict):
        raise EngineError("is damaged: its head cannot be read")
    content = data[end + 1 :]
    if head.pop("sha256", None) != hashlib.sha256(content).hexdigest():
        raise EngineError("is damaged: it does not match the SHA-256 in its head")
    return head, content


def build_command(
    bundle: str, precision: str, size: Size | None, folder: Path | None, device: int, calibrate: bool = False
) -> str:
    """The command that builds the engines of a bundle.

    Args:
        size: (height, width); None where the bundle has a working size of its own.
        folder: None for the user's cache.
        calibrate: whether INT8 needs pairs to calibrate with.
    """
    words = ["vifa", "bundle", "build", bundle, "--precision", precision]
    words += ["--size", size_text(size)] if size else []
    words += ["--engines", str(folder)] if folder else []
    words += ["--device", str(device)] if device else []
    words += ["--calibration", "PAIRS"] if calibrate else []
    return shlex.join(words)


def _shown(value: str | int) -> str:
    """A value for a message: sums by their first digits, and nothing that could fill a screen."""
    text = str(value) if str(value).isprintable() else ascii(value)
    return f"{text[:16]}..." if len(text) >= 64 else text or "none"
