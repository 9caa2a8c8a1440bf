"""The start-up hook of the training environment, against a torch and a torchvision that stand in for the real ones."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TORCH = """
from types import SimpleNamespace
declared = []
_C = SimpleNamespace(_dispatch_has_kernel=lambda name: {loads!r})
class Library:
    def __init__(self, namespace, kind):
        self.namespace = namespace
    def define(self, schema):
        declared.append(f"{{self.namespace}}::{{schema.partition('(')[0]}}")
library = SimpleNamespace(Library=Library)
"""
DESCRIPTION = """
import torch
print(*sorted(torch.declared))
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(ROOT / 'scripts')!r}, {str(folder)!r}]\n"
    command = [sys.executable, "-c", path + "import vifa_torchvision_mend\n" + program]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture
def stand_ins(tmp_path):
    def write(loads: bool) -> Path:
        (tmp_path / "torch.py").write_text(TORCH.format(loads=loads))
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision/__init__.py").write_text("from torchvision import _meta_registrations")
        (tmp_path / "torchvision/_meta_registrations.py").write_text(DESCRIPTION)
        return tmp_path

    return write


def test_operators_are_declared_before_torchvision_describes_them(stand_ins):
    done = run("import torchvision", stand_ins(loads=False))
    assert done.stdout.split() == ["torchvision::nms", "torchvision::qnms"]


def test_nothing_is_done_where_torchvision_loads_its_own(stand_ins):
    assert run("import torchvision", stand_ins(loads=True)).stdout.split() == []


def test_nothing_is_imported_at_the_start_of_python(stand_ins):
    done = run("import json.tool; print({'torch', 'torchvision'} & set(sys.modules))", stand_ins(loads=False))
    assert done.stdout.strip() == "set()"
