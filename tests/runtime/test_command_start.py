"""How the `vifa` command starts: without ONNX Runtime too, and without loading what only long work needs."""

import subprocess
import sys

import pytest

HIDE = """
import sys

class Hider:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ImportError("onnxruntime is hidden")

sys.meta_path.insert(0, Hider())
"""


def run(program, *arguments):
    """A program in a Python of its own; what it wrote to its ends."""
    return subprocess.run([sys.executable, "-P", "-c", program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    "words",
    [
        *((), ("fuse",), ("bench",), ("record",), ("extract",)),
        *(("bundle",), ("bundle", "show"), ("bundle", "build"), ("bundle", "quantize")),
    ],
    ids=" ".join,
)
def test_help_needs_no_onnx_runtime(words):
    done = run(f"{HIDE}\nfrom vifa_ros.cli import main\nmain()", *words, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_part_without_ros_needs_no_onnx_runtime_for_its_help():
    done = run(f"{HIDE}\nfrom vifa_runtime.cli import app\napp()", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_help_loads_nothing_that_only_long_work_needs():
    program = """
import sys
from vifa_ros.cli import main
try:
    main()
finally:
    heavy = {"scipy", "onnxruntime", "onnx.reference", "vifa_runtime.backends.tensorrt"}
    print("loaded:", *sorted(heavy & set(sys.modules)))
"""
    done = run(program, "--help")
    assert done.stdout.splitlines()[-1].strip() == "loaded:", done.stderr


def test_a_command_that_needs_onnx_runtime_says_so_in_one_line():
    program = f"{HIDE}\nfrom vifa_ros.cli import main\nmain()"
    done = run(program, "bench", "--bundle", "nano-fusion")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "vifa: ONNX Runtime cannot be loaded (onnxruntime is hidden); pip install onnxruntime"
    )
