"""Other people's PyTorch checkpoints, read without running what is in them.

A checkpoint is a pickle, and a pickle can call any function. `torch.load(weights_only=True)` builds tensors,
containers and plain values and nothing else, in the zip format and in the one before PyTorch 1.6. A file that wants
more is refused; nothing here reads it in another way.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DATA_PARALLEL = "module."  # what torch.nn.DataParallel puts before every name
_WANTED = re.compile(r"GLOBAL (\S+)")  # how PyTorch names what it refused to call


class WeightsError(ValueError):
    """A checkpoint that is not taken over; the message names the files and all that is wrong with them."""


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        tensors: the weights by their authors' names, on the CPU, without the prefix of `DataParallel`.
        beside: whatever else stands in the file (epoch, flags, other networks), by name.
    """

    tensors: Mapping[str, Tensor]
    beside: Mapping[str, Any]


def read_checkpoint(path: Path, wrappers: Sequence[str] = ()) -> Checkpoint:
    """Read a file whose weights lie at its top or under one of the names `wrappers`.

    Raises:
        WeightsError: no such file, no checkpoint, one that wants to call something, or one without weights.
    """
    content = _load(path)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise WeightsError(f"{path} holds no weights by name but a {type(content).__name__}")
    wrapper = next((name for name in wrappers if isinstance(content.get(name), Mapping)), None)
    weights = content if wrapper is None else content[wrapper]
    beside = {name: value for name, value in content.items() if wrapper is not None and name != wrapper}
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    beside |= {str(name): value for name, value in weights.items() if not isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(beside) or "nothing"
        sought = " or ".join(["at its top", *(f"under {name!r}" for name in wrappers)])
        raise WeightsError(f"{path} has no weights {sought}; it holds {found}")
    if all(name.startswith(_DATA_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_DATA_PARALLEL): tensor for name, tensor in tensors.items()}
    return Checkpoint(tensors, beside)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript archive it warns, then refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # foreign bytes end in half a dozen types, KeyError and EOFError among them
        wanted = _WANTED.search(str(error))
        if wanted:
            reason = f"it wants to call {wanted[1]}, and a checkpoint here may hold nothing but weights"
        else:
            reason = f"no PyTorch weights, or a damaged file ({type(error).__name__}); download it again"
        raise WeightsError(f"{path} is refused: {reason}") from None
