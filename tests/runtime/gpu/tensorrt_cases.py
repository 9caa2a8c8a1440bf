"""What the tests of the TensorRT back end share: pairs, engines of a bundle, and how results are compared."""

from __future__ import annotations

import numpy as np
import pytest

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.tensorrt import TensorRtBackend, build
from vifa_runtime.backends.tensorrt_build import Order

SIZE = (32, 48)
TASKS = ["bright", "blend", "cells", "glare"]


def build_for(bundle, options, size=SIZE):
    """Build a bundle's engines of a size into the options' folder."""
    build(Order(bundle, options.precision, size, options.engines), options.device, lambda *_: None)


def pair(size=SIZE, seed=0):
    """Noise as a back end is given it."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, *size, 3), np.uint8), rng.random((1, *size), np.float32)


def check_equal(results, others):
    """Two results of back ends are the same to the bit."""
    assert results.fused.keys() == others.fused.keys()
    assert results.outputs.keys() == others.outputs.keys()
    for task, image in others.fused.items():
        np.testing.assert_array_equal(results.fused[task], image)
        assert results.fused[task].dtype == np.uint8
    for task, outputs in others.outputs.items():
        assert results.outputs[task].keys() == outputs.keys()
        for name, array in outputs.items():
            np.testing.assert_array_equal(results.outputs[task][name], array)
            assert results.outputs[task][name].dtype == array.dtype


def refusal(bundle, options):
    """Why the back end cannot be had."""
    with pytest.raises(BackendError) as caught:
        TensorRtBackend(bundle, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
