"""Weights on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says why and what still stands."""


def save_atomically(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path`, then rename it into place; its folder is made where it is missing.

    Raises:
        TrainingError: it cannot be written; what was there is still there.
    """
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside, metadata)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            beside.unlink()
        raise TrainingError(f"cannot write {path} ({error}); make room and run again: what is there is kept") from None


def read_safetensors(path: Path, mend: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        TrainingError: it is missing, damaged or something else; the message ends with `mend`.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read {path} ({error}); {mend}") from None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process may enter with the same folder, which is made where it is missing.

    Raises:
        TrainingError: another one is inside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # is gone with the process, however that ends
        except BlockingIOError:
            raise TrainingError(f"another training is at work in {folder}; wait for it or name another run") from None
        yield
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """SHA-256 of a file, by which a later step knows that it is still the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_names(names: Sequence[str]) -> str:
    """SHA-256 of the names of samples, by which a training knows that it goes on with the same ones."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's weights, by which a training knows that it began from the same ones."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a network's weights.

    Raises:
        TrainingError: no such file, or it belongs to another network.
    """
    tensors, _ = read_safetensors(path, "train first")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(f"{path} holds another network: {str(error).splitlines()[-1].strip()}") from None


class State:
    """What a training has to remember, as one flat set of tensors: modules and optimisers by name."""

    def __init__(self, modules: Mapping[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._modules, self._optimisers = modules, optimisers

    def save(self, path: Path, recipe: str, progressed: Mapping[str, Any]) -> None:
        """Write everything to one file.

        Args:
            recipe: text by which a later `load` knows that the file belongs to the same training.
            progressed: where the training stands; numbers and texts.
        """
        tensors = {
            f"{n}.{key}": tensor for n, module in self._modules.items() for key, tensor in module.state_dict().items()
        }
        for name, optimiser in self._optimisers.items():
            for index, values in optimiser.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
        save_atomically(tensors, path, {"recipe": recipe, "progressed": json.dumps(progressed)})

    def load(self, path: Path, recipe: str) -> dict[str, Any]:
        """Take everything back from `path`; returns `progressed`, empty where there is no such file.

        Raises:
            TrainingError: the file belongs to another training, or is none.
        """
        if not path.exists():
            return {}
        tensors, metadata = read_safetensors(path, "remove it to begin again")
        if metadata.get("recipe") != recipe:
            raise TrainingError(f"{path} belongs to a training by another recipe; choose another run folder")
        for name, module in self._modules.items():
            try:
                module.load_state_dict(_with_prefix(tensors, name))
            except RuntimeError:
                raise TrainingError(f"{path} belongs to another network; choose another run folder") from None
        for name, optimiser in self._optimisers.items():
            state = optimiser.state_dict()
            for key, tensor in _with_prefix(tensors, name).items():
                index, _, value = key.partition(".")
                state["state"].setdefault(int(index), {})[value] = tensor
            optimiser.load_state_dict(state)
        return json.loads(metadata["progressed"])


def _with_prefix(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
