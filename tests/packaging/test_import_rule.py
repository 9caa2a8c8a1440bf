"""Imports have one direction: the runtime needs neither ROS nor torch, a robot no torch, training no ROS."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# "google" is protobuf, which onnx is made of.
LIBRARIES = {"cv2", "google", "jsonschema", "numpy", "onnx", "onnxruntime", "rich", "scipy", "typer", "yaml"}
ROS = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "sensor_msgs_py",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "vifa",
    "vision_msgs",
}
ALLOWED = {
    "vifa_runtime": LIBRARIES,
    "vifa_ros": LIBRARIES | ROS | {"vifa_runtime"},
    "vifa_training": LIBRARIES | {"lightning_fabric", "onnxscript", "safetensors", "torch", "vifa_runtime"},
}
ONLY_IN_FILE = {
    "tensorrt": "vifa_runtime/backends/tensorrt.py",
    "pycuda": "vifa_runtime/backends/tensorrt.py",
}
ONLY_IN_FUNCTIONS_OF = {  # what is an extra of its own: module -> where a function may import it
    "matplotlib": "vifa_training/",
    "ray": "vifa_ros/bags/many.py",
    "rosbags": "vifa_ros/",
    "segmentation_models_pytorch": "vifa_training/tasks/deeplabv3plus.py",
    "ultralytics": "vifa_training/tasks/yolov5.py",
}


AT_THE_TOP_IN = {"rosbags": "vifa_ros/bags/"}  # of these, modules that only who has the extra imports


def imports(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Every import below a node: top-level module, line, and whether it stands inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0], node.lineno, in_function
        elif isinstance(node, ast.Call) and (name := imported_by_call(node)):
            yield name.split(".")[0], node.lineno, in_function
        inside = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from imports(node, inside)


def imported_by_call(call: ast.Call) -> str | None:
    """The module that `import_module("name")` or `__import__("name")` names."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    if function in ("import_module", "__import__") and isinstance(first, ast.Constant):
        return str(first.value)
    return None


def is_allowed(module: str, file: str, in_function: bool) -> bool:
    """Whether a file (path from the root of the repository) may import a top-level module there."""
    package = file.split("/")[0]
    if module == package or module in sys.stdlib_module_names:
        return True
    if module in ONLY_IN_FILE:
        return file == ONLY_IN_FILE[module]
    if module in ONLY_IN_FUNCTIONS_OF:
        everywhere = file.startswith(AT_THE_TOP_IN.get(module, "nowhere"))
        return everywhere or (in_function and file.startswith(ONLY_IN_FUNCTIONS_OF[module]))
    return module in ALLOWED[package]


def violations(source: str, file: str) -> list[str]:
    return [
        f"{file}:{line} imports {module}"
        for module, line, in_function in imports(ast.parse(source))
        if not is_allowed(module, file, in_function)
    ]


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_the_design_allows(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no Python file in {package}"
    found = [violation for path in files for violation in violations(path.read_text(), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("vifa_runtime/pipeline.py", "import torch"),
        ("vifa_runtime/pipeline.py", "import numpy, rclpy.node"),
        ("vifa_runtime/pipeline.py", "from vifa_ros import cli"),
        ("vifa_runtime/pipeline.py", "def f():\n    import vifa_training.losses"),
        ("vifa_runtime/pipeline.py", "import importlib\nimportlib.import_module('torch.nn')"),
        ("vifa_runtime/pipeline.py", "def f():\n    import tensorrt"),
        ("vifa_ros/tensorrt.py", "def f():\n    import pycuda.driver"),
        ("vifa_ros/players.py", "from rosbags.rosbag2 import Reader"),
        ("vifa_ros/players.py", "class Bag:\n    import rosbags"),
        ("vifa_ros/bags/opening.py", "import torch"),
        ("vifa_ros/cli.py", "def f():\n    from vifa_training import export"),
        ("vifa_training/export.py", "async def f():\n    from sensor_msgs.msg import Image"),
        ("vifa_training/export.py", "if True:\n    import rosbags"),
        ("vifa_training/tasks/yolov5.py", "import ultralytics"),
        ("vifa_training/evaluation.py", "def f():\n    from ultralytics.utils.metrics import ap_per_class"),
        ("vifa_runtime/decode.py", "def f():\n    import ultralytics"),
    ],
)
def test_checker_finds_a_planted_violation(file, source):
    assert len(violations(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("vifa_runtime/backends/tensorrt.py", "def f():\n    import tensorrt, pycuda.driver"),
        (
            "vifa_runtime/pipeline.py",
            "import os.path\nfrom . import thermal\nimport vifa_runtime.thermal",
        ),
        ("vifa_ros/players.py", "def f():\n    from rosbags.rosbag2 import Reader"),
        ("vifa_ros/bags/opening.py", "from rosbags.rosbag2 import Reader"),
        ("vifa_ros/fusion_node.py", "from vifa.msg import FusionStatus\nimport vifa_runtime.bundle"),
        ("vifa_training/tasks/yolov5.py", "def f():\n    from ultralytics.nn.tasks import DetectionModel"),
        ("vifa_training/export.py", "import torch.nn as nn\nfrom vifa_runtime.bundle import write"),
    ],
)
def test_checker_accepts_what_is_allowed(file, source):
    assert violations(source, file) == []


BLOCKED_IMPORT = """
import importlib, pkgutil, sys
BLOCKED = set(sys.argv[1].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} must not be needed here")

sys.meta_path.insert(0, Blocker())
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    for part in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
        if not part.name.endswith("__main__"):
            importlib.import_module(part.name)
"""
NO_ROBOT = {"torch", "rosbags", "vifa_ros", "vifa_training", "tensorrt", "pycuda"}
WITHOUT_ROS = [
    f"vifa_ros.{name}" for name in ("camera_alignment", "compressed", "conversions", "parameters", "transforms")
]


def import_without(blocked: set[str], *names: str) -> subprocess.CompletedProcess[str]:
    """Import modules, and all within them, in a Python of their own in which there is nothing of `blocked`."""
    program = [sys.executable, "-c", BLOCKED_IMPORT, ",".join(sorted(blocked)), *names]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True)


def test_every_runtime_module_imports_without_ros_torch_and_tensorrt():
    done = import_without(ROS | NO_ROBOT, "vifa_runtime")
    assert done.returncode == 0, done.stderr


def test_what_reads_messages_imports_without_ros():
    done = import_without(ROS | {"rosbags", "torch"}, *WITHOUT_ROS)
    assert done.returncode == 0, done.stderr


def test_all_about_bags_imports_without_ros():
    pytest.importorskip("rosbags", reason="rosbags is not installed: nothing about bags can be imported")
    done = import_without(ROS | {"torch", "vifa_training"}, "vifa_ros.bags")
    assert done.returncode == 0, done.stderr


def test_a_blocked_import_is_noticed():
    assert "rclpy must not be needed here" in import_without(ROS, "vifa_ros.transform_listener").stderr
