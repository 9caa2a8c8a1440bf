"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then rename it into place; makes the folder where it is missing.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with an indent of two, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder`, and put it in its place at the end of the block.

    Where the block or the putting in place raises, the new one is removed, and what was at `folder` is left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield beside
        beside.chmod(0o755)  # mkdtemp's are for their owner alone
        _put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put_in_place(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; what was there is removed after that, and comes back where that fails."""
    if not folder.exists():
        new.rename(folder)
        return
    old = new.with_name(new.name + ".old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)
