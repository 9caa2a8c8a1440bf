"""Steps of a set-up that leave stamps: a second run repeats only what has changed or was interrupted."""

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The Python of a ROS from PyPI sets this for its children; that of another environment must not inherit it.
WHEELS_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"

# What a log says when a step failed, and what mends it.
MENDS = (
    (r"ensurepip is not available|No module named '?(ensurepip|venv)", "apt install python3-venv"),
    (r"Python\.h: No such file|NOTFOUND.*Python3|Could NOT find Python3", "apt install python3-dev"),
    (r"CMAKE_CXX_COMPILER|CMAKE_C_COMPILER", "apt install g++"),
    (r"No space left on device", "free some disk space and run it again"),
    (
        r"NewConnectionError|NameResolutionError|name resolution|ProxyError|[Tt]imed out|SSLError",
        "check that this machine reaches PyPI, then run it again",
    ),
    (
        r"No matching distribution found for ros-",
        "the wheels need Linux x86-64 with glibc 2.34 or newer: source an installed ROS 2 instead",
    ),
    (r"No matching distribution found", "no release fits this Python and platform, or PyPI is out of reach"),
)


class SetupError(Exception):
    """A reason, in one line, why the environment cannot be made."""


class Log:
    """Runs the commands of one step and keeps all they print in one file."""

    def __init__(self, path: Path, variables: dict[str, str]):
        self.path, self.variables = path, variables
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def run(self, *command: object) -> None:
        """Run one command to its end; raise SetupError, with what mends it, when it fails."""
        words = [str(word) for word in command]
        with self.path.open("a") as log:
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            done = subprocess.run(words, cwd=ROOT, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode != 0:
            raise SetupError(f"`{Path(words[0]).name}` ended with {done.returncode}; to mend: {self.mend()}")

    def mend(self) -> str:
        text = self.path.read_text(errors="replace")
        return next((mend for pattern, mend in MENDS if re.search(pattern, text)), "see the end of the log")


@dataclass(frozen=True)
class Step:
    """One part of the set-up; done when its stamp holds the key and its results exist."""

    name: str
    title: str
    key: str
    results: tuple[Path, ...]
    run: Callable[[Log], None]

    def stamp(self, venv: Path) -> Path:
        return venv / "stamps" / self.name

    def is_done(self, venv: Path) -> bool:
        stamp = self.stamp(venv)
        has_results = all(path.exists() for path in self.results)
        return has_results and stamp.is_file() and stamp.read_text() == self.key


def key_of(*inputs: object) -> str:
    """One hash over words and over the contents of files and folders, given as paths in the repository."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            for file in files_of(item):
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
        else:
            digest.update(f"{item}\0".encode())
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def perform(step: Step, venv: Path, variables: dict[str, str], label: str) -> None:
    """Run one step. Its stamp goes before and comes back only after it succeeded."""
    print(f"[{label}] {step.title} ... ", end="", flush=True)
    start = time.monotonic()
    stamp = step.stamp(venv)
    stamp.unlink(missing_ok=True)
    log = Log(venv / "log" / f"{step.name}.log", variables)
    try:
        step.run(log)
    except (SetupError, OSError) as error:
        raise SetupError(f"the step '{step.name}' failed: {error} (log: {log.path})") from error
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(step.key)
    print(f"done in {time.monotonic() - start:.0f} s", flush=True)


def empty_folder(folder: Path) -> None:
    """Remove what a former set-up left in the folder; refuse a folder that no set-up made."""
    is_environment = (folder / "pyvenv.cfg").is_file() or (folder / "log").is_dir()
    if folder.exists() and not is_environment and any(folder.iterdir()):
        raise SetupError(f"{folder} is not a virtual environment and would be overwritten: name another --venv")
    # By way of another name: an interrupted removal would leave a folder that nobody knows for an environment.
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
        shutil.rmtree(old)


@contextmanager
def lock(venv: Path) -> Iterator[None]:
    """Let one set-up at a time work on an environment."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with venv.with_name(f"{venv.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another set-up of {venv} is at work: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def path_variable(first: Path, rest: str | None) -> str:
    """A value for PATH and its like with one folder put in front."""
    return os.pathsep.join(filter(None, [str(first), rest]))
