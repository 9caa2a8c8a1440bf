"""Operations and memory of a module, seen operator by operator while it runs on tensors that hold no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that only place numbers. What is a view by torch's own word needs no entry.
_MOVING = """
    _to_copy _unsafe_view arange cat clone constant_pad_nd copy_ empty empty_like eye fill_ full full_like gather
    index index_select new_empty new_zeros ones reflection_pad2d replication_pad2d roll scalar_tensor stack zero_ zeros
    zeros_like
"""
_MOVES = frozenset(_MOVING.split())
_MATRIX_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}  # operator -> which argument is the left matrix
_LINEAR_LAYERS = ("mm", "addmm")  # products with one matrix for the whole batch: that matrix is weights
_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm", "native_group_norm")
_SOFTMAXES = ("_softmax", "_safe_softmax")
_REDUCTIONS = ("mean", "sum", "amax", "amin", "var")


@dataclass(frozen=True)
class Operations:
    """How much a module computes in one pass, by several counts.

    Attributes:
        layers: multiply-accumulates of convolutions and linear layers with trained weights, without bias.
        paper: the VIFA paper's count, a well-known counter's: `layers`, 4 an element for batch and layer norm, 1 an
            element for PReLU, 3n - 1 for a softmax over n. Nothing for padding, other activations, products of two
            computed tensors (attention) and convolutions with constant weights, which are functional calls.
        products: multiply-accumulates in full: `layers`, products of computed tensors, constant convolutions.
        other: what is no product: 1 an output element for a bias and for anything element-wise, be it an addition or
            a GELU, 1 an input element for a mean or sum, norm and softmax as in `paper`. Moving numbers (padding,
            concatenation, rolling, gathering) is nothing.
    """

    layers: int = 0
    paper: int = 0
    products: int = 0
    other: int = 0

    def __add__(self, more: Operations) -> Operations:
        return Operations(
            self.layers + more.layers,
            self.paper + more.paper,
            self.products + more.products,
            self.other + more.other,
        )


def count_operations(module: nn.Module, *inputs: Any) -> Operations:
    """Operations of one pass of a module in evaluation; on the `meta` device nothing is computed."""
    counter = _Counter()
    module.eval()
    with torch.no_grad(), counter:
        module(*inputs)
    return counter.total


def peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes of tensors made by `run` that exist at once while it runs; what it returns counts to its end.

    That is what eager torch holds for results on any device. Tensors that existed before, among them weights, are not
    in it, nor is an operator's own scratch memory or what an allocator keeps in reserve.
    """
    live = _LiveBytes()
    with torch.no_grad(), live:
        kept = run()
    del kept
    return live.peak


class _Counter(TorchDispatchMode):
    """Adds up the operations of all operators that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = Operations()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if not func.is_view and name not in _MOVES:
            first = result[0] if isinstance(result, (tuple, list)) else result
            self.total += _operations(name, args, first)
        return result


def _operations(name: str, arguments: Sequence[Any], result: Tensor) -> Operations:
    """Operations of one operator of ATen, by its name, positional arguments and (first) result."""
    elements = result.numel()
    if name == "convolution":
        image, weight, bias, transposed = (*arguments[:3], arguments[6])
        # Weights are (out, in/groups, ...) or, transposed, (in, out/groups, ...): what meets one output or input value.
        products = (image if transposed else result).numel() * weight[0].numel()
        trained = products if isinstance(weight, nn.Parameter) else 0
        return Operations(trained, trained, products, 0 if bias is None else elements)
    if name in _MATRIX_PRODUCTS:
        left = _MATRIX_PRODUCTS[name]
        products = elements * arguments[left].shape[-1]
        trained = products if name in _LINEAR_LAYERS else 0
        return Operations(trained, trained, products, elements * left)  # on the left of the left one stands a bias
    if name in _NORMS:
        return Operations(paper=4 * elements, other=4 * elements)
    if name in _SOFTMAXES:
        count = 3 * elements - elements // result.shape[arguments[1]]
        return Operations(paper=count, other=count)
    if name == "_prelu_kernel":
        return Operations(paper=elements, other=elements)
    return Operations(other=arguments[0].numel() if name in _REDUCTIONS else elements)


class _LiveBytes(TorchDispatchMode):
    """Follows every storage made under it until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # A view, or what was changed in place, lies in a storage of an argument: known, or there before.
        old = {tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage(), old | self._known)
        self.peak = max(self.peak, self._now)
        return result

    def _follow(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in old:
            self._known.add(key)
            self._now += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
