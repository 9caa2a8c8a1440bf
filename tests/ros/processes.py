"""Programs of the package as real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from robot import PATIENCE


def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run `python -m module arguments` to its end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)


@contextmanager
def running(module: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A process that is killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen, sign: signal.Signals) -> tuple[int, str]:
    """Send a signal and wait for the end; returns the exit code and all that was printed."""
    process.send_signal(sign)
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output + errors
