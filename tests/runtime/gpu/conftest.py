"""Machines with a stand-in of TensorRT and PyCUDA, and a bundle with engines on them."""

import pytest
from cuda_standin import Machine
from tensorrt_cases import build_for
from tensorrt_standin import VERSIONS, install
from tiny_bundle import write_with_tasks

from vifa_runtime.backends import Options, prepare


@pytest.fixture(params=VERSIONS)
def machine(request, monkeypatch):
    """A machine with one version of TensorRT, left as clean as it was found."""
    made = install(monkeypatch, request.param, Machine())
    made.version = request.param
    yield made
    made.assert_clean()


@pytest.fixture
def bundle(tmp_path):
    """The tiny bundle with its detector and its segmenter."""
    return write_with_tasks(tmp_path / "bundle")


@pytest.fixture
def options(tmp_path):
    return Options(engines=tmp_path / "engines")


@pytest.fixture
def built(machine, bundle, options):
    """The bundle, with engines of one size."""
    build_for(bundle, options)
    return bundle


@pytest.fixture
def engine(built, options):
    made = prepare("tensorrt", built, options)
    yield made
    made.close()


@pytest.fixture
def reference(bundle):
    return prepare("onnxruntime", bundle, Options(threads=1))
