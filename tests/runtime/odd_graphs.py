"""Backbones that break a rule, and why they are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper
from tiny_bundle import FLOAT, THERMAL, VISIBLE, graph, value

from vifa_runtime.graph_check import GraphError, check_backbone

MULTIPLE = 4
node = helper.make_node


def integers(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def from_thermal(*nodes: NodeProto, constants: Mapping[str, Any] | None = None, opset: int = 17) -> bytes:
    """A backbone that computes `out` from `thermal` by some nodes."""
    return graph(nodes, [VISIBLE, THERMAL], [value("out", FLOAT, None)], constants, opset)


def edited(data: bytes, change: Callable[[onnx.ModelProto], object]) -> bytes:
    """Bytes of a graph after `change` was applied to its model."""
    model = onnx.load_model_from_string(data)
    change(model)
    return model.SerializeToString()


def refusal(data: bytes) -> str:
    """Why a backbone is refused."""
    with pytest.raises(GraphError) as caught:
        check_backbone(data, MULTIPLE)
    assert "\n" not in str(caught.value)
    return str(caught.value)
