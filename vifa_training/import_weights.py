"""The authors' public weights of DIDFuse, PIAFusion, SwinFusion and TarDAL, for our networks.

A published network has one head. It becomes the head of every task asked for, so that stage 2 or a new task can start
from published weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vifa_runtime.bundle import Bundle, Task
from vifa_runtime.provenance import commit, today
from vifa_training.checkpoint import save_atomically
from vifa_training.export import export_bundle
from vifa_training.networks import FusionNetwork, build_network, count_parameters
from vifa_training.published_checkpoint import Checkpoint, WeightsError, read_checkpoint
from vifa_training.published_layouts import LAYOUTS, Layout, Places

DEFAULT_TASK = "fused"
_TASK = re.compile(r"[a-z][a-z0-9_]*")  # as bundles name theirs
_COUNTER = ".num_batches_tracked"  # of batch norms; unknown to PyTorch before 0.4.1, and of no use in evaluation
_NO_SEED = -1  # nobody wrote down the seed of published weights


@dataclass(frozen=True)
class Imported:
    """A network with published weights.

    Attributes:
        network: in evaluation mode, with one equal head a task.
        repository: whose layout the weights were in.
        sources: name and SHA-256 of every file, in the order given.
        dropped: their name -> why nothing here holds it.
        remarks: what a user of these weights should know.
    """

    network: FusionNetwork
    repository: str
    sources: tuple[tuple[str, str], ...]
    dropped: Mapping[str, str]
    remarks: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where the weights came from, in one line."""
        files = ", ".join(f"{name} (SHA-256 {digest})" for name, digest in self.sources)
        return f"{files}, in the layout of {self.repository}"


def import_network(name: str, paths: Sequence[Path], tasks: Sequence[str] = (DEFAULT_TASK,)) -> Imported:
    """Make one of our networks with the weights of its authors' checkpoint.

    Args:
        name: `didfuse`, `piafusion`, `swinfusion` or `tardal`.
        paths: files of the checkpoint: DIDFuse's encoder and decoder in any order, one file of the others.
        tasks: each gets a copy of the published head.

    Raises:
        WeightsError: a file that cannot be read safely, or weights that do not fit; every name at fault is listed.
    """
    layout, network = _layout(name, paths), _build(name, tasks)
    checkpoints = [read_checkpoint(path, layout.wrappers) for path in paths]
    published, dropped, twice = _merge(checkpoints, layout)
    ours = _one_head(network, tasks[0])
    taken, counters, faults = _take(published, ours, layout.places(ours))
    told = "; ".join(
        f"{what}: {', '.join(names)}" for what, names in [("in both files", twice), *faults.items()] if names
    )
    if told:
        names = " and ".join(path.name for path in paths)
        raise WeightsError(f"{names} does not fit {name}; {told}")
    network.load_state_dict(_all_heads(taken, tasks))
    beside = [fact for checkpoint in checkpoints for fact in checkpoint.beside.items()]
    remarks = [text for fact, text in layout.remarks.items() if fact in beside]
    if counters:
        remarks.append(f"{len(counters)} batch norms do not say how long they were trained; their counters start at 0")
    sources = tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)
    return Imported(network.eval(), layout.repository, sources, dropped, tuple(remarks))


def save_imported(imported: Imported, path: Path) -> None:
    """Write the weights in our format, as training does.

    Raises:
        WeightsError: another suffix than .safetensors.
        TrainingError: it cannot be written; what was there is still there.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path} does not end in .safetensors; name the output so")
    metadata = {"network": imported.network.name, "origin": imported.origin, "date": today()}
    save_atomically(imported.network.state_dict(), path, metadata)


def bundle_imported(imported: Imported, folder: Path, licence: str) -> Bundle:
    """Write a bundle of the imported network; `licence` is the weights' own, which only their authors can give.

    Raises:
        BundleError: the result does not pass the runtime's checks.
    """
    network = imported.network
    manifest = {
        "name": f"{network.name}-published",
        "licences": {"code": "Apache-2.0", "weights": licence, "data": "not recorded in the checkpoint"},
        "provenance": {
            "data": "chosen by the authors; not recorded in the checkpoint",
            "recipe": f"imported from {imported.origin}",
            "seed": _NO_SEED,
            "commit": commit(),
            "date": today(),
        },
    }
    tasks = [Task(name, "fusion", "as published") for name in network.heads]
    return export_bundle(network, tasks, folder, manifest, _card(imported, licence))


def _layout(name: str, paths: Sequence[Path]) -> Layout:
    if name not in LAYOUTS:
        raise WeightsError(f"no published weights are known for {name!r}; choose one of {', '.join(sorted(LAYOUTS))}")
    layout = LAYOUTS[name]
    if len(paths) != len(layout.files):
        raise WeightsError(f"{name} takes {len(layout.files)} file(s) ({', '.join(layout.files)}), not {len(paths)}")
    return layout


def _build(name: str, tasks: Sequence[str]) -> FusionNetwork:
    for task in tasks:
        if not _TASK.fullmatch(task):
            raise WeightsError(f"{task!r} is no task name; use small letters, digits and _, a letter first")
    try:
        return build_network(name, tasks)
    except ValueError as error:
        raise WeightsError(str(error)) from None


def _merge(checkpoints: Sequence[Checkpoint], layout: Layout) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The tensors of all files together; what is left out of them and why; and names that two files have."""
    published: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    twice: list[str] = []
    for checkpoint in checkpoints:
        dropped |= dict.fromkeys(checkpoint.beside, "beside the weights")
        twice += [key for key in checkpoint.tensors if key in published]
        for key, tensor in checkpoint.tensors.items():
            reason = next((why for pattern, why in layout.unused.items() if re.fullmatch(pattern, key)), None)
            if reason is None:
                published[key] = tensor
            else:
                dropped[key] = reason
    return published, dropped, twice


def _one_head(network: FusionNetwork, task: str) -> dict[str, Tensor]:
    """The network's tensors, one task's head as `head.`, the other tasks' left out."""
    own = f"heads.{task}."
    state = {key.replace(own, "head.", 1) if key.startswith(own) else key: t for key, t in network.state_dict().items()}
    return {key: tensor for key, tensor in state.items() if not key.startswith("heads.")}


def _all_heads(taken: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
    """The opposite of `_one_head`: every task gets what is under `head.`."""
    shared = {key: tensor for key, tensor in taken.items() if not key.startswith("head.")}
    heads = {key.removeprefix("head."): tensor for key, tensor in taken.items() if key.startswith("head.")}
    return shared | {f"heads.{task}.{key}": tensor for task in tasks for key, tensor in heads.items()}


def _take(
    published: Mapping[str, Tensor], ours: Mapping[str, Tensor], places: Places
) -> tuple[dict[str, Tensor], list[str], dict[str, list[str]]]:
    """Our tensors filled from theirs; the batch norm counters they lack; and the names at fault, by kind of fault."""
    absent = [key for key in places if key not in published]
    counters = [key for key in absent if key.endswith(_COUNTER)]
    taken = {name: ours[name] for counter in counters for name in places[counter]}
    unfit = []
    for key, tensor in published.items():
        names = places.get(key, ())
        fault = _fault(tensor, [ours[name] for name in names]) if names else None
        if fault:
            unfit.append(f"{key} {fault}")
        elif names:
            pieces = tensor.split([len(ours[name]) for name in names]) if len(names) > 1 else [tensor]
            taken |= {name: piece.to(ours[name].dtype) for name, piece in zip(names, pieces, strict=True)}
    faults = {
        "missing": [key for key in absent if key not in counters],
        "unknown": [key for key in published if key not in places],
        "unfit": unfit,
    }
    return taken, counters, faults


def _fault(tensor: Tensor, parts: Sequence[Tensor]) -> str | None:
    """What is wrong with a tensor that should be `parts`, stacked along the first axis; None if nothing is."""
    shape = tuple(parts[0].shape)
    if len(parts) > 1:
        shape = (sum(len(part) for part in parts), *shape[1:])
    if tuple(tensor.shape) != shape:
        return f"has the shape {tuple(tensor.shape)}, not {shape}"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "is no plain tensor"
    if tensor.is_complex() or tensor.is_floating_point() != parts[0].is_floating_point():
        return f"is {tensor.dtype}, not {parts[0].dtype}"
    return None if bool(torch.isfinite(tensor).all()) else "holds values that are not finite"


def _card(imported: Imported, licence: str) -> str:
    network = imported.network
    lines = [
        f"# {network.name}-published",
        "",
        f"A VIFA bundle: the network `{network.name}` ({count_parameters(network):,} parameters) with weights that its",
        "authors trained and published, not we. Every task has the one published head.",
        "",
        f"Imported from {imported.origin}.",
        *(f"\nNote: {remark}." for remark in imported.remarks),
        "",
        "## Licences",
        "",
        f"Code: Apache-2.0. Weights: {licence}, as stated by whoever imported them. Data: not recorded.",
        "",
    ]
    return "\n".join(lines)
