"""Operations whose result follows the size of another tensor, in torch and in exported graphs alike.

The tracer writes every size as arithmetic on the image's own, which shape inference cannot follow and which holds only
for the multiples that were traced. During an export these functions ask the other tensor instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_training.onnx_graphs import OPSET

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_CORNERS = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
_CENTRES = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


def repeat_like(maps: Tensor, like: Tensor) -> Tensor:
    """`maps` (B,C,H',W') brought to the size of `like` (..,..,H,W) by repeating pixels: (B,C,H,W).

    From half the size, rounded up, to an odd size this is doubling and leaving the last row or column out.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.interpolate(maps, like.shape[2:], mode="nearest")
    return _resize(maps, like, _NEAREST)


def resize_like(maps: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    """`maps` (B,C,H',W') brought to the size of `like` (..,..,H,W), bilinear: (B,C,H,W).

    Args:
        align_corners: the centres of the corner pixels stay where they are; else the outer edges do.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=align_corners)
    return _resize(maps, like, _CORNERS if align_corners else _CENTRES)


def cell_centres(like: Tensor) -> Tensor:
    """x and y of the centres of the pixels of `like` (..,..,H,W), counted in its pixels: (H,W,2) float32."""
    if not torch.onnx.is_in_onnx_export():
        rows, columns = (torch.arange(side, device=like.device) + 0.5 for side in like.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
    else:
        sides = like.shape[2:]
        ones = _operator("Expand", [torch.ones(1), _shape(like, 2, 4)], {}, torch.float32, sides)
        x, y = (_operator("CumSum", [ones, torch.tensor(axis)], {}, torch.float32, sides) - 0.5 for axis in (1, 0))
    return torch.stack([x, y], dim=2)


def _resize(maps: Tensor, like: Tensor, how: Mapping[str, Any]) -> Tensor:
    sizes = torch.cat([_shape(maps, 0, 2), _shape(like, 2, 4)])
    return _operator("Resize", [maps, None, None, sizes], how, maps.dtype, [*maps.shape[:2], *like.shape[2:]])


def _shape(tensor: Tensor, start: int, end: int) -> Tensor:
    return _operator("Shape", [tensor], {"start": start, "end": end}, torch.int64, [end - start])


def _operator(
    name: str, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any], dtype: torch.dtype, shape: Sequence[Any]
) -> Tensor:
    """An ONNX operator; `shape` is what the tracer goes on with."""
    return torch.onnx.ops.symbolic(name, inputs, dict(attributes), dtype=dtype, shape=shape, version=OPSET)
