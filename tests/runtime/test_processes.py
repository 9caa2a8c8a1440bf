"""Work in several processes: in order, and over at once when the first process is told to end."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from vifa_runtime.processes import map_in_processes

ITEMS = 8


def own_process(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def late_first(item: int) -> int:
    time.sleep(0.5 if item == 0 else 0)
    return item


def fail_at_first(folder: Path, item: int) -> None:
    if item == 0:
        while not (folder / "1").exists():
            time.sleep(0.01)
        raise ValueError("no")
    (folder / str(item)).touch()
    try:
        time.sleep(60)
    finally:
        (folder / f"{item} cleaned").touch()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_from_as_many_processes(count: int) -> None:
    assert list(map_in_processes(late_first, range(4), count)) == [0, 1, 2, 3]
    used = set(map_in_processes(own_process, range(3 * count), count))
    assert (os.getpid() in used) == (count == 1) and 1 <= len(used) <= count


def test_no_process_is_made_for_one_item() -> None:
    assert list(map_in_processes(own_process, [0], 4)) == [os.getpid()]


def test_an_error_ends_what_the_others_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        list(map_in_processes(partial(fail_at_first, tmp_path), range(ITEMS), 2))
    made = {path.name for path in tmp_path.iterdir()}
    assert {"1", "1 cleaned"} <= made <= {"1", "1 cleaned", "2", "2 cleaned"}  # 2 may have begun when 0 was over


SCRIPT = """
import signal
import sys
import time
from functools import partial
from pathlib import Path
from vifa_runtime.processes import map_in_processes

def work(folder, item):
    (folder / f"{item}.begun").touch()
    try:
        time.sleep(60)
    finally:
        time.sleep(0.2)
        (folder / f"{item}.cleaned").touch()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("begins", flush=True)
    list(map_in_processes(partial(work, Path(sys.argv[1])), range(int(sys.argv[2])), 2))
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
@pytest.mark.parametrize("starts", [True, False], ids=["starting", "working"])
def test_all_end_with_the_first_process_and_clean_up(tmp_path: Path, sign: signal.Signals, starts: bool) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "items"
    script.write_text(SCRIPT)
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, script, folder, str(ITEMS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    deadline = time.monotonic() + 60
    while not starts and len(list(folder.glob("*.begun"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1 if starts else 0)
    if sign == signal.SIGINT:
        os.killpg(process.pid, sign)  # as a terminal does: to every process
    else:
        process.send_signal(sign)
    _, errors = process.communicate(timeout=30)  # returns when the last process that could write is gone
    assert process.returncode not in (0, None)
    begun, cleaned = ({path.stem for path in folder.glob(f"*.{what}")} for what in ("begun", "cleaned"))
    assert begun == cleaned and len(begun) <= 2
    assert errors.count("Traceback") == (sign == signal.SIGINT), errors  # the script's own
