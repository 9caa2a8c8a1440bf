"""Fixtures of the runtime tests. They need neither ROS nor torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from tiny_bundle import write_tiny

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import Bundle
from vifa_runtime.pipeline import FusionPipeline

# A busy machine must not fail a test, and a run must give the same result twice.
settings.register_profile(
    "runtime",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("runtime")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    """The tiny bundle as it is loaded; works at the visible image's own size, padded to multiples of 4."""
    return write_tiny(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bundle_folder(tmp_path) -> Path:
    """A folder that holds the tiny bundle, for tests that break it."""
    write_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def make_pipeline(bundle) -> Callable[..., FusionPipeline]:
    """A function that puts a bundle, the tiny one by default, on ONNX Runtime with one thread."""

    def make(of: Bundle = bundle, **options) -> FusionPipeline:
        return FusionPipeline(of, prepare("onnxruntime", of, Options(threads=1)), **options)

    return make


@pytest.fixture
def make_pair() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A function that gives visible (H,W,3) and thermal (H,W) uint8 noise, the same for the same seed."""

    def make(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (height, width, 3), np.uint8), rng.integers(0, 256, (height, width), np.uint8)

    return make


@pytest.fixture
def refused(vifa) -> Callable[..., str]:
    """A function that runs the command and returns the one line with which it is refused."""

    def run(*arguments):
        code, _, errors = vifa(*arguments)
        assert code == 1
        lines = errors.splitlines()
        assert len(lines) == 1, errors
        assert lines[0].startswith("vifa: ")
        return lines[0]

    return run
