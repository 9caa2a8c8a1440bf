"""Convolutions of few output channels, as ones of many channels on a coarser grid: the same sums, several times faster.

A CPU's kernels compute 16 output channels at once, whether they are there or not. The last convolution of a head has
one, or four: most of the work is thrown away. Computing a cell of 4x4 (or 2x2) pixels as 16 channels fills the block:
the kernel grows from 3x3 to 6x6, with zeros around each pixel's own, and moves by whole cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from vifa_runtime.bundle import BACKBONE, Bundle
from vifa_runtime.graph_tools import (
    Shapes,
    fix_sizes,
    image_shapes,
    infos,
    is_plain_convolution,
    opset_of,
    pads_of,
    sides,
)

_BLOCK = 16
_CELLS = (4, 2)  # sides of a cell, pixels
_SHAPE_OF_PART = 15  # version of ONNX from which the operator Shape gives some of the sides
_SHOWN = (48, 80)  # in multiples of the bundle's size_multiple: a size by which scales are told


def widen_fusion(graphs: Mapping[str, bytes], bundle: Bundle) -> dict[str, bytes]:
    """The same graphs, of which backbone, heads and what is merged of them are widened; task graphs stay.

    Args:
        graphs: by path, the bundle's and others that take a pair of images.
    """
    multiple, others = bundle.size_multiple, {task.graph for task in bundle.tasks}
    shapes: dict[str, Sequence[int]] = dict(image_shapes(_shown_size(multiple)))
    backbone = infos(fix_sizes(onnx.load_model_from_string(graphs[BACKBONE]), shapes))
    shapes |= {name: sides(value) for name, value in backbone.items()}
    return {path: graph if path in others else widen(graph, shapes, multiple) for path, graph in graphs.items()}


def widen(graph: bytes, shapes: Shapes, multiple: int) -> bytes:
    """The same graph with its narrow convolutions widened, where the size of the images allows it.

    Args:
        graph: ONNX bytes.
        shapes: of its inputs, for images of 48x80 times `multiple`.
        multiple: heights and widths of images are multiples of this.
    """
    model = onnx.load_model_from_string(graph)
    known = infos(fix_sizes(onnx.load_model_from_string(graph), shapes))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    takes_visible = any(value.name == "visible" for value in model.graph.input) and opset_of(model) >= _SHAPE_OF_PART
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        cell = 0
        if _is_narrow(node, weights):
            scale = _scale(sides(known[node.output[0]]), multiple)
            cell = _choose_cell(weights[node.input[1]].dims[0], scale, multiple, takes_visible)
        if cell:
            replaced, constants = _widened(node, weights, cell, crops=multiple % (scale * cell) != 0)
            nodes += replaced
            model.graph.initializer.extend(constants)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def _shown_size(multiple: int) -> tuple[int, int]:
    return _SHOWN[0] * multiple, _SHOWN[1] * multiple


def _is_narrow(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """Whether it is a plain convolution of a square kernel of 3 and more that keeps the size, with few channels."""
    if not is_plain_convolution(node, weights):
        return False
    channels, _, height, width = weights[node.input[1]].dims
    keeps_size = height == width >= 3 and height % 2 == 1 and pads_of(node) == [height // 2] * 4
    return keeps_size and channels * _CELLS[-1] ** 2 <= _BLOCK


def _scale(shape: tuple[int, ...], multiple: int) -> int:
    """How many pixels of the image a side of the tensor's pixels is; 0 where that is no whole number."""
    height, width = _shown_size(multiple)
    if len(shape) != 4 or not shape[2] or not shape[3] or height % shape[2] or width % shape[3]:
        return 0
    return height // shape[2] if height // shape[2] == width // shape[3] else 0


def _choose_cell(channels: int, scale: int, multiple: int, takes_visible: bool) -> int:
    """The largest cell that fills a block no more than once; 0 where sizes do not allow any.

    Where images need not be multiples of a cell, the result is cropped to the size of the visible image.
    """
    for cell in _CELLS:
        fits = scale and (multiple % (scale * cell) == 0 or (scale == 1 and takes_visible))
        if fits and channels * cell**2 <= _BLOCK:
            return cell
    return 0


def _widened(
    node: NodeProto, weights: Mapping[str, TensorProto], cell: int, crops: bool
) -> tuple[list[NodeProto], list[TensorProto]]:
    """What computes the same as a convolution, and the constants that it needs."""
    output, name = node.output[0], f"{node.output[0]}/wide"
    kernel = numpy_helper.to_array(weights[node.input[1]])
    constants = {f"{name}/weight": _wide_kernel(kernel, cell)}
    if len(node.input) > 2:
        constants[f"{name}/bias"] = np.repeat(numpy_helper.to_array(weights[node.input[2]]), cell**2)
    side, pad = kernel.shape[2] + cell - 1, kernel.shape[2] // 2
    after = pad + (cell - 1 if crops else 0)  # so that a cell that the image does not fill is computed too
    whole = f"{name}/whole" if crops else output
    replaced = [
        helper.make_node(
            "Conv", [node.input[0], *constants], [f"{name}/cells"],
            kernel_shape=[side, side], strides=[cell, cell], pads=[pad, pad, after, after],
        ),
        helper.make_node("DepthToSpace", [f"{name}/cells"], [whole], blocksize=cell, mode="CRD"),
    ]  # fmt: skip
    if crops:
        constants |= {f"{name}/starts": np.zeros(2, np.int64), f"{name}/axes": np.array([2, 3], np.int64)}
        replaced += [
            helper.make_node("Shape", ["visible"], [f"{name}/size"], start=1, end=3),
            helper.make_node("Slice", [whole, f"{name}/starts", f"{name}/size", f"{name}/axes"], [output]),
        ]
    return replaced, [numpy_helper.from_array(array, key) for key, array in constants.items()]


def _wide_kernel(kernel: NDArray, cell: int) -> NDArray:
    """Kernel (C,I,k,k) -> (C*cell*cell,I,k+cell-1,k+cell-1): for each pixel of a cell the kernel, shifted to it."""
    channels, inputs, side, _ = kernel.shape
    wide = np.zeros((channels, cell, cell, inputs, side + cell - 1, side + cell - 1), kernel.dtype)
    for row in range(cell):
        for column in range(cell):
            wide[:, row, column, :, row : row + side, column : column + side] = kernel
    return wide.reshape(channels * cell**2, *wide.shape[3:])
