"""The exact least-squares solution of a head's linear last layer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from vifa_training.data import Batch
from vifa_training.networks import FusionNetwork, LastLayer

_RIDGE = 1e-6  # of the mean diagonal: where features are alike, the smallest weights of all that fit
_CELLS = 20_000  # output pixels of an image that count: some hundred weights need no more, and the time goes with them


def solve_last_layer(network: FusionNetwork, task: str, batches: Iterable[Batch]) -> bool:
    """Set the last layer of a task's head so that its squared error is least, before the activation.

    Pixels that are to be black or white do not count: what is beyond would do as well. Of large images every second
    row and column counts, or fewer.

    Args:
        network: in evaluation mode.
        batches: with `fused`, the luma to imitate.

    Returns:
        Whether there was a linear last layer to solve, and a pixel to solve it by; else nothing changes.
    """
    head, gram, moment = network.heads[task], None, None
    for batch in batches:
        with torch.no_grad():
            last = head.last_layer(network.backbone(batch.visible_y, batch.thermal))
            if last is None or last.layer.groups != 1:
                return False
            rows, wanted = _equations(last, batch.fused)
        gram = rows.T @ rows if gram is None else gram + rows.T @ rows
        moment = rows.T @ wanted if moment is None else moment + rows.T @ wanted
    assert gram is not None, "no batch"
    if not gram.any():
        return False
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge, moment)
    with torch.no_grad():
        last.layer.weight.copy_(solution[:-1].T.reshape(last.layer.weight.shape))
        last.layer.bias.copy_(solution[-1])
    return True


def _equations(last: LastLayer, fused: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer sees for each output pixel, (N,P+1) with a one at the end, and what it has to give, (N,C).

    An output pixel may stand for a cell of several; it is left out where one of them is black or white.
    """
    layer, wanted = last.layer, last.wanted(fused)
    every = math.ceil(math.sqrt(wanted.shape[2] * wanted.shape[3] / _CELLS))
    ends = ((fused <= 0) | (fused >= 1)).to(fused.dtype)
    inside = F.max_pool2d(ends, fused.shape[2] // wanted.shape[2])[:, :, ::every, ::every].flatten() == 0
    rows, columns = layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(last.inputs, (columns, columns, rows, rows), mode=mode)
    stride = [every * step for step in layer.stride]
    seen = F.unfold(padded, layer.kernel_size, stride=stride).transpose(1, 2).flatten(0, 1)[inside].double()
    aim = wanted[:, :, ::every, ::every].flatten(2).transpose(1, 2).flatten(0, 1)[inside].double()
    return torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1), aim
